from __future__ import annotations

from datetime import datetime, timezone

import pytest

from abstractgateway.runtime import EffectType, RunState, RunStatus, WaitReason, WaitState
from tests.runtime.workflows import Json, World, effect, end, outline, spec


def waiting_until(until: object) -> object:
    return spec(
        "timer", wait=effect("wait", EffectType.WAIT_UNTIL, {"until": until}, then="end", key="w"), end=end("end", "w")
    )


@pytest.mark.parametrize(
    "until",
    [
        "2026-01-01T00:00:10+00:00",
        "2026-01-01T00:00:10Z",
        "2026-01-01T00:00:10.000000Z",
        "2026-01-01 00:00:10",
        "2025-12-31T19:00:10-05:00",
        "2026-01-01T09:00:10+09:00",
        "2026-01-01T05:30:10+05:30",
    ],
)
def test_an_instant_is_the_same_however_it_is_written(world: World, until: str) -> None:
    workflow = waiting_until(until)
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)

    first = runtime.tick(workflow=workflow, run_id=run_id)
    world.clock.move(9.999)
    early = runtime.tick(workflow=workflow, run_id=run_id)
    world.clock.move(0.001)
    due = runtime.tick(workflow=workflow, run_id=run_id)

    assert first.waiting is not None
    assert (first.waiting.reason, first.waiting.wait_key, first.waiting.until) == (WaitReason.UNTIL, None, until)
    assert early.status is RunStatus.WAITING
    assert (due.status, due.output) == (RunStatus.COMPLETED, {"w": None})


@pytest.mark.parametrize(
    "until", ["2026-01-01T00:00:00+00:00", "2025-12-31T23:59:59Z", "2026-01-01", "2026-01-01T08:59:59+09:00"]
)
def test_a_time_that_has_come_is_not_waited_for(world: World, until: str) -> None:
    workflow = waiting_until(until)
    runtime = world.runtime()

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert state.output == {"w": {"until": until, "ready": True}}


@pytest.mark.parametrize("until", ["tomorrow", "1000", "10:00", "2026-13-01", "", None, 1000, {"at": 1}])
def test_a_text_that_is_no_time_fails_when_it_arrives(world: World, until: object) -> None:
    workflow = waiting_until(until)
    runtime = world.runtime()

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert state.status is RunStatus.FAILED
    assert "wait_until" in str(state.error)


def test_a_timer_at_the_end_of_a_workflow_completes_it(world: World) -> None:
    workflow = spec("timer", wait=effect("wait", EffectType.WAIT_UNTIL, {"until": "2026-01-01T00:00:10Z"}))
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    runtime.tick(workflow=workflow, run_id=run_id)
    world.clock.move(10)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert (state.status, state.output) == (RunStatus.COMPLETED, {"success": True, "result": None})
    assert outline(world.ledger(run_id))[-1] == ("wait", "completed", "emit_event")


def test_a_time_of_another_program_that_is_none_keeps_its_run_waiting(world: World) -> None:
    workflow = waiting_until("2026-01-01T00:00:10Z")
    run = RunState.new(workflow_id="timer", entry_node="wait", vars={})
    run.status, run.waiting = RunStatus.WAITING, WaitState(WaitReason.UNTIL, until="tomorrow", resume_to_node="end")
    world.stores.runs.save(run)
    runtime = world.runtime()

    ticked = runtime.tick(workflow=workflow, run_id=run.run_id)
    answered = runtime.resume(workflow=workflow, run_id=run.run_id, wait_key=None, payload={})

    assert ticked.status is RunStatus.WAITING
    assert answered.status is RunStatus.COMPLETED


def test_a_timer_that_is_answered_by_hand_goes_on_early(world: World) -> None:
    workflow = waiting_until("2099-01-01T00:00:00Z")
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    runtime.tick(workflow=workflow, run_id=run_id)
    answer: Json = {"mode": "run_now"}

    state = runtime.resume(workflow=workflow, run_id=run_id, wait_key=None, payload=answer)

    assert state.output == {"w": {"mode": "run_now"}}


def test_a_clock_that_is_set_back_makes_a_timer_wait_longer(world: World) -> None:
    workflow = waiting_until("2026-01-01T00:00:10Z")
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    runtime.tick(workflow=workflow, run_id=run_id)
    world.clock.set(datetime(2025, 12, 31, tzinfo=timezone.utc))
    world.clock.move(11)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.status is RunStatus.WAITING
