"""Pieces of results on their way to listeners, and the signal that nobody wants the rest."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from abstractgateway.runner.deltas import Delta, Deltas
from abstractgateway.runner.performances import Performances
from abstractgateway.runner.pool import ThreadPool
from abstractgateway.runner.stop import StopSignal
from abstractgateway.runtime import Effect, EffectOutcome, EffectType, NoRetryPolicy, RunState
from abstractgateway.runtime.execution import PendingEffect
from abstractgateway.runtime.models import StepRecord, StepStatus
from abstractgateway.runtime.signals import Stop
from tests.runner.bench import PATIENCE_S, Bench
from tests.runtime.workflows import call_then_end, effect, end, spec

PARENTS = {"child": "middle", "middle": "root"}
MODEL = call_then_end()


def source(deltas: Deltas, stop: StopSignal | None = None) -> Any:
    run = RunState.new(workflow_id="w", entry_node="n", vars={}, parent_run_id="middle")
    run.run_id = "child"
    record = StepRecord(run_id="child", step_id="s", node_id="n", status=StepStatus.STARTED, attempt=2)
    pending = PendingEffect(Effect(EffectType.LLM_CALL, {}), record, 7, None, 0.0)
    return deltas.source(run, pending, stop or StopSignal())


def test_listeners_of_a_run_hear_of_it_and_of_the_runs_below_it() -> None:
    deltas, heard = Deltas(PARENTS.get), []
    for name in ("root", "middle", "child", "other"):
        deltas.subscribe(name, lambda delta, name=name: heard.append((name, delta)))  # type: ignore[misc]

    source(deltas)({"content": "a"})

    assert [name for name, _ in heard] == ["child", "middle", "root"]
    assert heard[0][1] == Delta("child", "n", "s", 2, 7, {"content": "a", "offset": 0})


def test_offsets_count_by_kind_and_begin_again_after_a_restart() -> None:
    deltas, heard = Deltas(PARENTS.get), []
    deltas.subscribe("root", lambda delta: heard.append(delta.piece))
    give = source(deltas)

    for piece in (
        {"content": "ab"},
        {"reasoning": "x"},
        {"content": "c"},
        {"restart": True},
        {"content": "d"},
        {"odd": 1},
        {"content": 5},
    ):
        give(piece)

    assert heard == [
        {"content": "ab", "offset": 0},
        {"reasoning": "x", "offset": 0},
        {"content": "c", "offset": 2},
        {"restart": True},
        {"content": "d", "offset": 0},
    ]


def test_a_late_listener_is_told_how_much_it_missed() -> None:
    deltas, heard = Deltas(PARENTS.get), []
    give = source(deltas)
    give({"content": "abc"})

    deltas.subscribe("child", lambda delta: heard.append(delta.piece))
    give({"content": "d"})

    assert heard == [{"content": "d", "offset": 3}]


def test_nothing_is_looked_up_where_nobody_listens() -> None:
    looked_up: list[str] = []

    def note(run_id: str) -> str | None:
        looked_up.append(run_id)
        return None

    source(Deltas(note))({"content": "a"})

    assert looked_up == []


def test_a_listener_is_taken_off_once_and_leaves_nothing() -> None:
    deltas, heard = Deltas(PARENTS.get), []
    first, second = (deltas.subscribe("root", heard.append) for _ in range(2))

    first()
    first()
    source(deltas)({"content": "a"})
    second()
    source(deltas)({"content": "b"})

    assert len(heard) == 1
    assert not deltas.has_listeners


def test_what_comes_after_the_end_reaches_nobody() -> None:
    deltas, heard, stop = Deltas(PARENTS.get), [], StopSignal()
    deltas.subscribe("root", heard.append)
    give = source(deltas, stop)

    stop.set()
    give({"content": "a"})

    assert heard == []


def test_half_a_character_can_be_written_as_json() -> None:
    assert Delta("r", "n", "s", 1, 1, {"content": "\ud83d", "offset": 0}).body.endswith(
        b'"content": "\\ud83d", "offset": 0}'
    )


def test_a_signal_calls_what_was_not_taken_back_and_goes_on_after_a_failure() -> None:
    stop, called = StopSignal(), []
    stop.on_set(lambda: 1 / 0)
    take_back = stop.on_set(lambda: called.append("taken back"))
    stop.on_set(lambda: called.append("kept"))

    take_back()
    stop.set()
    stop.set()
    stop.on_set(lambda: called.append("late"))

    assert called == ["kept", "late"]


class Patient:
    """A handler that waits until it is told to stop."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.stops: list[Stop] = []

    def __call__(self, run: RunState, effect: Effect, stop: Stop) -> EffectOutcome:
        self.stops.append(stop)
        self.begun.set()
        assert stop.wait(PATIENCE_S)
        return EffectOutcome.completed({"content": "late"})


@pytest.fixture
def patient(bench: Bench) -> Patient:
    handler = Patient()
    bench.handlers = {EffectType.LLM_CALL: handler}
    return handler


def results(bench: Bench, run_id: str) -> list[Any]:
    return [r["result"] for r in bench.ledger(run_id) if isinstance(r["result"], dict) and r["result"].get("discarded")]


def test_the_effect_of_a_cancelled_run_is_told_to_stop_and_what_it_brings_is_discarded(
    bench: Bench, patient: Patient
) -> None:
    runner = bench.runner(inline=False)
    runner.start()
    run_id = bench.start(MODEL)
    assert patient.begun.wait(PATIENCE_S)

    bench.send(run_id, "cancel")
    bench.wait_for(lambda: bool(results(bench, run_id)))
    runner.stop()

    assert results(bench, run_id) == [{"discarded": True, "run_status": "cancelled", "result": {"content": "late"}}]


def test_cancelling_a_run_stops_the_effects_of_the_runs_below_it(bench: Bench, patient: Patient) -> None:
    bench.know(MODEL)
    parent = spec(
        "parent", go=effect("go", EffectType.START_SUBWORKFLOW, {"workflow_id": "calls"}, then="end"), end=end()
    )
    runner = bench.runner(inline=False)
    runner.start()
    run_id = bench.start(parent)
    assert patient.begun.wait(PATIENCE_S)

    bench.send(run_id, "cancel")
    (child,) = bench.stores.runs.children_of(run_id)
    bench.wait_for(lambda: bool(results(bench, child)))
    runner.stop()

    assert bench.state(child).status.value == "cancelled"


def test_an_effect_whose_time_is_up_is_told_to_stop(bench: Bench, patient: Patient) -> None:
    bench.options = {"effect_policy": NoRetryPolicy(timeout=10)}
    runner = bench.runner(inline=False)
    runner.start()
    run_id = bench.start(MODEL)
    assert patient.begun.wait(PATIENCE_S)

    bench.clock.move(10)
    bench.send("nobody", "emit_event", {"name": "look", "scope": "global"})
    bench.wait_for(lambda: bool(results(bench, run_id)) and bench.state(run_id).status.value == "failed")
    runner.stop()

    (late,) = results(bench, run_id)  # it may come back before or after the commit that fails its run
    assert (late["discarded"], late["result"]) == (True, {"content": "late"})


def test_an_effect_that_waits_for_a_thread_is_not_begun_for_a_cancelled_run(bench: Bench, patient: Patient) -> None:
    runner = bench.runner(inline=False, effect_workers=1)
    runner.start()
    first = bench.start(MODEL)
    assert patient.begun.wait(PATIENCE_S)
    second = bench.start(MODEL)
    bench.wait_for(lambda: len(bench.ledger(second)) == 1)

    bench.send(second, "cancel")
    bench.wait_for(lambda: bench.state(second).status.is_terminal)
    bench.send(first, "cancel")
    bench.wait_for(lambda: bool(results(bench, second)))
    runner.stop()

    assert len(patient.stops) == 1
    assert results(bench, second) == [{"discarded": True, "run_status": "cancelled", "result": None}]


def test_a_runner_that_stops_tells_its_effects_and_leaves_them_in_doubt(bench: Bench, patient: Patient) -> None:
    runner = bench.runner(inline=False)
    runner.start()
    run_id = bench.start(MODEL)
    assert patient.begun.wait(PATIENCE_S)

    runner.stop(timeout_s=0.01)
    is_told = patient.stops[0].is_set()
    bench.handlers = {EffectType.LLM_CALL: lambda run, effect: EffectOutcome.completed({"content": "again"})}
    bench.runner().run_until_idle()

    assert is_told
    assert bench.state(run_id).output == {"said": {"content": "again"}}


def test_what_abandoned_effects_bring_is_not_taken_in() -> None:
    begun, over = threading.Event(), threading.Event()
    taken: list[Any] = []

    def perform(state: Any, pending: Any, signals: Any) -> EffectOutcome:
        begun.set()
        assert signals.stop.wait(PATIENCE_S)
        return EffectOutcome.failed("stopped")

    performances = Performances(
        runtime=SimpleNamespace(perform=perform),  # type: ignore[arg-type]
        pool=ThreadPool(1, "abandoned"),
        deltas=Deltas(PARENTS.get),
        on_outcome=lambda *given: taken.append(given),
        on_late=lambda *given: over.set(),
        on_deadline=lambda *given: None,
        has_ended=lambda run_id: False,
    )
    pending = PendingEffect(
        Effect(EffectType.LLM_CALL, {}), StepRecord("r", "s", "n", StepStatus.STARTED), 1, None, 0.0
    )
    performances.begin(SimpleNamespace(state=SimpleNamespace(run_id="r"), pending=pending))  # type: ignore[arg-type]
    assert begun.wait(PATIENCE_S)

    performances.abandon()

    assert over.wait(PATIENCE_S)
    assert taken == []
    assert not performances.is_under_way("r")


def test_outside_a_gateway_there_is_nobody_to_stop_an_effect(bench: Bench) -> None:
    told: list[Any] = []

    def handler(run: RunState, effect: Effect, stop: Any, on_delta: Any) -> EffectOutcome:
        told.extend((stop, on_delta))
        return EffectOutcome.completed({})

    bench.handlers = {EffectType.LLM_CALL: handler}
    run_id = bench.start(MODEL, actor_id="me")
    bench.runtime().tick(workflow=MODEL, run_id=run_id)

    assert told == [None, None]
