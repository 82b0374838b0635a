from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abstractgateway.runtime import Runtime, WorkflowSpec
from abstractgateway.runtime.models import RunState, RunStatus
from abstractgateway.stores import open_file_stores, open_memory_stores, open_sqlite_stores
from abstractgateway.stores.base import Stores
from abstractgateway.testing.clock import ManualClock
from abstractgateway.visualflow import compile_flow
from tests.visualflow.random_flows import flows, variables

Json = dict[str, Any]
Open = Callable[[Path], Stores]
MOST_STEPS = 400

few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
fast = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def relaxed_files(directory: Path) -> Stores:
    return open_file_stores(directory, is_durable=False)


def relaxed_sqlite(directory: Path) -> Stores:
    return open_sqlite_stores(directory, is_durable=False)


@contextmanager
def stores_in(open_stores: Open, directory: Path) -> Iterator[Stores]:
    stores = open_stores(directory)
    try:
        yield stores
    finally:
        stores.close()


def ended(state: RunState) -> tuple[str, Any, str | None]:
    return state.status.value, state.output, state.error


def started(stores: Stores, workflow: WorkflowSpec, given_: Json) -> str:
    return Runtime(stores=stores, clock=ManualClock()).start(workflow=workflow, vars=given_)


def step(stores: Stores, workflow: WorkflowSpec, run_id: str, steps: int = 1) -> RunState:
    return Runtime(stores=stores, clock=ManualClock()).tick(workflow=workflow, run_id=run_id, max_steps=steps)


def alone(workflow: WorkflowSpec, given_: Json) -> tuple[str, Any, str | None]:
    stores = open_memory_stores()
    return ended(step(stores, workflow, started(stores, workflow, given_), MOST_STEPS))


@pytest.mark.parametrize("open_stores", [relaxed_files, relaxed_sqlite])
@few
@given(document=flows(), given_=variables)
def test_a_run_ends_the_same_when_everything_is_opened_anew_after_each_step(
    open_stores: Open, document: Json, given_: Json
) -> None:
    expected = alone(compile_flow(document).workflow, given_)
    with tempfile.TemporaryDirectory() as name:
        with stores_in(open_stores, Path(name)) as stores:
            run_id = started(stores, compile_flow(document).workflow, given_)
        for _ in range(MOST_STEPS):
            with stores_in(open_stores, Path(name)) as stores:
                state = step(stores, compile_flow(document).workflow, run_id)
            if state.status is not RunStatus.RUNNING:
                break

    assert ended(state) == expected


@fast
@given(
    document=flows(),
    inputs=st.lists(variables, min_size=2, max_size=4),
    order=st.lists(st.integers(0, 3), min_size=5, max_size=40),
)
def test_runs_of_one_flow_that_take_turns_end_as_they_do_alone(
    document: Json, inputs: list[Json], order: list[int]
) -> None:
    workflow = compile_flow(document).workflow
    expected = [alone(compile_flow(document).workflow, given_) for given_ in inputs]
    stores = open_memory_stores()
    runs = [started(stores, workflow, given_) for given_ in inputs]

    for turn in order:
        step(stores, workflow, runs[turn % len(runs)])
    states = [step(stores, workflow, run_id, MOST_STEPS) for run_id in reversed(runs)]

    assert [ended(state) for state in reversed(states)] == expected


@fast
@given(document=flows(), given_=variables)
def test_what_a_flow_computes_depends_on_nothing_but_its_inputs(document: Json, given_: Json) -> None:
    workflow = compile_flow(document).workflow

    first, second = alone(workflow, given_), alone(workflow, given_)

    assert first == second == alone(compile_flow(document).workflow, given_)
