"""The chat completions of OpenAI, which many servers offer."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlsplit

from abstractgateway.jsonvalue import JsonObject

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
from .errors import ModelError
from .keys import Key
from .media import PDF, Medium, media_of
from .wire import SCHEMA, Draft

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty")
_WISHES = ("reasoning_effort", "prompt_cache_key", "parallel_tool_calls")
_PARAMS = (*_SAMPLING, *_WISHES, "stop", "tool_choice", "thinking")
_STREAM = "stream"
_CACHE_KEY = "prompt_cache_key"
_MOST_KEY_CHARS = 64
"""OpenAI refuses longer keys; of those the hash is sent, which has exactly as many."""


class Chat:
    """Writes requests for `/chat/completions` and reads its answers; `limit_name` is what output tokens are limited by.

    A base URL without a path gets `/v1`.
    """

    def __init__(self, *, limit_name: str = "max_tokens") -> None:
        self._limit_name = limit_name

    def url(self, base: str) -> str:
        return f"{base}{'' if urlsplit(base).path.strip('/') else '/v1'}/chat/completions"

    def headers(self, key: Key) -> dict[str, str]:
        return {"Authorization": f"Bearer {key.reveal()}"} if key else {}

    def draft(self, call: JsonObject, *, is_streamed: bool, left_out: frozenset[str]) -> Draft:
        schema = schema_of(call)
        is_native = schema is not None and is_object_schema(schema) and SCHEMA not in left_out
        asked = call if schema is None or is_native else instructed(call)
        params, unused = _params(call)
        body: JsonObject = {"model": call["model"], "messages": _messages(asked), **params}
        if call.get("max_output_tokens"):
            body[self._limit_name] = call["max_output_tokens"]
        if specs := tool_specs(call):
            body["tools"] = [{"type": "function", "function": spec} for spec in specs]
        if is_native:
            name = call.get("response_schema_name") or "StructuredOutput"
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
        if is_streamed and _STREAM not in left_out:
            body.update({_STREAM: True, "stream_options": {"include_usage": True}})
        refused = [name for name in left_out if name in body]
        kept = {name: value for name, value in body.items() if name not in left_out}
        optional = {name for name in (*_SAMPLING, *_WISHES, _STREAM, "stream_options") if name in kept}
        return Draft(kept, optional, sorted({*unused, *refused} - {"stream_options"}), is_native)

    def assembly(self) -> ChatAssembly:
        return ChatAssembly()

    def answer(self, body: JsonObject) -> JsonObject:
        choice = next(iter(objects(body.get("choices"))), None)
        message = choice.get("message") if choice is not None else None
        if choice is None or not isinstance(message, dict):
            raise ModelError("the answer has no choices[0].message")
        content = message.get("content")
        return {
            "content": None if content is None else text_of(content),
            "reasoning": message.get("reasoning_content") or message.get("reasoning"),
            "tool_calls": calls_of(message),
            "usage": _usage(body.get("usage")),
            "model": body.get("model"),
            "finish_reason": str(choice.get("finish_reason") or "stop"),
            "trace_id": body.get("id"),
            **({"metadata": {"refusal": message["refusal"]}} if message.get("refusal") else {}),
        }


class ChatAssembly:
    """Puts the chunks of a streamed chat completion together."""

    def __init__(self) -> None:
        self._head: JsonObject = {}
        self._texts: dict[str, list[str]] = {"content": [], "reasoning": [], "refusal": []}
        self._calls: dict[int, JsonObject] = {}
        self._finish_reason: str | None = None

    def add(self, event: JsonObject) -> JsonObject:
        if event.get("error"):
            raise ModelError(f"the provider ended the stream: {error_text(event)}")
        self._head.update({name: event[name] for name in ("id", "model", "usage") if event.get(name)})
        choice: JsonObject = next(iter(objects(event.get("choices"))), {})
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = choice.get("delta")
        return self._add_delta(delta) if isinstance(delta, dict) else {}

    def _add_delta(self, delta: JsonObject) -> JsonObject:
        added = {
            "content": delta.get("content"),
            "reasoning": delta.get("reasoning_content") or delta.get("reasoning"),
            "refusal": delta.get("refusal"),
        }
        texts = {name: text for name, text in added.items() if isinstance(text, str) and text}
        for name, text in texts.items():
            self._texts[name].append(text)
        for position, part in enumerate(objects(delta.get("tool_calls"))):
            self._add_call(part, position)
        texts.pop("refusal", None)
        return texts

    def _add_call(self, part: JsonObject, position: int) -> None:
        at = part.get("index")
        call = self._calls.setdefault(at if isinstance(at, int) else position, {"id": "", "name": "", "parts": []})
        call["id"] = part.get("id") or call["id"]
        function = part.get("function")
        fields = function if isinstance(function, dict) else {}
        call["name"] = call["name"] or str(fields.get("name") or "")
        if fields.get("arguments"):
            call["parts"].append(arguments_text(fields["arguments"]))

    def body(self) -> JsonObject | None:
        if self._finish_reason is None:
            return None
        message: JsonObject = {name: "".join(parts) or None for name, parts in self._texts.items()}
        message["tool_calls"] = [
            {"id": call["id"], "function": {"name": call["name"], "arguments": "".join(call["parts"])}}
            for _, call in sorted(self._calls.items())
        ]
        return {**self._head, "choices": [{"message": message, "finish_reason": self._finish_reason}]}


def error_text(body: JsonObject) -> str:
    """Return what a provider says went wrong."""
    error = body.get("error", body.get("detail", body.get("message")))
    found = error.get("message") if isinstance(error, dict) else error
    return text_of(found if found is not None else error)


def _params(call: JsonObject) -> tuple[JsonObject, list[str]]:
    params, unused = params_of(call, _PARAMS)
    if len(str(params.get(_CACHE_KEY) or "")) > _MOST_KEY_CHARS:
        params[_CACHE_KEY] = hashlib.sha256(str(params[_CACHE_KEY]).encode()).hexdigest()
    thinking = params.pop("thinking", None)
    if isinstance(thinking, str) and thinking:
        params.setdefault("reasoning_effort", thinking)
    elif thinking is not None:
        unused.append("thinking")
    return params, unused


def _messages(call: JsonObject) -> list[JsonObject]:
    messages = [_message(message) for message in conversation(call)]
    media = media_of(call)
    if media:
        last = next(message for message in reversed(messages) if message["role"] == "user")
        written = [{"type": "text", "text": last["content"]}] if last["content"] else []
        last["content"] = [*written, *(_part(medium) for medium in media)]
    return messages


def _message(message: JsonObject) -> JsonObject:
    role = str(message.get("role") or "user")
    written: JsonObject = {"role": role, "content": text_of(message.get("content"))}
    calls = calls_of(message)
    if role == "assistant" and calls:
        written["tool_calls"] = [_written_call(call) for call in calls]
    if role == "tool":
        written["tool_call_id"] = str(message.get("tool_call_id") or message.get("call_id") or "")
    return written


def _written_call(call: JsonObject) -> JsonObject:
    function = {"name": call["name"], "arguments": arguments_text(call["arguments"])}
    return {"id": call["call_id"], "type": "function", "function": function}


def _part(medium: Medium) -> JsonObject:
    text = medium.text
    if text is not None:
        return {"type": "text", "text": text}
    if medium.content_type == PDF:
        return {"type": "file", "file": {"filename": medium.name or "document.pdf", "file_data": medium.data_url}}
    return {"type": "image_url", "image_url": {"url": medium.data_url}}


def _usage(value: Any) -> JsonObject | None:
    if not isinstance(value, dict):
        return None
    into, out = value.get("prompt_tokens"), value.get("completion_tokens")
    return {**value, "input_tokens": into, "output_tokens": out}
