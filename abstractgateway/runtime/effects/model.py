"""Language models as a port, and the effect that calls one."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...errors import Invalid
from ...jsonvalue import JsonObject, loads
from ..artifact_refs import REF
from ..models import Effect, EffectOutcome, RunState
from .tools import ToolBox

ReadArtifact = Callable[[str], "tuple[str, bytes] | None"]
"""Returns the content type and the bytes of an artifact, or None for an unknown id."""

MAX_MEDIA_BYTES = 26_214_400
"""The most that one attachment may have, as for the attachments of tools."""

_TRUNCATED = frozenset({"length", "max_tokens", "max_output_tokens"})
_LEAST_MORE_TOKENS = 500
_FALSE_TEXTS = frozenset({"", "0", "false", "no", "off"})


class LanguageModel(Protocol):
    """Something that answers model calls."""

    def generate(self, call: JsonObject) -> Mapping[str, Any]:
        """Answer one call.

        `call` has `messages` (`[{role, content}]`, possibly empty) and `prompt`, and where given `system_prompt`,
        `provider`, `model`, `tools` (`[{name, description, parameters}]`), `response_schema`, `params`
        (`temperature`, `seed`, …), `media` (`[{content_type, data}]`, data in base64, or `{url}`), `max_output_tokens`
        and `idempotency_key`. The answer has `content` (text or null) and may have `data`, `tool_calls`
        (`[{name, arguments, call_id}]`), `usage`, `model`, `finish_reason`, `reasoning`, `metadata`.

        A model whose `generate` has a parameter `timeout_s` is told how many seconds it may take, or None.
        """


def call_model(
    model: LanguageModel, tools: ToolBox | None, read_artifact: ReadArtifact | None = None
) -> Callable[..., EffectOutcome]:
    """Return the handler of `llm_call` for a model; tool names in the payload become the specs of these tools.

    Artifacts that the payload's `media` refers to are read with `read_artifact`. An answer that was cut off at the
    limit of output tokens is asked for again with a higher limit, as the payload says.
    """
    is_told_the_time = "timeout_s" in _parameters(model.generate)

    def perform(
        run: RunState,
        effect: Effect,
        default_next_node: str | None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> EffectOutcome:
        time: JsonObject = {"timeout_s": timeout_s} if is_told_the_time else {}
        try:
            call = _prepared(run, effect.payload, tools)
            if not (call.get("prompt") or call.get("messages") or call.get("media")):
                return EffectOutcome.failed("llm_call requires payload.prompt or payload.messages")
            call.update({"media": _media(call["media"], read_artifact)} if call.get("media") else {})
            call.update({"idempotency_key": idempotency_key} if idempotency_key else {})
            answer = _whole_answer(lambda attempt: model.generate(attempt, **time), call)
        except Exception as error:  # a model may raise anything; its failure is the effect's, not the process's
            return EffectOutcome.failed(f"{type(error).__name__}: {error}")
        return _outcome(call, answer)

    return perform


def no_model(run: RunState, effect: Effect, default_next_node: str | None) -> EffectOutcome:
    """Fail: the host has no language model."""
    return EffectOutcome.failed(
        "no language model is configured; give GatewayService.open(config, model=...) one that answers calls"
    )


def _parameters(function: Callable[..., Any]) -> Mapping[str, object]:
    try:
        return inspect.signature(function).parameters
    except ValueError:
        return {}  # a builtin tells no signature


def _prepared(run: RunState, payload: JsonObject, tools: ToolBox | None) -> JsonObject:
    call = {key: value for key, value in payload.items() if key != "resume_to_node"}
    if not call.get("prompt") and call.get("text"):
        call["prompt"] = call["text"]
    call.update(_model_of(run, call))
    limit = _output_limit(run, call)
    call.update({"max_output_tokens": limit} if limit else {})
    wanted = call.get("tools")
    call["tools"] = _specs(wanted, tools) if isinstance(wanted, list) else []
    return call


def _model_of(run: RunState, call: JsonObject) -> JsonObject:
    """Return the provider and model of a call; the run's own model is one of the run's own provider."""
    own = run.vars.get("_runtime")
    known = own if isinstance(own, dict) else {}
    provider = call.get("provider") or known.get("provider")
    is_own = str(provider).lower() == str(known.get("provider")).lower()
    model = call.get("model") or (known.get("model") if is_own else None)
    return {name: value for name, value in (("provider", provider), ("model", model)) if value}


def _output_limit(run: RunState, call: JsonObject) -> int | None:
    params, limits = call.get("params"), run.vars.get("_limits")
    own = params if isinstance(params, dict) else {}
    of_run = limits if isinstance(limits, dict) else {}
    names = ("max_output_tokens", "max_out_tokens")
    given = [own.get("max_tokens"), *(source.get(name) for source in (own, call) for name in names)]
    found = (_positive(value) for value in (*given, of_run.get("max_output_tokens")))
    return next((number for number in found if number), None)


def _positive(value: Any) -> int | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number and value >= 1 else None


def _media(value: Any, read_artifact: ReadArtifact | None) -> list[JsonObject]:
    items = value if isinstance(value, list) else [value]
    return [_medium(item, read_artifact) for item in items]


def _medium(item: Any, read_artifact: ReadArtifact | None) -> JsonObject:
    fields = item if isinstance(item, dict) else {}
    artifact_id = fields.get(REF) or fields.get("artifact_id")
    if artifact_id is None:
        if fields.get("url") or (fields.get("data") and fields.get("content_type")):
            return fields
        raise Invalid("media", "has an item that is no artifact; files of the machine are not read, store them first")
    found = read_artifact(str(artifact_id)) if read_artifact else None
    if found is None:
        raise Invalid("media", f"names the artifact {artifact_id!r}, which does not exist")
    content_type, content = found
    if len(content) > MAX_MEDIA_BYTES:
        raise Invalid("media", f"has an artifact of {len(content)} bytes; at most {MAX_MEDIA_BYTES} go to a model")
    name = fields.get("filename") or fields.get("name")
    described = {"content_type": content_type, "data": base64.b64encode(content).decode()}
    return {**described, "name": str(name)} if name else described


def _whole_answer(generate: Callable[[JsonObject], Any], call: JsonObject) -> Any:
    """Return an answer that was not cut off, asking again with a higher limit of output tokens where it was.

    Raises `Invalid` when it is cut off for the last time, unless the payload allows that.
    """
    attempts: list[JsonObject] = []
    most = _most_attempts(call)
    while True:
        answer = generate(call)
        reason = answer.get("finish_reason") if isinstance(answer, Mapping) else None
        attempts.append({"max_output_tokens": call.get("max_output_tokens"), "finish_reason": reason})
        if reason not in _TRUNCATED or _is_on(call, ("allow_truncation", "allow_truncated"), False):
            return answer if len(attempts) == 1 else _noted(answer, attempts)
        limit = _higher_limit(call, answer)
        if len(attempts) >= most or limit is None:
            raise Invalid(
                "max_output_tokens",
                f"the answer was cut off at {call.get('max_output_tokens') or 'the limit of the model'} "
                f"({reason}, attempt {len(attempts)}); raise it, or set allow_truncation",
            )
        call = _with_limit(call, limit, len(attempts) + 1)


def _most_attempts(call: JsonObject) -> int:
    if not _is_on(call, ("retry_on_truncation", "no_truncation"), True):
        return 1
    return _positive(call.get("max_truncation_attempts") or call.get("truncation_max_attempts")) or 3


def _higher_limit(call: JsonObject, answer: Mapping[str, Any]) -> int | None:
    """Return the next limit: twice as many, at least 500 more, up to the cap; None where that is not more."""
    usage = answer.get("usage")
    used = usage.get("output_tokens") or usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    limit = _positive(call.get("max_output_tokens")) or _positive(used)
    if limit is None:
        return None
    cap = _positive(call.get("max_output_tokens_cap") or call.get("max_truncation_max_output_tokens"))
    raised = max(2 * limit, limit + _LEAST_MORE_TOKENS)
    higher = min(raised, cap) if cap else raised
    return higher if higher > limit else None


def _with_limit(call: JsonObject, limit: int, attempt: int) -> JsonObject:
    """A call with another limit is another call, and a provider that knows the first key would repeat its answer."""
    key = call.get("idempotency_key")
    again = {"idempotency_key": f"{key.partition('.')[0]}.{attempt}"} if isinstance(key, str) else {}
    return {**call, "max_output_tokens": limit, **again}


def _noted(answer: Mapping[str, Any], attempts: list[JsonObject]) -> JsonObject:
    metadata = answer.get("metadata")
    known = metadata if isinstance(metadata, Mapping) else {}
    resolved = attempts[-1]["finish_reason"] not in _TRUNCATED
    return {**answer, "metadata": {**known, "_truncation": {"attempts": attempts, "resolved": resolved}}}


def _is_on(call: JsonObject, names: tuple[str, ...], default: bool) -> bool:
    value = next((call[name] for name in names if call.get(name) is not None), default)
    return value.strip().lower() not in _FALSE_TEXTS if isinstance(value, str) else bool(value)


def _specs(wanted: list[Any], tools: ToolBox | None) -> list[JsonObject]:
    known = {spec["name"]: spec for spec in tools.specs()} if tools is not None else {}
    found = (item if isinstance(item, dict) else known.get(str(item)) for item in wanted)
    return [spec for spec in found if spec]


def _outcome(call: JsonObject, answer: Any) -> EffectOutcome:
    if not isinstance(answer, Mapping):
        return EffectOutcome.failed(f"the model answered {type(answer).__name__}, not an object with 'content'")
    result = {
        "content": answer.get("content"),
        "data": answer.get("data"),
        "tool_calls": _tool_calls(answer.get("tool_calls")),
        "usage": answer.get("usage"),
        "provider": answer.get("provider") or call.get("provider"),
        "model": answer.get("model") or call.get("model"),
        "finish_reason": answer.get("finish_reason") or "stop",
    }
    result |= {key: value for key, value in answer.items() if key not in result}
    if call.get("response_schema") and result["data"] is None:
        result["data"] = data_in(result["content"])
    return EffectOutcome.completed(result)


def _tool_calls(value: Any) -> list[JsonObject]:
    calls = [dict(call) for call in value if isinstance(call, Mapping)] if isinstance(value, list) else []
    for number, call in enumerate(calls, 1):
        call["call_id"] = str(call.get("call_id") or call.get("id") or f"call_{number}")
        if isinstance(call.get("arguments"), str):
            call["arguments"] = _arguments(call["arguments"])
    return calls


def _arguments(text: str) -> Any:
    """Return the object that a model wrote; other text stays, so that the tool call fails and the model is told why."""
    found = data_in(text) if text.strip() else {}
    return found if isinstance(found, dict) else text


def data_in(text: Any) -> Any:
    """Return the JSON value a model wrote, inside a code fence or not; None when there is none."""
    if not isinstance(text, str):
        return None
    cleaned = text.strip()
    if cleaned.startswith("```"):
        cleaned = cleaned.split("\n", 1)[-1].rsplit("```", 1)[0]
    try:
        return loads(cleaned, field="content")
    except Invalid:
        return None
