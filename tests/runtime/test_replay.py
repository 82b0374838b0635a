from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime import (
    Commit,
    CommitReceipt,
    Effect,
    EffectType,
    RunState,
    Runtime,
    StepPlan,
    WorkflowRegistry,
    WorkflowSpec,
)
from abstractgateway.runtime.context import StepContext
from abstractgateway.runtime.draft import Draft
from abstractgateway.stores import open_memory_stores
from abstractgateway.testing import ManualClock
from tests.runtime.workflows import Calls, Crash, Json, World, effect, end, spec


class CrashingStores:
    """Memory stores whose process ends at one commit: before it is durable, or right afterwards."""

    def __init__(self, crash_at: int, *, is_after: bool) -> None:
        self._stores = open_memory_stores()
        self._left = crash_at
        self._is_after = is_after
        self.runs, self.ledger, self.artifacts = self._stores.runs, self._stores.ledger, self._stores.artifacts
        self.has_crashed = False

    def commit(self, commit: Commit) -> CommitReceipt:
        self._left -= 1
        is_end = self._left == 0
        if is_end and not self._is_after:
            self._crash()
        receipt = self._stores.commit(commit)
        if is_end:
            self._crash()
        return receipt

    def _crash(self) -> None:
        self.has_crashed = True
        raise Crash


def work(run: RunState, ctx: StepContext) -> StepPlan:
    drawn = run.vars.setdefault("drawn", [])
    drawn.append([ctx.new_id(), ctx.new_id(), ctx.random().random(), ctx.now_iso()])
    if len(drawn) == 6:
        return StepPlan("work", next_node="child")
    message = Effect(EffectType.ANSWER_USER, {"message": f"{len(drawn)}: {drawn[-1][0]}"}, f"said.{len(drawn)}")
    return StepPlan("work", effect=message, next_node="work")


CHILD = spec("child", say=effect("say", EffectType.ANSWER_USER, {"message": "hi"}, then="end"), end=end("end", "x"))
PARENT = spec(
    "parent",
    work=work,
    child=effect(
        "child", EffectType.START_SUBWORKFLOW, {"workflow_id": "child", "vars": {"x": 1}}, then="tell", key="got"
    ),
    tell=effect("tell", EffectType.EMIT_EVENT, {"name": "done", "payload": {"y": 2}}, then="end", key="sent"),
    end=end("end", "drawn", "said", "got", "sent"),
)


def driven(stores: Any, steps: int) -> Json:
    """Drive one run to its end, with a new process after every crash; return all ledgers and its output."""
    registry = WorkflowRegistry()
    for workflow in (PARENT, CHILD):
        registry.register(workflow)
    clock = ManualClock()
    _create(stores, clock)
    for _ in range(200):
        runtime = Runtime(stores=stores, workflow_registry=registry, clock=clock)
        try:
            state = runtime.tick(workflow=PARENT, run_id="r-1", max_steps=steps)
        except Crash:
            continue
        if state.status.is_terminal:
            ids = ["r-1", *stores.runs.children_of("r-1")]
            return {"output": state.output, "ledgers": {run_id: stores.ledger.list(run_id) for run_id in ids}}
    raise AssertionError("the run does not end")


def _create(stores: Any, clock: ManualClock) -> None:
    now = "2026-01-01T00:00:00+00:00"
    run = RunState.new(workflow_id="parent", entry_node="work", session_id="s", vars={})
    run.run_id, run.created_at, run.updated_at = "r-1", now, now
    draft = Draft(stores, clock)
    draft.create(run)
    stores.commit(draft.to_commit())


@pytest.fixture(scope="module")
def undisturbed() -> Json:
    return driven(open_memory_stores(), steps=1000)


@pytest.mark.parametrize("is_after", [False, True], ids=["before it is durable", "after it is durable"])
@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_a_restart_at_any_commit_gives_the_same_ledger(undisturbed: Json, steps: int, is_after: bool) -> None:
    crash_at = 2
    while True:
        stores = CrashingStores(crash_at, is_after=is_after)
        result = driven(stores, steps)
        assert result == undisturbed, f"after a crash at commit {crash_at}"
        if not stores.has_crashed:
            break
        crash_at += 1

    assert crash_at > 3


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_where_commits_fall_makes_no_difference(undisturbed: Json, steps: int) -> None:
    assert driven(open_memory_stores(), steps) == undisturbed


def test_random_numbers_and_ids_of_a_step_that_is_executed_again_are_the_same() -> None:
    seen: list[list[Any]] = []

    def draw(run: RunState, ctx: StepContext) -> StepPlan:
        seen.append([ctx.new_id(), ctx.random().random(), ctx.new_id(), ctx.random().randint(0, 9)])
        return StepPlan("draw", next_node="end")

    workflow = spec("draws", draw=draw, end=end())
    world = World(CrashingStores(2, is_after=False))
    run_id = world.runtime().start(workflow=workflow)
    with pytest.raises(Crash):
        world.runtime().tick(workflow=workflow, run_id=run_id)

    world.runtime().tick(workflow=workflow, run_id=run_id)

    assert len(seen) == 2
    assert seen[0] == seen[1]


@pytest.mark.parametrize("is_after", [False, True])
def test_a_restart_at_any_commit_performs_no_effect_whose_outcome_is_durable(is_after: bool) -> None:
    workflow: WorkflowSpec = spec(
        "calls",
        a=effect("a", EffectType.LLM_CALL, {"prompt": "a"}, then="b", key="a"),
        b=effect("b", EffectType.LLM_CALL, {"prompt": "b"}, then="end", key="b"),
        end=end("end", "a", "b"),
    )
    performed = []
    for crash_at in (2, 3, 4):
        world = World(CrashingStores(crash_at, is_after=is_after))
        handler = Calls()
        runtime = world.runtime({EffectType.LLM_CALL: handler})
        run_id = runtime.start(workflow=workflow)
        with pytest.raises(Crash):
            runtime.tick(workflow=workflow, run_id=run_id)
        state = world.runtime({EffectType.LLM_CALL: handler}).tick(workflow=workflow, run_id=run_id)
        assert state.output == {"a": {"ok": True}, "b": {"ok": True}}
        performed.append([call.payload["prompt"] for call in handler.effects])

    if is_after:
        assert performed == [["a", "b"], ["a", "b"], ["a", "b"]]
    else:
        assert performed == [["a", "b"], ["a", "a", "b"], ["a", "b", "b"]]
