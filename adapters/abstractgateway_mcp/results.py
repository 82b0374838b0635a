"""Results of tools as JSON of a bounded size."""

from __future__ import annotations

from typing import Any

from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)

from abstractgateway.jsonvalue import JsonObject, check_json, dumps

_MOST_ERROR_CHARACTERS = 4_000


def output_of(result: CallToolResult, most_bytes: int) -> Any:
    """Return the structured content of a result, else its text, else a list that describes what it consists of.

    What has more than `most_bytes` as JSON becomes text that is cut off. Raises `Invalid` for what is no JSON.
    """
    if result.structured_content is not None:
        check_json(result.structured_content, field="structuredContent")
        text = dumps(result.structured_content)
        return result.structured_content if len(text) <= most_bytes else _cut(text.decode(), most_bytes)
    blocks = result.content
    if all(isinstance(block, TextContent) for block in blocks):
        return _cut("\n".join(_text_of(block) for block in blocks), most_bytes)
    return _within(blocks, most_bytes)


def error_of(result: CallToolResult) -> str:
    """Return what a tool says about its failure."""
    text = "\n".join(_text_of(block) for block in result.content if isinstance(block, TextContent))
    return _cut(text, _MOST_ERROR_CHARACTERS) or "the tool failed and did not say why"


def _text_of(block: ContentBlock) -> str:
    return _sound(block.text) if isinstance(block, TextContent) else ""


def _sound(text: str) -> str:
    """Return a text without lone surrogates, which no JSON reader takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _cut(text: str, most_bytes: int) -> str:
    whole = text.encode("utf-8", "replace")
    if len(whole) <= most_bytes:
        return text
    return f"{whole[:most_bytes].decode('utf-8', 'ignore')}\n[cut off: {most_bytes} of {len(whole)} bytes]"


def _within(blocks: list[ContentBlock], most_bytes: int) -> list[JsonObject]:
    """Describe the blocks; once the size is used up, descriptions come without their content."""
    left = most_bytes
    found: list[JsonObject] = []
    for block in blocks:
        whole = _described(block)
        size = len(dumps(whole))
        shown = whole if size <= left else _without_content(whole)
        left -= min(len(dumps(shown)), left)
        found.append(shown)
        if left == 0:
            return [*found, {"type": "cut_off", "blocks": len(blocks), "shown": len(found)}]
    return found


def _described(block: ContentBlock) -> JsonObject:
    if isinstance(block, TextContent):
        return {"type": "text", "text": _text_of(block)}
    if isinstance(block, (ImageContent, AudioContent)):
        return {"type": block.type, "mime_type": _sound(block.mime_type), "data": _sound(block.data)}
    if isinstance(block, ResourceLink):
        return _named({"type": "resource_link", "uri": block.uri, "name": block.name, "mime_type": block.mime_type})
    return _resource(block)


def _resource(block: EmbeddedResource) -> JsonObject:
    content = block.resource
    kept = {"data": content.blob} if isinstance(content, BlobResourceContents) else {"text": content.text}
    return _named({"type": "resource", "uri": content.uri, "mime_type": content.mime_type, **kept})


def _named(fields: dict[str, str | None]) -> JsonObject:
    return {name: _sound(str(value)) for name, value in fields.items() if value is not None}


def _without_content(description: JsonObject) -> JsonObject:
    content = {name: description[name] for name in ("text", "data") if name in description}
    kept = {name: str(value)[:1000] for name, value in description.items() if name not in content}
    return {**kept, "omitted_characters": sum(map(len, content.values()))}
