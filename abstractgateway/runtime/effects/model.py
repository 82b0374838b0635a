"""Language models as a port, and the effect that calls one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...errors import Invalid
from ...jsonvalue import JsonObject, loads
from ..models import Effect, EffectOutcome, RunState
from .tools import ToolBox


class LanguageModel(Protocol):
    """Something that answers model calls."""

    def generate(self, call: JsonObject) -> Mapping[str, Any]:
        """Answer one call.

        `call` has `messages` (`[{role, content}]`, possibly empty) and `prompt`, and where given `system_prompt`,
        `provider`, `model`, `tools` (`[{name, description, parameters}]`), `response_schema`, `params`
        (`temperature`, `seed`, …), `max_output_tokens` and `idempotency_key`. The answer has `content` (text or null)
        and may have `data`, `tool_calls` (`[{name, arguments, call_id}]`), `usage`, `model`, `finish_reason`.
        """


def call_model(model: LanguageModel, tools: ToolBox | None) -> Callable[..., EffectOutcome]:
    """Return the handler of `llm_call` for a model; tool names in the payload become the specs of these tools."""

    def perform(run: RunState, effect: Effect, default_next_node: str | None) -> EffectOutcome:
        call = _prepared(run, effect.payload, tools)
        if not (call.get("prompt") or call.get("messages")):
            return EffectOutcome.failed("llm_call requires payload.prompt or payload.messages")
        try:
            answer = model.generate(call)
        except Exception as error:  # a model may raise anything; its failure is the effect's, not the process's
            return EffectOutcome.failed(f"{type(error).__name__}: {error}")
        return _outcome(call, answer)

    return perform


def no_model(run: RunState, effect: Effect, default_next_node: str | None) -> EffectOutcome:
    """Fail: the host has no language model."""
    return EffectOutcome.failed(
        "no language model is configured; give GatewayService.open(config, model=...) one that answers calls"
    )


def _prepared(run: RunState, payload: JsonObject, tools: ToolBox | None) -> JsonObject:
    call = {key: value for key, value in payload.items() if key != "resume_to_node"}
    if not call.get("prompt") and call.get("text"):
        call["prompt"] = call["text"]
    own = run.vars.get("_runtime")
    for name in ("provider", "model"):
        if not call.get(name) and isinstance(own, dict) and own.get(name):
            call[name] = own[name]
    wanted = call.get("tools")
    call["tools"] = _specs(wanted, tools) if isinstance(wanted, list) else []
    return call


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
            call["arguments"] = data_in(call["arguments"]) or {}
    return calls


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
