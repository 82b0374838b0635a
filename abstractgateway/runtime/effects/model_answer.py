"""What a model answers: asked again where the answer was cut off or has the wrong form, and as an effect's outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import Invalid
from ...jsonvalue import JsonObject, compact_text, loads
from ..json_schema import problems
from ..models import EffectOutcome
from .model_input import positive

Generate = Callable[[JsonObject], Any]

_TRUNCATED = frozenset({"length", "max_tokens", "max_output_tokens"})
_LEAST_MORE_TOKENS = 500
_FALSE_TEXTS = frozenset({"", "0", "false", "no", "off"})
_MOST_TOLD = 5
_NO_JSON = "it is not one JSON value"


def fitting_answer(generate: Generate, call: JsonObject) -> Any:
    """Return an answer that is whole and has the form of the call's `response_schema`.

    One that has another form is asked for once more, with what is wrong about it. Raises `Invalid` when it is cut off
    for the last time, unless the payload allows that, and when its form is still wrong.
    """
    answer = _whole_answer(generate, call)
    wrong = _misfits(call, answer)
    if not wrong:
        return answer
    again = _whole_answer(generate, _told(call, answer, wrong))
    if still := _misfits(call, again):
        reasons = "; ".join(still[:_MOST_TOLD])
        raise Invalid("response_schema", f"the model's answer does not fit, also after it was told why: {reasons}")
    return _noted(again, "_schema_repair", {"attempts": 2, "problems": wrong[:_MOST_TOLD]})


def outcome_of(call: JsonObject, answer: Any, notes: Mapping[str, Any]) -> EffectOutcome:
    """Return the outcome of a call; `notes` become part of the result's `metadata`."""
    if not isinstance(answer, Mapping):
        return EffectOutcome.failed(f"the model answered {type(answer).__name__}, not an object with 'content'")
    for name, note in notes.items():
        answer = _noted(answer, name, note)
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


def _misfits(call: JsonObject, answer: Any) -> list[str]:
    """Return what is wrong with the form of an answer; one that wants tools called, or was cut off, has none yet."""
    schema = call.get("response_schema")
    if not isinstance(schema, dict) or not schema or not isinstance(answer, Mapping) or answer.get("tool_calls"):
        return []
    if answer.get("finish_reason") in _TRUNCATED:
        return []
    data = answer.get("data")
    found = data if data is not None else data_in(answer.get("content"))
    if found is None and str(answer.get("content") or "").strip() != "null":
        return [_NO_JSON]
    return problems(found, schema)


def _told(call: JsonObject, answer: Mapping[str, Any], wrong: list[str]) -> JsonObject:
    """Return the call that goes on after an answer of the wrong form."""
    said = answer.get("content")
    messages = call.get("messages")
    prompt = call.get("prompt")
    complaint = (
        f"This answer does not fit the JSON schema: {'; '.join(wrong[:_MOST_TOLD])}. "
        "Answer again with one JSON value that fits it, and nothing else."
    )
    conversation = [
        *(messages if isinstance(messages, list) else []),
        *([{"role": "user", "content": prompt}] if prompt else []),
        {"role": "assistant", "content": said if isinstance(said, str) else compact_text(answer.get("data"))},
        {"role": "user", "content": complaint},
    ]
    return _another(call, "form", prompt="", messages=conversation)


def _whole_answer(generate: Generate, first: JsonObject) -> Any:
    """Return an answer that was not cut off, asking again with a higher limit of output tokens where it was."""
    call = first
    attempts: list[JsonObject] = []
    most = _most_attempts(call)
    while True:
        answer = generate(call)
        reason = answer.get("finish_reason") if isinstance(answer, Mapping) else None
        attempts.append({"max_output_tokens": call.get("max_output_tokens"), "finish_reason": reason})
        if reason not in _TRUNCATED or _is_on(call, ("allow_truncation", "allow_truncated"), False):
            resolved = reason not in _TRUNCATED
            note = {"attempts": attempts, "resolved": resolved}
            return answer if len(attempts) == 1 else _noted(answer, "_truncation", note)
        limit = _higher_limit(call, answer)
        if len(attempts) >= most or limit is None:
            raise Invalid(
                "max_output_tokens",
                f"the answer was cut off at {call.get('max_output_tokens') or 'the limit of the model'} "
                f"({reason}, attempt {len(attempts)}); raise it, or set allow_truncation",
            )
        call = _another(first, str(len(attempts) + 1), max_output_tokens=limit)


def _most_attempts(call: JsonObject) -> int:
    if not _is_on(call, ("retry_on_truncation", "no_truncation"), True):
        return 1
    return positive(call.get("max_truncation_attempts") or call.get("truncation_max_attempts")) or 3


def _higher_limit(call: JsonObject, answer: Mapping[str, Any]) -> int | None:
    """Return the next limit: twice as many, at least 500 more, up to the cap; None where that is not more."""
    usage = answer.get("usage")
    used = usage.get("output_tokens") or usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    limit = positive(call.get("max_output_tokens")) or positive(used)
    if limit is None:
        return None
    cap = positive(call.get("max_output_tokens_cap") or call.get("max_truncation_max_output_tokens"))
    raised = max(2 * limit, limit + _LEAST_MORE_TOKENS)
    higher = min(raised, cap) if cap else raised
    return higher if higher > limit else None


def _another(call: JsonObject, name: str, **changes: Any) -> JsonObject:
    """A changed call is another call, and a provider that knows the first key would repeat its answer."""
    key = call.get("idempotency_key")
    return {**call, **changes, **({"idempotency_key": f"{key}.{name}"} if isinstance(key, str) else {})}


def _noted(answer: Any, name: str, note: Any) -> JsonObject:
    metadata = answer.get("metadata")
    known = metadata if isinstance(metadata, Mapping) else {}
    return {**answer, "metadata": {**known, name: note}}


def _is_on(call: JsonObject, names: tuple[str, ...], default: bool) -> bool:
    value = next((call[name] for name in names if call.get(name) is not None), default)
    return value.strip().lower() not in _FALSE_TEXTS if isinstance(value, str) else bool(value)


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
