"""Tool calls as an effect: each call has its result, whatever is wrong with it or with the others."""

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.runtime import Effect, EffectType, RunStatus, compute_idempotency_key
from abstractgateway.runtime.effects.tools import (
    CombinedTools,
    FunctionTools,
    ToolBox,
    ToolContext,
    ToolSource,
    call_tools,
)
from tests.runtime.workflows import Json, World, effect, end, spec


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def fail(why: str) -> None:
    raise ValueError(why)


def anything(*, values: list[Any], extra: Any = None) -> object:
    return {1, 2} if extra else values


TOOLS = FunctionTools({"add": add, "fail": fail, "anything": anything})


def called(world: World, payload: Json, tools: ToolBox = TOOLS) -> Any:
    workflow = spec("calls", call=effect("call", EffectType.TOOL_CALLS, payload, then="end", key="got"))
    workflow.nodes["end"] = end("end", "got")
    runtime = world.runtime({EffectType.TOOL_CALLS: call_tools(tools)}, workflow)
    return runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))


def results(world: World, *calls: Any, tools: ToolBox = TOOLS, **payload: Any) -> list[Json]:
    state = called(world, {"tool_calls": list(calls), **payload}, tools)
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
        ({"name": "add"}, "the arguments are not what the tool takes: a: is missing"),
        ({"name": "add", "arguments": ""}, "the arguments are not what the tool takes: a: is missing"),
        ({"name": "add", "arguments": {"a": "1"}}, "a: is string, not integer"),
        ({"name": "add", "arguments": {"a": 1, "c": 2}}, "unexpected keyword argument 'c'"),
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


def leave() -> None:
    raise SystemExit("no")


def test_a_tool_that_wants_to_end_the_process_only_fails(world: World) -> None:
    found = results(world, {"name": "leave"}, {"name": "one"}, tools=FunctionTools({"leave": leave, "one": lambda: 1}))

    assert [(item["success"], item["error"], item["output"]) for item in found] == [
        (False, "SystemExit: no", None),
        (True, None, 1),
    ]


def test_arguments_that_do_not_fit_the_schema_reach_no_tool(world: World) -> None:
    reached: list[Any] = []

    class Strict:
        def specs(self) -> list[Json]:
            schema = {"type": "object", "properties": {"n": {"maximum": 3}}, "additionalProperties": False}
            return [{"name": "strict", "description": "", "parameters": schema}]

        def execute(self, name: str, arguments: Json) -> Any:
            reached.append(arguments)

    calls = [{"name": "strict", "arguments": arguments} for arguments in ({"n": 4}, {"m": 1}, {"n": 3})]
    found = results(world, *calls, tools=Strict())

    assert [item["success"] for item in found] == [False, False, True]
    assert "n: 4 is more than 3" in found[0]["error"]
    assert "m: is not known; known: n" in found[1]["error"]
    assert reached == [{"n": 3}]


def test_a_tool_whose_schema_is_no_schema_is_not_executed(world: World) -> None:
    class Odd(FunctionTools):
        def specs(self) -> list[Json]:
            return [{**spec, "parameters": {"type": "thing"}} for spec in super().specs()]

    found = results(world, {"name": "add", "arguments": {"a": 1}}, tools=Odd({"add": add}))

    assert "the schema has the type 'thing'" in found[0]["error"]


def test_a_function_is_told_what_it_has_parameters_for(world: World) -> None:
    told: Json = {}

    def pay(amount: int, idempotency_key: str, timeout_s: float | None, stop: Any, tool_context: ToolContext) -> int:
        told.update(key=idempotency_key, timeout_s=timeout_s, stop=stop, context=tool_context)
        return amount

    tools = FunctionTools({"pay": pay})
    found = results(world, *[{"name": "pay", "arguments": {"amount": n}} for n in (1, 2)], tools=tools)

    assert tools.specs()[0]["parameters"]["required"] == ["amount"]
    assert [item["output"] for item in found] == [1, 2]
    assert told["key"] == found[1]["runtime_call_id"] != found[0]["runtime_call_id"]
    assert (told["timeout_s"], told["stop"]) == (7200.0, None)
    assert told["context"].run.workflow_id == "calls"
    assert told["context"].call_id == found[1]["call_id"]


def test_a_tool_box_is_told_what_it_has_parameters_for(world: World) -> None:
    class Box:
        def specs(self) -> list[Json]:
            return [{"name": "t", "description": "", "parameters": {}}]

        def execute(
            self, name: str, arguments: Json, timeout_s: float | None = None, tool_context: ToolContext | None = None
        ) -> Any:
            assert tool_context is not None
            return [timeout_s, tool_context.run.workflow_id]

    found = results(world, {"name": "t"}, tools=CombinedTools([ToolSource("a box", Box())]))

    assert found[0]["output"] == [7200.0, "calls"]


@pytest.mark.parametrize(
    ("functions", "error"),
    [
        ({"len": len}, "'len' takes 'obj' by position only"),
        ({"five": 5}, "'five' is int, which cannot be called"),
    ],
)
def test_what_cannot_be_called_with_named_arguments_is_no_tool(functions: Any, error: str) -> None:
    with pytest.raises(Invalid, match=error):
        FunctionTools(functions)


def test_a_function_without_a_signature_takes_anything(world: World) -> None:
    found = results(world, {"name": "dict", "arguments": {"a": 1}}, tools=FunctionTools({"dict": dict, "max": max}))

    assert found[0]["output"] == {"a": 1}


class Changing:
    """A tool box whose tools come and go."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)

    def specs(self) -> list[Json]:
        return [{"name": name, "description": "", "parameters": {}} for name in self.names]

    def execute(self, name: str, arguments: Json) -> Any:
        return [id(self), name]


def test_tools_that_come_and_go_are_known_while_they_are_there(world: World) -> None:
    box = Changing("one")
    tools = CombinedTools([ToolSource("mine", FunctionTools({"add": add})), ToolSource("theirs", box)])
    perform = call_tools(tools)
    run = world.runtime().new_run(spec("x", end=end()), {})

    def call(name: str) -> Any:
        return perform(run, Effect(EffectType.TOOL_CALLS, {"tool_calls": [{"name": name}]}), None).result["results"][0]

    assert call("one")["success"]
    box.names = ["two"]
    assert "there is no tool 'one'" in call("one")["error"]
    assert call("two")["success"]


def test_two_tools_of_one_name_are_refused_and_a_later_one_is_not_offered() -> None:
    first, second = Changing("same"), Changing("same")
    with pytest.raises(Invalid, match="'same' is offered by a and by b; rename one"):
        CombinedTools([ToolSource("a", first), ToolSource("b", second)])

    second.names = []
    tools = CombinedTools([ToolSource("a", first), ToolSource("b", second)])
    second.names = ["same", "other"]

    assert [item["name"] for item in tools.specs()] == ["same", "other"]
    assert tools.execute("same", {})[0] == id(first)


def test_tools_of_a_guarded_source_wait_for_approval_unless_they_say_otherwise() -> None:
    tools = CombinedTools([ToolSource("a", Changing("own")), ToolSource("b", Changing("far"), is_guarded=True)])

    assert {item["name"]: item.get("requires_approval") for item in tools.specs()} == {"own": None, "far": True}
