"""Runs that share a budget: what children use counts for the run that started them."""

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime import (
    EffectType,
    RunState,
    RunStatus,
    Runtime,
    WorkflowSpec,
    budgets,
)
from abstractgateway.service.summaries import blocked_by
from tests.runtime.budgeting import MODEL, begun, limited, question, said
from tests.runtime.conftest import Reopen
from tests.runtime.workflows import Json, World, effect, end, spec


@pytest.fixture
def world(reopen: Reopen) -> World:
    return reopen()


def parent(*children: str, **payload: Any) -> WorkflowSpec:
    """Return a workflow that runs children one after the other and waits aside for each."""
    wish = {"async": True, "wait": True, **payload}
    nodes = {
        f"start{at}": effect(
            f"start{at}",
            EffectType.START_SUBWORKFLOW,
            {"workflow_id": name, **wish},
            then=f"start{at + 1}" if at + 1 < len(children) else "end",
            key=f"got{at}",
        )
        for at, name in enumerate(children)
    }
    return spec(
        f"parent_of_{'_'.join(children)}", **nodes, end=end("end", *(f"got{at}" for at in range(len(children))))
    )


CHATS = spec(
    "chats",
    one=effect("one", MODEL, {"prompt": "1"}, then="two"),
    two=effect("two", MODEL, {"prompt": "2"}, then="end"),
    end=end(),
)


def drive(world: World, runtime: Runtime, run_id: str) -> None:
    """Advance a run and everything below it until nothing moves."""
    pending = [run_id]
    while pending:
        found = pending.pop()
        state = world.state(found)
        if state.status is RunStatus.RUNNING:
            runtime.tick(workflow=world.registry.get_or_raise(state.workflow_id), run_id=found)
            pending += [run_id, *world.stores.runs.children_of(found)]
        elif not state.status.is_terminal:
            pending += [child for child in world.stores.runs.children_of(found) if not _is_still(world, child)]


def _is_still(world: World, run_id: str) -> bool:
    below = [world.state(child) for child in world.stores.runs.children_of(run_id)]
    return all(state.status is not RunStatus.RUNNING for state in (world.state(run_id), *below))


def asking(world: World, run_id: str) -> RunState:
    """Return the run in a tree that asks about the budget."""
    ids = [run_id]
    for found in ids:
        ids += world.stores.runs.children_of(found)
    (state,) = [state for state in map(world.state, ids) if budgets.is_question(state.waiting)]
    return state


def reply(world: World, runtime: Runtime, run: RunState, payload: Json) -> None:
    runtime.resume(
        workflow=world.registry.get_or_raise(run.workflow_id), run_id=run.run_id, wait_key=None, payload=payload
    )


def test_children_share_the_budget_of_the_run_that_started_them(world: World) -> None:
    handler, workflow = said(), parent("chats", "chats", "chats")
    runtime = limited(world, handler, workflow, CHATS)
    run_id = begun(runtime, workflow, model_calls=3)

    drive(world, runtime, run_id)

    second = asking(world, run_id)
    assert (len(handler), second.parent_run_id, second.current_node) == (3, run_id, "two")
    assert question(second)["prompt"] == "This run has made 3 of 3 model calls. Raise the limit, or stop?"
    assert budgets.usage(second.vars)["model_calls"] == 1
    assert budgets.budget(second.vars) == {"model_calls": {"limit": 3, "used": 3}}
    assert budgets.usage(world.state(run_id).vars)["model_calls"] == 2


def test_a_limit_raised_in_a_child_holds_for_its_siblings(world: World) -> None:
    handler, workflow = said(), parent("chats", "chats", "chats")
    runtime = limited(world, handler, workflow, CHATS)
    run_id = begun(runtime, workflow, model_calls=3)
    drive(world, runtime, run_id)

    reply(world, runtime, asking(world, run_id), {"decision": "raise", "limit": 5})
    drive(world, runtime, run_id)
    third = asking(world, run_id)
    reply(world, runtime, third, {"decision": "raise", "limit": 6})
    drive(world, runtime, run_id)

    state = world.state(run_id)
    assert question(third)["used"] == 5
    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 6)
    assert budgets.usage(state.vars) == {"tokens": 60, "model_calls": 6, "tool_calls": 0, "wall_s": None}
    assert budgets.budget(state.vars) == {"model_calls": {"limit": 6, "used": 6}}


def test_what_a_child_used_is_counted_in_the_commit_of_its_end(world: World) -> None:
    workflow = parent("chats")
    runtime = limited(world, said(), workflow, CHATS)
    run_id = begun(runtime, workflow, model_calls=9)
    seen: list[tuple[bool, int]] = []

    def look(_: Any) -> None:
        children = [world.state(child) for child in world.stores.runs.children_of(run_id)]
        has_ended = any(child.status.is_terminal for child in children)
        seen.append((has_ended, budgets.usage(world.state(run_id).vars)["model_calls"]))

    world.stores.subscribe(look)
    drive(world, runtime, run_id)

    assert set(seen) == {(False, 0), (True, 2)}


def test_every_run_above_says_what_is_asked_below(world: World) -> None:
    inner, outer = parent("chats"), parent("parent_of_chats")
    runtime = limited(world, said(), outer, inner, CHATS)
    run_id = begun(runtime, outer, model_calls=1)
    drive(world, runtime, run_id)

    child, root = asking(world, run_id), world.state(run_id)

    told = blocked_by(root, explanation=None)
    assert child.waiting is not None and told is not None
    assert (told["kind"], told["explanation"]) == (
        "subworkflow",
        f"run {child.run_id!r} below asks: This run has made 1 of 1 model calls. Raise the limit, or stop?",
    )
    assert told["details"]["asks"] == {
        "run_id": child.run_id,
        "wait_key": child.waiting.wait_key,
        "prompt": child.waiting.prompt,
        "choices": ["raise", "stop"],
        "details": child.waiting.details,
    }


@pytest.mark.parametrize("payload", [{"response": "raise"}, None])
def test_the_runs_above_say_nothing_any_more_once_it_is_over(world: World, payload: Json | None) -> None:
    asks = spec("asks", ask=effect("ask", EffectType.ASK_USER, {"prompt": "And?"}))
    inner = parent("chats", "asks")
    outer = parent("parent_of_chats_asks")
    runtime = limited(world, said(), outer, inner, CHATS, asks)
    run_id = begun(runtime, outer, model_calls=1)
    drive(world, runtime, run_id)
    child = asking(world, run_id)

    if payload is None:
        runtime.cancel_run(child.run_id)
    else:
        reply(world, runtime, child, payload)
    drive(world, runtime, run_id)

    waiting = world.state(run_id).waiting
    assert waiting is not None
    assert "asks" not in (waiting.details or {})


@pytest.mark.parametrize("payload", [{"async": True, "wait": True}, {"async": False}])
def test_stop_ends_the_whole_tree(world: World, payload: Json) -> None:
    inner, outer = parent("chats", **payload), parent("parent_of_chats", **payload)
    runtime = limited(world, said(), outer, inner, CHATS)
    run_id = begun(runtime, outer, model_calls=1)
    drive(world, runtime, run_id)
    child = asking(world, run_id)

    reply(world, runtime, child, {"decision": "stop"})

    reason = "stopped: this run has made 1 of 1 model calls"
    tree = [world.state(run_id), world.state(str(child.parent_run_id)), world.state(child.run_id)]
    assert [(state.status, state.error) for state in tree] == [(RunStatus.CANCELLED, reason)] * 3


def test_a_child_that_nobody_waits_for_is_counted_when_it_ends(world: World) -> None:
    workflow = parent("chats", wait=False)
    runtime = limited(world, said(), workflow, CHATS)
    run_id = begun(runtime, workflow, model_calls=9)
    runtime.tick(workflow=workflow, run_id=run_id, max_steps=1)
    (child_id,) = world.stores.runs.children_of(run_id)

    runtime.tick(workflow=CHATS, run_id=child_id)

    assert budgets.budget(world.state(run_id).vars) == {"model_calls": {"limit": 9, "used": 2}}


def test_a_child_with_limits_of_its_own_has_them_for_itself(world: World) -> None:
    handler, workflow = said(), parent("chats", "chats", limits={"model_calls": 2})
    runtime = limited(world, handler, workflow, CHATS)
    run_id = begun(runtime, workflow, model_calls=1)

    drive(world, runtime, run_id)

    children = [world.state(child) for child in world.stores.runs.children_of(run_id)]
    assert (world.state(run_id).status, len(handler)) == (RunStatus.COMPLETED, 4)
    assert [budgets.budget(child.vars) for child in children] == [{"model_calls": {"limit": 2, "used": 2}}] * 2
    assert budgets.budget(world.state(run_id).vars) == {"model_calls": {"limit": 1, "used": 0}}


def test_stop_ends_a_child_with_limits_of_its_own_and_not_what_is_above(world: World) -> None:
    workflow = parent("chats", "chats", limits={"model_calls": 1})
    runtime = limited(world, said(), workflow, CHATS)
    run_id = begun(runtime, workflow)
    drive(world, runtime, run_id)
    first = asking(world, run_id)

    reply(world, runtime, first, {"decision": "stop"})
    drive(world, runtime, run_id)

    assert world.state(first.run_id).status is RunStatus.CANCELLED
    assert asking(world, run_id).run_id != first.run_id


@pytest.mark.parametrize("payload", [{"response": "raise"}, {"response": "stop"}])
def test_a_child_that_outlives_its_parent_decides_for_itself(world: World, payload: Json) -> None:
    workflow = parent("chats", wait=False)
    runtime = limited(world, said(), workflow, CHATS)
    run_id = begun(runtime, workflow, model_calls=1)
    drive(world, runtime, run_id)
    child, before = asking(world, run_id), world.state(run_id)

    reply(world, runtime, child, payload)

    assert world.state(run_id) == before
    expected = RunStatus.COMPLETED if payload["response"] == "raise" else RunStatus.CANCELLED
    assert world.state(child.run_id).status is expected


def test_a_limit_is_raised_in_a_child_whose_parent_was_put_back_without_one(world: World) -> None:
    workflow = parent("chats")
    runtime = limited(world, said(), workflow, CHATS)
    run_id = begun(runtime, workflow, model_calls=1)
    drive(world, runtime, run_id)
    put_back = world.state(run_id)
    del put_back.vars["_runtime"]["budget"]
    world.stores.runs.save(put_back)

    reply(world, runtime, asking(world, run_id), {"response": "raise"})
    drive(world, runtime, run_id)

    assert world.state(run_id).status is RunStatus.COMPLETED
    assert budgets.budget(world.state(run_id).vars) is None
