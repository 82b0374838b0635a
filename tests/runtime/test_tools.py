"""Tool calls as an effect: each call has its result, whatever is wrong with it or with the others."""

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime import Effect, EffectType, RunStatus, compute_idempotency_key
from abstractgateway.runtime.effects.tools import FunctionTools, call_tools
from tests.runtime.workflows import Json, World, effect, end, spec


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def fail(why: str) -> None:
    raise ValueError(why)


def anything(*, values: list[Any], extra: Any = None) -> object:
    return {1, 2} if extra else values


TOOLS = FunctionTools({"add": add, "fail": fail, "anything": anything})


def called(world: World, payload: Json, tools: FunctionTools = TOOLS) -> Any:
    workflow = spec("calls", call=effect("call", EffectType.TOOL_CALLS, payload, then="end", key="got"))
    workflow.nodes["end"] = end("end", "got")
    runtime = world.runtime({EffectType.TOOL_CALLS: call_tools(tools)}, workflow)
    return runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))


def results(world: World, *calls: Any, **payload: Any) -> list[Json]:
    state = called(world, {"tool_calls": list(calls), **payload})
    assert state.status is RunStatus.COMPLETED, state.error
    found: list[Json] = state.output["got"]["results"]
    return found


def test_each_call_has_its_result_in_order_and_a_failing_one_stops_no_other(world: World) -> None:
    found = results(
        world,
        {"name": "add", "arguments": {"a": 1, "b": 2}, "call_id": "one"},
        {"name": "fail", "arguments": {"why": "no"}, "call_id": "two"},
        {"name": "add", "arguments": '{"a": 5}', "call_id": "three"},
    )

    assert [(item["call_id"], item["success"], item["output"], item["error"]) for item in found] == [
        ("one", True, 3, None),
        ("two", False, None, "ValueError: no"),
        ("three", True, 6, None),
    ]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({"name": "nothing"}, "there is no tool 'nothing'; known: add, anything, fail"),
        ("a text", "there is no tool ''"),
        ({"name": "add"}, "missing 1 required positional argument"),
        ({"name": "add", "arguments": ""}, "missing 1 required positional argument"),
        ({"name": "add", "arguments": [1]}, "arguments: are list, not an object"),
        ({"name": "add", "arguments": "[1]"}, "arguments: are list, not an object"),
        ({"name": "add", "arguments": "{"}, "arguments: is not valid JSON"),
        ({"name": "anything", "arguments": {"values": [], "extra": 1}}, "cannot be written as JSON"),
    ],
    ids=str,
)
def test_a_call_that_cannot_be_made_is_a_failed_one(world: World, call: Any, error: str) -> None:
    found = results(world, call, {"name": "add", "arguments": {"a": 1}})

    assert (found[0]["success"], found[0]["output"]) == (False, None)
    assert error in found[0]["error"]
    assert (found[1]["success"], found[1]["output"]) == (True, 2)


def test_a_tool_that_is_not_allowed_is_not_executed(world: World) -> None:
    calls = [{"name": "fail", "arguments": {"why": "executed"}}, {"name": "add", "arguments": {"a": 1}}]

    found = results(world, *calls, allowed_tools=["add", "unheard of"])

    assert [item["error"] for item in found] == ["Tool 'fail' is not allowed", None]


@pytest.mark.parametrize("payload", [{}, {"tool_calls": {"name": "add"}}, {"tool_calls": None}], ids=str)
def test_an_effect_without_a_list_of_calls_fails_the_run(world: World, payload: Json) -> None:
    state = called(world, payload)

    assert state.status is RunStatus.FAILED
    assert "requires payload.tool_calls" in str(state.error)


def test_a_gateway_without_tools_says_so(world: World) -> None:
    state = called(world, {"tool_calls": [{"name": "add"}]}, FunctionTools({}))

    assert state.output["got"]["results"][0]["error"] == "there is no tool 'add'; known: none"


def test_a_function_tells_models_what_it_takes() -> None:
    def typed(count: int, *rest: int, share: float = 0.5, name: str = "", **others: object) -> None: ...

    specs = {item["name"]: item for item in FunctionTools({"add": add, "typed": typed, "free": lambda x: x}).specs()}

    assert list(specs) == ["add", "free", "typed"]
    assert specs["add"]["description"] == "Add two numbers."
    assert specs["add"]["parameters"] == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
    }
    assert specs["free"]["parameters"]["properties"] == {"x": {}}
    assert specs["typed"]["parameters"] == {
        "type": "object",
        "properties": {"count": {"type": "integer"}, "share": {"type": "number"}, "name": {"type": "string"}},
        "required": ["count"],
    }


def key(*calls: Any, **payload: Any) -> str:
    effect = Effect(EffectType.TOOL_CALLS, {"tool_calls": list(calls), **payload})
    return compute_idempotency_key(run_id="r", node_id="n", effect=effect)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"name": "t", "arguments": {"x": 1}}, {"name": " t ", "arguments": '{"x": 1}', "call_id": "c9", "id": "i"}),
        ({"name": "t", "arguments": {}}, {"name": "t", "arguments": "{"}),
        ({"name": "t", "arguments": {}}, {"name": "t", "arguments": [1]}),
        ({"function": {"name": "t", "arguments": {"x": 1}}}, {"function": {"name": "t ", "arguments": '{"x":1}'}}),
        ({"arguments": {}}, {"arguments": {}, "runtime_call_id": "r1"}),
    ],
    ids=["ids and spelling", "arguments that are no JSON", "arguments that are no object", "nested", "without a name"],
)
def test_a_call_that_a_model_spells_differently_is_the_same_performance(one: Any, other: Any) -> None:
    assert key(one) == key(other)
    assert key(one, allowed_tools=["b", "a"]) == key(other, allowed_tools=[" a ", "b", "", 7])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"name": "t", "arguments": {"x": 1}}, {"name": "t", "arguments": {"x": 2}}),
        ({"name": "t"}, {"name": "t", "arguments": {}}),
        ({"function": {"name": "t"}}, {"function": {"name": "u"}}),
        ("a text", "another"),
    ],
    ids=["arguments", "no arguments", "nested name", "no object"],
)
def test_a_call_of_something_else_is_another_performance(one: Any, other: Any) -> None:
    assert key(one) != key(other)


def test_a_call_without_an_id_or_a_name_gets_an_id(world: World) -> None:
    found = results(world, {"arguments": {}}, {"id": "given", "name": " add ", "arguments": {"a": 1}})

    assert found[0]["call_id"] == found[0]["runtime_call_id"] and found[0]["call_id"].startswith("rtcall_")
    assert (found[1]["call_id"], found[1]["output"]) == ("given", 2)
