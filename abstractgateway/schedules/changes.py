"""What commands do to a schedule, inside the commit that applies them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ..clock import parse_iso, to_iso
from ..errors import Conflict, Invalid
from ..jsonvalue import JsonObject
from ..runtime import lifecycle, records
from ..runtime.draft import Draft, OpenRun
from ..runtime.models import RunState
from ..runtime.paths import namespace
from .agenda import Agenda, Skipped, definition_of
from .series import Grid
from .timing import UPDATABLE, Timing, changed_timing
from .workflow import WAIT_START

_NAMES = {"schedule": "interval", **{name: name for name in UPDATABLE}}


def find_schedule(draft: Draft, run_id: str) -> RunState | None:
    """Return the schedule that a run is, or is part of; None for other runs."""
    current = draft.peek(run_id)
    while current is not None and definition_of(current) is None:
        current = draft.peek(current.parent_run_id) if current.parent_run_id else None
    return current


def the_schedule(draft: Draft, run_id: str) -> OpenRun:
    """Open the schedule that a run is, or is part of. Raises `Conflict` for other runs."""
    found = find_schedule(draft, run_id)
    if found is None:
        raise Conflict(f"run {run_id!r} is not part of a schedule", code="not_scheduled")
    return draft.open(found.run_id)


def update_schedule(draft: Draft, run: OpenRun, payload: JsonObject, *, command_id: str, requested: str) -> None:
    """Change the timing of a recurrent schedule, as the payload of the command says.

    Raises `Conflict` for a schedule that has ended or is not recurrent, `Invalid` for values that make no sense.
    """
    state, now = run.state, parse_iso(draft.now_iso())
    agenda = Agenda(state, now)
    given, is_immediate = _read(payload)
    if state.status.is_terminal:
        raise Conflict(f"the schedule {state.run_id!r} is {state.status.value}", code="not_possible_now")
    if not agenda.timing.is_recurrent:
        raise Conflict(f"the schedule {state.run_id!r} is not recurrent", code="not_recurrent")
    timing = changed_timing(agenda.timing, given, now)
    if (timing.interval, timing.cron, timing.timezone) != _rule_of(agenda.timing):
        _move(draft, run, agenda, timing, is_immediate=is_immediate)
    told = {name: getattr(timing, name) for name in UPDATABLE}
    namespace(namespace(state.vars, "_meta"), "schedule").update(told, updated_at=_seconds(draft))
    agenda.timing = timing
    agenda.save()
    _wait_anew(agenda, run)
    namespace(state.vars, "_runtime")["last_schedule_update"] = {
        "command_id": command_id,
        "interval": timing.interval,
        "changed": sorted(given),
        "updated_at": draft.now_iso(),
        "requested_run_id": requested,
        "scheduled_root_run_id": state.run_id,
    }
    run.touch(draft.now_iso())


def go_on_after_pause(draft: Draft, run: OpenRun) -> None:
    """Skip what a pause has held up, and run a recurrent schedule that waits for its time at once."""
    agenda = Agenda(run.state, parse_iso(draft.now_iso()))
    if not agenda.timing.is_recurrent or run.state.status.is_terminal:
        return
    while (skipped := agenda.skip_due("paused")) is not None:
        _record(draft, run, skipped)
    agenda.save()
    run.touch(draft.now_iso())
    if lifecycle.is_waiting_for_time(run.state):
        if agenda.is_over:
            _wait_anew(agenda, run)
        else:
            lifecycle.resume(draft, run, None, {"mode": "resumed", "requested_at": draft.now_iso()})


def _rule_of(timing: Timing) -> tuple[str | None, str | None, str]:
    return timing.interval, timing.cron, timing.timezone


def _read(payload: JsonObject) -> tuple[JsonObject, bool]:
    """Return the fields to change, and whether they count for the time that the schedule waits for now."""
    given: JsonObject = {_NAMES[name]: value for name, value in payload.items() if name in _NAMES}
    is_immediate: Any = payload.get("apply_immediately", True)
    if not isinstance(is_immediate, bool):
        raise Invalid("apply_immediately", f"must be true or false, not {is_immediate!r}")
    if not given:
        raise Invalid("payload", f"names nothing to change; use interval, {', '.join(UPDATABLE[1:])}")
    for name in ("interval", "cron"):
        if name in given and given[name] is None and given.get("cron" if name == "interval" else "interval") is None:
            raise Invalid(name, "cannot be taken away; give the other one, or cancel the schedule")
    return given, is_immediate


def _move(draft: Draft, run: OpenRun, agenda: Agenda, timing: Timing, *, is_immediate: bool) -> None:
    """Go over to other nominal times. Those of the old ones that are due and not fired are skipped."""
    while (skipped := agenda.skip_due("rescheduled")) is not None:
        _record(draft, run, skipped)
    agenda.backlog_until = None
    is_before_start = run.state.current_node == WAIT_START
    if is_before_start and timing.start_at is not None and agenda.next is not None:
        start = max(parse_iso(timing.start_at), agenda.now)
        agenda.next = timing.series.first(start)
    elif is_immediate or agenda.next is None:
        agenda.next = _next_after(timing, agenda)


def _next_after(timing: Timing, agenda: Agenda) -> Any:
    series = timing.series
    return series.following(agenda.now) if isinstance(series, Grid) else series.first(agenda.now + _INSTANT)


_INSTANT = timedelta(microseconds=1)


def _wait_anew(agenda: Agenda, run: OpenRun) -> None:
    """Have a schedule that waits for its time wait for the one that is next now."""
    waiting = run.state.waiting
    if waiting is None or waiting.until is None:
        return
    is_over = agenda.next is None or agenda.is_over
    waiting.until = to_iso(agenda.now if is_over or agenda.next is None else agenda.due_at(agenda.next))


def _record(draft: Draft, run: OpenRun, skipped: Skipped) -> None:
    run.append(records.firings_skipped(run, skipped.to_dict(), now=draft.now_iso()))


def _seconds(draft: Draft) -> str:
    return parse_iso(draft.now_iso()).strftime("%Y-%m-%dT%H:%M:%S+00:00")
