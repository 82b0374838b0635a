"""A run as clients see it: the summary of `GET /runs` and `GET /runs/{run_id}`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ..clock import parse_iso, to_iso
from ..errors import Invalid
from ..jsonvalue import JsonObject
from ..runtime import budgets, journal
from ..runtime.lifecycle import is_pause_wait, is_paused
from ..runtime.limits import token_use
from ..runtime.models import RunState, RunStatus, WaitState

_WAIT_FIELDS = ("wait_key", "until", "prompt", "choices", "allow_free_text", "details")


def run_summary(run: RunState, *, revision: int, ledger_len: int) -> JsonObject:
    """Return what is told of a run, without its variables and its output."""
    own = _object(run.vars.get("_runtime"))
    control = _object(own.get("control"))
    schedule = _object(_object(run.vars.get("_meta")).get("schedule"))
    return {
        "run_id": run.run_id,
        "workflow_id": run.workflow_id,
        "status": run.status.value,
        "current_node": run.current_node,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "actor_id": run.actor_id,
        "session_id": run.session_id,
        "parent_run_id": run.parent_run_id,
        "error": run.error,
        "flow_warnings": _warnings(run),
        "paused": bool(control.get("paused")),
        "pause_reason": control.get("pause_reason"),
        "paused_at": control.get("paused_at"),
        "resumed_at": control.get("resumed_at"),
        "waiting": _waiting(run.waiting),
        "is_scheduled": schedule.get("kind") == "scheduled_run" or run.workflow_id.startswith("scheduled:"),
        "schedule": schedule or None,
        "limits": {"tokens": token_use(run.vars)},
        "revision": revision,
        "ledger_len": ledger_len,
    }


def blocked_by(run: RunState, *, explanation: str | None) -> JsonObject | None:
    """Return why a run does not advance right now (promise G8); None for one that does, or that has ended.

    `kind` is `pause`, `user`, `event`, `until`, `job`, `subworkflow`, `effect`, or `gateway` with the reason. What the
    kernel itself waits for (an effect, the rest before another attempt, an answer about an effect in doubt, or, in a
    run below, about the budget) has an `explanation`, a sentence.
    """
    if run.status.is_terminal:
        return None
    if is_paused(run):
        control = _object(_object(run.vars.get("_runtime")).get("control"))
        return {"kind": "pause", "since": control.get("paused_at"), "reason": control.get("pause_reason")}
    if run.waiting is not None and not is_pause_wait(run.waiting):
        told = {"kind": run.waiting.reason.value, "since": run.updated_at, **(_waiting(run.waiting) or {})}
        return told | _explained(run, run.waiting)
    if explanation is not None:
        return {"kind": "gateway", "reason": explanation}
    found = journal.recall(run.vars)
    if run.status is RunStatus.RUNNING and found is not None and found.then is None:
        return _performing(run, found)
    return None


def _performing(run: RunState, found: journal.InFlight) -> JsonObject:
    since, until = found.since or run.updated_at, _times_out_at(found)
    text = f"performing {found.effect or 'an effect'} of node {run.current_node!r} since {since}"
    return {
        "kind": "effect",
        "since": since,
        "node": run.current_node,
        "effect_type": found.effect,
        "times_out_at": until,
        "explanation": f"{text}, times out at {until}" if until else text,
    }


def _times_out_at(found: journal.InFlight) -> str | None:
    if found.since is None or found.timeout_s is None:
        return None
    try:
        return to_iso(parse_iso(found.since) + timedelta(seconds=found.timeout_s))
    except (Invalid, OverflowError):
        return None


def _explained(run: RunState, waiting: WaitState) -> JsonObject:
    """Return the sentence about a wait of the kernel's own, as a field to add."""
    details = waiting.details or {}
    if journal.is_question(waiting):
        return {"explanation": f"in doubt: {waiting.prompt}"}
    if budgets.is_question(waiting):
        return {"explanation": waiting.prompt}
    if isinstance(details.get("asks"), dict):
        asked = details["asks"]
        return {"explanation": f"run {asked.get('run_id')!r} below asks: {asked.get('prompt')}"}
    if details.get("kind") != "retry":
        return {}
    attempt, error = details.get("attempt"), details.get("error")
    resting = f"resting until {waiting.until} before attempt {attempt} of node {run.current_node!r}"
    return {"explanation": f"{resting} after: {error}"}


def _waiting(waiting: WaitState | None) -> JsonObject | None:
    if waiting is None:
        return None
    return {"reason": waiting.reason.value, **{name: getattr(waiting, name) for name in _WAIT_FIELDS}}


def _warnings(run: RunState) -> list[str] | None:
    found = run.vars.get("_flow_warnings")
    texts = [text for text in found if isinstance(text, str) and text] if isinstance(found, list) else []
    return texts or None


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}
