"""What is not the workflow's doing: stores that cannot be read, nodes that break the rules, handlers of C."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from abstractgateway.errors import GatewayError, Unavailable
from abstractgateway.runtime import (
    Commit,
    Effect,
    EffectOutcome,
    EffectType,
    RunState,
    RunStatus,
    StepPlan,
    WaitReason,
    create_scheduled_runtime,
    journal,
)
from tests.runtime.test_effect_journal import TOOL, crashed
from tests.runtime.workflows import Calls, World, ask_then_end, call_then_end, effect, end, outline, spec
from tests.stores.shapes import a_run, write

PATIENCE_S = 10.0


def test_a_store_that_cannot_be_read_during_a_step_fails_no_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    look = effect("look", EffectType.VARS_QUERY, {"target_run_id": "other"}, then="end", key="found")
    workflow = spec("looks", look=look, end=end("end", "found"))
    runtime = world.runtime({}, workflow)
    run_id = runtime.start(workflow=workflow)
    before = world.state(run_id)
    read = world.stores.runs.open

    def unreadable(wanted: str) -> Any:
        if wanted == "other":
            raise Unavailable("the disk is away", code="store_failed")
        return read(wanted)

    with monkeypatch.context() as patched:
        patched.setattr(world.stores.runs, "open", unreadable)
        with pytest.raises(Unavailable, match="away"):
            runtime.tick(workflow=workflow, run_id=run_id)

    assert world.state(run_id) == before
    assert runtime.tick(workflow=workflow, run_id=run_id).status is RunStatus.COMPLETED


def test_looking_into_a_run_whose_checkpoint_is_damaged_is_a_failed_effect(world: World) -> None:
    damaged = replace(write(a_run("other")), body=b'{"run_id": "other", "status": "walking"}')
    world.stores.commit(Commit(runs=(damaged,)))
    look = effect("look", EffectType.VARS_QUERY, {"target_run_id": "other"}, then="end")
    workflow = spec("looks", look=look, end=end("end"))
    runtime = world.runtime({}, workflow)
    run_id = runtime.start(workflow=workflow)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.status is RunStatus.FAILED
    assert "run: is not a stored run" in str(state.error)
    assert ("look", "failed", "vars_query") in outline(world.ledger(run_id))


@pytest.mark.parametrize("scope", ["galaxy", "workflow."])
def test_an_effect_of_the_kernel_that_makes_no_sense_fails_the_run_with_what_is_wrong(world: World, scope: str) -> None:
    emit = effect("emit", EffectType.EMIT_EVENT, {"name": "x", "scope": scope}, then="end")
    workflow = spec("emits", emit=emit, end=end("end"))
    runtime = world.runtime({}, workflow)
    run_id = runtime.start(workflow=workflow)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.status is RunStatus.FAILED
    assert f"scope: {scope!r} is not one of session" in str(state.error)


def test_a_node_that_ends_its_run_itself_and_then_breaks_leaves_it_as_it_is_stored(world: World) -> None:
    def break_rules(run: RunState, ctx: Any) -> StepPlan:
        run.status = RunStatus.COMPLETED
        raise ValueError("too late")

    workflow = spec("breaks", node=break_rules)
    runtime = world.runtime({}, workflow)
    run_id = runtime.start(workflow=workflow)

    with pytest.raises(GatewayError, match="ValueError: too late") as refused:
        runtime.tick(workflow=workflow, run_id=run_id)

    assert refused.value.code == "kernel_fault"
    assert world.state(run_id).status is RunStatus.RUNNING


def test_a_reconciler_that_knows_nothing_of_a_run_that_was_cancelled_meanwhile_adds_nothing(world: World) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)

    def cancelling(run: RunState, asked: Effect, key: str) -> None:
        world.runtime().cancel_run(run.run_id)
        lengths.append(len(world.ledger(run_id)))

    lengths: list[int] = []
    state = world.runtime(reconcilers={EffectType.TOOL_CALLS: cancelling}).tick(workflow=TOOL, run_id=run_id)

    assert state.status is RunStatus.CANCELLED
    assert lengths == [len(world.ledger(run_id))]


def test_an_answer_about_an_effect_that_is_not_known_any_more_lets_the_run_go_on(world: World) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)
    handler = Calls()
    runtime = world.runtime({EffectType.TOOL_CALLS: handler})
    asked = runtime.tick(workflow=TOOL, run_id=run_id)
    assert asked.waiting is not None and (asked.waiting.wait_key or "").startswith("in_doubt")
    asked.vars["_runtime"].pop(journal.SLOT)
    world.stores.runs.save(asked)

    state = runtime.resume(workflow=TOOL, run_id=run_id, wait_key=asked.waiting.wait_key, payload={"response": "retry"})

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 1)


def test_a_handler_that_tells_no_signature_is_called_with_everything(world: World) -> None:
    seen: list[Any] = []
    handler = partial(max, key=lambda argument: seen.append(argument) or len(seen))
    workflow = call_then_end()
    runtime = world.runtime({EffectType.LLM_CALL: handler}, workflow)

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert [type(argument) for argument in seen] == [RunState, Effect, str]
    assert seen[2] == "end"
    assert state.status is RunStatus.FAILED  # what it returned is the last of them, and no outcome


def test_stopping_does_not_wait_for_ever_for_a_run_that_is_being_ticked(caplog: pytest.LogCaptureFixture) -> None:
    entered, released = threading.Event(), threading.Event()

    def slow(run: RunState, asked: Effect, default_next_node: str | None) -> EffectOutcome:
        entered.set()
        released.wait(PATIENCE_S)
        return EffectOutcome.completed({})

    sr = create_scheduled_runtime(effect_handlers={EffectType.LLM_CALL: slow}, poll_interval_s=0.001)
    workflow = call_then_end()
    sr.registry.register(workflow)
    run_id = sr.runtime.start(workflow=workflow)
    assert entered.wait(PATIENCE_S)
    thread = sr.scheduler._thread
    assert thread is not None

    sr.scheduler.stop(timeout=0.01)

    assert "did not stop within 0.01 s" in caplog.text
    released.set()
    thread.join(PATIENCE_S)
    assert sr.get_state(run_id).status is RunStatus.COMPLETED


def test_polling_goes_on_after_whatever_a_store_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    sr = create_scheduled_runtime(auto_start=False, poll_interval_s=0.001)
    poll, polled = sr.scheduler.poll_once, threading.Event()
    troubles = iter([OSError("the disk is away")])

    def troubled() -> int:
        trouble = next(troubles, None)
        if trouble is not None:
            raise trouble
        polled.set()
        return poll()

    monkeypatch.setattr(sr.scheduler, "poll_once", troubled)
    sr.start_scheduler()

    assert polled.wait(PATIENCE_S)
    sr.stop()
    assert [error.endswith("OSError: the disk is away") for error in sr.stats.errors] == [True]


def test_a_scheduled_runtime_has_the_ledgers_and_ends_runs() -> None:
    sr = create_scheduled_runtime(auto_start=False)
    run_id, state = sr.run(ask_then_end())
    assert state.waiting is not None and state.waiting.reason is WaitReason.USER

    cancelled = sr.cancel_run(run_id, reason="enough")

    assert (cancelled.status, cancelled.error) == (RunStatus.CANCELLED, "enough")
    assert sr.get_ledger(run_id) == sr.runtime.get_ledger(run_id) != []
