"""Budgets: what a run may use, what it has used, and the question that comes where the two meet.

The place is `vars._runtime.budget`: `{limits, used, before}`, each an object by the names of `NAMES`. `used` counts the
run and those below it that have ended. A child has the limits of its parent and, in `before`, what had been used when
it started; it counts on from there. A run that nobody gave a limit has no more than `used`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import Invalid
from ..jsonvalue import JsonObject, dumps
from . import tool_waits
from .model_usage import by_attempt
from .models import Effect, EffectOutcome, EffectType, RunState, StepStatus, WaitReason, WaitState
from .paths import namespace

SLOT = "budget"
NAMES = ("tokens", "model_calls", "tool_calls", "wall_s")
"""What can be limited: tokens and calls are whole numbers, `wall_s` is seconds."""
MOST = 2**53
"""The highest limit: JSON readers that keep numbers as floats know every whole number up to here."""
RAISE, STOP = "raise", "stop"

_OFFER = ". Raise the limit, or stop?"
_CHARACTERS_PER_TOKEN = 4
_SENTENCES: Mapping[str, str] = {
    "tokens": "This run has used {used} of {limit} tokens",
    "model_calls": "This run has made {used} of {limit} model calls",
    "tool_calls": "This run has made {used} of {limit} tool calls and is about to make {need} more",
    "wall_s": "This run has worked for {used} of {limit} seconds",
}


class Breach(NamedTuple):
    """A limit that the next step would pass: its name, the limit, what has been used and what the step needs."""

    name: str
    limit: float
    used: float
    need: float

    @property
    def text(self) -> str:
        return _SENTENCES[self.name].format(used=_told(self.used), limit=_told(self.limit), need=_told(self.need))

    @property
    def least(self) -> float:
        """The lowest limit that lets the run go on."""
        return self.used + max(self.need, 1)


def begin(vars: JsonObject, *, ceiling: Mapping[str, float], wished: Any = None) -> None:
    """Give a new run its limits: those of the host, or lower ones that were asked for.

    They are asked for in `wished` or in `vars._limits.budget`, where they are taken out. Raises `Invalid` for what is
    no limit, and for one above the host's.
    """
    limits = {**ceiling, **_asked_in(vars, ceiling), **checked("limits", wished, ceiling)}
    if limits:
        namespace(vars, "_runtime")[SLOT] = {"limits": limits}


def hand_down(parent: JsonObject, child: JsonObject) -> None:
    """Let a child run share its parent's budget, given the variables of both."""
    budget = _budget(parent)
    if budget.get("limits"):
        before = dict(budget.get("before") or {})
        _add(before, budget.get("used") or {})
        namespace(child, "_runtime")[SLOT] = {"limits": dict(budget["limits"]), "before": before}


def is_shared(vars: JsonObject) -> bool:
    """Say whether the budget is that of the run above."""
    return "before" in _budget(vars)


def is_timed(vars: JsonObject) -> bool:
    """Say whether the run's time is limited; only then it is counted."""
    return "wall_s" in (_budget(vars).get("limits") or {})


def count(vars: JsonObject, effect: Effect, outcome: EffectOutcome) -> None:
    """Count what one attempt of an effect used; a call that failed is a call all the same.

    Of tool calls that wait for somebody those count that were made, or that somebody else is to make.
    """
    if effect.type is EffectType.LLM_CALL:
        spend(vars, _used_by_model(effect, outcome))
    elif effect.type is EffectType.TOOL_CALLS:
        spend(vars, {"tool_calls": _made(outcome.wait) if outcome.wait is not None else len(_tool_calls(effect))})


def count_answered(vars: JsonObject, waiting: WaitState) -> None:
    """Count tool calls that were to be approved, and came back with their results instead."""
    if tool_waits.is_approval(waiting):
        spend(vars, {"tool_calls": len((waiting.details or {})["tool_calls"])})


def spend(vars: JsonObject, used: Mapping[str, float]) -> None:
    """Count what was used, by name."""
    if any(used.values()):
        _add(namespace(namespace(namespace(vars, "_runtime"), SLOT), "used"), used)


def owed(vars: JsonObject) -> JsonObject:
    """Return what the run above a run that ends has to count as well: nothing where the budget was the run's own."""
    return used_by(vars) if is_shared(vars) or not _budget(vars).get("limits") else {}


def used_by(vars: JsonObject) -> JsonObject:
    """Return what a run has used, and those below it that have ended; empty where that is nothing."""
    used = _budget(vars).get("used")
    return used if isinstance(used, dict) else {}


def usage(vars: JsonObject) -> JsonObject:
    """Return `{tokens, model_calls, tool_calls, wall_s}`; `wall_s` is null where time is not limited."""
    found: JsonObject = {name: used_by(vars).get(name, 0) for name in NAMES}
    return found if is_timed(vars) else {**found, "wall_s": None}


def budget(vars: JsonObject) -> JsonObject | None:
    """Return `{name: {limit, used}}` for what is limited, None where nothing is.

    `used` is what counts against the limit: for a child run also what had been used before it started.
    """
    limits = _budget(vars).get("limits") or {}
    return {name: {"limit": limit, "used": _total(vars, name)} for name, limit in limits.items()} or None


def breach(vars: JsonObject, effect: Effect | None = None) -> Breach | None:
    """Return the limit that performing an effect, or without one any further step, would pass."""
    limits = _budget(vars).get("limits")
    if not limits:
        return None
    for name, need in _needs(effect).items():
        used, limit = _total(vars, name), limits.get(name, math.inf)
        if used >= limit or used + need > limit:
            return Breach(name, limit, used, need)
    return None


def question(state: RunState, breach: Breach, node_id: str, cursor: int) -> WaitState:
    """Return the wait that asks a person to raise a limit or to stop; `cursor` is where the ledger tells of it."""
    return WaitState(
        reason=WaitReason.USER,
        wait_key=f"budget:{breach.name}:{state.run_id}:{cursor}",
        resume_to_node=state.current_node,
        prompt=breach.text + _OFFER,
        choices=[RAISE, STOP],
        allow_free_text=False,
        details={
            "kind": SLOT,
            "budget": breach.name,
            "limit": breach.limit,
            "used": breach.used,
            "least": breach.least,
            "node": node_id,
        },
    )


def is_question(waiting: WaitState | None) -> bool:
    """Say whether a wait asks about a limit."""
    if waiting is None or waiting.reason is not WaitReason.USER:
        return False
    return (waiting.details or {}).get("kind") == SLOT


def limit_in(waiting: WaitState, payload: JsonObject) -> float | None:
    """Return the new limit that an answer gives, None for one that says to stop; without a number it is doubled.

    Raises `Invalid` for an answer that is neither, and for a limit that would not let the run go on.
    """
    answer = payload.get("decision", payload.get("response", payload.get("text")))
    if answer not in (RAISE, STOP):
        raise Invalid("payload.decision", f"{answer!r} is neither {RAISE!r} nor {STOP!r}", code="not_a_choice")
    if answer == STOP:
        return None
    details = waiting.details or {}
    wished, least = payload.get("limit"), details["least"]
    if wished is None:
        doubled: float = max(2 * details["limit"], least)
        return doubled
    limit = _amount("payload.limit", details["budget"], wished)
    if limit < least:
        raise Invalid("payload.limit", f"{_told(limit)} is too low; the run needs at least {_told(least)}")
    return limit


def stop_reason(waiting: WaitState) -> str:
    """Return why a run was cancelled whose budget was not raised."""
    said = str(waiting.prompt).removesuffix(_OFFER)
    return f"stopped: {said[:1].lower()}{said[1:]}"


def raise_limit(vars: JsonObject, name: str, limit: float) -> None:
    """Set a limit that the run has, unless it is that high already."""
    limits = _budget(vars).get("limits") or {}
    if name in limits:
        limits[name] = max(limits[name], limit)


def tokens_in(usage: Any) -> int:
    """Return how many tokens a provider reported, input and output together; 0 where it reported none."""
    fields = usage if isinstance(usage, dict) else {}
    read, written = (
        _first(fields, "input_tokens", "prompt_tokens"),
        _first(fields, "output_tokens", "completion_tokens"),
    )
    return _first(fields, "total_tokens") or read + written


def _first(fields: JsonObject, *names: str) -> int:
    found = (fields.get(name) for name in names)
    return next((number for number in found if isinstance(number, int) and number > 0), 0)


def _used_by_model(effect: Effect, outcome: EffectOutcome) -> JsonObject:
    reported = [tokens_in(usage) for usage in by_attempt(outcome.result)]
    if outcome.status is StepStatus.COMPLETED and not all(reported):
        characters = len(effect.payload_text) + len(dumps(outcome.result, field="result"))
        estimate = math.ceil(characters / _CHARACTERS_PER_TOKEN)
        reported = [tokens or estimate for tokens in reported]
    return {"model_calls": len(reported), "tokens": sum(reported)}


def _tool_calls(effect: Effect) -> list[Any]:
    calls = effect.payload.get("tool_calls")
    return calls if isinstance(calls, list) else []


def _made(waiting: WaitState) -> int:
    details = waiting.details or {}
    handed_over = details.get("tool_calls") if details.get("mode") == tool_waits.DELEGATED else []
    return len(details.get("pre_results_by_index") or {}) + len(handed_over or [])


def _needs(effect: Effect | None) -> Mapping[str, int]:
    """Return what is known beforehand; how many tokens and seconds an effect takes is not."""
    if effect is not None and effect.type is EffectType.LLM_CALL:
        return {"wall_s": 0, "tokens": 0, "model_calls": 1}
    if effect is not None and effect.type is EffectType.TOOL_CALLS and _tool_calls(effect):
        return {"wall_s": 0, "tool_calls": len(_tool_calls(effect))}
    return {"wall_s": 0}


def _budget(vars: JsonObject) -> JsonObject:
    own = vars.get("_runtime")
    found = own.get(SLOT) if isinstance(own, dict) else None
    return found if isinstance(found, dict) else {}


def _total(vars: JsonObject, name: str) -> float:
    found = _budget(vars)
    parts = (found.get(part) or {} for part in ("before", "used"))
    return _rounded(sum(part.get(name, 0) for part in parts))


def _add(counts: JsonObject, more: Mapping[str, float]) -> None:
    for name, amount in more.items():
        counts[name] = _rounded(counts.get(name, 0) + amount)


def _rounded(amount: float) -> float:
    """Keep sums of seconds free of the noise of binary fractions; whole numbers stay whole."""
    return round(amount, 6) if isinstance(amount, float) else amount


def _asked_in(vars: JsonObject, ceiling: Mapping[str, float]) -> JsonObject:
    limits = vars.get("_limits")
    if not isinstance(limits, dict) or SLOT not in limits:
        return {}
    asked = limits.pop(SLOT)
    if not limits:
        del vars["_limits"]
    return checked("_limits.budget", asked, ceiling)


def checked(field: str, wished: Any, ceiling: Mapping[str, float]) -> JsonObject:
    """Return the limits that are given, without those that are null.

    Raises `Invalid`, naming the field, for what is no limit, and for one above the ceiling.
    """
    if wished is None:
        return {}
    if not isinstance(wished, dict):
        raise Invalid(field, f"must be an object, not {type(wished).__name__}")
    unknown = [name for name in wished if name not in NAMES]
    if unknown:
        raise Invalid(f"{field}.{unknown[0]}", f"is not a limit; known: {', '.join(NAMES)}")
    limits = {name: _amount(f"{field}.{name}", name, value) for name, value in wished.items() if value is not None}
    for name, limit in limits.items():
        if limit > ceiling.get(name, MOST):
            raise Invalid(f"{field}.{name}", f"{_told(limit)} is more than the {_told(ceiling[name])} allowed here")
    return limits


def _amount(field: str, name: str, value: Any) -> float:
    kinds = (int, float) if name == "wall_s" else (int,)
    least = 1 if name != "wall_s" else 0.001
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= MOST:
        kind = "number" if name == "wall_s" else "whole number"
        raise Invalid(field, f"{value!r} is not a {kind} from {least} to {MOST}")
    amount: float = value
    return amount


def _told(amount: float) -> str:
    """Return a number as people write it: with separators, and with one decimal at most."""
    return f"{amount:,.1f}".removesuffix(".0")
