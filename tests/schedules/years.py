"""Years of a schedule in which gateways stop, clocks jump and executions take their time, all by chance."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

from abstractgateway.schedules import Timing
from tests.schedules.timetable import BEGIN, Entry, Timetable

OVERLAPS = ("skip", "queue", "cancel_previous", "allow")
CATCH_UPS = (None, 0.0, 7200.0, 2_000_000.0)
SHARE_OF_WORK_S = 600
"""How many seconds an execution takes for each hour in which nothing happens, so that some overlap."""


def live(seed: int, *, years: float, step_hours: float, **timing: Any) -> Timetable:
    """Return a schedule after so many years; `step_hours` is about how often something happens to it."""
    chance = random.Random(seed)
    table = Timetable()
    table.begin(vars={"takes_s": step_hours * SHARE_OF_WORK_S}, **timing)
    end = BEGIN + timedelta(days=365.25 * years)
    while table.now < end:
        span = chance.expovariate(1 / step_hours)
        what = chance.random()
        if what < 0.7:
            table.run_for(hours=span)
        elif what < 0.85:
            table.be_down(hours=span)
        elif what < 0.93:
            table.jump(hours=span / 2)
        else:
            table.jump(hours=-span / 2)
    return table


def check(table: Timetable, **timing: Any) -> tuple[int, int]:
    """Check that each nominal time was fired or skipped, once and in order; return how many were."""
    entries = [entry for entry in table.account if entry.first is not None]
    expected = Timing(**timing).series.first(BEGIN)
    for entry in entries:
        assert entry.first == expected, (entry, expected)
        expected = _after(entry, Timing(**timing))
    assert expected.isoformat() == table.state.vars["_runtime"]["schedule"]["next"]
    fired = [entry for entry in entries if entry.what == "fired"]
    skipped = sum(entry.count for entry in entries if entry.what != "fired")
    assert (len(fired), skipped) == _counted(table)
    assert {entry.what for entry in entries} <= {"fired", "missed", "overlap"}
    _check_promptness(fired, Timing(**timing), table)
    return len(fired), skipped


def _after(entry: Entry, timing: Timing) -> datetime:
    assert entry.first is not None
    assert entry.last is not None
    stretch = timing.series.stretch(entry.first, entry.last + timedelta(microseconds=1), 10**9)
    assert stretch is not None
    assert (stretch.count, stretch.last) == (entry.count, entry.last), entry
    assert stretch.following is not None
    return stretch.following


def _counted(table: Timetable) -> tuple[int, int]:
    kept = table.state.vars["_runtime"]["schedule"]
    assert kept["executions"] == len(table.children)
    return kept["executions"], kept["skipped"]


def _check_promptness(fired: list[Entry], timing: Timing, table: Timetable) -> None:
    """No firing is early, and none is later than its window and what has to be waited for allows."""
    for entry in fired:
        assert entry.first is not None
        late = entry.at - timing.due_at(table.run_id, entry.first)
        assert late >= timedelta(0)
        if timing.catch_up == 0 and timing.overlap != "queue":
            assert late <= timedelta(seconds=10)
