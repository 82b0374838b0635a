"""Effects that do not come back in time, in a runner with its threads and a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest

from abstractgateway.errors import LeaseLost
from abstractgateway.runner import Runner
from abstractgateway.runner.late import LateOutcomes
from abstractgateway.runner.pool import MOST_STUCK, ThreadPool
from abstractgateway.runner.timers import Timers
from abstractgateway.runtime import (
    DefaultEffectPolicy,
    Effect,
    EffectOutcome,
    EffectType,
    NoRetryPolicy,
    PendingEffect,
    RunState,
    RunStatus,
    Runtime,
    WorkflowSpec,
)
from abstractgateway.runtime.chain import verify_chain
from tests.runner.bench import PATIENCE_S, Bench
from tests.runner.conftest import OPEN
from tests.runtime.workflows import Calls, Crash, Json, call_then_end, effect, end, outline, spec

MODEL = call_then_end()
TOOL = call_then_end(EffectType.TOOL_CALLS, {"tool_calls": [{"name": "pay", "arguments": {}}]})
ONCE = NoRetryPolicy(timeout=10)
TIMED_OUT = "timed out after the 10 s it may take"


def model_called(workflow_id: str) -> WorkflowSpec:
    """Return the workflow that calls the model, under another name."""
    return WorkflowSpec(workflow_id, MODEL.entry_node, MODEL.nodes)


def twice(rest_s: float = 0.0) -> DefaultEffectPolicy:
    return DefaultEffectPolicy(default_max_attempts=2, default_backoff_base=rest_s, default_timeout=10)


class Stuck:
    """A handler whose first calls come back when they may, with a late answer; the others answer at once."""

    def __init__(self, count: int = 1) -> None:
        self.gates = [threading.Event() for _ in range(count)]
        self.calls = 0
        self._begun = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self, run: RunState, effect: object) -> EffectOutcome:
        with self._lock:
            number, self.calls = self.calls, self.calls + 1
        if number >= len(self.gates):
            return EffectOutcome.completed({"content": "quick"})
        self._begun.release()
        assert self.gates[number].wait(PATIENCE_S)
        run.vars["said"] = "by a late hand"
        return EffectOutcome.completed({"content": f"late {number}"})

    def wait_until_stuck(self, count: int = 1) -> None:
        for _ in range(count):
            assert self._begun.acquire(timeout=PATIENCE_S)

    def let_go(self) -> None:
        for gate in self.gates:
            gate.set()


@pytest.fixture
def stuck(bench: Bench, request: pytest.FixtureRequest) -> Any:
    """The model and the tools of the bench, whose first call hangs; at the end of the test it is let go."""
    handler = Stuck()
    bench.handlers = {EffectType.LLM_CALL: handler, EffectType.TOOL_CALLS: handler}
    yield handler
    handler.let_go()


def started(bench: Bench, policy: Any, **options: Any) -> Runner:
    bench.options = {"effect_policy": policy}
    runner = bench.runner(inline=False, **options)
    runner.start()
    return runner


def pass_time(bench: Bench, seconds: float) -> None:
    """Move the clock and have the runner look at it, which it has when this returns."""
    bench.clock.move(seconds)
    look(bench)


def look(bench: Bench) -> None:
    for _ in range(2):  # what was due at the first look has been begun with at the second
        command = bench.send("nobody", "emit_event", {"name": "look", "scope": "global"})
        bench.wait_for(lambda command=command: bench.outcome(command)[0] != "pending")  # type: ignore[misc]


def calls_of(bench: Bench, run_id: str) -> list[tuple[str, int, str | None]]:
    """Return status, attempt and error of the records of a run's effect."""
    records = [record for record in bench.ledger(run_id) if record["node_id"] == "call" and record["idempotency_key"]]
    return [(r["status"], r["attempt"], r["error"]) for r in records if not r["idempotency_key"].startswith("system:")]


def discarded(bench: Bench, run_id: str) -> list[Json]:
    return [r["result"] for r in bench.ledger(run_id) if isinstance(r["result"], dict) and r["result"].get("discarded")]


def test_an_effect_that_takes_too_long_is_tried_again_after_a_rest(bench: Bench, stuck: Stuck) -> None:
    runner = started(bench, twice(rest_s=5.0))
    run_id = bench.start(MODEL)
    stuck.wait_until_stuck()
    pass_time(bench, 9.9)
    early = bench.state(run_id)

    pass_time(bench, 0.1)
    bench.wait_for(lambda: bench.state(run_id).waiting is not None)
    resting = bench.state(run_id)
    pass_time(bench, 5)
    bench.wait_for_end(run_id)
    runner.stop()

    assert early.status is RunStatus.RUNNING
    assert resting.waiting is not None
    assert resting.waiting.details == {"kind": "retry", "attempt": 2, "error": TIMED_OUT}
    assert bench.state(run_id).output == {"said": {"content": "quick"}}
    assert calls_of(bench, run_id) == [
        ("started", 1, None),
        ("failed", 1, TIMED_OUT),
        ("started", 2, None),
        ("completed", 2, None),
    ]


def test_the_last_attempt_that_takes_too_long_fails_the_run(bench: Bench, stuck: Stuck) -> None:
    runner = started(bench, ONCE)
    run_id = bench.start(TOOL)
    stuck.wait_until_stuck()

    pass_time(bench, 10)
    bench.wait_for_end(run_id)
    runner.stop()

    state = bench.state(run_id)
    assert state.status is RunStatus.FAILED
    assert state.error == f"Effect failed after 1 attempts: {TIMED_OUT} (node 'call')"


@pytest.mark.parametrize("backend", ["memory", "file", "sqlite"])
def test_what_a_late_handler_brings_is_discarded_and_changes_nothing(
    bench: Bench, stuck: Stuck, backend: str, tmp_path: Any
) -> None:
    bench.stores = OPEN[backend](tmp_path)
    runner = started(bench, twice())
    run_id = bench.start(MODEL)
    stuck.wait_until_stuck()
    pass_time(bench, 10)
    bench.wait_for_end(run_id)
    ended = bench.state(run_id)

    stuck.let_go()
    bench.wait_for(lambda: bool(discarded(bench, run_id)))
    runner.stop()

    assert discarded(bench, run_id) == [
        {"discarded": True, "run_status": "completed", "result": {"content": "late 0"}},
    ]
    assert bench.state(run_id) == ended
    assert (ended.output, stuck.calls) == ({"said": {"content": "quick"}}, 2)
    assert verify_chain(bench.ledger(run_id)).ok
    assert [record["attempt"] for record in bench.ledger(run_id) if record["status"] == "started"] == [1, 2]
    bench.stores.close()


def test_a_late_outcome_does_not_take_the_place_of_the_attempt_under_way(bench: Bench) -> None:
    stuck = Stuck(2)
    bench.handlers = {EffectType.LLM_CALL: stuck}
    runner = started(bench, twice())
    run_id = bench.start(MODEL)
    stuck.wait_until_stuck()
    pass_time(bench, 10)
    stuck.wait_until_stuck()

    stuck.gates[0].set()
    bench.wait_for(lambda: bool(discarded(bench, run_id)))
    status = bench.state(run_id).status
    stuck.gates[1].set()
    bench.wait_for_end(run_id)
    runner.stop()

    state = bench.state(run_id)
    assert (status, state.status, state.output) == (
        RunStatus.RUNNING,
        RunStatus.COMPLETED,
        {"said": {"content": "late 1"}},
    )
    assert [item["run_status"] for item in discarded(bench, run_id)] == ["running"]


def test_what_a_handler_does_to_the_run_after_its_time_is_not_stored(bench: Bench) -> None:
    first, second, has_written, may_end = Stuck(), Stuck(), threading.Event(), threading.Event()

    def perform(run: RunState, effect: Effect) -> EffectOutcome:
        if second.calls or first.calls:
            return second(run, effect)
        first(run, effect)
        run.vars["scribble"] = True
        has_written.set()
        assert may_end.wait(PATIENCE_S)
        return EffectOutcome.completed({})

    bench.handlers = {EffectType.LLM_CALL: perform}
    runner = started(bench, twice())
    run_id = bench.start(MODEL)
    first.wait_until_stuck()
    pass_time(bench, 10)
    second.wait_until_stuck()

    first.let_go()
    assert has_written.wait(PATIENCE_S)
    second.let_go()
    bench.wait_for_end(run_id)
    may_end.set()
    runner.stop()

    assert bench.state(run_id).status is RunStatus.COMPLETED
    assert "scribble" not in bench.state(run_id).vars


def test_an_effect_that_ended_in_time_is_not_timed_out_later(bench: Bench) -> None:
    asked = effect("ask", EffectType.ASK_USER, {"prompt": "Go on?"}, then="end")
    called = effect("call", EffectType.LLM_CALL, {"prompt": "x"}, then="ask")
    bench.handlers = {EffectType.LLM_CALL: Calls()}
    runner = started(bench, ONCE)
    run_id = bench.start(spec("calls-and-asks", call=called, ask=asked, end=end()))
    bench.wait_for(lambda: bench.state(run_id).waiting is not None)
    before = bench.ledger(run_id)

    pass_time(bench, 3600)
    runner.stop()

    assert (bench.state(run_id).status, bench.ledger(run_id)) == (RunStatus.WAITING, before)


def test_handlers_that_hang_take_no_thread_from_the_others(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck(6)
    bench.handlers = {EffectType.LLM_CALL: stuck}
    runner = started(bench, ONCE, effect_workers=2)
    bench.know(MODEL)
    for _ in range(3):
        ids = [bench.start(MODEL) for _ in range(2)]
        stuck.wait_until_stuck(2)
        pass_time(bench, 10)
        bench.wait_for_end(*ids)
    hanging = [thread for thread in threading.enumerate() if thread.name.startswith("gateway-effect")]

    quick = [bench.start(MODEL) for _ in range(4)]
    bench.wait_for_end(*quick)
    stuck.let_go()
    for thread in hanging[:6]:
        thread.join(PATIENCE_S)
    runner.stop()

    assert {bench.state(run_id).status for run_id in quick} == {RunStatus.COMPLETED}
    assert len(hanging) == 8
    assert not any(thread.is_alive() for thread in hanging[:6])
    assert caplog.text.count("a call does not end; a fresh thread replaces") == 6


def test_a_run_that_is_cancelled_meanwhile_stays_cancelled(bench: Bench, stuck: Stuck) -> None:
    runner = started(bench, twice())
    run_id = bench.start(MODEL)
    stuck.wait_until_stuck()
    bench.send(run_id, "cancel")
    bench.wait_for_end(run_id)

    pass_time(bench, 10)
    bench.wait_for(lambda: len(discarded(bench, run_id)) == 1)
    stuck.let_go()
    bench.wait_for(lambda: len(discarded(bench, run_id)) == 2)
    runner.stop()

    assert (bench.state(run_id).status, stuck.calls) == (RunStatus.CANCELLED, 1)
    assert calls_of(bench, run_id) == [("started", 1, None), ("failed", 1, TIMED_OUT), ("completed", 1, None)]


def test_a_run_that_is_paused_meanwhile_is_tried_again_once_it_goes_on(bench: Bench, stuck: Stuck) -> None:
    runner = started(bench, twice())
    run_id = bench.start(MODEL)
    stuck.wait_until_stuck()
    bench.send(run_id, "pause")
    bench.wait_for(lambda: bench.state(run_id).waiting is not None)

    pass_time(bench, 10)
    bench.wait_for(lambda: len(calls_of(bench, run_id)) == 2)
    paused, calls = bench.state(run_id), stuck.calls
    bench.send(run_id, "resume")
    bench.wait_for_end(run_id)
    runner.stop()

    assert (paused.status, paused.vars["_runtime"]["control"]["paused"], calls) == (RunStatus.WAITING, True, 1)
    assert (bench.state(run_id).status, stuck.calls) == (RunStatus.COMPLETED, 2)


def test_after_a_restart_an_effect_is_in_doubt_however_long_it_has_taken(bench: Bench, stuck: Stuck) -> None:
    first = started(bench, ONCE)
    run_id = bench.start(TOOL)
    stuck.wait_until_stuck()
    first.stop(timeout_s=0.05)
    bench.clock.move(3600)

    second = started(bench, ONCE)
    bench.wait_for(lambda: bench.state(run_id).waiting is not None)
    bench.send(run_id, "resume", {"payload": {"response": "retry"}})
    bench.wait_for_end(run_id)
    ended = bench.ledger(run_id)
    stuck.let_go()
    second.stop()

    assert outline(ended)[:2] == [("call", "started", "tool_calls"), ("call", "waiting", "tool_calls")]
    assert (bench.state(run_id).status, bench.ledger(run_id), stuck.calls) == (RunStatus.COMPLETED, ended, 2)


def test_setting_the_clock_takes_no_time_from_an_effect_and_gives_it_none(bench: Bench, stuck: Stuck) -> None:
    runner = started(bench, ONCE)
    run_id = bench.start(MODEL)
    stuck.wait_until_stuck()

    bench.clock.set(bench.clock.now() + timedelta(hours=5))
    look(bench)
    forward = bench.state(run_id).status
    bench.clock.set(bench.clock.now() - timedelta(hours=50))
    pass_time(bench, 10)
    bench.wait_for_end(run_id)
    runner.stop()

    assert (forward, bench.state(run_id).status) == (RunStatus.RUNNING, RunStatus.FAILED)


def test_the_time_for_which_an_effect_waits_for_a_thread_does_not_count(bench: Bench, stuck: Stuck) -> None:
    limits = {EffectType.LLM_CALL: 10.0, EffectType.TOOL_CALLS: None}
    runner = started(bench, DefaultEffectPolicy(effect_timeouts=limits), effect_workers=1)
    first = bench.start(TOOL)
    stuck.wait_until_stuck()
    second = bench.start(model_called("second"))
    bench.wait_for(lambda: bool(calls_of(bench, second)))

    pass_time(bench, 3600)
    said = runner.explain(second)
    stuck.let_go()
    bench.wait_for_end(first, second)
    runner.stop()

    assert said == (
        "llm_call of node 'call' waits since 2026-01-01T00:00:00+00:00 until one of the effect workers is free"
    )
    assert bench.state(second).status is RunStatus.COMPLETED


def test_a_time_limit_is_kept_on_every_backend(live: Bench) -> None:
    stuck = Stuck()
    live.handlers = {EffectType.LLM_CALL: stuck}
    runner = started(live, NoRetryPolicy(timeout=0.05))
    run_id = live.start(MODEL)

    live.wait_for_end(run_id)
    stuck.let_go()
    live.wait_for(lambda: bool(discarded(live, run_id)))
    runner.stop()

    assert "timed out after the 0.05 s it may take" in str(live.state(run_id).error)


def pending_of(bench: Bench, runtime: Runtime) -> tuple[str, PendingEffect]:
    """Return a run whose effect has begun, and the effect."""
    execution = runtime.open_execution(MODEL, bench.start(MODEL))
    execution.advance(1)
    bench.stores.commit(execution.to_commit())
    assert execution.pending is not None
    return execution.state.run_id, execution.pending


def test_late_outcomes_are_kept_while_the_store_cannot_write_and_one_lost_run_stops_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = bench.runtime()
    late = LateOutcomes(runtime, quietly=nullcontext)
    known = [pending_of(bench, runtime) for _ in range(2)]
    for run_id, pending in [known[0], ("nobody", known[0][1]), known[1]]:
        late.add(run_id, pending, EffectOutcome.completed({"content": "late"}))
    runtime.epoch = -1

    with pytest.raises(LeaseLost):
        late.record()
    kept, runtime.epoch = len(late), None
    did = (late.record(), late.record())

    assert (kept, len(late), did) == (3, 0, (True, False))
    assert [len(discarded(bench, run_id)) for run_id, _ in known] == [1, 1]
    assert "a late outcome of run nobody could not be recorded: Unknown run_id" in caplog.text


def test_a_time_limit_beyond_all_bounds_is_as_good_as_none(live: Bench) -> None:
    stuck = Stuck()
    live.handlers = {EffectType.LLM_CALL: stuck}
    runner = started(live, NoRetryPolicy(timeout=1e300))
    run_id = live.start(MODEL)
    stuck.wait_until_stuck()

    look(live)
    stuck.let_go()
    live.wait_for_end(run_id)
    runner.stop()

    assert live.state(run_id).status is RunStatus.COMPLETED


def interrupted(bench: Bench) -> str:
    """Return a run that a crash left in the middle of paying."""
    bench.handlers = {EffectType.TOOL_CALLS: Calls(Crash())}
    run_id = bench.start(TOOL)
    with pytest.raises(Crash):
        bench.runner().run_until_idle()
    return run_id


def test_a_reconciler_that_takes_too_long_leaves_the_effect_in_doubt(bench: Bench) -> None:
    run_id = interrupted(bench)
    stuck = Stuck()
    bench.options = {"reconcilers": {EffectType.TOOL_CALLS: lambda run, effect, key: stuck(run, effect)}}
    runner = started_with(bench, effect_policy=ONCE)
    stuck.wait_until_stuck()
    said = runner.explain(run_id)

    pass_time(bench, 10)
    bench.wait_for(lambda: bench.state(run_id).waiting is not None)
    asked = bench.ledger(run_id)
    stuck.let_go()
    bench.wait_for(lambda: bool(discarded(bench, run_id)))
    runner.stop()

    assert said == (
        "in doubt: finding out what became of tool_calls of node 'call', begun at 2026-01-01T00:00:00+00:00"
    )
    assert asked[1]["result"] == {"reconciled": False, "status": "unknown", "error": TIMED_OUT}
    assert [record["status"] for record in asked] == ["started", "completed", "waiting"]
    assert bench.ledger(run_id)[:-1] == asked


def test_a_reconciler_holds_no_other_run_up(bench: Bench) -> None:
    run_id = interrupted(bench)
    stuck = Stuck()
    bench.options = {"reconcilers": {EffectType.TOOL_CALLS: lambda run, effect, key: stuck(run, effect)}}
    bench.handlers[EffectType.LLM_CALL] = Calls()
    runner = started_with(bench)
    stuck.wait_until_stuck()

    other = bench.start(model_called("other"))
    bench.wait_for_end(other)
    stuck.let_go()
    bench.wait_for_end(run_id)
    runner.stop()

    assert bench.state(run_id).output == {"said": {"content": "late 0"}}


def started_with(bench: Bench, **options: Any) -> Runner:
    bench.options |= options
    runner = bench.runner(inline=False)
    runner.start()
    return runner


def hang(pool: ThreadPool) -> tuple[threading.Thread, Callable[[], None]]:
    """Have the pool make a call that does not end; return its thread, and how to end it."""
    begun, may_end = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def call() -> None:
        threads.append(threading.current_thread())
        begun.set()
        may_end.wait(PATIENCE_S)

    pool.submit(call)
    assert begun.wait(PATIENCE_S)
    return threads[0], may_end.set


def test_only_so_many_threads_may_hang_and_one_that_comes_back_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    pool = ThreadPool(1, "test-stuck")
    calls = [hang(pool)]
    for _ in range(MOST_STUCK):
        pool.give_up(calls[-1][0])
        calls.append(hang(pool))
    done = threading.Event()

    pool.give_up(calls[-1][0])
    pool.submit(done.set)
    is_starved = not done.is_set()
    calls[0][1]()

    assert done.wait(PATIENCE_S)
    assert is_starved
    assert f"{MOST_STUCK + 1} calls do not end; no thread replaces test-stuck-{MOST_STUCK + 1}" in caplog.text
    for thread, let_end in calls[1:]:
        let_end()
        thread.join(PATIENCE_S)
    assert [thread.is_alive() for thread, _ in calls] == [True] + [False] * MOST_STUCK
    pool.shutdown()


def test_a_thread_that_was_not_replaced_is_counted_on_again_when_it_comes_back() -> None:
    pool = ThreadPool(1, "test-stuck")
    calls = [hang(pool)]
    for _ in range(MOST_STUCK):
        pool.give_up(calls[-1][0])
        calls.append(hang(pool))
    pool.give_up(calls[-1][0])
    calls[-1][1]()
    done = threading.Event()

    pool.submit(done.set)

    assert done.wait(PATIENCE_S)
    for thread, let_end in calls[:-1]:
        let_end()
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread, _ in calls[:-1])
    pool.shutdown()


def test_a_fresh_thread_is_used_before_another_is_made() -> None:
    pool = ThreadPool(3, "test-fresh")
    thread, let_end = hang(pool)
    pool.give_up(thread)

    fresh, let_fresh_end = hang(pool)

    assert (thread.name, fresh.name) == ("test-fresh-1", "test-fresh-2")
    assert not [thread for thread in threading.enumerate() if thread.name == "test-fresh-3"]
    let_end()
    let_fresh_end()
    pool.shutdown()


def test_a_pool_that_is_shut_down_replaces_nothing() -> None:
    pool = ThreadPool(1, "test-shut")
    thread, let_end = hang(pool)
    pool.shutdown()
    before = threading.active_count()

    pool.give_up(thread)

    assert threading.active_count() == before
    let_end()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_timers_that_are_over_are_not_kept_until_they_are_due() -> None:
    wanted: set[int] = set()
    timers: Timers[int] = Timers(lambda item: item not in wanted)
    wanted |= {1, 2}
    for number in range(100_000):
        timers.add(7200.0 + number, number)

    assert len(timers) < 200
    assert {1, 2} <= set(timers.pop_due(1e9))
