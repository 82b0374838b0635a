"""What a run may use, on every backend: it asks before it uses more, and goes on where it stood."""

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import Conflict, Invalid
from abstractgateway.runtime import (
    DefaultEffectPolicy,
    Effect,
    EffectOutcome,
    EffectType,
    RunState,
    RunStatus,
    RuntimeConfig,
    StepPlan,
    WorkflowSpec,
    budgets,
    tool_waits,
)
from abstractgateway.runtime.effects.model import call_model
from abstractgateway.testing import ScriptedModel
from tests.runtime.budgeting import MODEL, PAIR, TALK, TOOLS, WORK, answer, begun, limited, question, said
from tests.runtime.conftest import Reopen
from tests.runtime.workflows import Calls, Crash, Json, World, call_then_end, effect, end, loop, outline, spec


@pytest.fixture
def world(reopen: Reopen) -> World:
    return reopen()


@pytest.mark.parametrize(
    ("workflow", "limits", "made", "prompt", "asked"),
    [
        (
            TALK,
            {"tokens": 25},
            3,
            "This run has used 30 of 25 tokens. Raise the limit, or stop?",
            {"kind": "budget", "budget": "tokens", "limit": 25, "used": 30, "least": 31, "node": "again"},
        ),
        (
            TALK,
            {"model_calls": 2},
            2,
            "This run has made 2 of 2 model calls. Raise the limit, or stop?",
            {"kind": "budget", "budget": "model_calls", "limit": 2, "used": 2, "least": 3, "node": "again"},
        ),
        (
            WORK,
            {"tool_calls": 5},
            2,
            "This run has made 4 of 5 tool calls and is about to make 2 more. Raise the limit, or stop?",
            {"kind": "budget", "budget": "tool_calls", "limit": 5, "used": 4, "least": 6, "node": "again"},
        ),
    ],
)
def test_a_run_asks_before_it_uses_more_than_it_may(
    world: World, workflow: WorkflowSpec, limits: Any, made: int, prompt: str, asked: Json
) -> None:
    handler = said()
    runtime = limited(world, handler, workflow)
    run_id = begun(runtime, workflow, **limits)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert (state.status, len(handler)) == (RunStatus.WAITING, made)
    assert question(state) == {"prompt": prompt, **asked}
    waiting = state.waiting
    assert waiting is not None
    assert (waiting.reason.value, waiting.choices, waiting.allow_free_text) == ("user", ["raise", "stop"], False)
    last = world.ledger(run_id)[-1]
    assert waiting.wait_key == f"budget:{asked['budget']}:{run_id}:{len(world.ledger(run_id))}"
    assert (last["status"], last["effect"]["type"]) == ("waiting", workflow_effect(workflow))
    assert last["result"]["wait"]["prompt"] == prompt


def workflow_effect(workflow: WorkflowSpec) -> str:
    return MODEL.value if workflow is TALK else TOOLS.value


def test_tokens_that_are_just_used_up_allow_no_further_call(world: World) -> None:
    runtime = limited(world, said(10), TALK)

    state = runtime.tick(workflow=TALK, run_id=begun(runtime, TALK, tokens=30))

    assert question(state)["used"] == 30


def test_exactly_as_much_as_is_allowed_needs_no_question(world: World) -> None:
    runtime = limited(world, said(), TALK)

    state = runtime.tick(workflow=TALK, run_id=begun(runtime, TALK, model_calls=6, tokens=60))

    assert (state.status, state.output) == (RunStatus.COMPLETED, {"rounds": 6})


@pytest.mark.parametrize(
    ("payload", "limit"),
    [
        ({"decision": "raise", "limit": 6}, 6),
        ({"decision": "raise", "limit": 3}, 3),
        ({"decision": "raise"}, 4),
        ({"response": "raise"}, 4),
        ({"text": "raise"}, 4),
        ({"response": "raise", "limit": 5}, 5),
    ],
)
def test_a_raised_limit_lets_the_run_go_on_up_to_there(world: World, payload: Json, limit: int) -> None:
    handler = said()
    runtime = limited(world, handler, TALK)
    run_id = begun(runtime, TALK, model_calls=2)
    runtime.tick(workflow=TALK, run_id=run_id)

    state = answer(runtime, TALK, run_id, payload)

    assert len(handler) == limit
    assert budgets.budget(state.vars) == {"model_calls": {"limit": limit, "used": limit}}
    assert state.status is (RunStatus.COMPLETED if limit == 6 else RunStatus.WAITING)


def test_a_limit_that_is_doubled_suffices_for_what_comes_next(world: World) -> None:
    handler = said(1000)
    runtime = limited(world, handler, TALK)
    run_id = begun(runtime, TALK, tokens=5)
    runtime.tick(workflow=TALK, run_id=run_id)

    state = answer(runtime, TALK, run_id, {"response": "raise"})

    assert (question(state)["limit"], len(handler)) == (1001, 2)


def keys_of(world: World, run_id: str, status: str) -> list[str]:
    return [record["idempotency_key"] for record in world.ledger(run_id) if record["status"] == status]


def test_after_the_answer_the_same_effect_is_begun_under_its_key(world: World) -> None:
    free, limits = World(), {"model_calls": 2}
    for place, wished in ((free, None), (world, limits)):
        runtime = limited(place, said(), TALK)
        run = runtime.new_run(TALK, {}, limits=wished)
        run.run_id = "the-run"
        place.stores.runs.save(run)
        runtime.tick(workflow=TALK, run_id="the-run")

    answer(runtime, TALK, "the-run", {"decision": "raise", "limit": 6})

    assert keys_of(world, "the-run", "started") == keys_of(free, "the-run", "started")
    (key,) = keys_of(world, "the-run", "waiting")
    same = [
        (record["status"], record["attempt"]) for record in world.ledger("the-run") if record["idempotency_key"] == key
    ]
    assert same == [("waiting", 1), ("started", 1), ("completed", 1)]


def test_a_run_that_is_stopped_is_cancelled_and_says_why(world: World) -> None:
    handler = said()
    runtime = limited(world, handler, TALK)
    run_id = begun(runtime, TALK, model_calls=2)
    runtime.tick(workflow=TALK, run_id=run_id)

    state = answer(runtime, TALK, run_id, {"response": "stop"})

    assert (state.status, state.error) == (RunStatus.CANCELLED, "stopped: this run has made 2 of 2 model calls")
    assert (len(handler), state.waiting, "in_flight" in state.vars["_runtime"]) == (2, None, False)
    answered, ended = world.ledger(run_id)[-2:]
    assert answered["effect"]["payload"]["payload"] == {"response": "stop"}
    assert ended["result"]["payload"] == {"text": "cancelled"}


@pytest.mark.parametrize(
    ("payload", "said_of_it"),
    [
        ({}, "None is neither 'raise' nor 'stop'"),
        ({"response": "go on"}, "'go on' is neither"),
        ({"decision": ["raise"]}, "is neither"),
        ({"decision": "raise", "limit": 2}, "2 is too low; the run needs at least 3"),
        ({"decision": "raise", "limit": -7}, "-7 is not a whole number"),
        ({"decision": "raise", "limit": 3.5}, "3.5 is not a whole number"),
        ({"decision": "raise", "limit": True}, "True is not a whole number"),
        ({"decision": "raise", "limit": "9"}, "'9' is not a whole number"),
        ({"decision": "raise", "limit": 10**30}, "is not a whole number"),
    ],
)
def test_a_bad_answer_is_refused_and_the_question_stays(world: World, payload: Json, said_of_it: str) -> None:
    runtime = limited(world, said(), TALK)
    run_id = begun(runtime, TALK, model_calls=2)
    before = runtime.tick(workflow=TALK, run_id=run_id)

    with pytest.raises(Invalid, match=said_of_it):
        answer(runtime, TALK, run_id, payload)

    assert world.state(run_id) == before


def test_an_answer_to_the_first_question_does_not_answer_the_second(world: World) -> None:
    runtime = limited(world, said(), TALK)
    run_id = begun(runtime, TALK, model_calls=1)
    first = runtime.tick(workflow=TALK, run_id=run_id).waiting
    assert first is not None
    answer(runtime, TALK, run_id, {"response": "raise"})

    with pytest.raises(Conflict, match="wait_key mismatch"):
        runtime.resume(workflow=TALK, run_id=run_id, wait_key=first.wait_key, payload={"response": "raise"})


def test_a_question_and_what_was_counted_outlive_the_process(reopen: Reopen) -> None:
    world = reopen()
    run_id = begun(limited(world, said(), TALK), TALK, model_calls=2, tokens=1000)
    asked = limited(world, said(), TALK).tick(workflow=TALK, run_id=run_id)

    world = reopen()
    handler = said()
    runtime = limited(world, handler, TALK)
    found = runtime.tick(workflow=TALK, run_id=run_id)
    state = answer(runtime, TALK, run_id, {"decision": "raise", "limit": 6})

    assert found == asked
    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 4)
    assert budgets.usage(state.vars) == {"tokens": 60, "model_calls": 6, "tool_calls": 0, "wall_s": None}


def crash_at(world: World, number: int) -> None:
    """Have the process end when the stores are given their n-th commit from now on."""
    commit, given = world.stores.commit, iter(range(1, number + 1))

    def commit_or_crash(item: Any) -> Any:
        if next(given) == number:
            raise Crash
        return commit(item)

    world.stores.commit = commit_or_crash


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_crash_at_any_commit_counts_no_call_twice(reopen: Reopen, number: int) -> None:
    world = reopen()
    runtime = limited(world, said(), TALK)
    run_id = begun(runtime, TALK, model_calls=4)
    commit = world.stores.commit
    crash_at(world, number)
    with pytest.raises(Crash):
        runtime.tick(workflow=TALK, run_id=run_id)
    world.stores.commit = commit

    world = reopen()
    runtime = limited(world, said(), TALK)
    state = runtime.tick(workflow=TALK, run_id=run_id)

    completed = [record for record in world.ledger(run_id) if record["status"] == "completed"]
    assert (question(state)["used"], len(completed)) == (4, 4)
    assert answer(runtime, TALK, run_id, {"response": "raise"}).status is RunStatus.COMPLETED


def test_a_further_attempt_counts_and_is_asked_about(world: World) -> None:
    handler = Calls(then=EffectOutcome.failed("no answer"))
    policy = DefaultEffectPolicy(default_max_attempts=3, default_backoff_base=0.0)
    workflow = call_then_end()
    runtime = limited(world, handler, workflow, effect_policy=policy)
    run_id = begun(runtime, workflow, model_calls=2)

    asked = runtime.tick(workflow=workflow, run_id=run_id)
    ended = answer(runtime, workflow, run_id, {"response": "raise"})

    assert question(asked)["used"] == 2
    assert (ended.status, len(handler)) == (RunStatus.FAILED, 3)
    assert "after 3 attempts" in str(ended.error)
    assert [record["attempt"] for record in world.ledger(run_id) if record["status"] == "started"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("result", "tokens"),
    [
        ({"content": "x", "usage": {"total_tokens": 7}}, 7),
        ({"content": "x", "usage": {"input_tokens": 3, "output_tokens": 4}}, 7),
        ({"content": "x", "usage": {"prompt_tokens": 3, "completion_tokens": 4, "input_tokens": 3}}, 7),
        ({"content": "x" * 383}, 103),
        ({"content": "x" * 371, "usage": {}}, 103),
        ({"content": "x" * 350, "usage": {"total_tokens": "many"}}, 103),
    ],
)
def test_tokens_are_what_the_provider_reports_or_an_estimate(world: World, result: Json, tokens: int) -> None:
    workflow = call_then_end()
    runtime = limited(world, Calls(EffectOutcome.completed(result)), workflow)

    state = runtime.tick(workflow=workflow, run_id=begun(runtime, workflow))

    assert budgets.usage(state.vars) == {"tokens": tokens, "model_calls": 1, "tool_calls": 0, "wall_s": None}


def test_answers_that_were_cut_off_count_as_calls(world: World) -> None:
    cut_off = {"content": "x", "finish_reason": "length", "usage": {"input_tokens": 60, "output_tokens": 40}}
    model = ScriptedModel([cut_off, {"content": "xyz", "usage": {"input_tokens": 60, "output_tokens": 90}}])
    workflow = call_then_end()
    runtime = limited(world, call_model(model, None), workflow)

    state = runtime.tick(workflow=workflow, run_id=begun(runtime, workflow))

    assert budgets.usage(state.vars) == {"tokens": 250, "model_calls": 2, "tool_calls": 0, "wall_s": None}
    assert state.vars["_limits"]["estimated_tokens_used"] == 60  # what the next call begins with, not the sum


def test_a_call_that_fails_counts_with_what_its_answers_used(world: World) -> None:
    cut_off = {"content": "x", "finish_reason": "length", "usage": {"input_tokens": 60, "output_tokens": 40}}
    workflow = call_then_end()
    runtime = limited(world, call_model(ScriptedModel([cut_off] * 3), None), workflow)

    state = runtime.tick(workflow=workflow, run_id=begun(runtime, workflow))

    assert state.status is RunStatus.FAILED
    assert budgets.usage(state.vars) == {"tokens": 300, "model_calls": 3, "tool_calls": 0, "wall_s": None}


def slow(world: World, seconds: float) -> Calls:
    """Return a model that takes so many seconds to answer."""

    def perform(run: RunState) -> EffectOutcome:
        world.clock.move(seconds)
        return EffectOutcome.completed({"content": "hi"})

    return Calls(then=perform)


def test_a_run_asks_when_it_has_worked_long_enough(world: World) -> None:
    handler = slow(world, 40.5)
    runtime = limited(world, handler, TALK)
    run_id = begun(runtime, TALK, wall_s=60)

    state = runtime.tick(workflow=TALK, run_id=run_id)

    assert len(handler) == 2
    assert question(state) == {
        "prompt": "This run has worked for 81 of 60 seconds. Raise the limit, or stop?",
        "kind": "budget",
        "budget": "wall_s",
        "limit": 60,
        "used": 81.0,
        "least": 82.0,
        "node": "again",
    }


def test_time_in_which_a_run_waits_is_not_counted(world: World) -> None:
    asked = effect("ask", EffectType.ASK_USER, {"prompt": "Go on?"}, then="call")
    workflow = spec("asks", ask=asked, call=effect("call", MODEL, {"prompt": "hi"}, then="end"), end=end())
    runtime = limited(world, slow(world, 7), workflow)
    run_id = begun(runtime, workflow, wall_s=60)
    runtime.tick(workflow=workflow, run_id=run_id)
    world.clock.move(3600)

    state = answer(runtime, workflow, run_id, {"response": "yes"})

    assert (state.status, budgets.usage(state.vars)["wall_s"]) == (RunStatus.COMPLETED, 7.0)


def test_steps_without_effects_are_asked_about_between_two_batches(world: World) -> None:
    def turn(run: RunState, ctx: Any) -> StepPlan:
        world.clock.move(10)
        run.vars["turns"] = run.vars.get("turns", 0) + 1
        return StepPlan("turn", next_node="turn")

    workflow = spec("turns", turn=turn)
    runtime = limited(world, said(), workflow)
    run_id = begun(runtime, workflow, wall_s=35)

    asked = runtime.tick(workflow=workflow, run_id=run_id)
    turns = asked.vars["turns"]
    again = answer(runtime, workflow, run_id, {"decision": "raise", "limit": 55})

    assert (question(asked)["used"], turns) == (40.0, 4)
    assert (question(again)["used"], again.vars["turns"]) == (60.0, 6)
    assert outline(world.ledger(run_id))[0] == ("turn", "waiting", None)


def test_the_time_of_an_effect_counts_for_whoever_takes_its_outcome_in(world: World) -> None:
    workflow = call_then_end()
    runtime = limited(world, said(), workflow)
    execution = runtime.open_execution(workflow, begun(runtime, workflow, wall_s=60))
    execution.advance(10)
    world.stores.commit(execution.to_commit())
    assert execution.pending is not None
    world.clock.move(50)

    other = runtime.open_execution(workflow, execution.state.run_id)
    other.settle(execution.pending, EffectOutcome.failed("timed out"))

    assert budgets.usage(other.state.vars)["wall_s"] == 50.0


def test_tool_calls_that_somebody_else_makes_count_when_they_are_handed_over(world: World) -> None:
    calls = dict(enumerate(PAIR["tool_calls"]))
    wait = tool_waits.job_wait(calls, count=2, refused={}, wait_key="job:1")
    wait.resume_to_node = "again"
    runtime = limited(world, Calls(then=EffectOutcome.waiting(wait)), WORK)
    run_id = begun(runtime, WORK, tool_calls=3)
    runtime.tick(workflow=WORK, run_id=run_id)

    results = [{"success": True, "output": 1}, {"success": True, "output": 2}]
    state = answer(runtime, WORK, run_id, {"mode": "executed", "results": results})

    assert (question(state)["used"], question(state)["least"]) == (2, 4)


@pytest.mark.parametrize(
    ("payload", "used"),
    [
        ({"approved": True}, 2),
        ({"approved": False}, 0),
        ({"mode": "executed", "results": [{"success": True}, {"success": True}]}, 2),
    ],
)
def test_tool_calls_that_need_consent_count_once_they_are_made(world: World, payload: Json, used: int) -> None:
    calls = [{"name": "add", "arguments": {}, "call_id": f"c{at}"} for at in range(2)]
    workflow = call_then_end(TOOLS, {"tool_calls": calls})
    wait = tool_waits.approval_wait(dict(enumerate(calls)), count=2, refused={}, executed={}, key="k", policy={})
    wait.resume_to_node = "end"
    handler = Calls(EffectOutcome.waiting(wait))
    runtime = limited(world, handler, workflow)
    run_id = begun(runtime, workflow, tool_calls=2)
    before = budgets.usage(runtime.tick(workflow=workflow, run_id=run_id).vars)

    state = answer(runtime, workflow, run_id, payload)

    assert (before["tool_calls"], budgets.usage(state.vars)["tool_calls"]) == (0, used)
    assert state.status is RunStatus.COMPLETED


def test_a_run_without_limits_counts_and_is_never_asked(world: World) -> None:
    runtime = limited(world, said(), TALK)

    state = runtime.tick(workflow=TALK, run_id=runtime.start(workflow=TALK))

    assert state.status is RunStatus.COMPLETED
    assert budgets.usage(state.vars) == {"tokens": 60, "model_calls": 6, "tool_calls": 0, "wall_s": None}
    assert budgets.budget(state.vars) is None


@pytest.mark.parametrize(
    ("limits", "said_of_it"),
    [
        ([], "must be an object, not list"),
        ({"cents": 1}, "cents: is not a limit; known: tokens, model_calls, tool_calls, wall_s"),
        ({"cents": None}, "cents: is not a limit"),
        ({"tokens": 0}, "tokens: 0 is not a whole number from 1"),
        ({"tokens": "5"}, "tokens: '5' is not a whole number"),
        ({"tokens": 2.5}, "tokens: 2.5 is not a whole number"),
        ({"wall_s": float("nan")}, "wall_s: nan is not a number"),
        ({"wall_s": -1}, "wall_s: -1 is not a number"),
        ({"model_calls": 11}, "model_calls: 11 is more than the 10 allowed here"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_at_the_start(world: World, limits: Any, said_of_it: str) -> None:
    runtime = limited(world, said(), TALK, config=RuntimeConfig(budget={"model_calls": 10}))

    with pytest.raises(Invalid, match=said_of_it):
        runtime.new_run(TALK, {}, limits=limits)


def test_a_run_has_the_limits_of_its_host_or_lower_ones(world: World) -> None:
    runtime = limited(world, said(), TALK, config=RuntimeConfig(budget={"model_calls": 10, "tokens": 50}))
    given = {"_limits": {"budget": {"tokens": 40, "tool_calls": 7}}, "_runtime": {"budget": {"limits": {}}}}

    state = runtime.new_run(TALK, given, limits={"tokens": 30, "model_calls": None})

    assert budgets.budget(state.vars) == {
        "model_calls": {"limit": 10, "used": 0},
        "tokens": {"limit": 30, "used": 0},
        "tool_calls": {"limit": 7, "used": 0},
    }
    assert state.vars["_limits"] == RuntimeConfig().to_limits_dict()


def test_what_a_run_has_used_cannot_be_given_at_its_start(world: World) -> None:
    runtime = limited(world, said(), TALK)

    state = runtime.new_run(TALK, {"_runtime": {"budget": {"used": {"tokens": 7}, "limits": {"tokens": 9}}}})

    assert (budgets.usage(state.vars)["tokens"], budgets.budget(state.vars)) == (0, None)


def test_the_other_limits_of_a_run_stay_what_they_are(world: World) -> None:
    runtime = limited(world, said(), TALK)

    state = runtime.new_run(TALK, {"_limits": {"max_iterations": 7, "budget": {"tokens": 5}}})

    assert (state.vars["_limits"], budgets.usage(state.vars)["tokens"]) == ({"max_iterations": 7}, 0)


def test_a_run_that_asks_is_not_paused_and_can_be_cancelled(world: World) -> None:
    runtime = limited(world, said(), TALK)
    run_id = begun(runtime, TALK, model_calls=1)
    asked = runtime.tick(workflow=TALK, run_id=run_id)

    assert runtime.pause_run(run_id) == asked
    assert runtime.cancel_run(run_id, reason="enough").error == "enough"


def test_an_effect_that_a_crash_left_in_doubt_is_asked_about_when_time_is_up(world: World) -> None:
    workflow = call_then_end()
    runtime = limited(world, Calls(Crash()), workflow)
    run_id = begun(runtime, workflow, wall_s=5)
    with pytest.raises(Crash):
        runtime.tick(workflow=workflow, run_id=run_id)
    stored = world.state(run_id)
    budgets.spend(stored.vars, {"wall_s": 6.0})
    world.stores.runs.save(stored)
    handler = said()
    runtime = limited(world, handler, workflow)

    asked = runtime.tick(workflow=workflow, run_id=run_id)
    state = answer(runtime, workflow, run_id, {"response": "raise"})

    assert question(asked)["used"] == 6.0
    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 1)


def test_an_effect_of_another_kind_needs_no_budget_of_calls(world: World) -> None:
    workflow = call_then_end(EffectType.RUN_CODE)
    runtime = world.runtime({EffectType.RUN_CODE: Calls()}, workflow)

    state = runtime.tick(workflow=workflow, run_id=begun(runtime, workflow, model_calls=1, tool_calls=1, tokens=1))

    assert (state.status, budgets.usage(state.vars)["model_calls"]) == (RunStatus.COMPLETED, 0)


def test_a_flow_cannot_pass_its_own_question_off_as_one_about_the_budget(world: World) -> None:
    wait = {"wait_key": "mine", "details": {"kind": "budget"}}
    workflow = spec(
        "waits", wait=effect("wait", EffectType.WAIT_EVENT, wait, then="end", key="got"), end=end("end", "got")
    )
    runtime = limited(world, said(), workflow)
    run_id = begun(runtime, workflow)
    runtime.tick(workflow=workflow, run_id=run_id)

    state = answer(runtime, workflow, run_id, {"decision": "stop"})

    assert (state.status, state.output) == (RunStatus.COMPLETED, {"got": {"decision": "stop"}})


def test_a_question_of_the_kernel_names_effects_as_they_are_stored(world: World) -> None:
    held = loop(3, TOOLS, {"tool_calls": [{"name": " add ", "arguments": {}}]})
    handler = said()
    runtime = limited(world, handler, held)
    run_id = begun(runtime, held, tool_calls=1)
    runtime.tick(workflow=held, run_id=run_id)

    answer(runtime, held, run_id, {"decision": "raise", "limit": 2})

    first, second = handler.effects
    assert isinstance(second, Effect)
    assert second.payload["tool_calls"][0]["name"] == first.payload["tool_calls"][0]["name"] == "add"
    assert second.payload["tool_calls"][0]["call_id"] != first.payload["tool_calls"][0]["call_id"]
