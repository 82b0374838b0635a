from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.runtime import Effect, EffectOutcome, EffectType, RunState, RunStatus, StepPlan, WaitState
from tests.runtime.workflows import Calls, Json, World, call_then_end, effect, end, loop, outline, spec

NOT_JSON = {
    "a set": {1, 2},
    "nan": math.nan,
    "infinity": [math.inf],
    "bytes": b"x",
    "a lone surrogate": "\udc80",
    "an object": object(),
}
CYCLE: Json = {}
CYCLE["self"] = CYCLE
NOT_JSON["itself"] = CYCLE


def run_once(world: World, workflow: Any, handler: Any = None, **vars: Any) -> RunState:
    handlers = {EffectType.LLM_CALL: handler} if handler is not None else {}
    runtime = world.runtime(handlers)
    run_id = runtime.start(workflow=workflow, vars=vars)
    return runtime.tick(workflow=workflow, run_id=run_id)


def test_a_loop_that_repeats_the_same_model_call_makes_it_every_time(world: World) -> None:
    handler = Calls()

    state = run_once(world, loop(4, EffectType.LLM_CALL, {"prompt": "roll"}), handler)

    assert state.output == {"rounds": 4}
    assert len(handler) == 4
    keys = {record["idempotency_key"] for record in world.ledger(state.run_id) if record["status"] == "started"}
    assert len(keys) == 4


def test_a_loop_that_repeats_the_same_message_says_it_every_time(world: World) -> None:
    state = run_once(world, loop(3, EffectType.ANSWER_USER, {"message": "again"}))

    said = [record for record in world.ledger(state.run_id) if record["status"] == "started"]
    assert len(said) == 3


def test_a_run_goes_on_where_its_budget_of_steps_ended(world: World) -> None:
    workflow = loop(10, EffectType.LLM_CALL, {"prompt": "roll"})
    handler = Calls()
    runtime = world.runtime({EffectType.LLM_CALL: handler})
    run_id = runtime.start(workflow=workflow)

    first = runtime.tick(workflow=workflow, run_id=run_id, max_steps=4)
    second = runtime.tick(workflow=workflow, run_id=run_id)

    assert (first.status, first.vars["round"]) == (RunStatus.RUNNING, 4)
    assert (second.status, len(handler)) == (RunStatus.COMPLETED, 10)


def test_a_node_that_raises_fails_its_run_with_node_and_reason(world: World) -> None:
    def broken(run: RunState, ctx: Any) -> StepPlan:
        raise ZeroDivisionError("division by zero")

    state = run_once(
        world, spec("broken", first=effect("first", EffectType.ANSWER_USER, {"message": "hi"}, then="bad"), bad=broken)
    )

    assert (state.status, state.error) == (RunStatus.FAILED, "node 'bad': ZeroDivisionError: division by zero")
    *_, failed, status = world.ledger(state.run_id)
    assert (failed["node_id"], failed["status"], failed["error"]) == ("bad", "failed", state.error)
    assert status["idempotency_key"] == "system:terminal_status:failed"


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (None, "is NoneType, not a StepPlan"),
        (StepPlan("n"), "has neither an effect, a next node nor an output"),
        (StepPlan("n", next_node="nowhere"), "workflow 'odd' has no node 'nowhere'"),
        (StepPlan("n", effect={"type": "llm_call"}), "AttributeError"),  # type: ignore[arg-type]
    ],
)
def test_a_plan_that_leads_nowhere_fails_the_run(world: World, plan: Any, why: str) -> None:
    state = run_once(world, spec("odd", n=lambda run, ctx: plan))

    assert state.status is RunStatus.FAILED
    assert why in str(state.error)


def test_an_output_wins_over_an_effect(world: World) -> None:
    handler = Calls()
    plan = StepPlan("n", effect=Effect(EffectType.LLM_CALL, {"prompt": "x"}), complete_output={})

    state = run_once(world, spec("both", n=lambda run, ctx: plan), handler)

    assert (state.status, state.output, len(handler)) == (RunStatus.COMPLETED, {}, 0)


def in_vars(value: Any) -> Callable[[RunState, Any], StepPlan]:
    def put(run: RunState, ctx: Any) -> StepPlan:
        run.vars["x"] = value
        return StepPlan("put", next_node="end")

    return put


@pytest.mark.parametrize("what", NOT_JSON)
@pytest.mark.parametrize(
    "place",
    ["vars", "output", "payload", "internal payload", "result", "wait"],
)
def test_a_value_that_json_lacks_fails_the_run_and_is_not_tried_again(world: World, place: str, what: str) -> None:
    value = NOT_JSON[what]
    nodes = {
        "vars": in_vars(value),
        "output": lambda run, ctx: StepPlan("put", complete_output={"x": value}),
        "payload": effect("put", EffectType.LLM_CALL, {"x": value}, then="end"),
        "internal payload": effect("put", EffectType.VARS_QUERY, {"x": value}, then="end"),
        "result": effect("put", EffectType.LLM_CALL, {"prompt": "x"}, then="end"),
        "wait": effect("put", EffectType.LLM_CALL, {"prompt": "y"}, then="end"),
    }
    outcomes = {
        "wait": EffectOutcome.waiting(WaitState("user", wait_key="k", details={"x": value})),  # type: ignore[arg-type]
    }
    handler = Calls(then=outcomes.get(place, EffectOutcome.completed({"x": value})))
    workflow = spec("odd", put=nodes[place], end=end())

    state = run_once(world, workflow, handler)
    again = world.runtime({EffectType.LLM_CALL: handler}).tick(workflow=workflow, run_id=state.run_id)

    assert state.status is again.status is RunStatus.FAILED
    assert state.error
    assert len(handler) <= 1
    assert world.ledger(state.run_id)[-1]["idempotency_key"] == "system:terminal_status:failed"


@pytest.mark.parametrize("what", NOT_JSON)
def test_a_run_with_a_value_that_json_lacks_is_not_started(world: World, what: str) -> None:
    with pytest.raises(Invalid):
        world.runtime().start(workflow=call_then_end(), vars={"x": NOT_JSON[what]})


def test_variables_that_are_no_object_are_refused(world: World) -> None:
    with pytest.raises(Invalid, match="must be an object, not list"):
        world.runtime().start(workflow=call_then_end(), vars=["x"])  # type: ignore[arg-type]


def test_an_error_text_that_json_lacks_is_spelt_out(world: World) -> None:
    def broken(run: RunState, ctx: Any) -> StepPlan:
        raise OSError("cannot read '\udce9.txt'")

    states = [
        run_once(world, spec("broken", bad=broken)),
        run_once(world, call_then_end(), Calls(EffectOutcome.failed("cannot read '\udce9.txt'"))),
        run_once(world, call_then_end(), Calls(ValueError("cannot read '\udce9.txt'"))),
    ]

    assert all("cannot read '\\udce9.txt'" in str(state.error) for state in states)


@pytest.mark.parametrize("answer", [None, {"ok": True}, "text"])
def test_a_handler_that_returns_no_outcome_fails_its_effect(world: World, answer: Any) -> None:
    state = run_once(world, call_then_end(), lambda run, effect, node: answer)

    assert state.status is RunStatus.FAILED
    assert f"the handler of llm_call returned {type(answer).__name__}, not an EffectOutcome" in str(state.error)


@pytest.mark.parametrize("status", ["waiting", "started"])
def test_an_outcome_that_says_too_little_fails_its_effect(world: World, status: str) -> None:
    state = run_once(world, call_then_end(), Calls(EffectOutcome(status)))  # type: ignore[arg-type]

    assert f"an effect cannot end as {status}" in str(state.error)


@pytest.mark.parametrize("error", [ValueError("bad luck"), SystemExit(3)])
def test_a_handler_that_raises_is_called_once_and_fails_its_effect(world: World, error: BaseException) -> None:
    handler = Calls(error)

    state = run_once(world, call_then_end(), handler)

    assert len(handler) == 1
    assert state.error == f"Effect failed after 1 attempts: {type(error).__name__}: {error} (node 'call')"


def test_a_handler_with_two_parameters_is_called_with_two(world: World) -> None:
    seen = []

    def handler(run: RunState, effect: Effect) -> EffectOutcome:
        seen.append((run.run_id, effect.payload))
        return EffectOutcome.completed({"n": len(seen)})

    state = run_once(world, call_then_end(), handler)

    assert state.output == {"said": {"n": 1}}
    assert seen == [(state.run_id, {"prompt": "hi"})]


def test_a_handler_given_for_an_effect_of_the_kernel_takes_its_place(world: World) -> None:
    workflow = spec(
        "said", say=effect("say", EffectType.ANSWER_USER, {"message": "hi"}, then="end", key="x"), end=end("end", "x")
    )
    handler = Calls(EffectOutcome.completed({"shown": True}))
    runtime = world.runtime({EffectType.ANSWER_USER: handler})
    run_id = runtime.start(workflow=workflow)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.output == {"x": {"shown": True}}


def test_runs_that_start_from_one_template_share_nothing(world: World) -> None:
    def count(run: RunState, ctx: Any) -> StepPlan:
        run.vars["items"].append(1)
        return StepPlan("count", complete_output={"items": run.vars["items"]})

    template: Json = {"items": []}

    outputs = [run_once(world, spec("counts", count=count), None, **template).output for _ in range(3)]

    assert outputs == [{"items": [1]}] * 3
    assert template == {"items": []}


def test_a_state_that_was_read_is_a_copy(world: World) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=call_then_end(), vars={"x": 1})

    runtime.get_state(run_id).vars["x"] = 2

    assert runtime.get_state(run_id).vars["x"] == 1


def test_a_payload_may_hold_all_variables_of_its_run(world: World) -> None:
    def whole(run: RunState, ctx: Any) -> StepPlan:
        return StepPlan(
            "whole", effect=Effect(EffectType.ANSWER_USER, {"message": "x", "all": run.vars}), next_node="end"
        )

    state = run_once(world, spec("whole", whole=whole, end=end("end", "x")), None, x=1)

    assert (state.status, state.output) == (RunStatus.COMPLETED, {"x": 1})


def test_the_parts_of_a_run_that_belong_to_the_kernel_cannot_be_given_at_its_start(world: World) -> None:
    own = {"in_flight": {"cursor": 1, "next_node": "end"}, "steps": 7, "visits": {"call": 3}, "model": "m"}

    state = run_once(world, call_then_end(), Calls(), _runtime={**own, "control": {"paused": True}})

    assert state.status is RunStatus.COMPLETED
    assert state.vars["_runtime"]["model"] == "m"
    assert set(state.vars["_runtime"]) == {"model", "node_traces", "budget"}
    assert world.runtime().new_run(call_then_end(), {"_runtime": own}).vars["_runtime"] == {"model": "m"}


def test_a_result_is_stored_at_its_path_and_makes_the_objects_on_the_way(world: World) -> None:
    called = effect("call", EffectType.LLM_CALL, {"prompt": "x"}, then="end", key="a.b.c")

    state = run_once(world, spec("deep", call=called, end=end("end", "a")), Calls(), a="replaced")

    assert state.output == {"a": {"b": {"c": {"ok": True}}}}


def test_a_result_of_nothing_is_stored_nowhere(world: World) -> None:
    state = run_once(world, call_then_end(), Calls(EffectOutcome.completed()))

    assert state.output == {"said": None}
    assert outline(world.ledger(state.run_id))[1] == ("call", "completed", "llm_call")


def test_the_progress_of_slow_nodes_is_shown_before_the_run_is_over(world: World) -> None:
    def slow(run: RunState, ctx: Any) -> StepPlan:
        world.clock.move(1)
        run.vars["n"] = run.vars.get("n", 0) + 1
        return StepPlan("slow", next_node="slow" if run.vars["n"] < 5 else "end")

    workflow = spec(
        "slow", call=effect("call", EffectType.LLM_CALL, {"prompt": "x"}, then="slow"), slow=slow, end=end()
    )
    seen: list[int] = []
    world.stores.subscribe(lambda changes: seen.append(world.state(changes.runs[0].run_id).vars.get("n", 0)))

    state = run_once(world, workflow, Calls())

    assert seen == [0, 0, 1, 2, 3, 4, 5, 5]
    assert outline(world.ledger(state.run_id)) == [
        ("call", "started", "llm_call"),
        ("call", "completed", "llm_call"),
        ("end", "completed", None),
        ("end", "completed", "emit_event"),
    ]
