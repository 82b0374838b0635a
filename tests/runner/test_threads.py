from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.clock import SystemClock
from abstractgateway.runner import RunnerLock
from abstractgateway.runtime import EffectOutcome, EffectType, RunState, RunStatus
from abstractgateway.stores import open_file_stores
from tests.runner.bench import PATIENCE_S, Bench
from tests.runtime.workflows import Calls, ask_then_end, call_then_end, effect, end, loop, spec

FOREVER = 10**6


class Gate:
    """A handler that says when it was called, and returns when it may."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.calls = 0

    def __call__(self, run: RunState, effect: object) -> EffectOutcome:
        self.calls += 1
        self.begun.set()
        assert self.may_end.wait(PATIENCE_S)
        return EffectOutcome.completed({"content": "late"})


class Counting:
    """A handler that counts its calls by idempotent request: run and round."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, run: RunState, effect: object) -> EffectOutcome:
        with self._lock:
            self.calls[(run.run_id, run.vars["round"])] += 1
        return EffectOutcome.completed({"ok": True})


def threads() -> set[str]:
    return {
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("gateway-run", "gateway-adv", "gateway-eff"))
    }


def test_many_runs_at_once_perform_each_effect_once(live: Bench) -> None:
    handler = Counting()
    live.handlers = {EffectType.LLM_CALL: handler}
    runner = live.runner(inline=False)
    runner.start()
    workflow = loop(8, EffectType.LLM_CALL, {"prompt": "x"})
    ids: list[str] = []

    starters = [threading.Thread(target=lambda: ids.extend(live.start(workflow) for _ in range(10))) for _ in range(4)]
    live.know(workflow)
    for thread in starters:
        thread.start()
    for thread in starters:
        thread.join()
    live.wait_for_end(*ids)
    runner.stop()

    assert len(ids) == 40
    assert {live.state(run_id).status for run_id in ids} == {RunStatus.COMPLETED}
    assert handler.calls == Counter({(run_id, number): 1 for run_id in ids for number in range(1, 9)})


def test_an_effect_is_not_performed_whose_run_is_cancelled_between_the_intent_and_its_beginning() -> None:
    bench = Bench(clock=SystemClock())
    gate, is_durable, may_go_on = Gate(), threading.Event(), threading.Event()
    bench.handlers = {EffectType.LLM_CALL: gate}
    submit = bench.stores.submit

    def slow(commit: Any, done: Any) -> None:
        def late(receipt: Any, error: Any) -> None:
            is_durable.set()
            assert may_go_on.wait(PATIENCE_S)
            done(receipt, error)

        submit(commit, done if is_durable.is_set() else late)

    bench.stores.submit = slow
    runner = bench.runner(inline=False)
    runner.start()
    run_id = bench.start(call_then_end())
    assert is_durable.wait(PATIENCE_S)
    command = bench.send(run_id, "cancel")
    bench.wait_for(lambda: bench.outcome(command)[0] == "applied")
    may_go_on.set()
    bench.wait_for(lambda: bench.state(run_id).status is RunStatus.CANCELLED and len(bench.ledger(run_id)) >= 3)
    runner.stop()

    assert gate.calls == 0
    assert "not wanted any more" in str(bench.ledger(run_id)[-1]["error"])


@pytest.mark.parametrize("type", ["pause", "cancel"])
def test_a_command_reaches_a_run_whose_effect_is_under_way(live: Bench, type: str) -> None:
    gate = Gate()
    live.handlers = {EffectType.LLM_CALL: gate}
    runner = live.runner(inline=False)
    runner.start()
    run_id = live.start(call_then_end())
    assert gate.begun.wait(PATIENCE_S)
    command = live.send(run_id, type)
    live.wait_for(lambda: live.outcome(command)[0] == "applied")
    status = live.state(run_id).status
    revision = live.stores.runs.open(run_id).revision
    gate.may_end.set()

    live.wait_for(lambda: len(live.ledger(run_id)) >= (3 if type == "cancel" else 2))
    if type == "pause":
        live.send(run_id, "resume")
    live.wait_for_end(run_id)
    runner.stop()

    state = live.state(run_id)
    assert (revision, gate.calls) == (3, 1)
    if type == "pause":
        assert (status, state.status, state.output) == (
            RunStatus.WAITING,
            RunStatus.COMPLETED,
            {"said": {"content": "late"}},
        )
    else:
        assert (status, state.status) == (RunStatus.CANCELLED, RunStatus.CANCELLED)
        assert live.ledger(run_id)[-1]["result"]["discarded"] is True


def test_commands_that_race_with_running_effects_lose_nothing(live: Bench) -> None:
    handler = Counting()
    live.handlers = {EffectType.LLM_CALL: handler}
    runner = live.runner(inline=False)
    runner.start()
    workflow = loop(FOREVER, EffectType.LLM_CALL, {"prompt": "x"})
    ids = [live.start(workflow) for _ in range(4)]
    sent = []
    for number in range(12):
        for run_id in ids:
            sent.append(live.send(run_id, "pause" if number % 2 == 0 else "resume"))
        live.wait_for(lambda: live.outcome(sent[-1])[0] != "pending")

    sent += [live.send(run_id, "cancel") for run_id in ids]
    live.wait_for(lambda: live.outcome(sent[-1])[0] != "pending")
    runner.stop()

    assert Counter(live.outcome(command) for command in sent) == {("applied", None): len(sent)}
    assert {live.state(run_id).status for run_id in ids} == {RunStatus.CANCELLED}
    assert set(handler.calls.values()) == {1}
    for run_id in ids:
        records = live.ledger(run_id)
        open_steps = {r["step_id"] for r in records if r["status"] == "started"} - {
            r["step_id"] for r in records if r["status"] != "started"
        }
        assert open_steps == set()


def test_answers_reach_runs_that_were_not_waiting_when_they_were_started(live: Bench) -> None:
    runner = live.runner(inline=False)
    runner.start()
    live.know(ask_then_end())
    ids = [live.start(ask_then_end()) for _ in range(30)]
    live.wait_for(lambda: all(live.state(run_id).waiting for run_id in ids))
    for run_id in ids:
        live.send(run_id, "resume", {"payload": {"response": run_id}})

    live.wait_for_end(*ids)
    runner.stop()

    assert [live.state(run_id).output for run_id in ids] == [{"answer": {"response": run_id}} for run_id in ids]


def test_a_timer_fires_by_itself(live: Bench) -> None:
    runner = live.runner(inline=False)
    runner.start()
    until = (datetime.now(timezone.utc) + timedelta(seconds=0.2)).isoformat()
    run_id = live.start(
        spec("timer", wait=effect("wait", EffectType.WAIT_UNTIL, {"until": until}, then="end"), end=end())
    )

    live.wait_for_end(run_id)
    ended = datetime.now(timezone.utc)
    runner.stop()

    assert ended >= datetime.fromisoformat(until)


def test_the_end_of_a_child_and_events_between_runs_wake_them(live: Bench) -> None:
    heard = effect("wait", EffectType.WAIT_EVENT, {"name": "go", "scope": "global"}, then="end")
    live.know(spec("hears", wait=heard, end=end()))
    started = effect("start", EffectType.START_SUBWORKFLOW, {"workflow_id": "hears"}, then="end")
    runner = live.runner(inline=False)
    runner.start()
    parents = [live.start(spec(f"parent-{n}", start=started, end=end())) for n in range(10)]
    live.wait_for(lambda: len(live.stores.runs.waiting_on(["evt:global:global:go"])) == 10)

    live.send("any", "emit_event", {"name": "go", "scope": "global"})
    live.wait_for_end(*parents)
    runner.stop()

    assert {live.state(run_id).status for run_id in parents} == {RunStatus.COMPLETED}


def test_an_effect_that_ends_while_the_runner_stops_is_taken_in(live: Bench) -> None:
    gate = Gate()
    live.handlers = {EffectType.LLM_CALL: gate}
    runner = live.runner(inline=False)
    runner.start()
    run_id = live.start(call_then_end())
    assert gate.begun.wait(PATIENCE_S)
    threading.Timer(0.1, gate.may_end.set).start()

    runner.stop()
    stopped = live.state(run_id)
    live.runner().run_until_idle()

    assert stopped.vars["said"] == {"content": "late"}
    assert (live.state(run_id).status, gate.calls) == (RunStatus.COMPLETED, 1)


def test_a_runner_does_not_wait_for_effects_for_ever_when_it_stops(live: Bench) -> None:
    gate = Gate()
    live.handlers = {EffectType.TOOL_CALLS: gate}
    runner = live.runner(inline=False)
    runner.start()
    run_id = live.start(call_then_end(EffectType.TOOL_CALLS, {"tool_calls": []}))
    assert gate.begun.wait(PATIENCE_S)

    runner.stop(timeout_s=0.1)
    gate.may_end.set()
    live.runner().run_until_idle()

    waiting = live.state(run_id).waiting
    assert waiting is not None
    assert waiting.wait_key == f"in_doubt:{run_id}:1"


def test_a_runner_that_is_stopped_leaves_no_thread(live: Bench) -> None:
    before = threads()
    live.handlers = {EffectType.LLM_CALL: Calls()}
    runner = live.runner(inline=False)
    runner.start()
    live.wait_for_end(*[live.start(call_then_end()) for _ in range(5)])
    during = threads() - before

    runner.stop()
    for thread in threading.enumerate():
        if thread.name in during:
            thread.join(PATIENCE_S)

    assert {"gateway-runner", "gateway-advance-0"} <= during
    assert threads() == before


def test_stopping_twice_or_before_the_start_does_nothing(live: Bench) -> None:
    runner = live.runner(inline=False)

    runner.stop()
    runner.stop()

    assert not runner.is_owner


def test_a_second_runner_on_a_directory_stands_by_and_takes_over(tmp_path: Path) -> None:
    lock = tmp_path / "gateway_runner.lock"
    benches = [Bench(open_file_stores(tmp_path), clock=SystemClock()) for _ in range(2)]
    for bench in benches:
        bench.know(ask_then_end())
    first, second = (bench.runner(inline=False, lock=RunnerLock(lock)) for bench in benches)
    first.start()
    run_id = benches[0].start(ask_then_end())
    benches[0].wait_for(lambda: benches[0].state(run_id).waiting is not None)
    second.start()
    stands_by = second.is_owner

    first.stop()
    benches[0].send(run_id, "resume", {"payload": {"response": "yes"}})
    benches[1].wait_for_end(run_id)
    owns = second.is_owner
    second.stop()
    for bench in benches:
        bench.stores.close()

    assert (stands_by, owns) == (False, True)


def test_a_lock_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    first, second = (RunnerLock(tmp_path / "deep" / "lock") for _ in range(2))

    taken = (first.try_acquire(), first.try_acquire(), second.try_acquire(), second.is_held)
    text = first.path.read_text()
    second.release()
    first.release()

    assert taken == (True, True, False, False)
    assert text.startswith("pid=")
    assert second.try_acquire()
    second.release()


def test_a_node_that_takes_its_time_keeps_no_other_run_waiting(live: Bench) -> None:
    may_end = threading.Event()

    def slow(run: RunState, ctx: Any) -> Any:
        assert may_end.wait(PATIENCE_S)
        return end()(run, ctx)

    runner = live.runner(inline=False)
    runner.start()
    blocking = live.start(spec("slow", slow=slow))
    quick = [live.start(spec(f"quick-{n}", end=end())) for n in range(10)]

    live.wait_for_end(*quick)
    status = live.state(blocking).status
    may_end.set()
    live.wait_for_end(blocking)
    runner.stop()

    assert status is RunStatus.RUNNING
