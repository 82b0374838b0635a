"""Runs that are made together with their first steps, by whoever drives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from abstractgateway.errors import Invalid, LeaseLost, NotFound, StaleWrite, Unavailable
from abstractgateway.runner import Runner
from abstractgateway.runtime import EffectType, RunState, RunStatus, StepPlan, WorkflowSpec
from tests.runner.bench import Bench
from tests.runner.test_driving import FailingStores
from tests.runtime.workflows import Calls, Crash, ask_then_end, call_then_end, end, spec


def new_run(bench: Bench, workflow: WorkflowSpec) -> RunState:
    if workflow.workflow_id not in bench.registry:
        bench.know(workflow)
    return bench.runtime().new_run(workflow, None, actor_id="gateway")


def owner(bench: Bench) -> Runner:
    runner = bench.runner()
    runner.own()
    return runner


def commits_of(bench: Bench, action: Callable[[], Any]) -> list[int]:
    """Return how many runs each commit changed that became durable meanwhile."""
    seen: list[int] = []
    stop = bench.stores.subscribe(lambda changes: seen.append(len(changes.runs)))
    action()
    stop()
    return seen


@pytest.fixture
def on_each(stores: Any) -> Bench:
    """A bench on each backend, whose time stands still."""
    return Bench(stores)


def test_a_run_is_made_with_its_first_steps_in_one_commit(on_each: Bench) -> None:
    runner, state = owner(on_each), new_run(on_each, ask_then_end())

    commits = commits_of(on_each, lambda: runner.create(state))

    row = on_each.stores.runs.row(state.run_id)
    assert commits == [1]
    assert (row.status, row.revision, row.ledger_len) == (RunStatus.WAITING, 1, 2)
    assert [record["status"] for record in on_each.ledger(state.run_id)] == ["started", "waiting"]
    assert runner.load().runs == 0


def test_what_is_made_can_be_answered_and_goes_on(on_each: Bench) -> None:
    runner, state = owner(on_each), new_run(on_each, ask_then_end())
    runner.create(state)
    on_each.send(state.run_id, "resume", {"payload": {"response": "Ann"}})

    runner.run_until_idle()

    assert on_each.state(state.run_id).status is RunStatus.COMPLETED


def test_an_effect_of_a_first_step_is_performed_once_and_after_its_intent_is_durable(on_each: Bench) -> None:
    known: list[Any] = []
    handler = Calls(lambda run: known.append(on_each.stores.ledger.count(run.run_id)))
    on_each.handlers = {EffectType.LLM_CALL: handler}
    runner, state = owner(on_each), new_run(on_each, call_then_end())

    runner.create(state)
    runner.run_until_idle()

    assert (known, len(handler)) == ([1], 1)
    assert on_each.state(state.run_id).status.is_terminal


def test_an_effect_that_a_crash_cut_off_is_tried_again_by_the_next_runner(on_each: Bench) -> None:
    handler = Calls(Crash())
    on_each.handlers = {EffectType.LLM_CALL: handler}
    state = new_run(on_each, call_then_end())
    with pytest.raises(Crash):
        owner(on_each).create(state)

    owner(on_each).run_until_idle()

    attempts = [(record["status"], record["attempt"]) for record in on_each.ledger(state.run_id)]
    assert attempts[:3] == [("started", 1), ("started", 2), ("completed", 2)]
    assert len(handler) == 2


def test_a_run_that_is_there_already_is_not_touched(on_each: Bench) -> None:
    runner, state = owner(on_each), new_run(on_each, ask_then_end())
    runner.create(state)
    again = new_run(on_each, ask_then_end())
    again.run_id = state.run_id

    with pytest.raises(StaleWrite):
        runner.create(again)

    assert on_each.stores.runs.row(state.run_id).revision == 1
    assert runner.load().runs == 0


def test_nothing_is_made_by_a_runner_that_does_not_drive_the_runs(bench: Bench) -> None:
    state = new_run(bench, ask_then_end())

    assert not bench.runner().create(state)
    assert bench.stores.runs.row(state.run_id) is None


def test_nothing_is_made_by_a_runner_that_is_stopped(bench: Bench) -> None:
    runner, state = owner(bench), new_run(bench, ask_then_end())
    runner.stop()

    assert not runner.create(state)
    assert bench.stores.runs.row(state.run_id) is None


def test_a_store_that_cannot_write_has_no_run_and_takes_the_next_one() -> None:
    stores = FailingStores()
    bench = Bench(stores)
    runner, state = owner(bench), new_run(bench, ask_then_end())
    stores.failures = 1

    with pytest.raises(Unavailable):
        runner.create(state)
    lost = bench.stores.runs.row(state.run_id)

    assert (lost, runner.load().runs) == (None, 0)
    assert runner.create(new_run(bench, ask_then_end()))


def test_a_runner_that_was_fenced_makes_nothing_and_says_so(bench: Bench) -> None:
    fenced, state = owner(bench), new_run(bench, ask_then_end())
    owner(bench)

    with pytest.raises(LeaseLost):
        fenced.create(state)

    assert bench.stores.runs.row(state.run_id) is None
    assert "lease epoch 1 is over" in str(fenced.explain(state.run_id))


def test_what_cannot_be_stored_is_refused_and_leaves_nothing_behind(bench: Bench) -> None:
    def put(run: RunState, ctx: Any) -> StepPlan:
        run.vars["x"] = {1, 2}
        return StepPlan("put", next_node="end")

    runner, state = owner(bench), new_run(bench, spec("bad", put=put, end=end()))

    with pytest.raises(Invalid):
        runner.create(state)

    assert (bench.stores.runs.row(state.run_id), runner.load().runs) == (None, 0)


def test_a_run_whose_workflow_is_missing_is_refused_and_leaves_nothing_behind(bench: Bench) -> None:
    runner, state = owner(bench), new_run(bench, ask_then_end())
    state.workflow_id = "gone"

    with pytest.raises(NotFound):
        runner.create(state)

    assert (bench.stores.runs.row(state.run_id), runner.load().runs) == (None, 0)


def test_whoever_starts_a_long_run_waits_for_its_first_moment_only(bench: Bench) -> None:
    def turn(run: RunState, ctx: Any) -> StepPlan:
        run.vars["turns"] = turns = run.vars.get("turns", 0) + 1
        bench.clock.move(0.001)
        return StepPlan("turn", next_node="turn" if turns < 100 else "end")

    runner, state = owner(bench), new_run(bench, spec("long", turn=turn, end=end()))

    runner.create(state)
    at_first = bench.state(state.run_id)
    runner.run_until_idle()

    assert at_first.status is RunStatus.RUNNING
    assert 1 <= at_first.vars["turns"] < 20
    assert bench.state(state.run_id).status is RunStatus.COMPLETED
