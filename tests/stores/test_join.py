"""Run and ledger stores in memory that were made one by one, as AbstractRuntime's programs make them, become one."""

from __future__ import annotations

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.runtime import RunState, RunStatus, Runtime, StepPlan, WorkflowSpec
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.models import StepRecord, StepStatus
from abstractgateway.stores import InMemoryLedgerStore, InMemoryRunStore
from tests.stores.shapes import a_run, save

WORKFLOW = WorkflowSpec("wf", "n", {"n": lambda run, ctx: StepPlan("n", complete_output={"x": run.vars["x"]})})


def noted(ledger: InMemoryLedgerStore, run_id: str, count: int) -> None:
    for number in range(count):
        ledger.append(StepRecord(run_id, f"s{number}", "n", StepStatus.COMPLETED))


def test_what_was_saved_in_each_before_goes_on_in_both() -> None:
    runs, ledger = InMemoryRunStore(), InMemoryLedgerStore()
    state = a_run("r1", vars={"x": 7})
    runs.save(state)
    runs.save(state)
    noted(ledger, "r1", 2)
    noted(ledger, "alone", 1)

    runtime = Runtime(run_store=runs, ledger_store=ledger)
    finished = runtime.tick(workflow=WORKFLOW, run_id="r1")

    assert (finished.status, finished.output) == (RunStatus.COMPLETED, {"x": 7})
    stored = runs.open("r1")
    assert (stored.revision, stored.ledger_len) == (3, ledger.count("r1"))
    report = verify_chain(ledger.list("r1"))
    assert (report.ok, report.count > 2) == (True, True)
    assert ledger.count("alone") == 1
    noted(ledger, "alone", 1)
    assert verify_chain(ledger.list("alone")).ok


def test_a_second_runtime_on_the_same_stores_finds_everything_as_it_was() -> None:
    runs, ledger = InMemoryRunStore(), InMemoryLedgerStore()
    first = Runtime(run_store=runs, ledger_store=ledger)
    run_id = first.start(workflow=WORKFLOW, vars={"x": 1})
    second = Runtime(run_store=runs, ledger_store=ledger)

    finished: RunState = second.tick(workflow=WORKFLOW, run_id=run_id)

    assert finished.output == {"x": 1}
    assert [record["status"] for record in ledger.list(run_id)][-1] == "completed"
    assert save(runs.stores, a_run(run_id)).ledger_len == ledger.count(run_id)


def test_a_ledger_of_another_kind_is_refused() -> None:
    with pytest.raises(Invalid, match="ledger_store"):
        InMemoryRunStore().join_ledger(object())
