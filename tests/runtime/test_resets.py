from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.runtime import (
    Effect,
    EffectOutcome,
    EffectType,
    RunState,
    RunStatus,
    StepPlan,
    StepRecord,
    WorkflowSpec,
    compute_idempotency_key,
)
from abstractgateway.stores import open_file_stores, open_sqlite_stores
from abstractgateway.stores.base import Stores
from tests.postgres.server import open_test_database
from tests.runtime.workflows import Calls, Json, World, ask_then_end, call_then_end, effect, end, loop, spec

LLM = EffectType.LLM_CALL


def ended(world: World, workflow: WorkflowSpec, handler: Calls, **options: Any) -> str:
    runtime = world.runtime({LLM: handler, EffectType.TOOL_CALLS: handler}, workflow, **options)
    run_id = runtime.start(workflow=workflow)
    state = runtime.tick(workflow=workflow, run_id=run_id, max_steps=1000)
    assert state.status.is_terminal
    return run_id


def reset(world: World, workflow: WorkflowSpec, run_id: str, **vars: Any) -> None:
    state = world.state(run_id)
    state.status, state.current_node, state.output, state.error = RunStatus.RUNNING, workflow.entry_node, None, None
    state.vars |= vars
    world.stores.runs.save(state)


def again(world: World, workflow: WorkflowSpec, run_id: str, handler: Calls) -> RunState:
    runtime = world.runtime({LLM: handler, EffectType.TOOL_CALLS: handler})
    return runtime.tick(workflow=workflow, run_id=run_id, max_steps=1000)


def test_a_run_that_is_put_back_to_its_start_finds_its_results_again(world: World) -> None:
    workflow = call_then_end()
    run_id = ended(world, workflow, Calls(EffectOutcome.completed({"content": "first"})))
    length = len(world.ledger(run_id))
    reset(world, workflow, run_id, said=None)
    handler = Calls()

    state = again(world, workflow, run_id, handler)

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 0)
    assert state.output == {"said": {"content": "first"}}
    added = world.ledger(run_id)[length:]
    assert [record["result"].get("completed") for record in added] == [True, None]
    steps = state.vars["_runtime"]["node_traces"]["call"]["steps"]
    assert [entry["reused_prior_result"] for entry in steps] == [False, True]
    assert set(state.vars["_runtime"]) == {"node_traces", "budget"}


@pytest.mark.parametrize("open_stores", [open_file_stores, open_sqlite_stores, open_test_database])
def test_results_are_found_again_after_the_stores_were_opened_anew(
    tmp_path: Path, open_stores: Callable[[Path], Stores]
) -> None:
    workflow = call_then_end()
    handler = Calls()
    with closing(open_stores(tmp_path / "data")) as stores:
        world = World(stores)
        run_id = ended(world, workflow, handler)
        reset(world, workflow, run_id)

    with closing(open_stores(tmp_path / "data")) as stores:
        state = again(World(stores), workflow, run_id, handler)

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 1)


def test_every_effect_of_the_run_is_found_again(world: World) -> None:
    workflow = spec(
        "calls",
        a=effect("a", LLM, {"prompt": "a"}, then="say", key="a"),
        say=effect("say", EffectType.ANSWER_USER, {"message": "hi"}, then="b"),
        b=effect("b", LLM, {"prompt": "b"}, key="b"),
    )
    run_id = ended(world, workflow, Calls(*(EffectOutcome.completed({"content": name}) for name in "ab")))
    length = len(world.ledger(run_id))
    reset(world, workflow, run_id)
    handler = Calls()

    state = again(world, workflow, run_id, handler)

    assert len(handler) == 0
    assert state.output == {"success": True, "result": {"content": "b"}}
    assert [record["idempotency_key"] for record in world.ledger(run_id)[length:]] == [
        "system:terminal_status:completed"
    ]


def test_results_are_found_again_step_by_step_and_across_restarts(world: World) -> None:
    workflow = loop(3, LLM, {"prompt": "same"})
    run_id = ended(world, workflow, Calls())
    reset(world, workflow, run_id, round=0)
    handler = Calls()

    for _ in range(4):
        state = world.runtime({LLM: handler}).tick(workflow=workflow, run_id=run_id, max_steps=1)

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 0)


def test_a_run_that_goes_further_than_before_performs_what_is_new(world: World) -> None:
    workflow = loop(2, LLM, {"prompt": "same"})
    run_id = ended(world, workflow, Calls())
    longer = loop(5, LLM, {"prompt": "same"})
    reset(world, longer, run_id, round=0)
    handler = Calls()

    state = again(world, longer, run_id, handler)

    assert (state.output, len(handler)) == ({"rounds": 5}, 3)


@pytest.mark.parametrize(
    "first", [EffectOutcome.failed("no"), EffectOutcome.completed(None)], ids=["failed", "without a result"]
)
def test_an_effect_without_a_result_is_performed_again(world: World, first: EffectOutcome) -> None:
    workflow = call_then_end()
    run_id = ended(world, workflow, Calls(first))
    reset(world, workflow, run_id)
    handler = Calls()

    state = again(world, workflow, run_id, handler)

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 1)


def test_a_person_who_was_asked_is_asked_again(world: World) -> None:
    workflow = ask_then_end()
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    runtime.tick(workflow=workflow, run_id=run_id)
    runtime.resume(workflow=workflow, run_id=run_id, wait_key=None, payload={"text": "x"})
    reset(world, workflow, run_id)

    state = again(world, workflow, run_id, Calls())

    assert state.waiting is not None
    assert state.waiting.prompt == "Continue?"


def test_a_discarded_outcome_is_not_a_result(world: World) -> None:
    workflow = call_then_end()

    def cancelled(run: RunState) -> EffectOutcome:
        world.runtime().cancel_run(run.run_id)
        return EffectOutcome.completed({"content": "late"})

    run_id = ended(world, workflow, Calls(cancelled))
    assert world.ledger(run_id)[-1]["result"]["discarded"] is True
    reset(world, workflow, run_id)
    handler = Calls()

    state = again(world, workflow, run_id, handler)

    assert (state.output, len(handler)) == ({"said": {"ok": True}}, 1)


def test_the_first_result_of_an_effect_counts(world: World) -> None:
    workflow = call_then_end()
    run_id = ended(world, workflow, Calls(EffectOutcome.completed({"content": "first"})))
    record = StepRecord.from_dict(world.ledger(run_id)[1])
    world.stores.ledger.append(record.finish_success({"content": "second"}))
    reset(world, workflow, run_id)

    state = again(world, workflow, run_id, Calls())

    assert state.output == {"said": {"content": "first"}}


@pytest.mark.parametrize(("prompt", "calls"), [("known to the checkpoint", 1), ("hi", 0)])
def test_of_a_run_left_in_the_middle_only_the_last_result_is_found_again(world: World, prompt: str, calls: int) -> None:
    workflow = call_then_end(payload={"prompt": prompt})
    runtime = world.runtime({LLM: Calls()})
    run_id = runtime.start(workflow=workflow)
    for text in ("known to the checkpoint", "hi"):
        asked = Effect(LLM, {"prompt": text})
        key = compute_idempotency_key(run_id=run_id, node_id="call", effect=asked)
        record = StepRecord.start(world.state(run_id), "call", asked, idempotency_key=key)
        world.stores.ledger.append(record.finish_success({"content": text}))
    handler = Calls()

    state = again(world, workflow, run_id, handler)

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, calls)


def test_tool_calls_are_found_again_under_the_ids_of_another_provider(world: World) -> None:
    def tools(call_id: str) -> WorkflowSpec:
        calls = {"tool_calls": [{"name": "pay", "arguments": {}, "call_id": call_id}]}
        return call_then_end(EffectType.TOOL_CALLS, calls)

    run_id = ended(world, tools("one"), Calls())
    reset(world, tools("two"), run_id)
    handler = Calls()

    state = again(world, tools("two"), run_id, handler)

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 0)


def test_a_step_that_draws_random_values_draws_them_again(world: World) -> None:
    def draw(run: RunState, ctx: Any) -> StepPlan:
        return StepPlan("draw", effect=Effect(LLM, {"prompt": ctx.new_id()}, "said"), next_node="end")

    workflow = spec("draws", draw=draw, end=end("end", "said"))
    run_id = ended(world, workflow, Calls())
    reset(world, workflow, run_id)
    handler = Calls()

    again(world, workflow, run_id, handler)

    assert len(handler) == 0


def test_an_ordinary_run_never_looks_into_its_ledger(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    ledger = world.stores.ledger
    monkeypatch.setattr(ledger, "read_record", lambda run_id, cursor: read.append(cursor))

    run_id = ended(world, loop(20, LLM, {"prompt": "same"}), Calls())

    assert read == []
    found: Json = world.state(run_id).vars["_runtime"]
    assert set(found) == {"node_traces", "budget"}
