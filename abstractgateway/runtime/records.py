"""The ledger records of each moment in a run's life, in the shapes clients of AbstractRuntime know."""

from __future__ import annotations

from ..jsonvalue import JsonObject
from .draft import OpenRun
from .models import Effect, EffectOutcome, RunStatus, StepRecord, StepStatus, WaitState

TERMINAL_KEY = "system:terminal_status:"
"""What the idempotency key of the record begins with that tells that a run ended."""


def started(run: OpenRun, node_id: str, effect: Effect, *, now: str, attempt: int, key: str) -> StepRecord:
    """Return the record that an effect is about to be performed: the intent of promise G5."""
    return StepRecord(
        run_id=run.state.run_id,
        step_id=run.new_step_id(),
        node_id=node_id,
        status=StepStatus.STARTED,
        effect=effect.to_dict(),
        started_at=now,
        actor_id=run.state.actor_id,
        session_id=run.state.session_id,
        attempt=attempt,
        idempotency_key=key,
    )


def closed(record: StepRecord, outcome: EffectOutcome, *, now: str) -> StepRecord:
    """Return the record of what performing a started effect led to."""
    fields = {**record.__dict__, "status": outcome.status, "ended_at": now, "record_hash": None}
    if outcome.status is StepStatus.WAITING and outcome.wait is not None:
        fields["result"] = {"wait": outcome.wait.to_dict()}
    elif outcome.status is StepStatus.FAILED:
        fields["error"], fields["result"] = outcome.error, outcome.result
    else:
        fields["result"] = outcome.result
    return StepRecord(**fields)


def held(
    run: OpenRun,
    node_id: str,
    wait: WaitState,
    *,
    now: str,
    effect: Effect | None = None,
    attempt: int = 1,
    key: str | None = None,
) -> StepRecord:
    """Return the record that a person is asked before a node's effect, or its next step, is begun."""
    record = _moment(run, effect.to_dict() if effect is not None else None, {"wait": wait.to_dict()}, now=now)
    record.node_id, record.status, record.attempt, record.idempotency_key = node_id, StepStatus.WAITING, attempt, key
    return record


def resumed(run: OpenRun, wait: WaitState, payload: JsonObject, *, now: str) -> StepRecord:
    """Return the record that a wait was answered."""
    answer = {
        "wait_reason": wait.reason.value,
        "wait_key": wait.wait_key,
        "resume_to_node": wait.resume_to_node,
        "result_key": wait.result_key,
        "payload": payload,
    }
    effect = {"type": "resume", "payload": answer, "result_key": None}
    return _moment(run, effect, {"resumed": True}, now=now)


def completed(run: OpenRun, output: JsonObject, *, now: str, via_wait: WaitState | None = None) -> StepRecord:
    """Return the record that the run ended with an output."""
    result: JsonObject = {"completed": True, "output": output}
    if via_wait is not None:
        result |= {"via": "resume", "wait_reason": via_wait.reason.value, "wait_key": via_wait.wait_key}
    return _moment(run, None, result, now=now)


def node_failed(run: OpenRun, error: str, *, now: str) -> StepRecord:
    """Return the record that a node raised while it decided what to do."""
    record = _moment(run, None, None, now=now)
    record.status, record.error = StepStatus.FAILED, error
    record.idempotency_key = f"system:tick_exception:{run.state.run_id}"
    return record


def status_event(run: OpenRun, status: RunStatus, *, now: str) -> StepRecord:
    """Return the last record of every run: the event `abstract.status` with the status it ended in."""
    payload = {"text": status.value}
    event = {"name": "abstract.status", "scope": "session", "payload": payload}
    effect = {"type": "emit_event", "payload": event, "result_key": None}
    result = {"emitted": True, "name": "abstract.status", "payload": payload}
    record = _moment(run, effect, result, now=now)
    record.idempotency_key = f"{TERMINAL_KEY}{status.value}"
    return record


def reconciled(run: OpenRun, record: StepRecord, outcome: EffectOutcome, *, cursor: int, now: str) -> StepRecord:
    """Return the record of what was found out about a started effect in doubt; `cursor` is where its intent is.

    `status` is that of the effect's outcome, which has a record of its own, or `unknown`, and `error` may say why.
    """
    is_known = outcome.status is not StepStatus.STARTED
    asked = {
        "cursor": cursor,
        "effect_type": (record.effect or {}).get("type"),
        "idempotency_key": record.idempotency_key,
    }
    effect = {"type": "reconcile", "payload": asked, "result_key": None}
    found = {"reconciled": is_known, "status": outcome.status.value if is_known else "unknown", "error": outcome.error}
    return _moment(run, effect, found, now=now)


def discarded(run: OpenRun, record: StepRecord, outcome: EffectOutcome, *, now: str) -> StepRecord:
    """Return the record that an effect's outcome came too late, and was not used."""
    late = closed(record, outcome, now=now)
    late.result = {"discarded": True, "run_status": run.state.status.value, "result": late.result}
    return late


def firings_skipped(run: OpenRun, skipped: JsonObject, *, now: str) -> StepRecord:
    """Return the record that a command made a schedule skip times; the same as its own steps make."""
    effect = {"type": "skip_firings", "payload": {"skipped": [skipped]}, "result_key": None}
    return _moment(run, effect, {"skipped": skipped["count"]}, now=now)


def is_discarded(record: StepRecord) -> bool:
    """Say whether a record tells of an outcome that was not used."""
    return isinstance(record.result, dict) and set(record.result) == {"discarded", "run_status", "result"}


def _moment(run: OpenRun, effect: JsonObject | None, result: JsonObject | None, *, now: str) -> StepRecord:
    return StepRecord(
        run_id=run.state.run_id,
        step_id=run.new_step_id(),
        node_id=run.state.current_node,
        status=StepStatus.COMPLETED,
        effect=effect,
        result=result,
        started_at=now,
        ended_at=now,
        actor_id=run.state.actor_id,
        session_id=run.state.session_id,
    )
