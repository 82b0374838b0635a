from __future__ import annotations

import json
from typing import Any

import pytest

from abstractgateway.runtime.models import EffectType


def _ask(driver: Any) -> list[str]:
    return [payload["message"] for payload in driver.payloads(EffectType.ANSWER_USER)]


@pytest.mark.parametrize(
    ("edges", "given", "said"),
    [
        (["s > say"], {}, ["None"]),
        (["s > say"], {"message": "from the bus"}, ["from the bus"]),
        (["s > say", "lit/value -> say/message"], {"message": "from the bus"}, ["from the edge"]),
        (["s > say", "never/value -> say/message"], {"message": "from the bus"}, ["from the bus"]),
    ],
)
def test_an_edge_beats_the_bus_and_the_bus_beats_the_default(
    driver: Any, draw: Any, edges: list[str], given: dict[str, Any], said: list[str]
) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> message", defaults={"message": "None"}),
            draw.node("lit", "literal_string", "", "value", literalValue="from the edge"),
            draw.node("never", "set_var", "> name value", "> value"),
            draw.node("say", "answer_user", "> message", ">", defaults={"message": "the default"}),
        ],
        edges,
    )

    driver.run(driver.add(document), given)

    assert _ask(driver) == said


def test_a_default_counts_when_the_bus_says_nothing(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> other"),
            draw.node(
                "say", "answer_user", "> message level", ">", defaults={"message": "the default", "level": "warn"}
            ),
        ],
        ["s > say"],
    )

    driver.run(driver.add(document), {"message": "not declared, so not on the bus"})

    assert driver.payloads(EffectType.ANSWER_USER) == [{"message": "the default", "level": "warning"}]


def test_start_pins_take_the_input_then_the_default_then_null_and_keep_an_explicit_null(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> a b c d", defaults={"a": 1, "b": 2, "c": 3}),
            draw.node("e", "on_flow_end", ">"),
        ],
        ["s > e"],
    )

    result = driver.run(driver.add(document), {"a": 9, "b": None, "x": 1})

    assert result.output == {"a": 9, "b": None, "c": 3, "d": None, "success": True}


def test_a_start_without_pins_gives_all_inputs_but_no_internals(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [draw.node("s", "on_flow_start", "", ">", defaults={"d": 1}), draw.node("e", "on_flow_end", ">")], ["s > e"]
    )

    result = driver.run(driver.add(document), {"a": 9, "_runtime": {}})

    assert result.output == {"a": 9, "d": 1, "success": True}


def test_defaults_of_start_pins_are_not_variables(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> a", defaults={"a": 1}),
            draw.node("g", "get_var", "name", "value", defaults={"name": "a"}),
            draw.node("e", "on_flow_end", "> edge variable"),
        ],
        ["s > e", "s/a -> e/edge", "g/value -> e/variable"],
    )

    assert driver.run(driver.add(document)).output == {"edge": 1, "variable": None, "success": True}


def test_an_end_pin_named_success_is_kept(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [draw.node("s", "on_flow_start", "", "> success"), draw.node("e", "on_flow_end", "> success")],
        ["s > e", "s/success -> e/success"],
    )

    assert driver.run(driver.add(document), {"success": False}).output == {"success": False}


def _set_flow(draw: Any, kind: str, inputs: str, **defaults: Any) -> dict[str, Any]:
    return draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> keep"),
            draw.node("set", kind, f"> {inputs}", "> value", defaults=defaults),
        ],
        ["s > set"],
    )


@pytest.mark.parametrize(
    ("defaults", "inputs", "expected"),
    [
        ({"name": " a.b ", "value": 1}, "name value", {"a": {"b": 1, "old": 0}}),
        ({"name": "a..c.d", "value": 1}, "name value", {"a": {"old": 0, "c": {"d": 1}}}),
        ({"name": "keep.x", "value": 1}, "name value", {"keep": {"x": 1}}),
        ({"name": "n"}, "name value|number", {"n": 0}),
        ({"name": "n"}, "name value|boolean", {"n": False}),
        ({"name": "n"}, "name value|string", {"n": ""}),
        ({"name": "n"}, "name value|any", {"n": None}),
        ({"name": "context", "value": 5}, "name value", {"context": 5}),
    ],
)
def test_set_var_writes_paths_and_natural_defaults(
    driver: Any, draw: Any, defaults: dict[str, Any], inputs: str, expected: dict[str, Any]
) -> None:
    result = driver.run(driver.add(_set_flow(draw, "set_var", inputs, **defaults)), {"keep": "k", "a": {"old": 0}})

    assert result.output == {"success": True, "result": {"keep": "k"}}
    assert {name: result.vars[name] for name in expected} == expected


@pytest.mark.parametrize("name", ["", "  ", None, 5, "_temp.x", "_limits"])
def test_reserved_and_empty_names_are_not_written(driver: Any, draw: Any, name: Any) -> None:
    result = driver.run(driver.add(_set_flow(draw, "set_var", "name value", name=name, value=1)))

    assert result.status == "failed"
    assert "node 'set': Invalid: name: " in result.error


@pytest.mark.parametrize(
    ("updates", "expected"),
    [({"a": 1, "b.c": 2}, {"a": 1, "b": {"c": 2}}), ('{"a": 3}', {"a": 3}), ("junk", {}), (None, {}), ({}, {})],
)
def test_set_vars_writes_all_of_an_object(driver: Any, draw: Any, updates: Any, expected: dict[str, Any]) -> None:
    result = driver.run(driver.add(_set_flow(draw, "set_vars", "updates", updates=updates)))

    assert result.output["success"] is True
    assert {name: value for name, value in result.vars.items() if not name.startswith("_")} == expected


def test_set_vars_writes_nothing_when_one_name_is_reserved(driver: Any, draw: Any) -> None:
    result = driver.run(driver.add(_set_flow(draw, "set_vars", "updates", updates={"a": 1, "_b": 2})))

    assert result.status == "failed"
    assert "a" not in result.vars


@pytest.mark.parametrize(
    ("before", "after"), [({"x": 1}, {"x": 1, "k": {"j": 2}}), ("text", {"k": {"j": 2}}), (None, {"k": {"j": 2}})]
)
def test_set_var_property_changes_one_property(driver: Any, draw: Any, before: Any, after: Any) -> None:
    document = _set_flow(draw, "set_var_property", "name key value", name="v", key=" k.j ", value=2)

    result = driver.run(driver.add(document), {"v": before})

    assert result.vars["v"] == after
    assert result.output["value"] == after


def test_writing_into_a_variable_does_not_change_what_others_hold(make_driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> a"),
            draw.node("lit", "literal_json", "", "value", literalValue={"deep": {"n": 0}}),
            draw.node("one", "set_var", "> name value", ">", defaults={"name": "b"}),
            draw.node("two", "set_var", "> name value", ">", defaults={"name": "b.deep.n", "value": 1}),
            draw.node("three", "set_var", "> name value", ">", defaults={"name": "a.deep.n", "value": 2}),
            draw.node("put", "set", "object key value", "result", defaults={"key": "deep.n", "value": 3}),
            draw.node("e", "on_flow_end", "> start literal put"),
        ],
        [
            "s > one",
            "lit/value -> one/value",
            "one > two",
            "two > three",
            "three > e",
            "s/a -> e/start",
            "lit/value -> e/literal",
            "lit/value -> put/object",
            "put/result -> e/put",
        ],
    )

    outputs = []
    for is_restarted in (False, True, False):
        driver = make_driver(is_restarted_each_step=is_restarted)
        outputs.append(driver.run(driver.add(document), {"a": {"deep": {"n": "start"}}}).output)

    assert (
        outputs
        == [
            {
                "start": {"deep": {"n": "start"}},
                "literal": {"deep": {"n": 0}},
                "put": {"deep": {"n": 3}},
                "success": True,
            }
        ]
        * 3
    )


def test_a_computed_value_is_fresh_in_each_step(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> x"),
            draw.node("g", "get_var", "name", "value", defaults={"name": "x"}),
            draw.node("c", "concat", "a b", "result", defaults={"b": "!"}, concatConfig={"separator": ""}),
            draw.node("say1", "answer_user", "> message", ">"),
            draw.node("set", "set_var", "> name value", ">", defaults={"name": "x", "value": "two"}),
            draw.node("say2", "answer_user", "> message", ">"),
        ],
        [
            "s > say1",
            "say1 > set",
            "set > say2",
            "g/value -> c/a",
            "c/result -> say1/message",
            "c/result -> say2/message",
        ],
    )

    driver.run(driver.add(document), {"x": "one"})

    assert _ask(driver) == ["one!", "two!"]


@pytest.mark.parametrize(
    ("name", "expected"), [("a.b.1", 2), (" a.c ", None), ("", None), (None, None), ("a.b[1]", None)]
)
def test_get_var_reads_dotted_paths(driver: Any, draw: Any, name: Any, expected: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("g", "get_var", "name", "value", defaults={"name": name}),
            draw.node("e", "on_flow_end", "> y"),
        ],
        ["s > e", "g/value -> e/y"],
    )

    assert driver.run(driver.add(document), {"a": {"b": [1, 2]}}).output["y"] == expected


def test_internal_variables_are_read_as_copies(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> x"),
            draw.node("g", "get_var", "name", "value", defaults={"name": "_temp"}),
            draw.node("set", "set_var", "> name value", ">", defaults={"name": "seen"}),
            draw.node("e", "on_flow_end", "> x"),
        ],
        ["s > set", "g/value -> set/value", "set > e"],
    )

    result = driver.run(driver.add(document), {"x": 1})

    assert json.dumps(result.vars["seen"]["node_outputs"]) == '{"s": {"x": 1}}'


def test_messages_are_added_to_the_conversation(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("m", "add_message", "> role content", "> message messages", defaults={"content": 5}),
            draw.node("g", "get_context", "", "context task messages"),
            draw.node("e", "on_flow_end", "> message messages task context"),
        ],
        [
            "s > m",
            "m > e",
            "m/message -> e/message",
            "g/messages -> e/messages",
            "g/task -> e/task",
            "g/context -> e/context",
        ],
    )

    output = driver.run(driver.add(document), {"context": {"task": None, "messages": [{"role": "system"}]}}).output

    added = output["message"]
    assert (added["role"], added["content"], added["timestamp"]) == ("user", "5", "2026-03-01T12:00:00+00:00")
    assert added["metadata"]["message_id"].startswith("msg_")
    assert output["messages"] == [{"role": "system"}, added] == output["context"]["messages"]
    assert output["task"] == ""


def test_a_message_node_without_execution_only_makes_a_message(evaluate: Any) -> None:
    message = evaluate("add_message", {"role": "assistant", "content": "hi"}, out="message")

    assert (message["role"], message["content"]) == ("assistant", "hi")


def test_outputs_and_answers_are_stored_under_their_output_key(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> x", outputKey="saved.start"),
            draw.node("ask", "ask_user", "> prompt", "> response", outputKey="saved.answer"),
            draw.node("g", "get_var", "name", "value", defaults={"name": "saved"}),
            draw.node("e", "on_flow_end", "> saved"),
        ],
        ["s > ask", "ask > e", "g/value -> e/saved"],
    )
    driver.answers = ["yes"]

    assert driver.run(driver.add(document), {"x": 1}).output["saved"] == {"start": {"x": 1}, "answer": "yes"}


def test_an_input_key_replaces_the_bus(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [draw.node("s", "on_flow_start", "", "> x"), draw.node("e", "on_flow_end", "> x y", inputKey="other")],
        ["s > e"],
    )

    assert driver.run(driver.add(document), {"x": 1, "other": {"y": 2}}).output == {"x": None, "y": 2, "success": True}


def test_a_computing_node_in_the_line_of_execution_sets_the_bus(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> text"),
            draw.node("u", "uppercase", "> text", "> result"),
            draw.node("e", "on_flow_end", ">"),
        ],
        ["s > u", "u > e"],
    )

    result = driver.run(driver.add(document), {"text": "abc"})

    assert result.output == {"response": "ABC", "success": True}


def test_node_ids_with_dots_keep_their_results(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("a.b/c~d", "ask_user", "> prompt", "> response"),
            draw.node("e", "on_flow_end", "> y"),
        ],
        ["s > e"],
    )
    document["edges"] = [
        {"source": "s", "sourceHandle": "exec-out", "target": "a.b/c~d", "targetHandle": "exec-in"},
        {"source": "a.b/c~d", "sourceHandle": "exec-out", "target": "e", "targetHandle": "exec-in"},
        {"source": "a.b/c~d", "sourceHandle": "response", "target": "e", "targetHandle": "y"},
    ]
    driver.answers = ["yes"]

    assert driver.run(driver.add(document)).output == {"y": "yes", "success": True}


def test_a_connected_pin_without_a_value_does_not_take_its_default(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> x"),
            draw.node("never", "set_var", "> name value", "> value"),
            draw.node("c", "concat", "a b", "result", defaults={"a": "default a", "b": "default b"}),
            draw.node("e", "on_flow_end", "> y z", defaults={"y": "the default", "z": "the other"}),
        ],
        ["s > e", "never/value -> e/y", "never/value -> c/a", "c/result -> e/c"],
    )
    document["nodes"][3]["data"]["inputs"].append({"id": "c", "type": "any"})

    result = driver.run(driver.add(document))

    assert result.output == {"y": None, "z": "the other", "c": "default b", "success": True}
