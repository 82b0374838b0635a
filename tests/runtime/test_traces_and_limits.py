from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import Invalid, NotFound
from abstractgateway.runtime import EffectOutcome, EffectType, LimitWarning, RuntimeConfig, StepPlan
from abstractgateway.runtime.limits import note_usage, token_use
from abstractgateway.runtime.traces import MAX_BYTES, MAX_ENTRIES
from tests.runtime.workflows import Calls, Json, World, ask_then_end, call_then_end, effect, end, loop, spec


def traces(world: World, workflow: Any, handler: Any = None) -> Json:
    runtime = world.runtime({EffectType.LLM_CALL: handler} if handler is not None else {})
    run_id = runtime.start(workflow=workflow)
    state = runtime.tick(workflow=workflow, run_id=run_id, max_steps=10_000)
    found: Json = state.vars["_runtime"]["node_traces"]
    return found


def test_a_trace_tells_what_a_node_did(world: World) -> None:
    found = traces(world, call_then_end(), Calls(EffectOutcome.completed({"content": "hi"})))

    (entry,) = found["call"]["steps"]
    assert found["call"]["node_id"] == "call"
    assert entry["status"] == "completed"
    assert entry["effect"] == {"type": "llm_call", "payload": {"prompt": "hi"}, "result_key": "said"}
    assert entry["result"] == {"content": "hi"}


def test_a_trace_tells_why_a_node_failed_and_what_one_waits_for(world: World) -> None:
    failed = traces(world, call_then_end(), Calls(EffectOutcome.failed("no")))
    waiting = traces(world, ask_then_end())

    assert failed["call"]["steps"][0]["error"] == "no"
    assert waiting["ask"]["steps"][0]["wait"]["prompt"] == "Continue?"


def test_a_trace_is_not_changed_by_what_becomes_of_the_variables(world: World) -> None:
    def change(run: Any, ctx: Any) -> StepPlan:
        run.vars["said"]["content"] = "changed"
        return StepPlan("change", next_node="end")

    called = effect("call", EffectType.LLM_CALL, {"prompt": "x"}, then="change", key="said")
    workflow = spec("changes", call=called, change=change, end=end())

    found = traces(world, workflow, Calls(EffectOutcome.completed({"content": "hi"})))

    assert found["call"]["steps"][0]["result"] == {"content": "hi"}


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_the_trace_of_a_loop_is_bounded(world: World, size: int) -> None:
    workflow = loop(3 * MAX_ENTRIES, EffectType.ANSWER_USER, {"message": "x" * size})

    trace = traces(world, workflow)["again"]

    assert 0 < len(trace["steps"]) <= MAX_ENTRIES
    assert trace["bytes"] == sum(entry["bytes"] for entry in trace["steps"]) <= MAX_BYTES


def test_a_step_too_large_for_a_trace_keeps_its_outline(world: World) -> None:
    found = traces(world, call_then_end(), Calls(EffectOutcome.completed({"content": "x" * (2 * MAX_BYTES)})))

    (entry,) = found["call"]["steps"]
    assert entry["truncated"] is True
    assert entry["effect"] == {"type": "llm_call"}
    assert "result" not in entry


def test_traces_of_another_program_are_continued(world: World) -> None:
    workflow = call_then_end()
    runtime = world.runtime({EffectType.LLM_CALL: Calls()})
    run_id = runtime.start(workflow=workflow)
    state = runtime.get_state(run_id)
    old = [{"node_id": "call", "status": "completed"} for _ in range(MAX_ENTRIES)]
    state.vars["_runtime"]["node_traces"] = {"call": {"node_id": "call", "steps": old}, "end": "odd"}
    world.stores.runs.save(state)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    steps = state.vars["_runtime"]["node_traces"]["call"]["steps"]
    assert (len(steps), steps[-1]["effect"]["type"]) == (MAX_ENTRIES, "llm_call")


def test_a_run_starts_with_the_limits_of_its_runtime(world: World) -> None:
    runtime = world.runtime(config=RuntimeConfig(max_iterations=7, max_tokens=1000, provider="p", model="m"))

    state = runtime.get_state(runtime.start(workflow=call_then_end(), vars={"_runtime": {"model": "mine"}}))

    assert state.vars["_limits"] == {
        "max_iterations": 7,
        "current_iteration": 0,
        "max_tokens": 1000,
        "max_output_tokens": None,
        "max_input_tokens": None,
        "estimated_tokens_used": 0,
        "max_history_messages": -1,
        "warn_iterations_pct": 80,
        "warn_tokens_pct": 80,
    }
    assert state.vars["_runtime"] == {"provider": "p", "model": "mine"}


def test_limits_that_a_run_brings_are_kept(world: World) -> None:
    runtime = world.runtime()

    state = runtime.get_state(runtime.start(workflow=call_then_end(), vars={"_limits": {"max_iterations": 3}}))

    assert state.vars["_limits"] == {"max_iterations": 3}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RuntimeConfig(), (32_768, None, None)),
        (RuntimeConfig(model_capabilities={"max_tokens": 8000, "max_output_tokens": 500}), (8000, 500, None)),
        (RuntimeConfig(max_tokens=2000, max_output_tokens=500, max_input_tokens=5000), (2000, 500, 1244)),
        (RuntimeConfig(max_tokens=200, max_output_tokens=500, max_input_tokens=5000), (200, 500, 0)),
        (RuntimeConfig(max_tokens=2000, max_input_tokens=5000), (2000, None, 5000)),
    ],
)
def test_token_budgets_come_from_the_settings_and_the_model(config: RuntimeConfig, expected: tuple[Any, ...]) -> None:
    limits = config.to_limits_dict()

    assert (limits["max_tokens"], limits["max_output_tokens"], limits["max_input_tokens"]) == expected


@pytest.mark.parametrize(("support", "is_native"), [("native", True), ("prompted", False)])
def test_what_a_model_can_do_with_tools_is_noted_at_the_start(world: World, support: str, is_native: bool) -> None:
    runtime = world.runtime(config=RuntimeConfig().with_capabilities({"tool_support": support}))

    own = runtime.get_state(runtime.start(workflow=call_then_end())).vars["_runtime"]

    assert own == {"tool_support": support, "supports_native_tools": is_native}


@pytest.mark.parametrize(
    ("usage", "used"),
    [
        ({"input_tokens": 10, "prompt_tokens": 9}, 10),
        ({"prompt_tokens": 9, "total_tokens": 20}, 9),
        ({"total_tokens": 20}, 20),
        ({}, 0),
        ({"input_tokens": "ten"}, 0),
        (None, 0),
    ],
)
def test_the_size_of_a_model_call_is_kept_as_the_tokens_in_use(world: World, usage: Any, used: int) -> None:
    runtime = world.runtime({EffectType.LLM_CALL: Calls(EffectOutcome.completed({"content": "x", "usage": usage}))})

    state = runtime.tick(workflow=call_then_end(), run_id=runtime.start(workflow=call_then_end()))

    assert state.vars["_limits"]["estimated_tokens_used"] == used


def test_the_use_of_tokens_is_a_share_of_the_budget_where_there_is_one() -> None:
    assert token_use({"_limits": {"estimated_tokens_used": 250, "max_tokens": 1000}})["pct"] == 25.0
    assert (
        token_use({"_limits": {"estimated_tokens_used": 250, "max_tokens": 1000, "max_input_tokens": 500}})["pct"]
        == 50.0
    )
    assert token_use({"_limits": "odd"})["pct"] is None


def test_a_result_without_usage_changes_no_limit() -> None:
    vars: Json = {"_limits": {"estimated_tokens_used": 5}}

    note_usage(vars, "text")
    note_usage({}, {"usage": {"input_tokens": 1}})

    assert vars == {"_limits": {"estimated_tokens_used": 5}}


def test_the_traces_of_a_run_can_be_read_without_changing_them(world: World) -> None:
    runtime = world.runtime({EffectType.LLM_CALL: Calls()})
    run_id = runtime.start(workflow=call_then_end())
    before = runtime.get_node_traces(run_id)
    runtime.tick(workflow=call_then_end(), run_id=run_id)

    found = runtime.get_node_traces(run_id)
    trace = runtime.get_node_trace(run_id, "call")

    assert before == {}
    assert found == world.state(run_id).vars["_runtime"]["node_traces"]
    assert trace == found["call"]
    assert trace["steps"][0]["reused_prior_result"] is False
    assert runtime.get_node_trace(run_id, "nowhere") == {"node_id": "nowhere", "steps": []}
    with pytest.raises(NotFound):
        runtime.get_node_traces("nobody")


def limited(world: World, **limits: Any) -> tuple[Any, str]:
    runtime = world.runtime(config=RuntimeConfig(max_iterations=10, max_tokens=1000))
    return runtime, runtime.start(workflow=call_then_end(), vars={"_limits": limits} if limits else None)


def test_the_limits_of_a_run_are_told_with_what_is_used_of_them(world: World) -> None:
    runtime, run_id = limited(world)
    runtime.update_limits(run_id, {"current_iteration": 8, "estimated_tokens_used": 333, "max_output_tokens": 50})

    status = runtime.get_limit_status(run_id)

    assert status == {
        "iterations": {"current": 8, "max": 10, "pct": 80.0, "warning": True},
        "tokens": {
            "estimated_used": 333,
            "max": 1000,
            "max_input_tokens": None,
            "max_output_tokens": 50,
            "pct": 33.3,
            "warning": False,
        },
        "history": {"max_messages": -1},
    }


def test_limits_that_a_run_does_not_carry_are_those_of_the_runtime(world: World) -> None:
    runtime, run_id = limited(world, current_iteration=5)

    assert runtime.get_limit_status(run_id)["iterations"] == {"current": 5, "max": 10, "pct": 50.0, "warning": False}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, []),
        ({"current_iteration": 7}, []),
        ({"current_iteration": 8}, [("iterations", "warning", 8, 10, 80.0)]),
        ({"current_iteration": 10}, [("iterations", "exceeded", 10, 10, 100.0)]),
        ({"current_iteration": 10, "warn_iterations_pct": 150}, [("iterations", "exceeded", 10, 10, 100.0)]),
        ({"current_iteration": 5, "warn_iterations_pct": 50}, [("iterations", "warning", 5, 10, 50.0)]),
        ({"current_iteration": 9, "warn_iterations_pct": None}, []),
        ({"current_iteration": 9, "max_iterations": None}, []),
        ({"estimated_tokens_used": 0, "warn_tokens_pct": 0}, []),
        ({"estimated_tokens_used": 801}, [("tokens", "warning", 801, 1000, 80.1)]),
        ({"estimated_tokens_used": 1200}, [("tokens", "exceeded", 1200, 1000, 120.0)]),
        (
            {"current_iteration": 11, "estimated_tokens_used": 900},
            [("iterations", "exceeded", 11, 10, 110.0), ("tokens", "warning", 900, 1000, 90.0)],
        ),
    ],
)
def test_limits_that_are_near_or_reached_are_warned_of(
    world: World, limits: Json, expected: list[tuple[Any, ...]]
) -> None:
    runtime, run_id = limited(world)
    runtime.update_limits(run_id, limits)

    warnings = runtime.check_limits(runtime.get_state(run_id))

    assert [(found.limit_type, found.status, found.current, found.maximum, found.pct) for found in warnings] == expected


def test_a_warning_about_no_limit_has_no_share() -> None:
    assert LimitWarning("history", "warning", 3, 0).pct == 0.0


def test_changed_limits_are_stored_at_once_and_nothing_else_is(world: World) -> None:
    runtime, run_id = limited(world)
    before = world.state(run_id)
    world.clock.move(5)

    runtime.update_limits(run_id, {"max_iterations": 3, "max_tokens": None, "budget": 7})

    after = world.state(run_id)
    assert after.vars["_limits"] == {**before.vars["_limits"], "max_iterations": 3, "max_tokens": None}
    assert after.updated_at == before.updated_at
    assert world.ledger(run_id) == []


def test_changing_no_limit_writes_nothing(world: World) -> None:
    runtime, run_id = limited(world)
    before = world.stores.runs.open(run_id)

    runtime.update_limits(run_id, {"budget": 7})

    assert world.stores.runs.open(run_id) == before


@pytest.mark.parametrize("value", ["ten", True, 1.5, [1]])
def test_a_limit_that_is_no_number_is_refused(world: World, value: Any) -> None:
    runtime, run_id = limited(world)

    with pytest.raises(Invalid, match="max_tokens"):
        runtime.update_limits(run_id, {"max_iterations": 3, "max_tokens": value})

    assert world.state(run_id).vars["_limits"]["max_iterations"] == 10
