from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import Invalid, LeaseLost
from abstractgateway.runtime import (
    Commit,
    CommitReceipt,
    Effect,
    EffectOutcome,
    EffectType,
    Execution,
    RunState,
    RunStatus,
    Runtime,
    WorkflowSpec,
)
from abstractgateway.service.summaries import blocked_by
from abstractgateway.stores import open_memory_stores
from tests.runtime.workflows import Calls, Crash, Json, World, call_then_end, outline

TOOL = call_then_end(EffectType.TOOL_CALLS, {"tool_calls": [{"name": "pay", "arguments": {}}]})
MODEL = call_then_end()


class OrderedStores:
    """Stores that note when a commit became durable, next to what else is noted in `events`."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._stores = open_memory_stores()
        self.runs, self.ledger = self._stores.runs, self._stores.ledger

    def commit(self, commit: Commit) -> CommitReceipt:
        receipt = self._stores.commit(commit)
        texts = [body for write in commit.runs for body in write.records]
        self.events += ["intent is durable" for body in texts if b'"status":"started"' in body]
        return receipt


def crashed(world: World, workflow: WorkflowSpec, type: EffectType) -> str:
    """Return a run whose process ended while its effect was being performed."""
    runtime = world.runtime({type: Calls(Crash())})
    run_id = runtime.start(workflow=workflow)
    with pytest.raises(Crash):
        runtime.tick(workflow=workflow, run_id=run_id)
    return run_id


def test_no_effect_is_performed_before_its_intent_is_durable() -> None:
    stores = OrderedStores()
    world = World(stores)

    def perform(run: RunState) -> EffectOutcome:
        (record,) = world.ledger(run.run_id)
        stores.events.append(f"performed after {record['status']}")
        return EffectOutcome.completed({})

    runtime = world.runtime({EffectType.LLM_CALL: Calls(perform)})
    run_id = runtime.start(workflow=MODEL)
    runtime.tick(workflow=MODEL, run_id=run_id)

    assert stores.events == ["intent is durable", "performed after started"]


def test_an_effect_whose_intent_could_not_be_stored_is_not_performed(world: World) -> None:
    handler = Calls()
    runtime = world.runtime({EffectType.LLM_CALL: handler})
    run_id = runtime.start(workflow=MODEL)
    runtime.epoch = world.stores.claim("me")
    world.stores.claim("somebody else")

    with pytest.raises(LeaseLost):
        runtime.tick(workflow=MODEL, run_id=run_id)

    assert len(handler) == 0
    assert world.ledger(run_id) == []


def test_a_model_call_that_a_crash_interrupted_is_made_again_under_the_same_key(world: World) -> None:
    run_id = crashed(world, MODEL, EffectType.LLM_CALL)
    handler = Calls()

    state = world.runtime({EffectType.LLM_CALL: handler}).tick(workflow=MODEL, run_id=run_id)

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 1)
    first, second, completed, *_ = world.ledger(run_id)
    assert [record["status"] for record in (first, second, completed)] == ["started", "started", "completed"]
    assert first["idempotency_key"] == second["idempotency_key"] == completed["idempotency_key"]
    assert [record["attempt"] for record in (first, second, completed)] == [1, 2, 2]


def test_a_crash_after_the_outcome_was_durable_repeats_nothing(world: World) -> None:
    handler = Calls()
    runtime = world.runtime({EffectType.LLM_CALL: handler})
    run_id = runtime.start(workflow=MODEL)
    runtime.tick(workflow=MODEL, run_id=run_id, max_steps=1)

    state = world.runtime({EffectType.LLM_CALL: handler}).tick(workflow=MODEL, run_id=run_id)

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 1)


def test_tool_calls_that_a_crash_interrupted_are_asked_about(world: World) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)
    handler = Calls()

    state = world.runtime({EffectType.TOOL_CALLS: handler}).tick(workflow=TOOL, run_id=run_id)

    assert (state.status, len(handler)) == (RunStatus.WAITING, 0)
    waiting = state.waiting
    assert waiting is not None
    assert (waiting.reason.value, waiting.wait_key) == ("user", f"in_doubt:{run_id}:1")
    assert (waiting.choices, waiting.allow_free_text) == (["retry", "fail"], False)
    assert "tool_calls of node 'call'" in str(waiting.prompt)
    assert outline(world.ledger(run_id)) == [("call", "started", "tool_calls"), ("call", "waiting", "tool_calls")]
    blocked = blocked_by(state, explanation=None)
    assert blocked is not None
    assert (blocked["kind"], blocked["details"]["kind"]) == ("user", "in_doubt")


@pytest.mark.parametrize("restarts", [0, 2])
def test_an_effect_in_doubt_is_performed_again_when_a_person_says_so(world: World, restarts: int) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)
    handler = Calls()
    for _ in range(restarts + 1):
        runtime = world.runtime({EffectType.TOOL_CALLS: handler})
        runtime.tick(workflow=TOOL, run_id=run_id)

    state = runtime.resume(workflow=TOOL, run_id=run_id, wait_key=f"in_doubt:{run_id}:1", payload={"response": "retry"})

    assert (state.status, state.output) == (RunStatus.COMPLETED, {"said": {"ok": True}})
    assert len(handler) == 1
    records = world.ledger(run_id)
    assert [record["status"] for record in records[:5]] == ["started", "waiting", "completed", "started", "completed"]
    assert records[2]["effect"]["type"] == "resume"
    assert records[0]["idempotency_key"] == records[3]["idempotency_key"]
    assert (records[3]["attempt"], handler.effects[0].payload) == (2, records[0]["effect"]["payload"])


def test_an_effect_in_doubt_is_failed_when_a_person_says_so(world: World) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)
    handler = Calls()
    runtime = world.runtime({EffectType.TOOL_CALLS: handler})
    runtime.tick(workflow=TOOL, run_id=run_id)

    state = runtime.resume(workflow=TOOL, run_id=run_id, wait_key=None, payload={"response": "fail"})

    assert (state.status, len(handler)) == (RunStatus.FAILED, 0)
    assert "Effect failed after 1 attempts: it was interrupted" in str(state.error)
    assert [record["status"] for record in world.ledger(run_id)] == [
        "started",
        "waiting",
        "completed",
        "failed",
        "completed",
    ]


@pytest.mark.parametrize("payload", [{"response": "maybe"}, {}])
def test_the_question_about_an_effect_in_doubt_takes_its_two_answers_only(world: World, payload: Json) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)
    runtime = world.runtime()
    runtime.tick(workflow=TOOL, run_id=run_id)

    with pytest.raises(Invalid, match="not one of the choices"):
        runtime.resume(workflow=TOOL, run_id=run_id, wait_key=None, payload=payload)


def test_a_second_crash_asks_a_second_time_under_another_key(world: World) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)
    again = world.runtime({EffectType.TOOL_CALLS: Calls(Crash())})
    again.tick(workflow=TOOL, run_id=run_id)
    with pytest.raises(Crash):
        again.resume(workflow=TOOL, run_id=run_id, wait_key=None, payload={"response": "retry"})

    state = world.runtime().tick(workflow=TOOL, run_id=run_id)

    assert state.waiting is not None
    assert state.waiting.wait_key == f"in_doubt:{run_id}:4"


def test_a_run_that_is_cancelled_while_it_asks_forgets_its_effect(world: World) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)
    runtime = world.runtime()
    runtime.tick(workflow=TOOL, run_id=run_id)

    state = runtime.cancel_run(run_id)

    assert state.status is RunStatus.CANCELLED
    assert "in_flight" not in state.vars["_runtime"]


@pytest.mark.parametrize(
    ("type", "rule", "status"),
    [
        (EffectType.LLM_CALL, "ask", RunStatus.WAITING),
        (EffectType.LLM_CALL, "fail", RunStatus.FAILED),
        (EffectType.TOOL_CALLS, "retry", RunStatus.COMPLETED),
        (EffectType.TOOL_CALLS, "fail", RunStatus.FAILED),
    ],
)
def test_the_rule_for_effects_in_doubt_can_be_set(world: World, type: EffectType, rule: Any, status: RunStatus) -> None:
    workflow = MODEL if type is EffectType.LLM_CALL else TOOL
    run_id = crashed(world, workflow, type)
    handler = Calls()

    state = world.runtime({type: handler}, in_doubt={type: rule}).tick(workflow=workflow, run_id=run_id)

    assert state.status is status
    assert len(handler) == (1 if rule == "retry" else 0)


def test_an_unknown_rule_for_effects_in_doubt_is_refused(world: World) -> None:
    with pytest.raises(Invalid, match="'perhaps' is not one of retry, ask, fail"):
        world.runtime(in_doubt={EffectType.LLM_CALL: "perhaps"})


def test_an_effect_in_flight_that_the_ledger_does_not_know_fails_the_run(world: World) -> None:
    run = RunState.new(workflow_id="calls", entry_node="call", vars={"_runtime": {"in_flight": {"cursor": 7}}})
    world.stores.runs.save(run)

    state = world.runtime().tick(workflow=MODEL, run_id=run.run_id)

    assert state.status is RunStatus.FAILED
    assert "has no effect at 7" in str(state.error)


def pending_execution(runtime: Runtime, workflow: WorkflowSpec) -> Execution:
    execution = runtime.open_execution(workflow, runtime.start(workflow=workflow))
    execution.advance(10)
    runtime.stores.commit(execution.to_commit())
    execution.settle_commit()
    return execution


def test_an_outcome_of_an_owner_that_was_fenced_is_refused(world: World) -> None:
    runtime = world.runtime({EffectType.LLM_CALL: Calls()})
    runtime.epoch = world.stores.claim("first")
    execution = pending_execution(runtime, MODEL)
    assert execution.pending is not None
    outcome = runtime.perform(execution.state, execution.pending)
    world.stores.claim("second")

    execution.settle(execution.pending, outcome)

    with pytest.raises(LeaseLost, match="epoch 1 is over"):
        world.stores.commit(execution.to_commit())
    assert [record["status"] for record in world.ledger(execution.state.run_id)] == ["started"]


def test_an_outcome_that_comes_after_another_owner_took_the_effect_over_is_discarded(world: World) -> None:
    runtime = world.runtime()
    execution = pending_execution(runtime, MODEL)
    late = execution.pending
    assert late is not None
    run_id = execution.state.run_id
    with pytest.raises(Crash):
        world.runtime({EffectType.LLM_CALL: Calls(Crash())}).tick(workflow=MODEL, run_id=run_id)

    reopened = runtime.open_execution(MODEL, run_id)
    reopened.settle(late, EffectOutcome.completed({"content": "late"}))
    world.stores.commit(reopened.to_commit())

    *_, last = world.ledger(run_id)
    assert last["result"] == {"discarded": True, "run_status": "running", "result": {"content": "late"}}
    assert world.state(run_id).vars.get("said") is None


def test_an_effect_of_the_kernel_is_never_in_doubt(world: World) -> None:
    effects = [record for record in world.ledger(_answered(world)) if record["effect"]]

    assert [record["attempt"] for record in effects] == [1] * len(effects)


def _answered(world: World) -> str:
    workflow = call_then_end(EffectType.ANSWER_USER, {"message": "hi"})
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    for _ in range(3):
        world.runtime().tick(workflow=workflow, run_id=run_id, max_steps=1)
    return run_id


def test_the_effect_that_a_handler_sees_is_the_one_in_the_ledger(world: World) -> None:
    handler = Calls()
    runtime = world.runtime({EffectType.TOOL_CALLS: handler})
    run_id = runtime.start(workflow=TOOL)

    runtime.tick(workflow=TOOL, run_id=run_id)

    started = world.ledger(run_id)[0]
    assert handler.effects == [Effect(EffectType.TOOL_CALLS, started["effect"]["payload"], "said")]
    assert handler.effects[0].payload["tool_calls"][0]["runtime_call_id"] == f"rtcall_{started['idempotency_key']}_1"
