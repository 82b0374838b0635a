"""A run as clients see it: the summary of `GET /runs` and `GET /runs/{run_id}`."""

from __future__ import annotations

from typing import Any

from ..jsonvalue import JsonObject
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

    `kind` is `pause`, `user`, `event`, `until`, `job`, `subworkflow`, `effect`, or `gateway` with the explanation.
    """
    if run.status.is_terminal:
        return None
    if is_paused(run):
        control = _object(_object(run.vars.get("_runtime")).get("control"))
        return {"kind": "pause", "since": control.get("paused_at"), "reason": control.get("pause_reason")}
    if run.waiting is not None and not is_pause_wait(run.waiting):
        return {"kind": run.waiting.reason.value, "since": run.updated_at, **(_waiting(run.waiting) or {})}
    if explanation is not None:
        return {"kind": "gateway", "reason": explanation}
    if run.status is RunStatus.RUNNING and _object(run.vars.get("_runtime")).get("in_flight"):
        return {"kind": "effect", "since": run.updated_at, "node": run.current_node}
    return None


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
