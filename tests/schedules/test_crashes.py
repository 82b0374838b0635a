from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from abstractgateway.runtime.chain import verify_chain
from abstractgateway.stores import open_file_stores, open_memory_stores, open_sqlite_stores
from tests.runtime.workflows import Crash
from tests.schedules.timetable import BEGIN, Timetable

HOURS = ["fired 01 00:00", "fired 01 01:00", "fired 01 02:00", "fired 01 03:00"]
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "skip": ({"vars": {"takes_s": 600}}, HOURS),
    "overlap": (
        {"vars": {"takes_s": 4000}},
        ["fired 01 00:00", "overlap 01 01:00", "fired 01 02:00", "overlap 01 03:00", "fired 01 04:00"],
    ),
    "queue": ({"vars": {"takes_s": 4000}, "overlap": "queue"}, HOURS),
    "cancel_previous": ({"vars": {"takes_s": 4000}, "overlap": "cancel_previous"}, HOURS),
    "allow": ({"vars": {"takes_s": 4000}, "overlap": "allow", "jitter": 60.0}, HOURS),
}


class Numbered:
    """Counts the commits of a store, and lets the process end before or after one of them."""

    def __init__(self, stores: Any, fail_at: int, *, is_done: bool) -> None:
        self._commit = stores.commit
        self.count, self.fail_at, self.is_done = 0, fail_at, is_done

    def __call__(self, commit: Any) -> Any:
        self.count += 1
        if self.count != self.fail_at:
            return self._commit(commit)
        if self.is_done:
            self._commit(commit)
        raise Crash


@contextmanager
def crashing(table: Timetable, fail_at: int, *, is_done: bool) -> Iterator[Numbered]:
    stores = table.bench.stores
    numbered = Numbered(stores, fail_at, is_done=is_done)
    stores.commit = numbered
    yield numbered
    del stores.commit


def through(table: Timetable, count: int) -> None:
    """Go on for some hours; where the process ends, start another one."""
    for _ in range(2):
        try:
            table.run_until(BEGIN + timedelta(hours=4, minutes=30))
        except Crash:
            table.restart()
    assert len(table.told) >= count


@pytest.mark.parametrize("name", list(CASES))
def test_after_a_crash_at_any_commit_each_time_is_fired_once(name: str) -> None:
    given, expected = CASES[name]
    crashes = 0

    for number in itertools.count(2):
        fail_at, is_done = divmod(number, 2)
        table = Timetable(open_memory_stores())
        table.begin(interval="1h", repeat_count=4 if len(expected) == 4 else None, **given)
        with crashing(table, fail_at, is_done=bool(is_done)) as numbered:
            through(table, 4)
        if numbered.count < fail_at:
            break
        crashes += 1
        assert table.told == expected, (fail_at, is_done)
        assert len(table.children) == sum(text.startswith("fired") for text in expected)

    assert crashes > 10


OPEN = {"file": open_file_stores, "sqlite": open_sqlite_stores}


@pytest.mark.parametrize("backend", list(OPEN))
def test_a_schedule_goes_on_from_what_is_on_the_disk(backend: str, tmp_path: Any) -> None:
    stores = OPEN[backend](tmp_path)
    table = Timetable(stores)
    table.begin(interval="1h", vars={"takes_s": 600}, repeat_count=4)

    for hours in (1.1, 2.05, 3.5):
        table.run_until(BEGIN + timedelta(hours=hours))
        stores.close()
        stores = table.bench.stores = OPEN[backend](tmp_path)
        table.restart()
    table.run_for(hours=1)

    records = table.bench.ledger(table.run_id)
    assert table.told == HOURS
    assert table.state.status.value == "completed"
    assert verify_chain(records).ok
    stores.close()
