from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import Invalid, LeaseLost
from abstractgateway.runtime import (
    Commit,
    CommitReceipt,
    DefaultEffectPolicy,
    Effect,
    EffectOutcome,
    EffectType,
    Execution,
    RunState,
    RunStatus,
    Runtime,
    StepStatus,
    WorkflowSpec,
    create_scheduled_runtime,
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


def calling(*names: Any) -> WorkflowSpec:
    """Return a workflow that calls these tools in one effect."""
    calls = [{"name": name, "arguments": {}} if isinstance(name, str) else name for name in names]
    return call_then_end(EffectType.TOOL_CALLS, {"tool_calls": calls})


TOOLS = {"read": "retry", "pay": "fail", "mail": "ask"}


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["read"], RunStatus.COMPLETED),
        ([" read "], RunStatus.COMPLETED),
        (["read", "read"], RunStatus.COMPLETED),
        (["mail"], RunStatus.WAITING),
        (["pay"], RunStatus.FAILED),
        (["read", "mail"], RunStatus.WAITING),
        (["mail", "pay", "read"], RunStatus.FAILED),
        (["unknown"], RunStatus.WAITING),
        (["read", "unknown"], RunStatus.WAITING),
        (["read", "not a call at all", 7], RunStatus.WAITING),
        ([], RunStatus.WAITING),
    ],
)
def test_of_several_tool_calls_in_doubt_the_most_careful_rule_counts(
    world: World, names: list[Any], status: RunStatus
) -> None:
    workflow = calling(*names)
    run_id = crashed(world, workflow, EffectType.TOOL_CALLS)
    handler = Calls()

    runtime = world.runtime({EffectType.TOOL_CALLS: handler}, in_doubt_tools=TOOLS)
    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert (state.status, len(handler)) == (status, 1 if status is RunStatus.COMPLETED else 0)


def test_a_tool_without_a_rule_of_its_own_has_that_of_all_tool_calls(world: World) -> None:
    workflow = calling("other")
    run_id = crashed(world, workflow, EffectType.TOOL_CALLS)

    runtime = world.runtime(in_doubt={EffectType.TOOL_CALLS: "fail"}, in_doubt_tools=TOOLS)

    assert runtime.tick(workflow=workflow, run_id=run_id).status is RunStatus.FAILED


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"in_doubt_tools": {"pay": "perhaps"}}, "in_doubt_tools: 'perhaps' is not one of retry, ask, fail"),
        ({"in_doubt_tools": {" ": "ask"}}, "' ' is not the name of a tool"),
        ({"in_doubt_tools": {7: "ask"}}, "7 is not the name of a tool"),
        ({"in_doubt": {"paying": "ask"}}, "'paying' is not a type of effect"),
        ({"in_doubt": {EffectType.LLM_CALL: ["ask"]}}, r"\['ask'\] is not one of retry, ask, fail"),
        ({"reconcilers": {"paying": print}}, "'paying' is not a type of effect"),
        ({"reconcilers": {EffectType.TOOL_CALLS: "print"}}, "has 'print', which cannot be called"),
    ],
)
def test_what_is_no_rule_for_effects_in_doubt_is_refused(world: World, options: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        world.runtime(**options)


class Provider:
    """A reconciler: it remembers what it was asked, and answers what it is told to."""

    def __init__(self, *answers: Any) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self._answers = list(answers)

    def __call__(self, run: RunState, effect: Effect, idempotency_key: str) -> Any:
        self.asked.append((run.run_id, effect.payload["tool_calls"][0]["name"], idempotency_key))
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def reconciled(world: World, provider: Provider, **options: Any) -> tuple[str, RunState, Calls]:
    """Let the run of a crash in the middle of a payment go on with somebody who may know what became of it."""
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)
    handler = Calls()
    options = {"reconcilers": {EffectType.TOOL_CALLS: provider}, **options}
    state = world.runtime({EffectType.TOOL_CALLS: handler}, **options).tick(workflow=TOOL, run_id=run_id)
    return run_id, state, handler


def test_what_a_reconciler_finds_out_is_the_outcome_of_the_effect(world: World) -> None:
    provider = Provider(EffectOutcome.completed({"paid": 5}))

    run_id, state, handler = reconciled(world, provider)

    assert (state.status, state.output, len(handler)) == (RunStatus.COMPLETED, {"said": {"paid": 5}}, 0)
    started, found, completed, *_ = world.ledger(run_id)
    assert provider.asked == [(run_id, "pay", started["idempotency_key"])]
    assert found["effect"] == {
        "type": "reconcile",
        "payload": {"cursor": 1, "effect_type": "tool_calls", "idempotency_key": started["idempotency_key"]},
        "result_key": None,
    }
    assert (found["node_id"], found["result"]) == (
        "call",
        {"reconciled": True, "status": "completed", "error": None},
    )
    assert (completed["step_id"], completed["status"], completed["result"]) == (
        started["step_id"],
        "completed",
        {"paid": 5},
    )


def test_an_effect_that_a_reconciler_knows_to_have_failed_is_tried_again(world: World) -> None:
    provider = Provider(EffectOutcome.failed("card refused"))
    policy = DefaultEffectPolicy(default_max_attempts=2, default_backoff_base=0.0)

    run_id, state, handler = reconciled(world, provider, effect_policy=policy)

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 1)
    _, found, failed, again, *_ = world.ledger(run_id)
    assert found["result"] == {"reconciled": True, "status": "failed", "error": "card refused"}
    assert (failed["status"], failed["error"], again["attempt"]) == ("failed", "card refused", 2)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, None),
        (ValueError("no \udcff line"), "ValueError: no \\udcff line"),
        (SystemExit(1), "SystemExit: 1"),
        ({"paid": 5}, "the reconciler of tool_calls returned dict"),
        (EffectOutcome(StepStatus.STARTED), "the reconciler of tool_calls returned EffectOutcome"),
    ],
)
def test_what_a_reconciler_cannot_tell_is_decided_by_the_rule(world: World, answer: Any, error: str | None) -> None:
    run_id, state, handler = reconciled(world, Provider(answer))

    assert (state.status, len(handler)) == (RunStatus.WAITING, 0)
    assert state.waiting is not None
    assert state.waiting.wait_key == f"in_doubt:{run_id}:1"
    assert world.ledger(run_id)[1]["result"] == {"reconciled": False, "status": "unknown", "error": error}


@pytest.mark.parametrize(("rule", "status"), [("retry", RunStatus.COMPLETED), ("fail", RunStatus.FAILED)])
def test_each_rule_applies_where_a_reconciler_cannot_tell(world: World, rule: Any, status: RunStatus) -> None:
    run_id, state, handler = reconciled(world, Provider(None), in_doubt_tools={"pay": rule})

    assert (state.status, len(handler)) == (status, 1 if rule == "retry" else 0)
    attempts = [record["attempt"] for record in world.ledger(run_id) if record["status"] == "started"]
    assert attempts == ([1, 2] if rule == "retry" else [1])


def test_a_reconciler_whose_outcome_cannot_be_stored_has_found_a_failure(world: World) -> None:
    _, state, _ = reconciled(world, Provider(EffectOutcome.completed({"paid": object()})))

    assert state.status is RunStatus.FAILED
    assert "the result cannot be stored" in str(state.error)


def test_a_crash_while_a_reconciler_is_asked_has_it_asked_again(world: World) -> None:
    provider = Provider(Crash(), EffectOutcome.completed({"paid": 5}))
    with pytest.raises(Crash):
        reconciled(world, provider)
    run_id = provider.asked[0][0]

    state = world.runtime(reconcilers={EffectType.TOOL_CALLS: provider}).tick(workflow=TOOL, run_id=run_id)

    assert (state.output, len(provider.asked)) == ({"said": {"paid": 5}}, 2)
    assert [record["status"] for record in world.ledger(run_id)][:2] == ["started", "completed"]


def test_a_run_that_is_paused_while_a_reconciler_is_asked_goes_on_afterwards(world: World) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)

    def pausing(run: RunState, effect: Effect, key: str) -> None:
        world.runtime().pause_run(run.run_id)

    runtime = world.runtime(
        {EffectType.TOOL_CALLS: Calls()}, reconcilers={EffectType.TOOL_CALLS: pausing}, in_doubt_tools={"pay": "retry"}
    )
    paused = runtime.tick(workflow=TOOL, run_id=run_id)
    runtime.resume_run(run_id)

    assert paused.waiting is not None and (paused.waiting.details or {})["kind"] == "pause"
    assert runtime.tick(workflow=TOOL, run_id=run_id).status is RunStatus.COMPLETED


def test_a_run_that_is_cancelled_while_a_reconciler_is_asked_stays_cancelled(world: World) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)

    def cancelling(run: RunState, effect: Effect, key: str) -> EffectOutcome:
        world.runtime().cancel_run(run.run_id)
        return EffectOutcome.completed({"paid": 5})

    state = world.runtime(reconcilers={EffectType.TOOL_CALLS: cancelling}).tick(workflow=TOOL, run_id=run_id)

    assert (state.status, state.vars.get("said")) == (RunStatus.CANCELLED, None)
    *_, last = world.ledger(run_id)
    assert last["result"] == {"discarded": True, "run_status": "cancelled", "result": {"paid": 5}}


def test_nobody_is_asked_about_an_effect_that_a_person_decides_on_or_that_failed(world: World) -> None:
    provider = Provider(None)
    run_id, _, handler = reconciled(world, provider)
    runtime = world.runtime({EffectType.TOOL_CALLS: handler}, reconcilers={EffectType.TOOL_CALLS: provider})

    state = runtime.resume(workflow=TOOL, run_id=run_id, wait_key=None, payload={"response": "retry"})

    assert (state.status, len(handler), len(provider.asked)) == (RunStatus.COMPLETED, 1, 1)


def test_a_scheduled_runtime_takes_the_rules_for_effects_in_doubt(world: World) -> None:
    run_id = crashed(world, TOOL, EffectType.TOOL_CALLS)
    scheduled = create_scheduled_runtime(
        stores=world.stores,
        workflows=[TOOL],
        in_doubt_tools={"pay": "fail"},
        reconcilers={EffectType.TOOL_CALLS: Provider(None)},
        auto_start=False,
    )

    state = scheduled.tick(run_id)

    assert (state.status, world.ledger(run_id)[1]["effect"]["type"]) == (RunStatus.FAILED, "reconcile")
