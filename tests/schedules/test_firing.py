from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from abstractgateway.clock import parse_iso, to_iso
from abstractgateway.errors import Conflict, NotFound
from abstractgateway.runtime import RunStatus
from tests.schedules.timetable import BEGIN, Timetable

SLOW = {"takes_s": 9000}
"""Two and a half hours."""


@pytest.fixture
def table() -> Timetable:
    return Timetable()


def at(hours: float) -> datetime:
    return BEGIN + timedelta(hours=hours)


def test_a_schedule_keeps_to_its_grid_however_long_its_executions_take(table: Timetable) -> None:
    table.begin(interval="1h", vars={"takes_s": 1000})

    table.run_until(at(3.5))

    assert table.told == ["fired 01 00:00", "fired 01 01:00", "fired 01 02:00", "fired 01 03:00"]
    assert [entry.at for entry in table.account] == [at(0), at(1), at(2), at(3)]


def test_a_schedule_without_an_interval_runs_once(table: Timetable) -> None:
    table.begin(start_at=to_iso(at(5)))
    table.run_until(at(4))
    assert table.told == []

    table.run_until(at(50))

    assert table.told == ["fired 01 05:00"]
    assert table.state.output == {"success": True, "executions": 1, "skipped": 0}


def test_a_schedule_ends_after_its_count(table: Timetable) -> None:
    table.begin(interval="1h", repeat_count=3)

    table.run_until(at(50))

    assert table.told == ["fired 01 00:00", "fired 01 01:00", "fired 01 02:00"]
    assert table.state.status is RunStatus.COMPLETED


@pytest.mark.parametrize(("until", "count"), [(2.0, 3), (2.5, 3), (1.99, 2), (0.0, 1)])
def test_a_schedule_ends_at_its_time_which_belongs_to_it(table: Timetable, until: float, count: int) -> None:
    table.begin(interval="1h", repeat_until=to_iso(at(until)))

    table.run_until(at(50))

    assert len(table.told) == count
    assert table.state.status is RunStatus.COMPLETED


def test_a_schedule_of_a_calendar_begins_with_its_first_time(table: Timetable) -> None:
    table.begin(cron="30 4 * * *", timezone="Europe/Berlin", repeat_count=2)

    table.run_until(at(72))

    assert table.told == ["fired 01 03:30", "fired 02 03:30"]
    assert table.children[0].vars["_runtime"]["firing"]["local_time"] == "2026-01-01T04:30:00+01:00"


def test_times_during_an_execution_are_skipped(table: Timetable) -> None:
    table.begin(interval="1h", vars=SLOW)

    table.run_until(at(5.6))

    assert table.told == [
        "fired 01 00:00",
        "overlap 01 01:00 to 01 02:00: 2",
        "fired 01 03:00",
        "overlap 01 04:00 to 01 05:00: 2",
    ]


def test_times_during_an_execution_wait_for_its_end_in_order(table: Timetable) -> None:
    table.begin(interval="1h", vars=SLOW, overlap="queue", repeat_count=4)

    table.run_until(at(20))

    assert table.told == ["fired 01 00:00", "fired 01 01:00", "fired 01 02:00", "fired 01 03:00"]
    assert [entry.at for entry in table.account] == [at(0), at(2.5), at(5), at(7.5)]
    assert table.state.status is RunStatus.COMPLETED


def test_an_execution_is_cancelled_for_the_next_one(table: Timetable) -> None:
    table.begin(interval="1h", vars=SLOW, overlap="cancel_previous", repeat_count=3)

    table.run_until(at(20))

    assert [child.status.value for child in table.children] == ["cancelled", "cancelled", "completed"]
    assert table.children[0].error == f"replaced by the next run of {table.run_id!r}"
    assert [entry.at for entry in table.account] == [at(0), at(1), at(2)]
    assert table.state.status is RunStatus.COMPLETED


def test_executions_may_run_side_by_side(table: Timetable) -> None:
    table.begin(interval="1h", vars=SLOW, overlap="allow", repeat_count=3)

    table.run_until(at(2.1))
    assert [child.status.value for child in table.children] == ["waiting"] * 3

    table.run_until(at(20))
    assert [child.status.value for child in table.children] == ["completed"] * 3
    assert table.state.status is RunStatus.COMPLETED


def test_an_execution_that_fails_does_not_stop_the_schedule(table: Timetable) -> None:
    table.begin(interval="1h", target="b@1:asks", repeat_count=2)
    first = table.children[0].run_id

    assert table.send("cancel", first)[0] == "applied"
    table.run_until(at(1.5))

    assert [child.status.value for child in table.children] == ["cancelled", "waiting"]


MISSED = {
    None: ["fired 01 00:00", "missed 01 01:00 to 01 09:00: 9", "fired 01 10:00", "fired 01 11:00"],
    0: ["fired 01 00:00", "missed 01 01:00 to 01 10:00: 10", "fired 01 11:00"],
    1800: ["fired 01 00:00", "missed 01 01:00 to 01 09:00: 9", "fired 01 10:00", "fired 01 11:00"],
    9000: [
        "fired 01 00:00",
        "missed 01 01:00 to 01 07:00: 7",
        "fired 01 08:00",
        "fired 01 09:00",
        "fired 01 10:00",
        "fired 01 11:00",
    ],
}


@pytest.mark.parametrize("catch_up", list(MISSED))
@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
def test_what_was_missed_while_the_gateway_was_down_is_made_up_for_inside_the_window(
    table: Timetable, catch_up: float | None, overlap: str
) -> None:
    table.begin(interval="1h", catch_up=catch_up, overlap=overlap)

    table.be_down(hours=10, minutes=20)
    table.run_until(at(11.5))

    assert table.told == MISSED[catch_up]


def test_of_missed_executions_that_would_cancel_each_other_only_the_last_one_runs(table: Timetable) -> None:
    table.begin(interval="1h", catch_up=9000, overlap="cancel_previous")

    table.be_down(hours=10, minutes=20)

    assert table.told == ["fired 01 00:00", "missed 01 01:00 to 01 09:00: 9", "fired 01 10:00"]


def test_a_firing_that_is_a_moment_late_is_not_missed(table: Timetable) -> None:
    table.begin(interval="1h", catch_up=0)

    table.be_down(hours=1, seconds=10)
    table.be_down(hours=1, seconds=1)

    assert table.told == ["fired 01 00:00", "fired 01 01:00", "missed 01 02:00"]


def test_a_single_time_is_made_up_for_however_late(table: Timetable) -> None:
    table.begin(start_at=to_iso(at(1)))

    table.be_down(days=400)

    assert table.told == ["fired 01 01:00"]


def test_a_single_time_outside_its_window_is_skipped_and_the_schedule_ends(table: Timetable) -> None:
    table.begin(start_at=to_iso(at(1)), catch_up=60)

    table.be_down(hours=3)

    assert table.told == ["missed 01 01:00"]
    assert table.state.output == {"success": True, "executions": 0, "skipped": 1}


def test_what_is_skipped_is_told_time_by_time(table: Timetable) -> None:
    table.begin(interval="1h")

    table.be_down(hours=3, minutes=1)

    records = [record for record in table.bench.ledger(table.run_id) if record["node_id"] == "run_target"]
    (skipped,) = [r for r in records if r["effect"] and r["effect"]["type"] == "skip_firings" and r["result"]]
    assert skipped["effect"]["payload"]["skipped"] == [
        {
            "reason": "missed",
            "count": 2,
            "first": "2026-01-01T01:00:00+00:00",
            "last": "2026-01-01T02:00:00+00:00",
            "nominal_times": ["2026-01-01T01:00:00+00:00", "2026-01-01T02:00:00+00:00"],
        }
    ]
    assert skipped["result"] == {"skipped": 2}


def test_a_long_downtime_of_a_quick_schedule_is_one_entry(table: Timetable) -> None:
    table.begin(interval="1s")

    table.be_down(days=365)

    assert table.told[1:] == ["missed 01 00:00 to 31 23:59: 31535999", "fired 01 00:00"]


def test_a_long_downtime_of_a_quick_calendar_is_told_in_parts(table: Timetable) -> None:
    table.begin(cron="* * * * *")

    table.be_down(days=20)

    entries = [entry for entry in table.account if entry.what == "missed"]
    assert [entry.count for entry in entries] == [10_000, 10_000, 20 * 1440 - 20_001]
    assert table.told[-1] == "fired 21 00:00"


def test_an_execution_of_days_skips_all_times_of_a_quick_calendar_meanwhile(table: Timetable) -> None:
    table.begin(cron="* * * * *", vars={"takes_s": 8 * 86_400 + 30})

    table.run_for(days=8, minutes=2)

    assert [(entry.what, entry.count) for entry in table.account] == [
        ("fired", 1),
        ("overlap", 10_000),
        ("overlap", 8 * 1440 - 10_000),
        ("fired", 1),
    ]


def test_the_clock_set_forward_is_like_a_downtime(table: Timetable) -> None:
    table.begin(interval="1h")

    table.jump(hours=5.5)
    table.run_until(at(6.5))

    assert table.told == ["fired 01 00:00", "missed 01 01:00 to 01 04:00: 4", "fired 01 05:00", "fired 01 06:00"]


def test_times_that_come_again_because_the_clock_was_set_back_are_not_fired_again(table: Timetable) -> None:
    table.begin(interval="1h")
    table.run_until(at(3.5))

    table.jump(hours=-3)
    table.run_until(at(3.9))
    assert len(table.told) == 4
    table.run_until(at(4.5))

    assert table.told == ["fired 01 00:00", "fired 01 01:00", "fired 01 02:00", "fired 01 03:00", "fired 01 04:00"]


def test_run_now_is_an_execution_beside_the_grid(table: Timetable) -> None:
    table.begin(interval="1h")
    table.run_until(at(1.5))

    outcome = table.send("resume", payload={"mode": "run_now"})
    table.run_until(at(2.5))

    assert outcome == ("applied", None)
    assert table.told == ["fired 01 00:00", "fired 01 01:00", "manual", "fired 01 02:00"]
    firing = table.children[2].vars["_runtime"]["firing"]
    assert (firing["kind"], firing["nominal_time"], firing["number"]) == ("manual", None, 3)


def test_run_now_counts_as_one_of_the_executions(table: Timetable) -> None:
    table.begin(interval="1h", repeat_count=2)

    table.send("resume", payload={"mode": "run_now"})

    assert table.told == ["fired 01 00:00", "manual"]
    assert table.state.status is RunStatus.COMPLETED


def test_times_during_a_pause_are_skipped_and_resuming_runs_at_once(table: Timetable) -> None:
    table.begin(interval="1h")
    table.send("pause")
    table.run_until(at(3.5))

    table.send("resume")
    table.run_until(at(4.5))

    assert table.told == ["fired 01 00:00", "paused 01 01:00 to 01 03:00: 3", "manual", "fired 01 04:00"]


def test_a_pause_during_an_execution_skips_its_times_and_starts_nothing(table: Timetable) -> None:
    table.begin(interval="1h", vars=SLOW)
    table.run_until(at(0.5))
    table.send("pause")
    table.run_until(at(4.5))

    table.send("resume")
    table.run_until(at(5.5))

    assert table.told == ["fired 01 00:00", "paused 01 01:00 to 01 04:00: 4", "fired 01 05:00"]


def test_a_schedule_that_ends_while_it_is_paused_ends_when_it_is_resumed(table: Timetable) -> None:
    table.begin(interval="1h", repeat_until=to_iso(at(2)))
    table.send("pause")
    table.run_until(at(5))

    table.send("resume")

    assert table.told == ["fired 01 00:00", "paused 01 01:00 to 01 02:00: 2"]
    assert table.state.status is RunStatus.COMPLETED


def test_a_paused_single_time_runs_when_it_is_resumed(table: Timetable) -> None:
    table.begin(start_at=to_iso(at(1)))
    table.send("pause")
    table.run_until(at(2))
    assert table.told == []

    table.send("resume")

    assert table.told == ["fired 01 01:00"]


def test_cancelling_a_schedule_cancels_its_executions(table: Timetable) -> None:
    table.begin(interval="1h", target="b@1:asks", overlap="allow")
    table.run_until(at(1.5))

    table.send("cancel", reason="enough")
    table.run_until(at(5))

    assert {run.status.value for run in (table.state, *table.children)} == {"cancelled"}
    assert len(table.children) == 2


@pytest.mark.parametrize(
    "refusal", [Conflict("Workflow 'b:flow' is deprecated: old"), NotFound("no workflow 'b@1:flow'"), OSError("disk")]
)
def test_what_may_not_be_started_is_skipped_and_the_schedule_goes_on(table: Timetable, refusal: Any) -> None:
    table.begin(interval="1h")
    table.refusal = refusal
    table.run_until(at(2.5))
    table.send("resume", payload={})

    table.refusal = None
    table.run_until(at(3.5))

    assert table.told == ["fired 01 00:00", "not_startable 01 01:00", "not_startable 01 02:00", "fired 01 03:00"]
    records = [record for record in table.bench.ledger(table.run_id) if record["effect"]]
    told = [r["effect"]["payload"] for r in records if r["effect"]["type"] == "skip_firings" and r["result"]]
    assert told[0]["skipped"][0]["detail"] == str(refusal)
    assert told[2] == {"skipped": [], "refused": str(refusal)}


def test_jitter_delays_each_firing_by_its_own_share_and_the_same_after_a_restart(table: Timetable) -> None:
    table.begin(interval="1h", jitter=1800, repeat_count=20)
    for hours in range(21):
        table.run_until(at(hours))
        if hours % 3 == 0:
            table.restart()

    delays = [(entry.at - entry.first).total_seconds() for entry in table.account if entry.first]
    assert len(delays) == 20
    assert all(0 <= delay < 1800 for delay in delays)
    assert len({round(delay) for delay in delays}) > 15
    firings = [child.vars["_runtime"]["firing"]["nominal_time"] for child in table.children]
    assert firings == [to_iso(at(hours)) for hours in range(20)]


def test_jitter_never_reaches_the_next_time(table: Timetable) -> None:
    table.begin(interval="1m", jitter=86_400, repeat_count=50)

    table.run_for(hours=2)

    assert [entry.what for entry in table.account] == ["fired"] * 50
    assert all(entry.first and timedelta(0) <= entry.at - entry.first < timedelta(minutes=1) for entry in table.account)


def test_executions_of_their_own_sessions_are_numbered(table: Timetable) -> None:
    table.begin(interval="1h", shares=False, repeat_count=2)

    table.run_until(at(2))

    workflow_id = table.state.workflow_id
    assert [child.session_id for child in table.children] == [f"{workflow_id}:0", f"{workflow_id}:1"]


def test_an_execution_has_the_budget_that_the_schedule_says(table: Timetable) -> None:
    table.begin(interval="1h")
    run = table.bench.stores.runs.open(table.run_id).state
    run.vars["_meta"]["schedule"]["limits"] = {"tool_calls": 3}
    table.bench.stores.runs.save(run)

    table.run_until(at(1.5))

    assert table.children[1].vars["_runtime"]["budget"]["limits"] == {"tool_calls": 3}
    assert "budget" not in table.state.vars["_runtime"]


@pytest.mark.parametrize(
    ("node", "frames", "executions"),
    [
        ("wait_interval", {"repeat": {"index": 2}}, 3),
        ("run_target", {"repeat": {"index": 2}}, 3),
        ("wait_start", {}, 3),
    ],
)
def test_a_schedule_that_abstractgateway_began_goes_on(
    table: Timetable, node: str, frames: Any, executions: int
) -> None:
    table.begin(interval="1h", repeat_count=executions, start_at=to_iso(at(1)))
    run = table.bench.stores.runs.open(table.run_id).state
    del run.vars["_runtime"]["schedule"]
    run.vars["_temp"] = {"_control": {"stack": list(frames), "frames": frames}}
    run.current_node = node
    run.waiting.resume_to_node = "set_child_sid" if node == "wait_start" else "run_target"
    table.bench.stores.runs.save(run)
    table.restart()

    table.run_until(at(9))

    assert table.state.status is RunStatus.COMPLETED
    done = 1 if frames else 0
    assert len(table.children) == executions - done
    assert [parse_iso(child.created_at) for child in table.children][0] == at(1)
