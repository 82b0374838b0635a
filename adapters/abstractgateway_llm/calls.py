"""The parts of a model call that every provider wants in some form."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from abstractgateway.jsonvalue import JsonObject, compact_text

from .errors import ModelError

_NOT_FOR_PROVIDERS = frozenset(
    {
        "max_tokens",  # these three are in `max_output_tokens` of the call
        "max_output_tokens",
        "max_out_tokens",
        "trace_metadata",
        "include_session_attachments_index",
        "_provider",
        "_model",
    }
)
"""Params that are the gateway's own affair, and not a wish that a provider leaves unheard."""
_OUTPUT = ("output", "outputs")
"""What a call names what it wants back by."""


def check_output(call: JsonObject) -> None:
    """Raise `ModelError` where a call asks for anything but text: models are asked for nothing else here."""
    params = call.get("params")
    wishes = [source.get(name) for source in (params, call) if isinstance(source, dict) for name in _OUTPUT]
    other = next((wish for wish in wishes if wish and not _is_text(wish)), None)
    if other is not None:
        raise ModelError(
            f"the call asks for the output {compact_text(other)[:200]}, and models are asked for text only"
        )


def _is_text(wish: Any) -> bool:
    if isinstance(wish, list):
        return all(map(_is_text, wish))
    if isinstance(wish, dict):
        return _is_text(wish.get("modality", wish.get("type")))
    return str(wish).strip().lower() == "text"


def objects(value: Any) -> list[JsonObject]:
    """Return the objects of a list; anything else has none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(content: Any) -> str:
    """Return the text of a message, whose content may be text or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
        return "".join(str(part["text"]) for part in content)
    return "" if content is None else compact_text(content)


def conversation(call: JsonObject) -> list[JsonObject]:
    """Return the messages of a call, the system prompt first and the prompt last."""
    system = call.get("system_prompt")
    told = [{"role": "system", "content": str(system)}] if system else []
    prompt = call.get("prompt")
    asked = [{"role": "user", "content": str(prompt)}] if prompt else []
    messages = [*told, *objects(call.get("messages")), *asked]
    if call.get("media") and not any(message.get("role") == "user" for message in messages):
        messages.append({"role": "user", "content": ""})
    return messages


def instruction(schema: JsonObject) -> str:
    """Return how a model without structured output of its own is asked for a JSON value."""
    return (
        "Answer with one JSON value and nothing else: no explanation, no code fence. "
        f"It must be valid under this JSON schema: {compact_text(schema)}"
    )


def instructed(call: JsonObject) -> JsonObject:
    """Return the call with its schema written into the system prompt."""
    told = [str(call["system_prompt"])] if call.get("system_prompt") else []
    return {**call, "system_prompt": "\n\n".join([*told, instruction(call["response_schema"])])}


def schema_of(call: JsonObject) -> JsonObject | None:
    """Return the schema that the answer must have, or None."""
    schema = call.get("response_schema")
    return schema if isinstance(schema, dict) and schema else None


def is_object_schema(schema: JsonObject) -> bool:
    """Say whether a schema is one that providers take: that of an object."""
    return schema.get("type") == "object"


def tool_specs(call: JsonObject) -> list[JsonObject]:
    """Return `[{name, description, parameters}]` of the tools, `parameters` a JSON schema of an object."""
    return [_tool_spec(item) for item in objects(call.get("tools"))]


def _tool_spec(item: JsonObject) -> JsonObject:
    inner = item.get("function")
    spec = inner if isinstance(inner, dict) else item
    if not spec.get("name"):
        raise ModelError("a tool of the call has no name")
    given = spec.get("parameters", spec.get("input_schema"))
    parameters = given if isinstance(given, dict) else {}
    return {
        "name": str(spec["name"]),
        "description": str(spec.get("description") or ""),
        "parameters": parameters if _is_schema(parameters) else _schema_of_fields(parameters),
    }


def _is_schema(parameters: JsonObject) -> bool:
    return parameters.get("type") == "object" or isinstance(parameters.get("properties"), dict)


def _schema_of_fields(fields: JsonObject) -> JsonObject:
    """Return the schema of `{name: {type, description, default}}`, as AbstractCore describes parameters."""
    known = {name: field if isinstance(field, dict) else {} for name, field in fields.items()}
    required = [name for name, field in known.items() if "default" not in field]
    return {"type": "object", "properties": known, "required": required}


def calls_of(message: JsonObject) -> list[JsonObject]:
    """Return the tool calls of a message as `[{name, arguments, call_id}]`, whoever wrote it."""
    return [_call(item) for item in objects(message.get("tool_calls"))]


def _call(item: JsonObject) -> JsonObject:
    inner = item.get("function")
    named = inner if isinstance(inner, dict) else item
    identity = item.get("call_id") or item.get("id") or ""
    return {"name": str(named.get("name") or ""), "arguments": named.get("arguments"), "call_id": str(identity)}


def arguments_text(arguments: Any) -> str:
    """Return tool arguments as the text a model wrote."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)


def params_of(call: JsonObject, known: Iterable[str]) -> tuple[JsonObject, list[str]]:
    """Return the params that a provider takes, and the names of those that it does not."""
    given = call.get("params")
    params = given if isinstance(given, dict) else {}
    taken = frozenset(known)
    wished = {name: params.get(name, call.get(name)) for name in taken}
    used = {name: value for name, value in wished.items() if value is not None}
    unused = [
        name
        for name, value in params.items()
        if value is not None and name not in {*taken, *_NOT_FOR_PROVIDERS, *_OUTPUT}
    ]
    return used, sorted(unused)
