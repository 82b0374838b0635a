"""Where a schedule stands, and what it does next: pure decisions on its run's variables.

The definition is in `vars._meta.schedule`, for everybody to see; how far the schedule has come is in
`vars._runtime.schedule`. Its `next` only ever moves forward, which is why no nominal time is fired twice, whatever
becomes of the clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..clock import parse_iso, to_iso
from ..jsonvalue import JsonObject
from ..runtime.models import RunState
from ..runtime.paths import namespace
from .timing import Timing

KIND = "scheduled_run"
PREFIX = "scheduled:"
"""What the workflow ids of schedules begin with."""
SLOT = "schedule"
ON_TIME = timedelta(seconds=10)
"""The latest firing is made up for when it is no later than this, whatever the window: wake-ups take their time."""
MOST_AT_ONCE = 10_000
"""So many nominal times of a calendar are looked at in one step."""


def definition_of(run: RunState) -> JsonObject | None:
    """Return what a schedule was told to do; None for a run that is no schedule."""
    meta = run.vars.get("_meta")
    found = meta.get("schedule") if isinstance(meta, dict) else None
    return found if isinstance(found, dict) and found.get("kind") == KIND else None


@dataclass(frozen=True)
class Skipped:
    """Nominal times that were not fired, and why; `detail` says more where the reason is not enough."""

    reason: str
    count: int
    first: datetime
    last: datetime
    times: tuple[datetime, ...]
    detail: str | None = None

    def to_dict(self) -> JsonObject:
        told: JsonObject = {
            "reason": self.reason,
            "count": self.count,
            "first": to_iso(self.first),
            "last": to_iso(self.last),
            "nominal_times": [to_iso(instant) for instant in self.times],
        }
        return {**told, "detail": self.detail} if self.detail is not None else told


class Agenda:
    """A schedule at one instant. Changes are made with its methods and put into the run by `save`."""

    def __init__(self, run: RunState, now: datetime) -> None:
        definition = definition_of(run)
        self.definition: JsonObject = definition if definition is not None else {}
        self.timing = Timing.of(self.definition)
        self.now = now
        self._run = run
        kept = namespace(run.vars, "_runtime").get(SLOT)
        state: JsonObject = kept if isinstance(kept, dict) else _adopted(run, self.timing, now)
        self.next = _instant(state.get("next"))
        self.backlog_until = _instant(state.get("backlog_until"))
        self.executions = int(state.get("executions") or 0)
        self.firings = int(state.get("firings") or 0)
        self.skipped = int(state.get("skipped") or 0)
        self.is_busy = bool(state.get("is_busy"))
        self.previous: str | None = state.get("previous")

    @property
    def run_id(self) -> str:
        return self._run.run_id

    @property
    def is_over(self) -> bool:
        return self.timing.is_over(self.next, self.executions)

    @property
    def has_backlog(self) -> bool:
        """Whether the next nominal time is to be made up for at once."""
        return self.next is not None and self.backlog_until is not None and self.next <= self.backlog_until

    @property
    def is_due(self) -> bool:
        return self.next is not None and self.due_at(self.next) <= self.now

    def due_at(self, nominal: datetime) -> datetime:
        return self.timing.due_at(self.run_id, nominal)

    def save(self) -> None:
        """Put how far the schedule has come into the run."""
        namespace(self._run.vars, "_runtime")[SLOT] = {
            "next": to_iso(self.next) if self.next is not None else None,
            "backlog_until": to_iso(self.backlog_until) if self.backlog_until is not None else None,
            "executions": self.executions,
            "firings": self.firings,
            "skipped": self.skipped,
            "is_busy": self.is_busy,
            "previous": self.previous,
        }

    def settle_overlap(self) -> Skipped | None:
        """Account for the nominal times that came while an execution was under way that has just ended.

        With `queue` they are made up for now, one after the other; otherwise they are skipped.
        """
        if not self.is_busy:
            return None
        if self.timing.overlap == "queue" and self.is_due:
            self.backlog_until = self._last_due()
        skipped = None if self.has_backlog or self.timing.overlap == "allow" else self.skip_due("overlap")
        self.is_busy = skipped is not None  # there may be more of them than one step looks at
        return skipped

    def settle_missed(self) -> Skipped | None:
        """Account for the nominal times that nobody fired when they were due, now that one is.

        What is left is to be fired: the times inside the window, or the latest one.
        """
        last = self._last_due()
        keep_from = last if self.timing.overlap == "cancel_previous" else self._window(last)
        if self.timing.catch_up is not None and keep_from == last and not self._is_wanted(last):
            keep_from = last + timedelta(microseconds=1)
        skipped = self.skip_before(keep_from, "missed")
        if skipped is None:
            self.backlog_until = last
        return skipped

    def skip_due(self, reason: str) -> Skipped | None:
        """Skip the nominal times whose firing is due by now."""
        if not self.is_due or self.is_over:
            return None
        return self.skip_before(self._last_due() + timedelta(microseconds=1), reason)

    def skip_before(self, end: datetime, reason: str) -> Skipped | None:
        """Skip the nominal times before an instant, or as many of them as one step can look at."""
        assert self.next is not None
        if self.timing.repeat_until is not None:
            end = min(end, parse_iso(self.timing.repeat_until) + timedelta(microseconds=1))
        stretch = self.timing.series.stretch(self.next, end, MOST_AT_ONCE)
        if stretch is None:
            return None
        skipped = Skipped(reason, stretch.count, self.next, stretch.last, stretch.times)
        self.next = stretch.following
        self.skipped += stretch.count
        return skipped

    def skip_next(self, reason: str, detail: str) -> Skipped:
        """Skip the next nominal time."""
        assert self.next is not None
        skipped = Skipped(reason, 1, self.next, self.next, (self.next,), detail)
        self.next = self.timing.series.following(self.next)
        self.skipped += 1
        return skipped

    def fire(self, *, is_manual: bool) -> JsonObject:
        """Count a firing and return what is told of it, to its run and in the ledger."""
        nominal = None if is_manual else self.next
        self.firings += 1
        self.executions += 1
        if nominal is not None:
            self.next = self.timing.series.following(nominal)
        return {
            "kind": "manual" if is_manual else "scheduled",
            "number": self.firings,
            "nominal_time": to_iso(nominal) if nominal is not None else None,
            "local_time": nominal.astimezone(self.timing.zone).isoformat() if nominal is not None else None,
            "timezone": self.timing.timezone,
            "started_at": to_iso(self.now),
            "schedule_run_id": self.run_id,
        }

    def _last_due(self) -> datetime:
        """Return the last nominal time whose firing is due; the next one is."""
        assert self.next is not None
        series = self.timing.series
        last = series.latest(self.next, self.now) if self.next <= self.now else self.next
        if last > self.next and self.due_at(last) > self.now:
            last = series.latest(self.next, last - timedelta(microseconds=1))
        return last

    def _window(self, last: datetime) -> datetime:
        """Return the instant from which missed nominal times are made up for."""
        if self.timing.catch_up is None:
            return last
        return min(last, self.now - timedelta(seconds=self.timing.catch_up))

    def _is_wanted(self, last: datetime) -> bool:
        """Say whether the latest missed nominal time is made up for, where there is a window."""
        is_in_window = last >= self.now - timedelta(seconds=self.timing.catch_up or 0.0)
        return is_in_window or self.now - self.due_at(last) <= ON_TIME


def first_state(timing: Timing, now: datetime) -> JsonObject:
    """Return how a new schedule stands."""
    start = parse_iso(timing.start_at) if timing.start_at is not None else now
    return {"next": to_iso(timing.series.first(start))}


def _adopted(run: RunState, timing: Timing, now: datetime) -> JsonObject:
    """Return how a schedule stands that AbstractGateway began: it counts from the end of each execution."""
    before_firing = run.current_node in ("start", "wait_start", "run_target", "set_child_sid")
    start = now
    if run.current_node in ("start", "wait_start") and timing.start_at is not None:
        start = parse_iso(timing.start_at)
    following = start if before_firing else timing.series.following(now)
    begun = _begun_rounds(run)
    return {
        "next": to_iso(following) if following is not None else None,
        "executions": max(0, begun - 1) if before_firing else begun,
        "firings": max(0, begun - 1) if before_firing else begun,
    }


def _begun_rounds(run: RunState) -> int:
    temp = run.vars.get("_temp")
    control = temp.get("_control") if isinstance(temp, dict) else None
    frames = control.get("frames") if isinstance(control, dict) else None
    frame = frames.get("repeat") if isinstance(frames, dict) else None
    index = frame.get("index") if isinstance(frame, dict) else 0
    return index if isinstance(index, int) else 0


def _instant(text: Any) -> datetime | None:
    return parse_iso(text) if isinstance(text, str) else None
