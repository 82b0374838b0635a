from __future__ import annotations

import threading
from typing import Any

import pytest

from abstractgateway.runtime import (
    EffectOutcome,
    EffectType,
    RunState,
    RunStatus,
    Runtime,
    ScheduledRuntime,
    Scheduler,
    WaitReason,
    WorkflowRegistry,
    create_scheduled_runtime,
)
from abstractgateway.stores import open_memory_stores
from abstractgateway.testing import ManualClock
from tests.runtime.workflows import Calls, Json, ask_then_end, call_then_end, effect, end, loop, spec

PATIENCE_S = 10.0
SOON = "2026-01-01T00:00:10Z"
TIMER = spec("timer", wait=effect("wait", EffectType.WAIT_UNTIL, {"until": SOON}, then="end"), end=end())
HEARS = spec(
    "hears",
    wait=effect("wait", EffectType.WAIT_EVENT, {"name": "go"}, then="end", key="heard"),
    end=end("end", "heard"),
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def scheduled(clock: ManualClock, handlers: Any = None, **options: Any) -> ScheduledRuntime:
    made = create_scheduled_runtime(effect_handlers=handlers, auto_start=False, **options)
    made.runtime.clock = clock
    return made


def test_a_due_run_is_advanced_by_a_poll_and_counted(clock: ManualClock) -> None:
    resumed: list[RunState] = []
    sr = scheduled(clock, on_run_resumed=resumed.append)
    run_id, waiting = sr.run(TIMER)

    early = sr.scheduler.poll_once()
    clock.move(10)
    due = sr.scheduler.poll_once()

    assert waiting.status is RunStatus.WAITING
    assert (early, due) == (0, 1)
    assert [state.status for state in resumed] == [RunStatus.COMPLETED]
    assert (sr.stats.poll_cycles, sr.stats.runs_resumed) == (2, 1)
    assert sr.stats.last_poll_at == "2026-01-01T00:00:10+00:00"
    assert sr.get_state(run_id).output == {}


def test_a_time_that_a_program_moved_to_the_past_is_noticed(clock: ManualClock) -> None:
    sr = scheduled(clock)
    run_id, state = sr.run(TIMER)
    assert state.waiting is not None
    state.waiting.until = "2020-01-01T00:00:00Z"
    sr.runtime.run_store.save(state)  # type: ignore[attr-defined]

    sr.scheduler.poll_once()

    assert sr.get_state(run_id).status is RunStatus.COMPLETED


def test_a_run_that_nobody_advances_any_more_is_gone_on_with(clock: ManualClock) -> None:
    sr = scheduled(clock, {EffectType.LLM_CALL: Calls()})
    run_id, state = sr.run(loop(150, EffectType.LLM_CALL, {"prompt": "x"}))

    sr.scheduler.poll_once()

    assert state.status is RunStatus.RUNNING
    assert sr.get_state(run_id).status is RunStatus.COMPLETED


def test_many_runs_that_cannot_go_on_keep_no_other_from_its_turn(clock: ManualClock) -> None:
    sr = scheduled(clock)
    for _ in range(120):
        run_id, _ = sr.run(TIMER)
        sr.runtime.pause_run(run_id)
    last, _ = sr.run(spec("later", wait=effect("wait", EffectType.WAIT_UNTIL, {"until": "2026-01-01T00:00:11Z"})))
    clock.move(11)

    sr.scheduler.poll_once()

    assert sr.get_state(last).status is RunStatus.COMPLETED


def test_a_run_that_a_thread_advances_is_not_advanced_by_a_poll_as_well(clock: ManualClock) -> None:
    begun, may_end = threading.Event(), threading.Event()
    performed: list[str] = []

    def slow(run: RunState, effect: object) -> EffectOutcome:
        performed.append(run.run_id)
        begun.set()
        may_end.wait(PATIENCE_S)
        return EffectOutcome.completed({})

    sr = scheduled(clock, {EffectType.LLM_CALL: slow})
    thread = threading.Thread(target=sr.run, args=(call_then_end(),))
    thread.start()
    begun.wait(PATIENCE_S)

    ticked = sr.scheduler.poll_once()
    may_end.set()
    thread.join(PATIENCE_S)

    assert (ticked, len(performed)) == (0, 1)
    assert sr.get_state(performed[0]).status is RunStatus.COMPLETED


def test_a_run_whose_workflow_is_gone_is_told_of_and_disturbs_no_other(clock: ManualClock) -> None:
    failed: list[tuple[str, str]] = []
    sr = scheduled(clock, on_run_failed=lambda run_id, error: failed.append((run_id, str(error))))
    lost, _ = sr.run(TIMER)
    sr.registry.unregister("timer")
    kept, _ = sr.run(spec("other", wait=TIMER.nodes["wait"], end=end()))
    clock.move(10)

    count = sr.scheduler.poll_once()

    assert count == 1
    assert [run_id for run_id, _ in failed] == [lost]
    assert "'timer' is not registered" in failed[0][1]
    assert sr.get_state(kept).status is RunStatus.COMPLETED
    assert sr.stats.runs_failed == 1


def test_a_callback_that_raises_stops_nothing(clock: ManualClock) -> None:
    def broken(state: RunState) -> None:
        raise RuntimeError("callback")

    sr = scheduled(clock, on_run_resumed=broken)
    sr.run(TIMER)
    clock.move(10)

    assert sr.scheduler.poll_once() == 1
    assert sr.stats.errors == ["2026-01-01T00:00:10+00:00: RuntimeError: callback"]


def test_only_so_many_errors_are_kept(clock: ManualClock) -> None:
    registry = WorkflowRegistry()
    runtime = Runtime(stores=open_memory_stores(), workflow_registry=registry, clock=clock)
    scheduler = Scheduler(runtime=runtime, registry=registry, max_errors_kept=2)
    for _ in range(5):
        runtime.tick(workflow=TIMER, run_id=runtime.start(workflow=TIMER))
    clock.move(10)

    scheduler.poll_once()

    assert (scheduler.stats.runs_failed, len(scheduler.stats.errors)) == (5, 2)


def test_an_event_from_outside_reaches_its_listeners_and_advances_them(clock: ManualClock) -> None:
    sr = scheduled(clock)
    run_id, _ = sr.run(HEARS, session_id="s1")

    states = sr.scheduler.emit_event(name="go", payload={"x": 1}, session_id="s1")

    assert [(state.run_id, state.status) for state in states] == [(run_id, RunStatus.COMPLETED)]
    heard: Json = states[0].output["heard"]  # type: ignore[index]
    assert (heard["payload"], heard["emitter"], heard["event_id"]) == ({"x": 1}, {"source": "external"}, None)


@pytest.mark.parametrize(("verb", "text"), [("wrong key", "wait_key mismatch"), ("twice", "not waiting")])
def test_an_answer_that_does_not_fit_is_refused(clock: ManualClock, verb: str, text: str) -> None:
    sr = scheduled(clock)
    run_id, state = sr.run(ask_then_end())
    assert state.waiting is not None
    key = str(state.waiting.wait_key)
    if verb == "twice":
        sr.respond(run_id, {"text": "1"})

    with pytest.raises(ValueError, match=text):
        sr.resume_event(run_id=run_id, wait_key=key if verb == "twice" else "other", payload={})


def test_respond_finds_the_key_or_says_that_there_is_none(clock: ManualClock) -> None:
    sr = scheduled(clock)
    asking, _ = sr.run(ask_then_end())
    timed, _ = sr.run(TIMER)

    state = sr.respond(asking, {"text": "1"})

    assert state.output == {"answer": {"text": "1"}}
    for run_id in (asking, timed):
        with pytest.raises(ValueError, match="is not waiting for an answer"):
            sr.respond(run_id, {})


def test_waiting_runs_are_found_by_what_they_wait_for(clock: ManualClock) -> None:
    sr = scheduled(clock)
    asking, _ = sr.run(ask_then_end())
    timed, _ = sr.run(TIMER)

    found = {
        reason: [run.run_id for run in sr.find_waiting_runs(wait_reason=reason)]
        for reason in (WaitReason.USER, WaitReason.UNTIL)
    }

    assert found == {WaitReason.USER: [asking], WaitReason.UNTIL: [timed]}
    assert [run.run_id for run in sr.find_waiting_runs(workflow_id="timer")] == [timed]
    assert len(sr.find_waiting_runs(limit=1)) == 1


def test_a_tree_is_cancelled_from_its_root_down(clock: ManualClock) -> None:
    def starts(child: str) -> Any:
        return effect("start", EffectType.START_SUBWORKFLOW, {"workflow_id": child}, then="end")

    sr = scheduled(clock, workflows=[ask_then_end(), spec("middle", start=starts("asks"), end=end())])
    run_id, _ = sr.run(spec("outer", start=starts("middle"), end=end()))

    cancelled = sr.cancel_with_children(run_id, reason="enough")

    assert [state.workflow_id for state in cancelled] == ["outer", "middle", "asks"]
    assert {state.error for state in cancelled} == {"enough"}
    assert sr.cancel_with_children("nobody") == []


def test_the_thread_polls_until_it_is_stopped() -> None:
    done = threading.Event()
    sr = create_scheduled_runtime(poll_interval_s=0.01, on_run_resumed=lambda state: done.set())
    soon = effect("wait", EffectType.WAIT_UNTIL, {"until": "2999-01-01T00:00:00Z"}, then="end")
    run_id, state = sr.run(spec("timer", wait=soon, end=end()))
    assert state.waiting is not None
    state.waiting.until = "2020-01-01T00:00:00Z"
    sr.runtime.run_store.save(state)  # type: ignore[attr-defined]

    assert done.wait(PATIENCE_S)
    assert sr.is_running
    with pytest.raises(RuntimeError, match="already running"):
        sr.start_scheduler()
    sr.stop()
    sr.stop()

    assert not sr.is_running
    assert sr.get_state(run_id).status is RunStatus.COMPLETED


def test_a_store_that_cannot_be_asked_for_due_runs_is_refused() -> None:
    runtime = Runtime(stores=open_memory_stores())
    runtime.run_store = object()

    with pytest.raises(TypeError, match="QueryableRunStore"):
        Scheduler(runtime=runtime, registry=WorkflowRegistry())


def test_a_registry_knows_each_workflow_once() -> None:
    registry = WorkflowRegistry()
    registry.register(TIMER)

    with pytest.raises(ValueError, match="already registered"):
        registry.register(TIMER)
    with pytest.raises(KeyError, match="not registered"):
        registry.unregister("nobody")

    assert (registry.list_ids(), len(registry), "timer" in registry) == (["timer"], 1, True)
    assert (registry.get("timer"), registry.get("nobody")) == (TIMER, None)
