from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.visualflow import compile_flow

LOGIC = [
    ("compare", {"a": 1, "op": "==", "b": 1.0}, True),
    ("compare", {"a": True, "op": "==", "b": 1}, True),
    ("compare", {"a": 1, "op": "==", "b": "1"}, False),
    ("compare", {"a": [1, {"k": 2}], "op": "==", "b": [1, {"k": 2}]}, True),
    ("compare", {"a": 2, "op": "!=", "b": 1}, True),
    ("compare", {"a": 1, "b": 1}, True),
    ("compare", {"a": "b", "op": ">", "b": "a"}, True),
    ("compare", {"a": 2, "op": "<=", "b": 2}, True),
    ("compare", {"a": "text", "op": ">", "b": 0}, False),
    ("compare", {"a": None, "op": "<", "b": 0}, False),
    ("not", {"value": ""}, True),
    ("not", {}, True),
    ("not", {"value": "false"}, False),
    ("and", {"a": 1, "b": "x"}, True),
    ("and", {"a": 1}, False),
    ("or", {"a": 0, "b": [1]}, True),
    ("or", {}, False),
    ("coalesce", {"a": None, "b": 0}, 0),
    ("coalesce", {"a": "", "b": 1}, ""),
    ("coalesce", {"a": None, "b": None}, None),
]

MATH = [
    ("add", {"a": 1, "b": 2}, 3.0),
    ("add", {"a": "1.5", "b": True}, 2.5),
    ("add", {}, 0.0),
    ("subtract", {"a": 1, "b": 3}, -2.0),
    ("multiply", {"a": 3}, 0.0),
    ("divide", {"a": 3}, 3.0),
    ("modulo", {"a": -5, "b": 3}, 1.0),
    ("power", {"base": 2, "exp": 3}, 8.0),
    ("power", {"base": 2}, 2.0),
    ("abs", {"value": -2}, 2.0),
    ("round", {"value": 2.5}, 2.0),
    ("round", {"value": 1234, "decimals": -2}, 1200.0),
    ("round", {"value": 1.25, "decimals": 1.9}, 1.2),
]

STRINGS = [
    ("split", {"text": "a, b,,c"}, ["a", "b", "c"]),
    ("split", {"text": None}, []),
    ("split", {"text": "ab", "delimiter": ""}, ["ab"]),
    ("split", {"text": "a\nb", "delimiter": "\\n"}, ["a", "b"]),
    ("split", {"text": "a, ,b", "trim": False, "drop_empty": False}, ["a", " ", "b"]),
    ("split", {"text": "a,b,c", "maxsplit": 1}, ["a", "b,c"]),
    ("split", {"text": "a,b", "maxsplit": "x"}, ["a", "b"]),
    ("join", {"items": [1, None, "x"]}, "1,,x"),
    ("join", {"items": None}, ""),
    ("join", {"items": "one"}, "one"),
    ("join", {"items": [1, 2], "delimiter": None}, "1None2"),
    ("join", {"items": [1, 2], "delimiter": "\\n"}, "1\n2"),
    ("uppercase", {"text": None}, "NONE"),
    ("lowercase", {"text": "ÄB"}, "äb"),
    ("trim", {"text": "  x "}, "x"),
    ("trim", {}, ""),
    ("length", {"text": "äb"}, 2),
    ("length", {"text": None}, 4),
    ("length", {}, 0),
    ("length", {"text": [1, 2]}, 6),
    ("substring", {"text": "hello", "start": 1, "end": 3}, "el"),
    ("substring", {"text": "hello", "start": -3, "end": None}, "llo"),
    ("substring", {"text": "hello", "start": 1.9}, "ello"),
    ("contains", {"text": "hello", "pattern": "ell"}, True),
    ("contains", {"text": "hello", "pattern": "ELL"}, False),
    ("contains", {"text": "hello", "pattern": ""}, False),
    ("contains", {"text": None, "pattern": "N"}, False),
    ("replace", {"text": "aaa", "pattern": "a", "replacement": "b"}, "bbb"),
    ("replace", {"text": "aaa", "pattern": "a", "replacement": "b", "mode": "first"}, "baa"),
    ("replace", {"text": "aaa", "pattern": "a", "replacement": "b", "mode": 2}, "bba"),
    ("replace", {"text": "aaa", "pattern": "a", "replacement": "b", "mode": "0"}, "aaa"),
    ("replace", {"text": "aaa", "pattern": "a", "replacement": "b", "mode": "junk"}, "bbb"),
    ("replace", {"text": "aaa", "pattern": None, "replacement": "b"}, "aaa"),
    ("replace", {"text": "aaa", "pattern": "a", "replacement": None}, ""),
    ("format", {"template": "{a} {b[0]} {c:>4}", "values": {"a": 1, "b": ["x"], "c": 2}}, "1 x    2"),
    ("format", {"template": "{{x}} {a!r:.3}", "values": {"a": "long"}}, "{x} 'lo"),
    ("format", {"template": "{a}", "values": None}, "{a}"),
    ("string_template", {"template": "{{ a.b[0] }}!", "vars": {"a": {"b": ["x"]}}}, "x!"),
    ("string_template", {"template": "{{a.1}} {{none}} {{ no.way }}", "vars": {"a": [1, 2], "none": None}}, "2  "),
    ("string_template", {"template": "{{ a | join(', ') | upper }}", "vars": {"a": ["x", None]}}, "X, "),
    (
        "string_template",
        {"template": "{{a|json}} {{b}}", "vars": {"a": {"z": 1, "b": "é"}, "b": True}},
        '{"b": "é", "z": 1} True',
    ),
    ("string_template", {"template": "{{ a | nonsense | trim }}", "vars": {"a": " x "}}, "x"),
    ("string_template", {"template": "{{a}}", "vars": 3}, ""),
]

OBJECTS = [
    ("set", {"object": {"a": {"b": 1}}, "key": "a.c", "value": 2}, {"a": {"b": 1, "c": 2}}),
    ("set", {"object": {"a": [1]}, "key": "a.0", "value": 2}, {"a": {"0": 2}}),
    ("set", {"object": [["k", 1]], "key": "j", "value": None}, {"k": 1, "j": None}),
    ("set", {"key": "", "value": 1}, {"": 1}),
    ("merge", {"a": {"x": 1, "y": 1}, "b": {"y": 2}}, {"x": 1, "y": 2}),
    ("merge", {}, {}),
    ("make_object", {"a": 1, "b": None}, {"a": 1, "b": None}),
    ("parse_json", {"text": '{"a": 1}'}, {"a": 1}),
    ("parse_json", {"text": "```json\n[1]\n```"}, [1]),
    ("parse_json", {"text": 'Sure: {"a": [1]} there'}, {"a": [1]}),
    ("parse_json", {"text": "{'a': (1, True)}"}, {"a": [1, True]}),
    ("parse_json", {"text": "5"}, {"value": 5}),
    ("parse_json", {"text": "5", "wrap_scalar": False}, 5),
    ("parse_json", {"text": [1]}, [1]),
    ("stringify_json", {"value": {"a": 1}, "mode": "minified"}, '{"a":1}'),
    ("stringify_json", {"value": {"a": "é"}}, '{\n  "a": "é"\n}'),
    ("stringify_json", {"value": {"a": 1, "b": 2}, "mode": "none"}, '{"a": 1, "b": 2}'),
    ("stringify_json", {"value": {"b": 1, "a": 2}, "indent": 0, "sort_keys": True}, '{"a":2,"b":1}'),
    ("stringify_json", {"value": [1], "indent": 1}, "[\n 1\n]"),
    ("stringify_json", {"value": [1], "mode": "beautify", "indent": "1"}, "[\n 1\n]"),
    ("stringify_json", {"value": [1], "mode": "beautify", "indent": 0}, "[\n  1\n]"),
    ("stringify_json", {"value": [1], "mode": "beautify", "indent": "x"}, "[\n  1\n]"),
    ("stringify_json", {"value": [1], "mode": "minified", "indent": 4}, "[1]"),
    ("stringify_json", {"value": 'see {"a": 1}', "mode": "minified"}, '{"a":1}'),
    ("stringify_json", {"value": "plain words"}, '"plain words"'),
    ("stringify_json", {"value": "null"}, '"null"'),
    ("format_tool_results", {"tool_results": [{"name": "t", "success": True, "output": "ok"}]}, "- t() [SUCCESS] ok"),
    ("format_tool_results", {"tool_results": [{"name": "t", "success": False, "error": "no"}]}, "- t() [FAILURE] no"),
    ("format_tool_results", {"tool_results": None}, ""),
]

ARRAYS = [
    ("make_array", {"a": 1, "b": None}, [1]),
    ("make_array", {"a": [1], "b": 2}, [[1], 2]),
    ("array_concat", {"a": [1, [2]], "b": 3}, [1, [2], 3]),
    ("array_concat", {"a": None, "b": [1]}, [1]),
    ("array_map", {"items": [{"k": 1}, {}, 3], "key": "k"}, [1, None, 3]),
    ("array_map", {"items": "ab", "key": "k"}, ["a", "b"]),
    ("array_filter", {"items": [{"k": 1}, {"k": 2}, 1], "key": "k", "value": 1}, [{"k": 1}, 1]),
    ("array_filter", {"items": [{"k": 1}, {}], "key": "k", "value": None}, [{}]),
    ("array_length", {"array": [1, 2]}, 2),
    ("array_length", {"array": "abc"}, 0),
    ("array_append", {"array": None, "item": 1}, [1]),
    ("array_append", {"array": 5, "item": None}, [5, None]),
    ("array_dedup", {"array": [1, 1.0, True, "1", 1]}, [1, 1.0, True, "1"]),
    ("array_dedup", {"array": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}, [{"a": 1, "b": 2}]),
    (
        "array_dedup",
        {"array": [{"i": {"d": 1}}, {"i": {"d": 1}, "x": 0}, {"y": 1}], "key": "i.d"},
        [{"i": {"d": 1}}, {"y": 1}],
    ),
    ("array_dedup", {"array": "no"}, []),
    ("get_element", {"array": [1, 2, 3], "index": -1}, 3),
    ("get_element", {"array": [1, 2, 3], "index": "1.9"}, 2),
    ("get_element", {"array": [1, 2, 3], "index": True}, 1),
    ("get_element", {"array": [1], "index": 5, "default": "d"}, "d"),
    ("get_element", {"array": None, "default": "d"}, "d"),
    ("has_tools", {"array": ["t"]}, True),
    ("has_tools", {"array": "t"}, False),
]


@pytest.mark.parametrize(("kind", "inputs", "expected"), LOGIC + MATH + STRINGS + OBJECTS + ARRAYS)
def test_a_computing_node_gives_what_its_description_says(
    evaluate: Any, kind: str, inputs: dict[str, Any], expected: Any
) -> None:
    result = evaluate(kind, inputs)

    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "inputs", "said"),
    [
        ("compare", {"a": 1, "op": "~", "b": 1}, "'~' is not one of"),
        ("compare", {"a": 1, "op": None, "b": 1}, "'None' is not one of"),
        ("add", {"a": None, "b": 1}, "None is not a number"),
        ("add", {"a": [1], "b": 1}, "is not a number"),
        ("add", {"a": "1e999", "b": 1}, "not a finite number"),
        ("divide", {"a": 1, "b": 0}, "ZeroDivisionError"),
        ("modulo", {"a": 1, "b": 0}, "ZeroDivisionError"),
        ("power", {"base": -1, "exp": 0.5}, "not a finite real number"),
        ("power", {"base": 0, "exp": -1}, "ZeroDivisionError"),
        ("power", {"base": 10, "exp": 400}, "OverflowError"),
        ("substring", {"text": "x", "start": None}, "None is not a number"),
        ("format", {"template": "{a.__class__}", "values": {"a": 1}}, "reaches for an attribute"),
        ("format", {"template": "{a[0].__class__}", "values": {"a": [1]}}, "reaches for an attribute"),
        ("format", {"template": "{}", "values": {"a": 1}}, "has no name"),
        ("format", {"template": "{0}", "values": {"a": 1}}, "has no name"),
        ("format", {"template": "{b}", "values": {"a": 1}}, "is not among the values"),
        ("format", {"template": "{a", "values": {"a": 1}}, "ValueError"),
        ("format", {"template": "{a:>1000000000}", "values": {"a": 1}}, "widths go up to 9999"),
        ("format", {"template": "{a:.99999f}", "values": {"a": 1}}, "widths go up to 9999"),
        ("format", {"template": "{a:{a}}", "values": {"a": 1}}, "widths go up to 9999"),
        ("merge", {"a": None}, "None is not an object"),
        ("set", {"object": "x", "key": "k"}, "is not an object"),
        ("array_map", {"items": None, "key": "k"}, "is not a list"),
        ("array_filter", {"items": 3}, "is not a list"),
        ("parse_json", {"text": ""}, "holds no JSON value"),
        ("parse_json", {"text": None}, "holds no JSON value"),
        ("parse_json", {"text": "null"}, "holds no JSON value"),
        ("parse_json", {"text": "just words"}, "holds no JSON value"),
        ("parse_json", {"text": "NaN"}, "holds no JSON value"),
    ],
)
def test_a_computing_node_that_cannot_fails_the_run_and_is_named(
    evaluate: Any, kind: str, inputs: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=r"node 'end': .*node 'x' \(" + kind) as caught:
        evaluate(kind, inputs)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "out", "expected"),
    [
        ({"object": {"a": {"b": [1, 2]}}, "key": "a.b[1]"}, "value", 2),
        ({"object": {"a": [5]}, "key": "a.0"}, "value", 5),
        ({"object": {"a": None}, "key": "a", "default": 1}, "value", 1),
        ({"object": {"a": 0}, "key": "a", "default": 1}, "value", 0),
        ({"object": {"a": [1]}, "key": "a[-1]", "default": "d"}, "value", "d"),
        ({"object": {"a.b": 1}, "key": "a.b", "default": "d"}, "value", "d"),
        ({"object": 3, "key": "a", "default": "d"}, "value", "d"),
        ({"object": {"": 1}, "key": "", "default": "d"}, "value", "d"),
    ],
)
def test_get_reads_paths(evaluate: Any, inputs: dict[str, Any], out: str, expected: Any) -> None:
    assert evaluate("get", inputs, out=out) == expected


@pytest.mark.parametrize(
    ("inputs", "data", "expected"),
    [
        ({"a": "x", "b": 1.0}, {}, "x 1.0"),
        ({"a": None, "b": True}, {"concatConfig": {"separator": "\\n"}}, "\nTrue"),
        ({"a": 1, "b": 2}, {"concatConfig": {"separator": 5}}, "1 2"),
        ({"a": "\\n", "b": {"k": 1}}, {"concatConfig": {"separator": ""}}, "\\n{'k': 1}"),
    ],
)
def test_concat_joins_its_pins_in_drawn_order(
    evaluate: Any, inputs: dict[str, Any], data: dict[str, Any], expected: str
) -> None:
    assert evaluate("concat", inputs, **data) == expected


def test_concat_leaves_out_pins_that_carry_nothing(evaluate: Any) -> None:
    assert evaluate("concat", {"a": "x", "c": "y"}, pins="a b c") == "x y"


def test_break_object_gives_each_chosen_path(evaluate: Any) -> None:
    value = '```\n{"a": {"b": [7]}}\n```'

    found = [
        evaluate("break_object", {"object": value}, out=path, breakConfig={"selectedPaths": ["a.b.0", "a.b", "x"]})
        for path in ("a.b.0", "a.b", "x")
    ]

    assert found == [7, [7], None]


@pytest.mark.parametrize("value", [None, "not json", 5])
def test_break_object_of_something_else_gives_null(evaluate: Any, value: Any) -> None:
    assert evaluate("break_object", {"object": value}, out="a", breakConfig={"selectedPaths": ["a"]}) is None


def test_a_field_named_result_hides_the_whole_object(evaluate: Any) -> None:
    assert evaluate("make_object", {"result": 5, "b": 1}) == 5


@pytest.mark.parametrize(
    ("kind", "out", "literal", "expected"),
    [
        ("literal_string", "value", "x", "x"),
        ("literal_number", "value", "not coerced", "not coerced"),
        ("literal_boolean", "value", False, False),
        ("literal_json", "value", {"a": [1]}, {"a": [1]}),
        ("literal_array", "value", [1], [1]),
        ("json_schema", "value", {"type": "object"}, {"type": "object"}),
        ("tools_allowlist", "tools", [" a ", "b", "a", 3], ["a", "b"]),
        ("tools_allowlist", "tools", "a", []),
        ("literal_json", "value", None, None),
    ],
)
def test_a_literal_gives_what_is_written_in_the_flow(
    evaluate: Any, kind: str, out: str, literal: Any, expected: Any
) -> None:
    assert evaluate(kind, {}, out=out, literalValue=literal) == expected


def test_tool_parameters_make_a_call_without_the_empty_ones(evaluate: Any) -> None:
    call = evaluate(
        "tool_parameters", {"q": "x", "n": None}, out="tool_call", toolParametersConfig={"tool": " search "}
    )

    assert call == {"name": "search", "arguments": {"q": "x"}}


@pytest.mark.parametrize(
    ("literal", "out", "expected"),
    [
        ("flag", "value", True),
        ({"name": "text", "default": True}, "value", True),
        ("none", "value", False),
        ("flag", "name", "flag"),
    ],
)
def test_bool_var_reads_only_true_and_false(driver: Any, draw: Any, literal: Any, out: str, expected: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("v", "bool_var", literalValue=literal),
            draw.node("e", "on_flow_end", "> y"),
        ],
        ["s > e", f"v/{out} -> e/y"],
    )

    result = driver.run(driver.add(document), {"flag": True, "text": "true"})

    assert result.output["y"] == expected


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"name": "n", "type": "number", "default": 5}, 3),
        ({"name": "flag", "type": "number", "default": 5}, 5),
        ({"name": "none", "type": "number", "default": "no"}, 0),
        ({"name": "none", "type": "string"}, ""),
        ({"name": "none", "type": "array"}, []),
        ({"name": "none", "type": "object", "default": {"a": 1}}, {"a": 1}),
        ({"name": "none", "type": "any", "default": 7}, None),
        ({"name": "o.p", "type": "boolean"}, True),
    ],
)
def test_var_decl_reads_a_variable_of_its_type_or_the_default(
    driver: Any, draw: Any, declared: dict[str, Any], expected: Any
) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("v", "var_decl", literalValue=declared),
            draw.node("e", "on_flow_end", "> y"),
        ],
        ["s > e", "v/value -> e/y"],
    )

    result = driver.run(driver.add(document), {"n": 3, "flag": True, "o": {"p": True}})

    assert result.output["y"] == expected


def test_random_nodes_draw_from_the_step_so_that_a_repeated_step_draws_the_same(make_driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("i", "random_int", "min max", "result", defaults={"min": 9, "max": "5"}),
            draw.node("f", "random_float", "min max", "result"),
            draw.node("g", "get_random_element", "array default", "result found", defaults={"array": [1, 2, 3]}),
            draw.node("e", "on_flow_end", "> i f g h"),
        ],
        ["s > e", "i/result -> e/i", "i/result -> e/h", "f/result -> e/f", "g/result -> e/g"],
    )

    outputs = []
    for run_id in ("a", "a", "b"):
        driver = make_driver()
        outputs.append(driver.run(driver.add(document), run_id=run_id).output)

    assert outputs[0] == outputs[1] != outputs[2]
    assert 5 <= outputs[0]["i"] <= 9
    assert outputs[0]["i"] == outputs[0]["h"]
    assert 0 <= outputs[0]["f"] <= 1
    assert outputs[0]["g"] in (1, 2, 3)


def test_system_datetime_is_the_time_of_the_step(evaluate: Any) -> None:
    iso = evaluate("system_datetime", {}, out="iso")

    assert iso.startswith("2026-0")


def test_make_context_scratchpad_and_meta_build_their_records(evaluate: Any) -> None:
    context = evaluate("make_context", {"task": None, "messages": "m", "context_extra": {"k": 1}}, out="context")
    pad = evaluate("make_scratchpad", {"task": "t", "sub_run_id": "r"}, out="scratchpad")
    meta = evaluate(
        "make_meta", {"provider": "p", "iterations": "3", "trace": "t", "extra": {"x": 1, "schema": "no"}}, out="meta"
    )

    assert context == {"k": 1, "task": "", "messages": ["m"]}
    assert pad == {
        "task": "t",
        "messages": [],
        "node_traces": {},
        "steps": [],
        "tool_calls": [],
        "tool_results": [],
        "sub_run_id": "r",
    }
    assert meta == {
        "x": 1,
        "schema": "abstractcode.agent.v1.meta",
        "version": 1,
        "provider": "p",
        "iterations": 3,
        "trace": {"trace_id": "t"},
    }


@pytest.mark.parametrize(
    ("pad", "said"),
    [
        (None, "No scratchpad"),
        ({"task": "t"}, "No tools were used"),
        ({"task": "t", "tool_calls": [{"name": "s", "arguments": {"q": "x"}}], "tool_results": []}, "- s(x)"),
    ],
)
def test_agent_trace_report_tells_what_the_agent_did(evaluate: Any, pad: Any, said: str) -> None:
    assert said in evaluate("agent_trace_report", {"scratchpad": pad})


def test_path_mux_gives_the_selected_input(evaluate: Any) -> None:
    picks = [
        evaluate("path_mux", {"select": select, "in0": "a", "in1": None, "fallback": "f"}, out="out")
        for select in (0, 1.0, "1", 7, "junk", None)
    ]

    assert picks == ["a", None, None, "f", "a", "a"]


def test_a_long_chain_of_computing_nodes_needs_no_deep_stack(driver: Any, draw: Any) -> None:
    count = 3000
    nodes = [draw.node(f"n{i}", "add", "a b", "result", defaults={"b": 1}) for i in range(count)]
    edges = [f"n{i}/result -> n{i + 1}/a" for i in range(count - 1)]
    document = draw.flow(
        [draw.node("s", "on_flow_start", "", ">"), draw.node("e", "on_flow_end", "> y"), *nodes],
        ["s > e", f"n{count - 1}/result -> e/y", *edges],
    )

    result = driver.run(driver.add(document))

    assert result.output["y"] == float(count)


def test_compiling_does_not_change_or_keep_the_document(draw: Any, driver: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("v", "literal_json", literalValue=[1]),
            draw.node("e", "on_flow_end", "> y"),
        ],
        ["s > e", "v/value -> e/y"],
    )
    compiled = compile_flow(document)
    document["nodes"][1]["data"]["literalValue"].append(2)
    driver.workflows["f"] = compiled.workflow

    assert driver.run("f").output["y"] == [1]


@pytest.mark.parametrize(
    ("kind", "inputs", "expected"),
    [
        ("merge", {"a": "", "b": {"y": 2}}, {"y": 2}),
        ("set", {"object": "", "key": "k", "value": 1}, {"k": 1}),
        ("set", {"object": {}, "key": None, "value": 1}, {"None": 1}),
        ("array_map", {"items": [{"1": 2}], "key": 1}, [2]),
        ("array_map", {"items": [{"a": 2}], "key": ["a"]}, [None]),
        ("array_filter", {"items": [{"a": 1}], "key": {}, "value": 1}, []),
        ("string_template", {"template": False, "vars": {}}, ""),
        ("string_template", {"template": [], "vars": {}}, ""),
        ("replace", {"text": "aa", "pattern": "a", "replacement": "b", "mode": True}, "ba"),
        ("replace", {"text": "aa", "pattern": "a", "replacement": "b", "mode": False}, "aa"),
    ],
)
def test_an_odd_input_counts_as_what_flows_have_always_taken_it_for(
    evaluate: Any, kind: str, inputs: dict[str, Any], expected: Any
) -> None:
    assert evaluate(kind, inputs) == expected


def test_a_format_without_values_misses_them(evaluate: Any) -> None:
    with pytest.raises(ValueError, match="among the values"):
        evaluate("format", {"template": "{a}"})


@pytest.mark.parametrize(
    ("given", "meta"),
    [
        ({"schema": 5}, {}),
        ({"provider": 1, "model": " m "}, {"provider": "1", "model": "m"}),
        ({"output_mode": 1}, {}),
        ({"usage": [1]}, {}),
        ({"usage": {"total_tokens": 3}}, {"usage": {"total_tokens": 3}}),
        ({"warnings": "one"}, {"warnings": ["one"]}),
        ({"warnings": [1, " ", " two "]}, {"warnings": ["1", "two"]}),
        ({"warnings": {"a": 1}}, {}),
        ({"gen_time": 3}, {"gen_time": 3}),
        ({"gen_time": True}, {}),
    ],
)
def test_what_does_not_fit_into_meta_is_left_out_or_written_as_text(
    evaluate: Any, given: dict[str, Any], meta: dict[str, Any]
) -> None:
    assert evaluate("make_meta", given, out="meta") == {"schema": "abstractcode.agent.v1.meta", "version": 1, **meta}
