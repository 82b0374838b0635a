from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from abstractgateway.clock import to_iso
from abstractgateway.runtime import RunStatus
from tests.schedules.timetable import BEGIN, Timetable

Json = dict[str, Any]


@pytest.fixture
def table() -> Timetable:
    found = Timetable()
    found.begin(interval="1h")
    found.run_until(at(1.5))
    return found


def at(hours: float) -> datetime:
    return BEGIN + timedelta(hours=hours)


def update(table: Timetable, **payload: Any) -> None:
    assert table.send("update_schedule", **payload) == ("applied", None)


def test_a_new_interval_counts_from_now(table: Timetable) -> None:
    update(table, interval="20m")

    assert table.state.waiting is not None
    assert table.state.waiting.until == to_iso(at(1.5) + timedelta(minutes=20))
    table.run_until(at(2.5))

    assert table.told[2:] == ["fired 01 01:50", "fired 01 02:10", "fired 01 02:30"]


def test_a_new_interval_may_leave_the_next_time_as_it_is(table: Timetable) -> None:
    update(table, schedule="20m", apply_immediately=False)

    table.run_until(at(2.5))

    assert table.told[2:] == ["fired 01 02:00", "fired 01 02:20"]


def test_an_update_is_noted_and_told(table: Timetable) -> None:
    child = table.children[0].run_id
    table.send("update_schedule", child, interval="20m")

    assert (table.definition["interval"], table.definition["updated_at"]) == ("20m", "2026-01-01T01:30:00+00:00")
    assert table.state.vars["_runtime"]["last_schedule_update"] == {
        "command_id": "c-1",
        "interval": "20m",
        "changed": ["interval"],
        "updated_at": "2026-01-01T01:30:00+00:00",
        "requested_run_id": child,
        "scheduled_root_run_id": table.run_id,
    }


def test_an_interval_gives_way_to_a_calendar_and_back(table: Timetable) -> None:
    update(table, cron="15 * * * *", timezone="Asia/Kolkata")
    assert (table.definition["interval"], table.definition["cron"]) == (None, "15 * * * *")
    table.run_until(at(3.5))
    update(table, interval="1h")
    assert table.definition["cron"] is None
    table.run_until(at(5))

    assert table.told[2:] == ["fired 01 01:45", "fired 01 02:45", "fired 01 04:30"]


def test_another_time_zone_moves_the_times(table: Timetable) -> None:
    update(table, cron="0 12 * * *")
    update(table, timezone="America/New_York")

    table.run_until(at(24))

    assert table.told[2:] == ["fired 01 17:00"]


@pytest.mark.parametrize(
    ("payload", "name", "value"),
    [
        ({"overlap": "queue"}, "overlap", "queue"),
        ({"catch_up": 60}, "catch_up", 60.0),
        ({"catch_up": None}, "catch_up", None),
        ({"jitter": 5}, "jitter", 5.0),
        ({"repeat_count": 7}, "repeat_count", 7),
        ({"repeat_until": "2026-02-01"}, "repeat_until", "2026-02-01T00:00:00+00:00"),
    ],
)
def test_other_fields_leave_the_times_as_they_are(table: Timetable, payload: Json, name: str, value: Any) -> None:
    before = table.state.vars["_runtime"]["schedule"]["next"]

    update(table, **payload)

    assert table.definition[name] == value
    assert table.definition["interval"] == "1h"
    assert table.state.vars["_runtime"]["schedule"]["next"] == before


def test_a_schedule_that_has_had_enough_executions_ends(table: Timetable) -> None:
    update(table, repeat_count=2)

    assert table.state.status is RunStatus.COMPLETED


def test_the_end_of_a_schedule_can_be_moved_and_taken_away(table: Timetable) -> None:
    update(table, repeat_until=to_iso(at(3)))
    update(table, repeat_count=3)
    assert table.definition["repeat_until"] is None
    update(table, repeat_count=None)

    table.run_until(at(6.5))

    assert table.state.status is RunStatus.WAITING
    assert len(table.told) == 7


def test_an_end_that_leaves_one_time_keeps_the_schedule_changeable(table: Timetable) -> None:
    update(table, repeat_until=to_iso(at(2)))
    assert table.definition["interval"] == "1h"
    update(table, repeat_until=to_iso(at(4)))

    table.run_until(at(9))

    assert len(table.told) == 5
    assert table.state.status is RunStatus.COMPLETED


def test_times_of_the_old_interval_that_wait_for_an_execution_are_skipped_with_the_reason() -> None:
    table = Timetable()
    table.begin(interval="1h", vars={"takes_s": 9000})
    table.run_until(at(2.2))

    update(table, interval="30m")
    table.run_until(at(3))

    assert table.told == ["fired 01 00:00", "rescheduled 01 01:00 to 01 02:00: 2", "fired 01 02:42"]


def test_a_schedule_that_has_not_begun_keeps_its_start() -> None:
    table = Timetable()
    table.begin(interval="1h", start_at=to_iso(at(5)))

    update(table, interval="20m")
    table.run_until(at(5.5))

    assert table.told == ["fired 01 05:00", "fired 01 05:20"]


def test_a_paused_schedule_can_be_changed(table: Timetable) -> None:
    table.send("pause")
    update(table, interval="3h")
    table.run_until(at(4))

    table.send("resume")
    table.run_until(at(5))

    assert table.told[2:] == ["manual", "fired 01 04:30"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "payload: names nothing to change; use interval, cron, timezone, overlap, catch_up, jitter"),
        ({"start_at": "2027-01-01"}, "payload: names nothing to change"),
        ({"interval": ""}, "Invalid interval: invalid interval (expected like '15m', '1h', '2d')"),
        ({"interval": 20}, "Invalid interval: 20 is not a text"),
        ({"interval": "0s"}, "Invalid interval: "),
        ({"interval": None}, "interval: cannot be taken away; give the other one, or cancel the schedule"),
        ({"interval": "1h", "cron": "@daily"}, "cron cannot be combined with interval"),
        ({"cron": "@never"}, "Invalid cron: '@never' is not one of"),
        ({"timezone": "Nowhere"}, "timezone: 'Nowhere' is not a time zone"),
        ({"timezone": None}, "Invalid timezone: None is not a text"),
        ({"overlap": "always"}, "Invalid overlap: 'always' is not one of"),
        ({"catch_up": "1h"}, "Invalid catch_up: '1h' is not a number of seconds"),
        ({"jitter": None}, "Invalid jitter: None is not a number of seconds"),
        ({"jitter": -1}, "Invalid jitter: -1 is not a number of seconds"),
        ({"repeat_count": 0}, "repeat_count must be >= 1"),
        ({"repeat_count": "3"}, "Invalid repeat_count: '3' is not a whole number"),
        ({"repeat_count": 10_001}, "repeat_count is too large (max 10000)"),
        ({"repeat_until": "soon"}, "Invalid repeat_until: 'soon' is not an ISO 8601 time"),
        ({"repeat_until": "2020-01-01"}, "repeat_until must be >= "),
        ({"repeat_count": 2, "repeat_until": "2027-01-01"}, "repeat_until cannot be combined with repeat_count"),
        ({"interval": "2h", "apply_immediately": "no"}, "apply_immediately: must be true or false, not 'no'"),
    ],
)
def test_an_update_that_makes_no_sense_is_rejected_with_the_reason_and_changes_nothing(
    table: Timetable, payload: Json, reason: str
) -> None:
    before = table.bench.stores.runs.open(table.run_id)

    status, why = table.send("update_schedule", **payload)

    assert status == "rejected"
    assert reason in str(why)
    assert table.bench.stores.runs.open(table.run_id) == before


def test_a_schedule_of_one_time_cannot_be_changed() -> None:
    table = Timetable()
    table.begin(start_at=to_iso(at(1)))

    outcome = table.send("update_schedule", interval="1h")

    assert outcome == ("rejected", f"the schedule {table.run_id!r} is not recurrent")


def test_a_schedule_that_has_ended_cannot_be_changed(table: Timetable) -> None:
    table.send("cancel")

    assert table.send("update_schedule", interval="1h")[1] == f"the schedule {table.run_id!r} is cancelled"
