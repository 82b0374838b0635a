"""The wall clock is set back and forward by hours while timers, retries, questions and commands are open."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from abstractgateway.clock import to_iso
from abstractgateway.errors import Unavailable
from abstractgateway.runner import Runner
from abstractgateway.runner import runner as runner_module
from abstractgateway.runtime import Effect, EffectOutcome, EffectType, RetryPolicy, RunState, RunStatus, WorkflowSpec
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.stores import open_memory_stores
from abstractgateway.testing import ManualClock
from tests.runner.bench import Bench
from tests.runtime.workflows import Calls, ask_then_end, call_then_end, effect, end, spec

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
FAR = BEGIN + 1000 * HOUR


def timer(name: str, due: datetime) -> WorkflowSpec:
    """Return a workflow that waits until then, calls the model once, and ends."""
    return spec(
        f"timer-{name}",
        wait=effect("wait", EffectType.WAIT_UNTIL, {"until": to_iso(due)}, then="fired"),
        fired=effect("fired", EffectType.LLM_CALL, {"prompt": name}, then="end"),
        end=end(),
    )


class Fired:
    """A model that remembers for whom and at what time of the wall it was called."""

    def __init__(self, clock: ManualClock) -> None:
        self.at: list[tuple[str, datetime]] = []
        self._clock = clock

    def __call__(self, run: RunState, effect: Effect) -> EffectOutcome:
        self.at.append((effect.payload["prompt"], self._clock.now()))
        return EffectOutcome.completed({"content": "done"})

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.at]


def with_timers(bench: Bench, hours: dict[str, float]) -> tuple[Fired, dict[str, str], Runner]:
    """Start runs whose timers are due after so many hours; return what they call, their ids, and an idle runner."""
    fired = Fired(bench.clock)
    bench.handlers = {EffectType.LLM_CALL: fired}
    ids = {name: bench.start(timer(name, BEGIN + due * HOUR)) for name, due in hours.items()}
    runner = bench.runner()
    runner.run_until_idle()
    return fired, ids, runner


def set_clock(bench: Bench, hours: float, runner: Runner) -> None:
    bench.clock.set(BEGIN + hours * HOUR)
    runner.run_until_idle()


def test_timers_that_have_become_due_by_a_jump_fire_once_and_the_others_wait(bench: Bench) -> None:
    fired, ids, runner = with_timers(bench, {"late": 3, "early": 1, "much later": 30})

    set_clock(bench, 5, runner)
    set_clock(bench, 5.1, runner)

    assert fired.names == ["early", "late"]
    assert bench.state(ids["much later"]).status is RunStatus.WAITING
    assert runner.next_due() == (BEGIN + 30 * HOUR).timestamp()


def test_a_timer_that_has_fired_does_not_fire_again_when_its_time_comes_a_second_time(bench: Bench) -> None:
    fired, ids, runner = with_timers(bench, {"one": 1, "two": 2})

    for hours in (1.5, -6, 1, 1.5, 0, 2, 1, 2, 48):
        set_clock(bench, hours, runner)
    bench.runner().run_until_idle()

    assert fired.names == ["one", "two"]
    assert {bench.state(run_id).status for run_id in ids.values()} == {RunStatus.COMPLETED}


def test_a_timer_set_before_the_clock_went_back_fires_after_a_restart_as_well(bench: Bench) -> None:
    fired, _, runner = with_timers(bench, {"one": 1})
    set_clock(bench, -5, runner)

    set_clock(bench, 0.9, bench.runner())
    early = list(fired.names)
    set_clock(bench, 1, bench.runner())

    assert (early, fired.names) == ([], ["one"])


def test_a_timer_of_a_start_after_the_clock_went_back_is_not_held_up_by_older_ones(bench: Bench) -> None:
    fired, _, runner = with_timers(bench, {"old": 1})
    set_clock(bench, -10, runner)
    bench.start(timer("new", BEGIN - 9 * HOUR))
    runner.run_until_idle()

    set_clock(bench, -9, runner)

    assert fired.names == ["new"]
    assert runner.next_due() == (BEGIN + HOUR).timestamp()


def test_a_retry_is_made_once_however_the_clock_is_set(bench: Bench) -> None:
    handler = Calls(EffectOutcome.failed("busy"), EffectOutcome.failed("busy"))
    bench.handlers = {EffectType.LLM_CALL: handler}
    bench.options = {"effect_policy": RetryPolicy(backoff_base=60.0)}
    run_id = bench.start(call_then_end())
    runner = bench.runner()
    runner.run_until_idle()

    set_clock(bench, -3, runner)
    set_back = len(handler)
    set_clock(bench, 3, runner)
    set_forward = len(handler)
    set_clock(bench, -3, runner)
    set_clock(bench, 2, runner)
    between = len(handler)
    set_clock(bench, 9, runner)

    assert (set_back, set_forward, between, len(handler)) == (1, 2, 2, 3)
    assert bench.state(run_id).status is RunStatus.COMPLETED
    assert len({record["idempotency_key"] for record in bench.ledger(run_id) if record["node_id"] == "call"}) == 1


def test_answers_and_commands_are_applied_in_their_order_whatever_time_it_is(bench: Bench) -> None:
    ids = [bench.start(ask_then_end()) for _ in range(6)]
    runner = bench.runner()
    runner.run_until_idle()
    sent = []

    for number, run_id in enumerate(ids):
        bench.clock.set(BEGIN + (-1) ** number * 5 * HOUR)
        sent.append(bench.send(run_id, "resume", {"payload": {"response": number}}))
        sent.append(bench.send(run_id, "resume", {"payload": {"response": "again"}}))
    runner.run_until_idle()

    assert [bench.state(run_id).output for run_id in ids] == [{"answer": {"response": n}} for n in range(6)]
    assert [bench.outcome(command)[0] for command in sent] == ["applied", "rejected"] * 6


def test_a_paused_timer_whose_time_passed_by_a_jump_fires_once_when_it_may(bench: Bench) -> None:
    fired, ids, runner = with_timers(bench, {"one": 1})
    bench.send(ids["one"], "pause")
    set_clock(bench, 5, runner)
    paused = list(fired.names)
    bench.send(ids["one"], "resume")

    set_clock(bench, 4, runner)
    set_clock(bench, 6, runner)

    assert (paused, fired.names) == ([], ["one"])


class FailingOnce:
    """Memory stores whose next commit fails when they are told so."""

    def __init__(self) -> None:
        self._stores = open_memory_stores()
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stores, name)

    def commit(self, commit: Any) -> Any:
        if self.fails:
            self.fails = False
            raise Unavailable("the disk is full")
        return self._stores.commit(commit)


@pytest.mark.parametrize("hours", [-7, 7])
def test_the_rest_after_a_failed_commit_is_not_measured_by_the_wall(hours: float) -> None:
    stores = FailingOnce()
    bench = Bench(stores)
    run_id = bench.start(ask_then_end())
    runner = bench.runner()
    stores.fails = True
    runner.run_until_idle()

    set_clock(bench, hours, runner)
    rests = bench.state(run_id).status
    bench.clock.move(1)
    runner.run_until_idle()

    assert rests is RunStatus.RUNNING
    assert bench.state(run_id).status is RunStatus.WAITING


@pytest.mark.parametrize("seed", range(20))
def test_timers_and_retries_survive_any_sequence_of_jumps_and_restarts(seed: int) -> None:
    bench = Bench()
    chance = random.Random(seed)
    due = {f"t{number}": chance.uniform(-1, 20) for number in range(12)}
    fired, ids, _ = with_timers(bench, due)
    busy = Calls(*[EffectOutcome.failed("busy")] * 3)
    bench.handlers[EffectType.TOOL_CALLS] = busy
    bench.options = {"effect_policy": RetryPolicy(tool_max_attempts=4, backoff_base=600.0, backoff_max=3600.0)}
    retried = bench.start(call_then_end(EffectType.TOOL_CALLS, {"tool_calls": []}))
    runner = bench.runner()

    for _ in range(30):
        if chance.random() < 0.3:
            runner = bench.runner()
        if chance.random() < 0.3:
            bench.clock.move(chance.uniform(0, 7200))
        set_clock(bench, chance.uniform(-5, 22), runner)
    for days in range(1, 9):
        set_clock(bench, 24.0 * days, runner)

    assert sorted(fired.names) == sorted(ids)
    assert all(at >= BEGIN + due[name] * HOUR for name, at in fired.at)
    assert len(busy) == 4
    for run_id in (*ids.values(), retried):
        assert bench.state(run_id).status is RunStatus.COMPLETED
        assert verify_chain(bench.ledger(run_id)).ok
    assert runner.next_due() is None


def test_a_runner_that_sleeps_notices_that_the_clock_was_set_forward(stores: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(runner_module, "CLOCK_LOOK_S", 0.05)
    bench = Bench(stores, clock=ManualClock())
    fired = Fired(bench.clock)
    bench.handlers = {EffectType.LLM_CALL: fired}
    runner = bench.runner(inline=False)
    runner.start()
    run_id = bench.start(timer("one", BEGIN + HOUR))
    bench.wait_for(lambda: bench.state(run_id).waiting is not None)

    bench.clock.set(FAR)
    bench.wait_for_end(run_id)
    bench.clock.set(BEGIN)
    runner.stop()

    assert fired.names == ["one"]
