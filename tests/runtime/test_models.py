"""Runs, waits and records as programs of AbstractRuntime make and read them."""

from __future__ import annotations

from typing import Any

import pytest

import abstractgateway.runtime as kernel
import abstractgateway.stores as stores
from abstractgateway.errors import Invalid
from abstractgateway.runtime import RunState, Runtime, WorkflowRegistry
from abstractgateway.runtime.models import StepRecord, StepStatus, WaitReason, WaitState
from tests.runtime.workflows import Crash, World, effect, end, spec

RUN = RunState.new(workflow_id="wf", entry_node="n", vars={})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"status": "walking"}, "walking"),
        ({"status": None}, "None"),
        ({"workflow_id": ...}, "workflow_id"),
        ({"waiting": {"until": "2026-01-01T00:00:00Z"}}, "has no 'reason'"),
        ({"waiting": {"reason": "boredom"}}, "boredom"),
        ({"waiting": "long"}, "reason"),
    ],
    ids=str,
)
def test_what_is_no_stored_run_is_refused_with_what_is_wrong(fields: dict[str, Any], why: str) -> None:
    stored = {**RUN.to_dict(), **fields}

    with pytest.raises(Invalid, match=why):
        RunState.from_dict({name: value for name, value in stored.items() if value is not ...})


def test_a_step_is_recorded_as_what_became_of_it() -> None:
    wait = WaitState(WaitReason.EVENT, wait_key="k")
    waits = StepRecord.start(run=RUN, node_id="n", effect=None).finish_waiting(wait)
    fails = StepRecord.start(run=RUN, node_id="n", effect=None).finish_failure("no")
    succeeds = StepRecord.start(run=RUN, node_id="n", effect=None).finish_success({"x": 1})

    assert (waits.status, waits.result) == (StepStatus.WAITING, {"wait": wait.to_dict()})
    assert (fails.status, fails.error, fails.result) == (StepStatus.FAILED, "no", None)
    assert (succeeds.status, succeeds.result, succeeds.error) == (StepStatus.COMPLETED, {"x": 1}, None)
    assert all(record.ended_at for record in (waits, fails, succeeds))


@pytest.mark.parametrize("name", ["InMemoryRunStore", "InMemoryLedgerStore", "JsonFileRunStore", "JsonlLedgerStore"])
def test_the_stores_can_be_imported_from_the_kernel(name: str) -> None:
    assert getattr(kernel, name) is getattr(stores, name)


def test_the_kernel_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SqliteRunStore'"):
        kernel.SqliteRunStore  # noqa: B018


class WithoutArtifacts:
    """Stores that keep no artifacts."""

    def __init__(self) -> None:
        self._stores = stores.open_memory_stores()
        self.runs, self.ledger, self.commit = self._stores.runs, self._stores.ledger, self._stores.commit


def test_a_runtime_whose_stores_keep_no_artifacts_keeps_everything_inline_and_reads_it_back() -> None:
    world = World(WithoutArtifacts())
    own = {"$artifact": "a1"}  # which somebody put there who keeps artifacts elsewhere
    called = effect("call", kernel.EffectType.LLM_CALL, {"prompt": "x" * 5000, "media": own}, then="end", key="said")
    workflow = spec("calls", call=called, end=end("end", "said"))

    def crash(run: RunState, asked: kernel.Effect, default_next_node: str | None) -> kernel.EffectOutcome:
        raise Crash

    first = world.runtime({kernel.EffectType.LLM_CALL: crash}, workflow, max_inline_bytes=100)
    run_id = first.start(workflow=workflow)
    with pytest.raises(Crash):
        first.tick(workflow=workflow, run_id=run_id)
    asked_for: list[object] = []

    def answer(run: RunState, asked: kernel.Effect, default_next_node: str | None) -> kernel.EffectOutcome:
        asked_for.append(asked.payload)
        return kernel.EffectOutcome.completed({"content": "y" * 5000})

    second = world.runtime({kernel.EffectType.LLM_CALL: answer}, max_inline_bytes=100)
    state = second.tick(workflow=workflow, run_id=run_id)

    assert asked_for == [{"prompt": "x" * 5000, "media": own}]
    assert state.output == {"said": {"content": "y" * 5000}}


def test_a_runtime_can_be_given_its_registry_later(world: World) -> None:
    child = spec("child", end=end("end"))
    parent = spec(
        "parent",
        start=effect("start", kernel.EffectType.START_SUBWORKFLOW, {"workflow_id": "child"}, then="end"),
        end=end("end"),
    )
    registry = WorkflowRegistry()
    registry.register(child)
    runtime = Runtime(stores=world.stores)
    runtime.set_workflow_registry(registry)

    state = runtime.tick(workflow=parent, run_id=runtime.start(workflow=parent))

    assert state.status is kernel.RunStatus.COMPLETED


def test_a_parent_whose_child_nobody_here_can_drive_goes_on_waiting(world: World) -> None:
    asked = effect("ask", kernel.EffectType.ASK_USER, {"prompt": "?"}, then="end")
    child = spec("child", ask=asked, end=end("end"))
    parent = spec(
        "parent",
        start=effect("start", kernel.EffectType.START_SUBWORKFLOW, {"workflow_id": "child"}, then="end"),
        end=end("end"),
    )
    runtime = world.runtime({}, parent, child)
    run_id = runtime.start(workflow=parent)
    runtime.tick(workflow=parent, run_id=run_id)
    before = world.state(run_id)

    state = Runtime(stores=world.stores, clock=world.clock).tick(workflow=parent, run_id=run_id)

    assert state.status is kernel.RunStatus.WAITING
    assert world.state(run_id) == before
