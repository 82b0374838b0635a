"""Waits for somebody's word on tool calls, and what their answers mean.

An approval wait asks a person whether calls may be executed; a job wait asks a program to execute them. Both keep in
`details` what the answer is applied to: `tool_calls` (exactly those that are asked about), `original_call_count`, and
by their index among all calls, as text, `blocked_by_index` (results of calls that may not be made) and
`pre_results_by_index` (results of calls that were made already). What is executed later is what the wait holds; an
answer only says which of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Conflict, Invalid
from ..jsonvalue import JsonObject, dumps_canonical
from .models import EffectType, WaitReason, WaitState

APPROVAL, DELEGATED = "approval_required", "delegated"
"""`details.mode` of the two waits."""
DECIDED = "_approval"
"""The field of a `tool_calls` payload in which the kernel says what was decided; only the kernel may set it."""
DENIED = "Denied by user"
_WORDS = {
    **dict.fromkeys(("approve", "approved", "yes", "y"), True),
    **dict.fromkeys(("deny", "denied", "no", "n"), False),
}
_DECIDING = ("approved", "decisions", "mode")
_KEY_PREFIX = "tool_approval:"


def failed_result(call: Any, error: str) -> JsonObject:
    """Return the result of a call that was not executed, or failed."""
    return {**_identity(call), "success": False, "output": None, "error": error}


def succeeded_result(call: Any, output: Any) -> JsonObject:
    """Return the result of a call that was executed."""
    return {**_identity(call), "success": True, "output": output, "error": None}


def _identity(call: Any) -> JsonObject:
    fields = call if isinstance(call, dict) else {}
    return {
        "call_id": str(fields.get("call_id") or ""),
        "runtime_call_id": fields.get("runtime_call_id"),
        "name": str(fields.get("name") or ""),
    }


def digest_of(calls: Sequence[Any]) -> str:
    """Return the SHA-256 of calls, by which an approval is bound to their exact names, arguments and ids."""
    return hashlib.sha256(dumps_canonical(list(calls), field="tool_calls")).hexdigest()


def approval_wait(
    asked: Mapping[int, Any],
    *,
    count: int,
    refused: Mapping[int, JsonObject],
    executed: Mapping[int, JsonObject],
    key: str,
    policy: JsonObject,
) -> WaitState:
    """Return the wait that asks a person about calls, by their index among `count`; `key` is that of the effect."""
    details = _details(APPROVAL, asked, count, refused, executed)
    digest = digest_of(details["tool_calls"])
    details |= {
        "kind": "tool_approval",
        "executor": {"kind": "tool_approval", "policy": policy},
        "digest": digest,
        "idempotency_key": key,
    }
    names = ", ".join(str(call.get("name")) for call in details["tool_calls"])
    return WaitState(
        reason=WaitReason.USER,
        wait_key=_KEY_PREFIX + hashlib.sha256(f"{key}:{digest}".encode()).hexdigest()[:32],
        prompt=f"May these tool calls be executed: {names}? (approve or deny)",
        details=details,
    )


def job_wait(asked: Mapping[int, Any], *, count: int, refused: Mapping[int, JsonObject], wait_key: str) -> WaitState:
    """Return the wait for a program that executes calls."""
    return WaitState(
        reason=WaitReason.JOB, wait_key=wait_key, details=_details(DELEGATED, asked, count, refused, executed={})
    )


def _details(
    mode: str,
    asked: Mapping[int, Any],
    count: int,
    refused: Mapping[int, JsonObject],
    executed: Mapping[int, JsonObject],
) -> JsonObject:
    return {
        "mode": mode,
        "tool_calls": [asked[index] for index in sorted(asked)],
        "original_call_count": count,
        "blocked_by_index": {str(index): refused[index] for index in sorted(refused)},
        "pre_results_by_index": {str(index): executed[index] for index in sorted(executed)},
    }


def is_tool_wait(waiting: WaitState) -> bool:
    """Say whether a wait is about tool calls."""
    return _asked_calls(waiting) is not None


def is_approval(waiting: WaitState) -> bool:
    """Say whether a wait asks a person about tool calls."""
    details = waiting.details or {}
    is_by_kernel = waiting.reason is WaitReason.USER and str(waiting.wait_key).startswith(_KEY_PREFIX)
    return is_by_kernel and details.get("mode") == APPROVAL and is_tool_wait(waiting)


def with_decision(waiting: WaitState, payload: JsonObject) -> JsonObject:
    """Return an answer in one word about tool calls with `approved` beside it; any other as it is.

    Clients that know nothing of tool calls show the question, and send what was typed as `response`. Only for answers
    that name the wait: its key is made of the calls.
    """
    word = payload.get("response")
    if not is_approval(waiting) or not isinstance(word, str) or not payload.keys().isdisjoint(_DECIDING):
        return payload
    decided = _WORDS.get(word.strip().lower())
    return payload if decided is None else {**payload, "approved": decided}


def check_answer(waiting: WaitState, payload: JsonObject) -> None:
    """Raise `Invalid` when the answer to a wait about tool calls is not one, `Conflict` when it is about others."""
    if is_approval(waiting):
        _check_digest(waiting, payload)
        if not _is_executed(payload):
            _decisions(waiting, payload)
            return
    if is_tool_wait(waiting):
        answered_results(waiting, payload)


def is_decision(waiting: WaitState, payload: JsonObject) -> bool:
    """Say whether an answer decides about calls, which then are for the gateway to execute."""
    return is_approval(waiting) and not _is_executed(payload)


def decided_payload(waiting: WaitState, payload: JsonObject) -> JsonObject:
    """Return the payload of the effect that executes what an answer approves, and nothing else.

    Its `_approval` is `{wait_key, original_call_count, indexes, results_by_index}`: the indexes of its calls among
    the original ones, and the results of all others.
    """
    calls, indexes = _asked(waiting)
    results = _known_results(waiting)
    approved: list[int] = []
    decisions = _decisions(waiting, payload)
    for index, call, (is_approved, reason) in zip(indexes, calls, decisions, strict=True):
        if is_approved:
            approved.append(index)
        else:
            results[index] = failed_result(call, reason)
    return {
        "tool_calls": [calls[indexes.index(index)] for index in approved],
        DECIDED: {
            "wait_key": waiting.wait_key,
            "original_call_count": _count(waiting),
            "indexes": approved,
            "results_by_index": {str(index): results[index] for index in sorted(results)},
        },
    }


def answered_results(waiting: WaitState, payload: JsonObject) -> JsonObject:
    """Return `{mode, results}` for all calls, given what somebody else brought of those that were asked about.

    A result belongs to the call whose `call_id` or `runtime_call_id` it has; one without an id to the call of its
    place. Raises `Invalid` for results of other calls, of one twice, or in another form.
    """
    if not _is_executed(payload):
        raise Invalid("payload", 'is not {"mode": "executed", "results": [one for each of the calls]}')
    calls, indexes = _asked(waiting)
    results = _known_results(waiting)
    for place, result in enumerate(payload["results"]):
        at = _call_of(result, place, calls)
        if indexes[at] in results:
            raise Invalid(f"payload.results[{place}]", f"is a second result of the call {calls[at].get('call_id')!r}")
        results[indexes[at]] = _result(result, calls[at], place)
    for index, call in zip(indexes, calls, strict=True):
        results.setdefault(index, failed_result(call, "Missing tool result"))
    return executed(results, _count(waiting))


def executed(results: Mapping[int, JsonObject], count: int) -> JsonObject:
    """Return the result of a `tool_calls` effect: one result for each of `count` calls, in their order."""
    missing = failed_result(None, "Missing tool result")
    return {"mode": "executed", "results": [results.get(index, missing) for index in range(count)]}


def effect_of(waiting: WaitState, payload: JsonObject) -> JsonObject:
    """Return the effect, in its stored form with `key`, that executes what an answer approves."""
    details = waiting.details or {}
    key = str(details.get("idempotency_key") or str(waiting.wait_key)[len(_KEY_PREFIX) :])
    stored = {"type": EffectType.TOOL_CALLS.value, "result_key": waiting.result_key}
    return {**stored, "payload": decided_payload(waiting, payload), "key": key}


def _asked_calls(waiting: WaitState) -> list[Any] | None:
    details = waiting.details or {}
    calls = details.get("tool_calls")
    if waiting.reason not in (WaitReason.USER, WaitReason.JOB) or details.get("mode") not in (APPROVAL, DELEGATED):
        return None
    return calls if isinstance(calls, list) and all(isinstance(call, dict) for call in calls) else None


def _asked(waiting: WaitState) -> tuple[list[JsonObject], list[int]]:
    """Return the calls that a wait asks about, and their indexes among all calls."""
    calls = _asked_calls(waiting) or []
    known = _known_results(waiting)
    indexes = [index for index in range(len(calls) + len(known)) if index not in known]
    return calls, indexes[: len(calls)]


def _known_results(waiting: WaitState) -> dict[int, JsonObject]:
    details = waiting.details or {}
    known: dict[int, JsonObject] = {}
    for name in ("blocked_by_index", "pre_results_by_index"):
        given = details.get(name)
        known |= {int(index): result for index, result in (given if isinstance(given, dict) else {}).items()}
    return known


def _count(waiting: WaitState) -> int:
    given = (waiting.details or {}).get("original_call_count")
    return given if isinstance(given, int) else len(_asked_calls(waiting) or []) + len(_known_results(waiting))


def _is_executed(payload: JsonObject) -> bool:
    return payload.get("mode") == "executed" and isinstance(payload.get("results"), list)


def _check_digest(waiting: WaitState, payload: JsonObject) -> None:
    kept = (waiting.details or {}).get("digest")
    if kept is not None and kept != digest_of(_asked_calls(waiting) or []):
        raise Conflict("the tool calls are not those that were asked about", code="stale_answer")
    given = payload.get("digest")
    if given is not None and given != kept:
        raise Conflict(f"the answer is about other tool calls: digest {given!r}, not {kept!r}", code="stale_answer")


def _decisions(waiting: WaitState, payload: JsonObject) -> list[tuple[bool, str]]:
    """Return for each call whether it is approved, and why it is denied if not."""
    general = _decision(payload, None, "payload") if "approved" in payload else None
    single = payload.get("decisions")
    if single is not None and not isinstance(single, dict):
        raise Invalid("payload.decisions", f"is {type(single).__name__}, not an object by call_id")
    calls, given = _asked_calls(waiting) or [], dict(single or {})
    found = []
    for call in calls:
        name = next((name for name in (call.get("call_id"), call.get("runtime_call_id")) if name in given), None)
        decision = general if name is None else _decision(given.pop(name), payload, f"payload.decisions.{name}")
        if decision is None:
            raise Invalid(
                "payload.approved",
                f'says nothing about the call {call.get("call_id")!r}; answer {{"approved": true}} or '
                '{"approved": false, "reason": …}, or with "decisions" by call_id',
            )
        found.append(decision)
    if given:
        raise Invalid("payload.decisions", f"names calls that were not asked about: {', '.join(map(str, given))}")
    return found


def _decision(value: Any, general: JsonObject | None, field: str) -> tuple[bool, str]:
    fields = value if isinstance(value, dict) else {"approved": value}
    is_approved = fields.get("approved")
    if not isinstance(is_approved, bool):
        raise Invalid(f"{field}.approved", f"is {is_approved!r}; it must be true or false")
    reason = fields.get("reason") or (general or {}).get("reason")
    return is_approved, str(reason) if reason else DENIED


def _call_of(result: Any, place: int, calls: Sequence[JsonObject]) -> int:
    if not isinstance(result, dict):
        raise Invalid(f"payload.results[{place}]", f"is {type(result).__name__}, not an object")
    ids = [result.get(name) for name in ("runtime_call_id", "call_id") if result.get(name)]
    if not ids and place < len(calls):
        return place
    for at, call in enumerate(calls):
        if any(identity in (call.get("call_id"), call.get("runtime_call_id")) for identity in ids):
            return at
    raise Invalid(f"payload.results[{place}]", f"is of no call that was asked about: {ids or 'it has no call_id'}")


def _result(given: JsonObject, call: JsonObject, place: int) -> JsonObject:
    success, error = given.get("success"), given.get("error")
    if success is None:
        success = not error
    if not isinstance(success, bool):
        raise Invalid(f"payload.results[{place}].success", f"is {success!r}; it must be true or false")
    if success:
        return succeeded_result(call, given.get("output"))
    return {**failed_result(call, str(error or "the tool failed")), "output": given.get("output")}
