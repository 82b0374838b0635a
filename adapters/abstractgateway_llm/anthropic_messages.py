"""The messages of Anthropic."""

from __future__ import annotations

from typing import Any

from abstractgateway.jsonvalue import JsonObject, loads

from .calls import (
    arguments_text,
    calls_of,
    conversation,
    instructed,
    is_object_schema,
    objects,
    params_of,
    schema_of,
    text_of,
    tool_specs,
)
from .errors import ModelError, Passing
from .keys import Key
from .media import PDF, Medium, media_of
from .openai_chat import error_text
from .wire import SCHEMA, Draft

VERSION = "2026-10-21"
"""The version of the API; it has no temperature and its relatives."""

DEFAULT_MAX_TOKENS = 4096
"""The API insists on a limit; this one is accepted by every model."""

_PARAMS = ("stop", "thinking", "reasoning_effort")
_EFFORT = "effort"
_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
_PASSING_ERRORS = frozenset({"overloaded_error", "api_error", "rate_limit_error"})


class Messages:
    """Writes requests for `/v1/messages` and reads its answers."""

    def url(self, base: str) -> str:
        return f"{base}{'' if base.endswith('/v1') else '/v1'}/messages"

    def headers(self, key: Key) -> dict[str, str]:
        named = {"Authorization": f"Bearer {key.reveal()}"} if key else {}
        return {"anthropic-version": VERSION, **named}

    def draft(self, call: JsonObject, *, is_streamed: bool, left_out: frozenset[str]) -> Draft:
        schema = schema_of(call)
        is_native = schema is not None and is_object_schema(schema) and SCHEMA not in left_out
        system, messages = _conversation(call if schema is None or is_native else instructed(call))
        params, unused = _params(call)
        effort = params.pop(_EFFORT, None)
        output: JsonObject = {_EFFORT: effort} if effort and _EFFORT not in left_out else {}
        if is_native:
            output["format"] = {"type": "json_schema", "schema": schema}
        specs = tool_specs(call)
        body: JsonObject = {
            "model": call["model"],
            "max_tokens": call.get("max_output_tokens") or DEFAULT_MAX_TOKENS,
            "messages": messages,
            **({"system": system} if system else {}),
            **params,
            **({"tools": [_tool(spec) for spec in specs]} if specs else {}),
            **({"output_config": output} if output else {}),
            **({"stream": True} if is_streamed else {}),
        }
        refused = [_EFFORT] if effort and _EFFORT in left_out else []
        return Draft(body, {_EFFORT} & output.keys(), sorted({*unused, *refused}), is_native)

    def assembly(self) -> MessagesAssembly:
        return MessagesAssembly()

    def answer(self, body: JsonObject) -> JsonObject:
        if not isinstance(body.get("content"), list):
            raise ModelError("the answer has no content")
        blocks = objects(body["content"])
        calls = [_read_call(block) for block in blocks if block.get("type") == "tool_use"]
        texts = "".join(str(block.get("text") or "") for block in blocks if block.get("type") == "text")
        reasoning = "".join(str(block.get("thinking") or "") for block in blocks if block.get("type") == "thinking")
        reason = str(body.get("stop_reason") or "end_turn")
        return {
            "content": texts or (None if calls else ""),
            "reasoning": reasoning or None,
            "tool_calls": calls,
            "usage": _usage(body.get("usage")),
            "model": body.get("model"),
            "finish_reason": _REASONS.get(reason, reason),
            "trace_id": body.get("id"),
        }


class MessagesAssembly:
    """Puts the events of a streamed message together."""

    def __init__(self) -> None:
        self._message: JsonObject = {}
        self._blocks: dict[int, JsonObject] = {}
        self._parts: dict[int, list[str]] = {}
        self._is_complete = False

    def add(self, event: JsonObject) -> JsonObject:
        kind = event.get("type")
        if kind == "error":
            raise _stream_error(event)
        if kind == "message_start":
            self._message.update(_object(event.get("message")))
        elif kind == "content_block_start":
            self._blocks[_index(event)] = dict(_object(event.get("content_block")))
        elif kind == "content_block_delta":
            return self._add_delta(_index(event), _object(event.get("delta")))
        elif kind == "message_delta":
            usage = {**_object(self._message.get("usage")), **_object(event.get("usage"))}
            self._message.update({**_object(event.get("delta")), "usage": usage})
        elif kind == "message_stop":
            self._is_complete = True
        return {}

    def _add_delta(self, at: int, delta: JsonObject) -> JsonObject:
        names = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
        name = names.get(str(delta.get("type")))
        text = str(delta.get(name) or "") if name else ""
        self._parts.setdefault(at, []).append(text)
        shown = {"text": "content", "thinking": "reasoning"}.get(str(name))
        return {shown: text} if shown and text else {}

    def body(self) -> JsonObject | None:
        if not self._is_complete:
            return None
        blocks = [_whole_block(block, "".join(self._parts.get(at, []))) for at, block in sorted(self._blocks.items())]
        return {**self._message, "content": blocks}


def _whole_block(block: JsonObject, text: str) -> JsonObject:
    kind = block.get("type")
    if kind == "tool_use":
        return {**block, "input": _parsed(text) if text else block.get("input") or {}}
    return {**block, str(kind): f"{block.get(str(kind)) or ''}{text}"}


def _parsed(text: str) -> Any:
    """Return tool arguments as they were streamed; what is no JSON stays text."""
    try:
        return loads(text, field="input")
    except ValueError:
        return text


def _stream_error(event: JsonObject) -> ModelError:
    message = f"the provider ended the stream: {error_text(event)}"
    is_passing = _object(event.get("error")).get("type") in _PASSING_ERRORS
    return Passing(message) if is_passing else ModelError(message)


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _index(event: JsonObject) -> int:
    at = event.get("index")
    return at if isinstance(at, int) else 0


def _params(call: JsonObject) -> tuple[JsonObject, list[str]]:
    """Return the fields of a body that are wishes, `effort` among them, and the names of wishes without a field."""
    params, unused = params_of(call, _PARAMS)
    stop, thinking, effort = (params.get(name) for name in _PARAMS)
    if thinking is not None and not isinstance(thinking, (dict, str)):
        unused.append("thinking")
    fields: JsonObject = {
        "stop_sequences": [stop] if isinstance(stop, str) else stop,
        "thinking": thinking if isinstance(thinking, dict) else None,
        _EFFORT: thinking if isinstance(thinking, str) else effort,
    }
    return {name: value for name, value in fields.items() if value}, unused


def _conversation(call: JsonObject) -> tuple[str, list[JsonObject]]:
    """Return the system text, and the messages of user and assistant in turns."""
    messages = conversation(call)
    system = "\n\n".join(text_of(item.get("content")) for item in messages if item.get("role") == "system")
    turns: list[JsonObject] = []
    for message in messages:
        if message.get("role") == "system":
            continue
        role = "assistant" if message.get("role") == "assistant" else "user"
        if not turns or turns[-1]["role"] != role:
            turns.append({"role": role, "content": []})
        turns[-1]["content"].extend(_blocks(message))
    if media := media_of(call):
        last = next(turn for turn in reversed(turns) if turn["role"] == "user")
        last["content"].extend(_part(medium) for medium in media)
    return system, [turn for turn in turns if turn["content"]]


def _blocks(message: JsonObject) -> list[JsonObject]:
    text = text_of(message.get("content"))
    if message.get("role") == "tool":
        identity = str(message.get("tool_call_id") or message.get("call_id") or "")
        return [{"type": "tool_result", "tool_use_id": identity, "content": text}]
    written: list[JsonObject] = [{"type": "text", "text": text}] if text.strip() else []
    return [*written, *(_written_call(call) for call in calls_of(message))]


def _written_call(call: JsonObject) -> JsonObject:
    arguments = _parsed(arguments_text(call["arguments"]))
    given = arguments if isinstance(arguments, dict) else {"invalid_arguments": arguments_text(call["arguments"])}
    return {"type": "tool_use", "id": call["call_id"], "name": call["name"], "input": given}


def _part(medium: Medium) -> JsonObject:
    text = medium.text
    if text is not None:
        return {"type": "text", "text": text}
    kind = "document" if medium.content_type == PDF else "image"
    if medium.url:
        return {"type": kind, "source": {"type": "url", "url": medium.url}}
    return {"type": kind, "source": {"type": "base64", "media_type": medium.content_type, "data": medium.data}}


def _tool(spec: JsonObject) -> JsonObject:
    return {"name": spec["name"], "description": spec["description"], "input_schema": spec["parameters"]}


def _read_call(block: JsonObject) -> JsonObject:
    return {
        "name": str(block.get("name") or ""),
        "arguments": block.get("input"),
        "call_id": str(block.get("id") or ""),
    }


def _usage(value: Any) -> JsonObject | None:
    if not isinstance(value, dict):
        return None
    counts = [value.get(name) for name in ("input_tokens", "output_tokens")]
    return {**value, "total_tokens": sum(count for count in counts if isinstance(count, int))}
