from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from abstractgateway.errors import LeaseLost, Unavailable
from abstractgateway.runner.deltas import Deltas
from abstractgateway.runner.driver import Driver
from abstractgateway.runner.pool import InlinePool
from abstractgateway.runtime import (
    Commit,
    CommitReceipt,
    EffectOutcome,
    EffectType,
    RetryPolicy,
    RunState,
    RunStatus,
    StepPlan,
    WaitReason,
    WaitState,
)
from abstractgateway.stores import open_memory_stores
from tests.runner.bench import Bench
from tests.runtime.workflows import Calls, Crash, ask_then_end, call_then_end, effect, end, loop, spec

TIMER = spec(
    "timer", wait=effect("wait", EffectType.WAIT_UNTIL, {"until": "2026-01-01T00:01:00Z"}, then="end"), end=end()
)


def test_a_run_is_driven_from_its_start_to_its_end(bench: Bench) -> None:
    bench.handlers = {EffectType.LLM_CALL: Calls()}
    run_id = bench.start(loop(600, EffectType.LLM_CALL, {"prompt": "x"}))

    bench.runner().run_until_idle()

    assert bench.state(run_id).output == {"rounds": 600}


def test_runs_that_were_running_are_taken_up_after_a_restart(bench: Bench) -> None:
    ids = [bench.start(call_then_end()) for _ in range(3)]
    bench.handlers = {EffectType.LLM_CALL: Calls(Crash())}
    with pytest.raises(Crash):
        bench.runner().run_until_idle()
    bench.handlers = {EffectType.LLM_CALL: Calls()}

    bench.runner().run_until_idle()

    assert [bench.state(run_id).status for run_id in ids] == [RunStatus.COMPLETED] * 3


def test_a_timer_fires_when_its_time_has_come_and_not_before(bench: Bench) -> None:
    run_id = bench.start(TIMER)
    runner = bench.runner()
    runner.run_until_idle()
    bench.clock.move(59.999)
    runner.run_until_idle()
    early = bench.state(run_id).status
    bench.clock.move(0.001)

    runner.run_until_idle()

    assert early is RunStatus.WAITING
    assert bench.state(run_id).status is RunStatus.COMPLETED


def test_timers_are_found_again_after_a_restart(bench: Bench) -> None:
    run_id = bench.start(TIMER)
    bench.runner().run_until_idle()
    bench.clock.move(60)

    runner = bench.runner()
    runner.run_until_idle()

    assert bench.state(run_id).status is RunStatus.COMPLETED
    assert runner.next_due() is None


def test_a_timer_keeps_its_time_when_the_clock_is_set_back(bench: Bench) -> None:
    run_id = bench.start(TIMER)
    runner = bench.runner()
    runner.run_until_idle()
    bench.clock.set(datetime(2025, 12, 31, 23, 0, tzinfo=timezone.utc))
    runner.run_until_idle()
    bench.clock.move(3600)
    runner.run_until_idle()
    at_midnight = bench.state(run_id).status
    bench.clock.set(datetime(2026, 1, 2, tzinfo=timezone.utc))

    runner.run_until_idle()

    assert at_midnight is RunStatus.WAITING
    assert bench.state(run_id).status is RunStatus.COMPLETED


class JumpingClock:
    """A wall clock that is set back at the moment a due run has been handed over."""

    def __init__(self) -> None:
        self.answers: list[datetime] = []
        self.usual = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def now(self) -> datetime:
        return self.answers.pop(0) if self.answers else self.usual

    def monotonic(self) -> float:
        return 0.0


def test_a_timer_survives_a_clock_that_is_set_back_between_firing_and_looking() -> None:
    clock = JumpingClock()
    bench = Bench(clock=clock)
    run_id = bench.start(TIMER)
    runner = bench.runner()
    runner.run_until_idle()
    clock.answers = [datetime(2026, 1, 1, 0, 1, tzinfo=timezone.utc)]
    runner.run_until_idle()
    early = bench.state(run_id).status
    clock.usual = datetime(2026, 1, 1, 0, 1, tzinfo=timezone.utc)

    runner.run_until_idle()

    assert early is RunStatus.WAITING
    assert bench.state(run_id).status is RunStatus.COMPLETED


def test_a_paused_timer_fires_after_the_pause(bench: Bench) -> None:
    run_id = bench.start(TIMER)
    runner = bench.runner()
    runner.run_until_idle()
    bench.send(run_id, "pause")
    runner.run_until_idle()
    bench.clock.move(120)
    runner.run_until_idle()
    paused = bench.state(run_id).status
    bench.send(run_id, "resume")

    runner.run_until_idle()

    assert paused is RunStatus.WAITING
    assert bench.state(run_id).status is RunStatus.COMPLETED


def test_a_child_resumes_its_parent_in_the_same_commit_and_both_go_on(bench: Bench) -> None:
    bench.handlers = {EffectType.LLM_CALL: Calls()}
    bench.know(call_then_end())
    started = effect("start", EffectType.START_SUBWORKFLOW, {"workflow_id": "calls"}, then="end", key="got")
    run_id = bench.start(spec("parent", start=started, end=end("end", "got")))

    bench.runner().run_until_idle()

    state = bench.state(run_id)
    assert state.output is not None
    assert state.output["got"]["output"] == {"said": {"ok": True}}


def test_a_listener_goes_on_when_another_run_sends_its_event(bench: Bench) -> None:
    heard = effect("wait", EffectType.WAIT_EVENT, {"name": "go"}, then="end")
    hearing = bench.start(spec("hears", wait=heard, end=end()), session_id="s1")
    runner = bench.runner()
    runner.run_until_idle()
    bench.start(spec("emits", emit=effect("emit", EffectType.EMIT_EVENT, {"name": "go"})), session_id="s1")

    runner.run_until_idle()

    assert bench.state(hearing).status is RunStatus.COMPLETED


def test_a_failed_effect_is_tried_again_after_its_rest_without_anybody_sleeping(bench: Bench) -> None:
    handler = Calls(EffectOutcome.failed("busy"))
    bench.handlers, bench.options = {EffectType.LLM_CALL: handler}, {"effect_policy": RetryPolicy(backoff_base=8.0)}
    run_id = bench.start(call_then_end())
    runner = bench.runner()
    runner.run_until_idle()
    resting = bench.state(run_id)
    bench.clock.move(8)

    runner.run_until_idle()

    assert resting.waiting is not None
    assert (resting.waiting.details or {})["kind"] == "retry"
    assert (bench.state(run_id).status, len(handler)) == (RunStatus.COMPLETED, 2)


def test_the_question_about_an_effect_in_doubt_is_answered_by_a_command(bench: Bench) -> None:
    workflow = call_then_end(EffectType.TOOL_CALLS, {"tool_calls": []})
    run_id = bench.start(workflow)
    bench.handlers = {EffectType.TOOL_CALLS: Calls(Crash())}
    with pytest.raises(Crash):
        bench.runner().run_until_idle()
    bench.handlers = {EffectType.TOOL_CALLS: Calls()}
    runner = bench.runner()
    runner.run_until_idle()
    asked = bench.state(run_id).waiting
    bench.send(run_id, "resume", {"wait_key": f"in_doubt:{run_id}:1", "payload": {"response": "retry"}})

    runner.run_until_idle()

    assert asked is not None
    assert asked.choices == ["retry", "fail"]
    assert bench.state(run_id).status is RunStatus.COMPLETED


def test_a_run_without_its_workflow_says_so_and_goes_on_when_it_appears(bench: Bench) -> None:
    run_id = bench.start(ask_then_end())
    other = bench.start(TIMER)
    bench.registry.unregister("asks")
    runner = bench.runner()
    runner.run_until_idle()
    blocked, untroubled = runner.explain(run_id), runner.explain(other)
    runner.run_until_idle()
    bench.know(ask_then_end())

    runner.run_until_idle()

    assert "workflow 'asks' is not registered" in str(blocked)
    assert untroubled is None
    assert runner.explain(run_id) is None
    assert bench.state(run_id).waiting is not None


@pytest.mark.parametrize("type", ["cancel", "pause"])
def test_a_run_without_its_workflow_can_be_cancelled_and_paused(bench: Bench, type: str) -> None:
    run_id = bench.start(ask_then_end())
    bench.registry.unregister("asks")
    runner = bench.runner()
    runner.run_until_idle()
    command = bench.send(run_id, type)

    runner.run_until_idle()

    assert bench.outcome(command) == ("applied", None)
    assert runner.explain(run_id) is None


def test_an_outcome_is_kept_for_a_run_whose_workflow_went_away_meanwhile(bench: Bench) -> None:
    def vanish(run: RunState) -> EffectOutcome:
        bench.registry.unregister("calls")
        runtime.pause_run(run.run_id)
        runtime.resume_run(run.run_id)
        return EffectOutcome.completed({"content": "kept"})

    handler = Calls(vanish)
    bench.handlers = {EffectType.LLM_CALL: handler}
    runtime = bench.runtime()
    run_id = bench.start(call_then_end())
    runner = bench.runner()
    runner.run_until_idle()
    blocked = runner.explain(run_id)
    bench.know(call_then_end())

    runner.run_until_idle()

    assert "'calls' is not registered" in str(blocked)
    assert (bench.state(run_id).output, len(handler)) == ({"said": {"content": "kept"}}, 1)


def test_an_outcome_for_a_run_that_was_cancelled_and_lost_its_workflow_is_discarded(bench: Bench) -> None:
    def vanish(run: RunState) -> EffectOutcome:
        bench.registry.unregister("calls")
        runtime.cancel_run(run.run_id)
        return EffectOutcome.completed({"content": "late"})

    bench.handlers = {EffectType.LLM_CALL: Calls(vanish)}
    runtime = bench.runtime()
    run_id = bench.start(call_then_end())

    bench.runner().run_until_idle()

    assert bench.ledger(run_id)[-1]["result"]["discarded"] is True


class FailingStores:
    """Memory stores whose commits fail while `failures` are left."""

    def __init__(self) -> None:
        self._stores = open_memory_stores()
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stores, name)

    def commit(self, commit: Commit) -> CommitReceipt:
        if self.failures > 0:
            self.failures -= 1
            raise Unavailable("the disk is full")
        return self._stores.commit(commit)


def test_a_run_rests_while_the_store_cannot_write_and_goes_on_later() -> None:
    stores = FailingStores()
    bench = Bench(stores)
    run_id = bench.start(TIMER)
    runner = bench.runner()
    stores.failures = 1
    runner.run_until_idle()
    trouble, before = runner.explain(run_id), bench.ledger(run_id)
    bench.clock.move(1)

    runner.run_until_idle()

    assert (trouble, before) == ("the disk is full", [])
    assert runner.explain(run_id) is None
    assert [record["status"] for record in bench.ledger(run_id)] == ["started", "waiting"]


@pytest.mark.parametrize("failures", [1, 3])
def test_an_outcome_is_kept_while_the_store_cannot_write(failures: int) -> None:
    stores = FailingStores()
    bench = Bench(stores)

    def fill(run: RunState) -> EffectOutcome:
        stores.failures = failures
        return EffectOutcome.completed({"content": "kept"})

    handler = Calls(fill)
    bench.handlers = {EffectType.LLM_CALL: handler}
    run_id = bench.start(call_then_end())
    runner = bench.runner()
    runner.run_until_idle()
    trouble = runner.explain(run_id)
    for _ in range(failures):
        bench.clock.move(1)
        runner.run_until_idle()

    assert trouble == "the disk is full"
    assert (bench.state(run_id).output, len(handler)) == ({"said": {"content": "kept"}}, 1)


def test_an_effect_whose_intent_could_not_be_stored_is_not_performed() -> None:
    stores = FailingStores()
    bench = Bench(stores)
    handler = Calls()
    bench.handlers = {EffectType.LLM_CALL: handler}
    bench.start(call_then_end())
    runner = bench.runner()
    stores.failures = 1

    runner.run_until_idle()

    assert len(handler) == 0


def test_a_run_that_cannot_be_stored_fails_and_the_others_go_on(bench: Bench) -> None:
    def put(run: RunState, ctx: Any) -> StepPlan:
        run.vars["x"] = {1, 2}
        return StepPlan("put", next_node="end")

    bad = bench.start(spec("bad", put=put, end=end()))
    good = bench.start(TIMER)

    bench.runner().run_until_idle()

    assert (bench.state(bad).status, bench.state(good).status) == (RunStatus.FAILED, RunStatus.WAITING)
    assert "node 'end'" in str(bench.state(bad).error)


def test_a_runner_that_was_fenced_stops_and_says_so(bench: Bench) -> None:
    run_id = bench.start(ask_then_end())
    fenced, owner = bench.runner(), bench.runner()
    fenced.own()
    owner.own()
    command = bench.send(run_id, "cancel")

    with pytest.raises(LeaseLost):
        fenced.run_until_idle()
    owner.run_until_idle()
    with pytest.raises(LeaseLost):
        fenced.run_until_idle()

    assert "lease epoch 1 is over" in str(fenced.explain(run_id))
    assert not fenced.is_owner
    assert bench.outcome(command) == ("applied", None)


def test_an_effect_that_waits_for_a_job_goes_on_with_its_result(bench: Bench) -> None:
    wait = WaitState(WaitReason.JOB, wait_key="job:1", resume_to_node="end", result_key="said")
    bench.handlers = {EffectType.LLM_CALL: Calls(EffectOutcome.waiting(wait))}
    run_id = bench.start(call_then_end())
    runner = bench.runner()
    runner.run_until_idle()
    bench.send(run_id, "resume", {"wait_key": "job:1", "payload": {"done": True}})

    runner.run_until_idle()

    assert bench.state(run_id).output == {"said": {"done": True}}


def test_runs_that_programs_drive_themselves_are_left_to_them(bench: Bench) -> None:
    run_id = bench.start(TIMER, actor_id="ar_program")
    bench.runtime().tick(workflow=TIMER, run_id=run_id)
    runner = bench.runner()
    runner.run_until_idle()
    bench.clock.move(60)

    runner.run_until_idle()

    assert bench.state(run_id).status is RunStatus.WAITING
    assert runner.next_due() is None


class InterruptedStores:
    """Memory stores on which somebody acts between a commit of the driver and the driver's learning of it."""

    def __init__(self) -> None:
        self._stores = open_memory_stores()
        self.act: Callable[[], object] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stores, name)

    def commit(self, commit: Commit) -> CommitReceipt:
        receipt = self._stores.commit(commit)
        act, self.act = self.act, None
        if act is not None:
            act()
        return receipt


def test_an_answer_that_comes_before_the_driver_has_let_go_of_its_run_is_not_lost() -> None:
    stores = InterruptedStores()
    bench = Bench(stores)
    runtime = bench.runtime()
    run_id = bench.start(ask_then_end())
    runner = bench.runner()
    answer = {"workflow": ask_then_end(), "run_id": run_id, "wait_key": None, "payload": {"text": "x"}}
    stores.act = lambda: runtime.resume(**answer, max_steps=0)

    runner.run_until_idle()

    assert bench.state(run_id).status is RunStatus.COMPLETED


def test_a_timer_that_is_due_before_the_driver_has_let_go_of_its_run_is_not_lost() -> None:
    stores = InterruptedStores()
    bench = Bench(stores)
    run_id = bench.start(TIMER)
    runner = bench.runner()
    stores.act = lambda: bench.clock.move(60)

    runner.run_until_idle()

    assert bench.state(run_id).status is RunStatus.COMPLETED


def driver_of(bench: Bench, on_put_aside: Callable[[], None] | None = None) -> Driver:
    def refuse(*given: Any) -> None:
        raise AssertionError(given)

    return Driver(
        stores=bench.stores,
        runtime=bench.runtime(),
        find_workflow=bench.registry.get_or_raise,
        effects=InlinePool(),
        deltas=Deltas(lambda run_id: None),
        commit=bench.stores.submit,
        step_batch=100,
        on_trouble=refuse,
        on_lease_lost=refuse,
        on_not_due=refuse,
        on_put_aside=on_put_aside or refuse,
        on_deadline=refuse,
        on_late=refuse,
    )


def test_whoever_decides_is_woken_when_a_run_is_put_aside(bench: Bench) -> None:
    run_id = bench.start(ask_then_end())
    bench.registry.unregister("asks")
    told: list[str] = []
    driver = driver_of(bench, on_put_aside=lambda: told.append("look again later"))
    driver.offer(run_id)

    driver.work(wait=False)

    assert driver.has_blocked
    assert told == ["look again later"]


def test_while_it_is_to_be_quiet_a_driver_holds_its_work(bench: Bench) -> None:
    run_id = bench.start(ask_then_end())
    driver = driver_of(bench)
    driver.offer(run_id)

    with driver.quieted():
        worked = driver.work(wait=False)
        held = bench.ledger(run_id)
    driver.work(wait=False)

    assert (worked, held) == (True, [])
    assert [record["status"] for record in bench.ledger(run_id)] == ["started", "waiting"]


def test_a_driver_that_is_drained_takes_up_nothing_new(bench: Bench) -> None:
    first, second = bench.start(ask_then_end()), bench.start(ask_then_end())
    driver = driver_of(bench)
    driver.offer(first)

    is_done = driver.drain(0.0)
    driver.offer(second)
    driver.work(wait=False)

    assert not is_done
    assert driver.drain(0.0)
    assert bench.ledger(first) == bench.ledger(second) == []
