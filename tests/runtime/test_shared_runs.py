from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from abstractgateway.errors import Conflict, Invalid, StaleWrite
from abstractgateway.runtime import Commit, CommitReceipt, EffectOutcome, EffectType, RunState, RunStatus
from abstractgateway.runtime.runtime import MAX_ATTEMPTS
from abstractgateway.stores import open_memory_stores
from tests.runtime.workflows import Calls, World, ask_then_end, call_then_end, loop

PATIENCE_S = 10.0


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Call functions in threads at the same time; return what each returned or raised."""
    results: list[Any] = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def work(index: int, call: Callable[[], Any]) -> None:
        gate.wait()
        try:
            results[index] = call()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=work, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return results


class BusyStores:
    """Memory stores where somebody else was faster a number of times."""

    def __init__(self, times: int) -> None:
        self._stores = open_memory_stores()
        self.runs, self.ledger, self.artifacts = self._stores.runs, self._stores.ledger, self._stores.artifacts
        self.left = 0
        self.times = times

    def commit(self, commit: Commit) -> CommitReceipt:
        if self.left > 0:
            self.left -= 1
            raise StaleWrite("somebody was faster")
        return self._stores.commit(commit)


@pytest.mark.parametrize("number", range(5))
def test_threads_that_advance_one_run_perform_each_effect_once(world: World, number: int) -> None:
    handler = Calls()
    workflow = loop(20, EffectType.LLM_CALL, {"prompt": "x"})
    runtimes = [world.runtime({EffectType.LLM_CALL: handler}) for _ in range(2)]
    run_id = runtimes[0].start(workflow=workflow)

    states = together(*[lambda r=runtime: r.tick(workflow=workflow, run_id=run_id) for runtime in runtimes * 2])

    assert [state.status for state in states] == [RunStatus.COMPLETED] * 4
    assert len(handler) == 20


def test_of_two_answers_to_one_question_one_is_taken(world: World) -> None:
    workflow = ask_then_end()
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    runtime.tick(workflow=workflow, run_id=run_id)

    def answer(text: str) -> Callable[[], RunState]:
        return lambda: runtime.resume(
            workflow=workflow, run_id=run_id, wait_key=f"user:{run_id}:ask", payload={"text": text}
        )

    results = together(*[answer(text) for text in "abcd"])

    refused = [result for result in results if isinstance(result, Conflict)]
    assert len(refused) == 3
    resumes = [record for record in world.ledger(run_id) if (record["effect"] or {}).get("type") == "resume"]
    assert len(resumes) == 1


def test_a_change_is_repeated_when_somebody_else_was_faster() -> None:
    stores = BusyStores(3)
    world = World(stores)
    runtime = world.runtime()
    run_id = runtime.start(workflow=call_then_end())
    stores.left = 3

    state = runtime.cancel_run(run_id)

    assert state.status is RunStatus.CANCELLED
    assert len(world.ledger(run_id)) == 1


def test_a_change_that_never_fits_in_is_given_up_with_a_reason() -> None:
    stores = BusyStores(0)
    world = World(stores)
    runtime = world.runtime()
    run_id = runtime.start(workflow=call_then_end())
    stores.left = MAX_ATTEMPTS + 1

    with pytest.raises(Conflict, match="changed too often by others"):
        runtime.cancel_run(run_id)


@pytest.mark.parametrize("times", [1, 5])
def test_an_outcome_is_kept_when_somebody_else_was_faster(times: int) -> None:
    stores = BusyStores(0)
    world = World(stores)

    def busy(run: RunState) -> EffectOutcome:
        stores.left = times
        return EffectOutcome.completed({"content": "kept"})

    handler = Calls(busy)
    runtime = world.runtime({EffectType.LLM_CALL: handler})

    state = runtime.tick(workflow=call_then_end(), run_id=runtime.start(workflow=call_then_end()))

    assert (state.output, len(handler)) == ({"said": {"content": "kept"}}, 1)


def test_a_tick_that_never_fits_in_says_so() -> None:
    stores = BusyStores(0)
    world = World(stores)
    runtime = world.runtime()
    run_id = runtime.start(workflow=call_then_end())
    stores.left = 10 * MAX_ATTEMPTS

    with pytest.raises(StaleWrite):
        runtime.tick(workflow=call_then_end(), run_id=run_id)


def test_a_broken_run_fails_even_while_it_is_being_cancelled_elsewhere(world: World) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=call_then_end())
    runtime.cancel_run(run_id)

    state = runtime.fail_run(run_id, "late")

    assert (state.status, len(world.ledger(run_id))) == (RunStatus.CANCELLED, 1)


def test_stores_of_two_directories_do_not_make_one(tmp_path: Any) -> None:
    from abstractgateway.runtime import Runtime
    from abstractgateway.stores import InMemoryLedgerStore, InMemoryRunStore

    with pytest.raises(Invalid, match="does not go with"):
        Runtime(run_store=InMemoryRunStore(), ledger_store=object())

    assert Runtime(run_store=InMemoryRunStore(), ledger_store=InMemoryLedgerStore()).get_ledger("none") == []
