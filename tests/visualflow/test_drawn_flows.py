"""Small drawings that mix what users mix, from their start to their end in a whole gateway."""

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.testing import GatewayHarness, ScriptedModel
from tests.visualflow.conftest import flow, node


def start(pins: str = "n") -> dict[str, Any]:
    return node("s", "on_flow_start", "", f"> {pins}")


def end(pins: str) -> dict[str, Any]:
    return node("e", "on_flow_end", f"> {pins}")


def variable(node_id: str, name: str) -> dict[str, Any]:
    return node(node_id, "get_var", "name", "value", defaults={"name": name})


def setter(node_id: str, name: str, **defaults: Any) -> dict[str, Any]:
    return node(node_id, "set_var", "> name value", "> value", defaults={"name": name, **defaults})


def output(*flows: dict[str, Any], given: dict[str, Any] | None = None, **options: Any) -> Any:
    """Run the first flow, whose subflows the others are, and return its output without `success`."""
    answers = options.pop("answers", ())
    harness = GatewayHarness(flows={item["id"]: item for item in flows}, **options)
    ended = harness.run(flows[0]["id"], given or {}, answers=answers)
    assert ended.status == "completed", ended.error
    return {name: value for name, value in (ended.output or {}).items() if name != "success"}


def test_a_loop_in_a_loop_with_a_branch_collects_across_all_rounds() -> None:
    """Rows that are empty, no list, or null are looped over as well."""
    drawing = flow(
        [
            start("rows"),
            setter("init", "found", value=[]),
            node("rows", "loop", "> items", ">loop >done item index"),
            node("cells", "loop", "> items", ">loop >done item"),
            node("big", "compare", "a op b", "result", defaults={"op": ">", "b": 1}),
            node("if", "if", "> condition", ">true >false"),
            node("times", "multiply", "a b", "result"),
            variable("read", "found"),
            node("add", "array_append", "array item", "result"),
            setter("keep", "found"),
            variable("last", "found"),
            end("found"),
        ],
        [
            *("s > init", "init > rows", "s/rows -> rows/items", "rows/loop > cells", "rows/item -> cells/items"),
            *("cells/loop > if", "cells/item -> big/a", "big/result -> if/condition", "if/true > keep"),
            *("rows/index -> times/a", "cells/item -> times/b", "read/value -> add/array", "times/result -> add/item"),
            *("add/result -> keep/value", "rows/done > e", "last/value -> e/found"),
        ],
    )

    assert output(drawing, given={"rows": [[1, 2, 3], [], [4], 5, None, "x"]}) == {"found": [0.0, 0.0, 8.0, 15.0]}


@pytest.mark.parametrize(
    ("value", "taken"),
    [("a", "x"), (1, "y"), (1.0, "other"), ("1", "y"), (True, "other"), (None, "z"), ("", "z"), ([], "other")],
)
def test_a_switch_compares_texts_and_has_a_default(value: Any, taken: str) -> None:
    cases = [{"id": "x", "value": "a"}, {"id": "y", "value": 1}, {"id": "z", "value": ""}, {"id": "o", "value": None}]
    drawing = flow(
        [
            start(),
            node("sw", "switch", "> value", ">case:x >case:y >case:z >default", switchConfig={"cases": cases}),
            *(node(name, "on_flow_end", "> r", defaults={"r": name}) for name in ("x", "y", "z", "other")),
        ],
        ["s > sw", "s/n -> sw/value", *(f"sw/case:{name} > {name}" for name in "xyz"), "sw/default > other"],
    )

    assert output(drawing, given={"n": value}) == {"r": taken}


def test_a_recursion_hands_several_outputs_up_through_all_levels() -> None:
    down = flow(
        [
            start("n depth"),
            node("is", "compare", "a op b", "result", defaults={"op": "<=", "b": 0}),
            node("if", "if", "> condition", ">true >false"),
            node("less", "subtract", "a b", "result", defaults={"b": 1}),
            node("more", "add", "a b", "result", defaults={"b": 1}),
            node("again", "subflow", "> n depth", "> depth path", subflowId="down"),
            node("text", "concat", "a b", "result"),
            node("stop", "on_flow_end", "> depth path", defaults={"path": "·"}),
            end("depth path"),
        ],
        [
            *("s > if", "s/n -> is/a", "is/result -> if/condition", "if/true > stop", "s/depth -> stop/depth"),
            *("if/false > again", "s/n -> less/a", "less/result -> again/n", "s/depth -> more/a", "again > e"),
            *("more/result -> again/depth", "again/depth -> e/depth", "again/path -> text/a", "s/n -> text/b"),
            "text/result -> e/path",
        ],
        flow_id="down",
    )

    assert output(down, given={"n": 3, "depth": 0}) == {"depth": 3.0, "path": "· 1.0 2.0 3"}


def test_a_loop_of_subflows_keeps_the_outputs_of_each_round_apart() -> None:
    tenfold = flow(
        [
            start(),
            node("x", "multiply", "a b", "result", defaults={"b": 10}),
            setter("own", "found", value="mine"),
            end("much label"),
        ],
        ["s > own", "own > e", "s/n -> x/a", "x/result -> e/much", "s/n -> e/label"],
        flow_id="tenfold",
    )
    drawing = flow(
        [
            start(),
            node("each", "loop", "> items", ">loop >done item index"),
            node("call", "subflow", "> n", "> much label", subflowId="tenfold"),
            node("row", "make_object", "label much at", "result"),
            variable("read", "found"),
            node("add", "array_append", "array item", "result"),
            setter("keep", "found"),
            variable("last", "found"),
            end("found"),
        ],
        [
            *("s > each", "s/n -> each/items", "each/loop > call", "each/item -> call/n", "call > keep"),
            *("call/label -> row/label", "call/much -> row/much", "each/index -> row/at", "read/value -> add/array"),
            *("row/result -> add/item", "add/result -> keep/value", "each/done > e", "last/value -> e/found"),
        ],
    )

    assert output(drawing, tenfold, given={"n": [1, 2]}) == {
        "found": [{"label": 1, "much": 10.0, "at": 0}, {"label": 2, "much": 20.0, "at": 1}]
    }


def test_branches_that_ask_wait_one_after_the_other_inside_a_sequence() -> None:
    drawing = flow(
        [
            start(),
            node("order", "sequence", ">", ">then:0 >then:2 >then:10"),
            node("both", "parallel", ">", ">then:0 >then:1 >completed"),
            *(node(name, "ask_user", "> prompt", "> response", defaults={"prompt": name}) for name in ("q1", "q2")),
            node("text", "concat", "a b c", "result", concatConfig={"separator": "\\n"}),
            setter("mark", "mark", value="completed"),
            variable("marked", "mark"),
            setter("late", "late", value="!"),
            end("r"),
        ],
        [
            *("s > order", "order/then:0 > both", "both/then:0 > q1", "both/then:1 > q2", "both/completed > mark"),
            *("order/then:2 > late", "order/then:10 > e", "q1/response -> text/a", "q2/response -> text/b"),
            *("marked/value -> text/c", "text/result -> e/r"),
        ],
    )

    assert output(drawing, answers=["one", "two"]) == {"r": "one\ntwo\ncompleted"}


@pytest.mark.parametrize("scope", ["session", "run", "workflow", "global"])
def test_a_flow_hears_what_it_emits_in_every_scope(scope: str) -> None:
    drawing = flow(
        [
            start(),
            node("emit", "emit_event", "> name payload", "> delivered", effectConfig={"name": "ping", "scope": scope}),
            node("pause", "wait_until", "> duration", ">", effectConfig={"durationType": "minutes"}),
            end("delivered"),
            node("hear", "on_event", "scope", "> payload name", eventConfig={"name": "ping", "scope": scope}),
            node("text", "stringify_json", "value mode", "result", defaults={"mode": "minified"}),
            node("say", "answer_user", "> message", ">"),
        ],
        [
            *("s > emit", "s/n -> emit/payload", "emit > pause", "s/n -> pause/duration", "pause > e"),
            *(
                "emit/delivered -> e/delivered",
                "hear > say",
                "hear/payload -> text/value",
                "text/result -> say/message",
            ),
        ],
    )
    harness = GatewayHarness(flows={"f": drawing})

    ended = harness.run("f", {"n": 2}, session_id="here")

    listener = next(run for run in ended.runs if run.run_id != ended.run_id)
    said = [
        record["effect"]["payload"]["message"]
        for record in harness.stores.ledger.list(listener.run_id)
        if (record.get("effect") or {}).get("type") == "answer_user" and record["status"] == "completed"
    ]
    assert (ended.output, said) == ({"delivered": 1, "success": True}, ['{"value":2}'])
    assert listener.status.value == "waiting"


def test_a_question_in_a_loop_takes_only_its_choices() -> None:
    drawing = flow(
        [
            start(),
            node("each", "for", "> start end", ">loop >done i", defaults={"start": 1}),
            node(
                "ask",
                "ask_user",
                "> prompt choices",
                "> response",
                defaults={"choices": ["yes", "no"]},
                effectConfig={"allowFreeText": False},
            ),
            node("text", "concat", "a b", "result"),
            setter("keep", "said"),
            variable("read", "said"),
            end("said i"),
        ],
        [
            *("s > each", "s/n -> each/end", "each/loop > ask", "each/i -> ask/prompt", "ask > keep"),
            *("read/value -> text/a", "ask/response -> text/b", "text/result -> keep/value", "each/done > e"),
            *("read/value -> e/said", "each/i -> e/i"),
        ],
    )

    assert output(drawing, given={"n": 3}, answers=["yes", "no"]) == {"said": " yes no", "i": 2.0}
    with pytest.raises(ValueError, match="'maybe' is not one of the choices"):
        output(drawing, given={"n": 3}, answers=["maybe"])


def test_code_chooses_the_way_and_the_pin_that_is_read_where_the_ways_meet() -> None:
    code = (
        "def transform(_input):\n    n = _input['n']\n    return {'branch': 'case:low' if n < 3 else 'default', 'n': n}"
    )
    other = "def transform(input):\n    return input['n'] * 100"
    drawing = flow(
        [
            start(),
            node("code", "code", "> n", ">case:low >default n", code=code),
            node("big", "code", "> n", "> output", code=other),
            node("say", "answer_user", "> message", "> message"),
            end("r"),
        ],
        [
            *("s > code", "s/n -> code/n", "code/case:low > say", "code/default > big", "big > say", "say > e"),
            "say/message -> e/r",
        ],
    )
    routes = {"code::case:low": ("code", "n"), "big::exec-out": ("big", "output")}
    drawing["nodes"][3]["data"]["inputRouteOverrides"] = {
        "message": {key: {"sourceNodeId": source, "sourceHandle": pin} for key, (source, pin) in routes.items()}
    }

    assert [output(drawing, given={"n": n}) for n in (2, 5)] == [{"r": "2"}, {"r": "500"}]


def test_an_agent_uses_its_tool_and_what_it_says_fills_a_template() -> None:
    def answer(call: dict[str, Any]) -> Any:
        if any(message.get("role") == "tool" for message in call.get("messages") or []):
            return "4 °C 🥶"
        return {"content": "", "tool_calls": [{"call_id": "1", "name": "weather", "arguments": {"city": "Zürich"}}]}

    def weather(city: str) -> int:
        asked.append(city)
        return 4

    asked: list[str] = []
    drawing = flow(
        [
            start(),
            node(
                "a",
                "agent",
                "> prompt",
                "> response success tool_results",
                agentConfig={"provider": "p", "model": "m", "tools": ["weather"]},
            ),
            node("vars", "make_object", "said results", "result"),
            node(
                "text",
                "string_template",
                "template vars",
                "result",
                defaults={"template": "Grüß: {{ said | upper }} ({{ results[0].name }}) {{ none.x }}|"},
            ),
            end("r ok"),
        ],
        [
            *("s > a", "s/n -> a/prompt", "a > e", "a/response -> vars/said", "a/tool_results -> vars/results"),
            *("vars/result -> text/vars", "text/result -> e/r", "a/success -> e/ok"),
        ],
    )

    found = output(drawing, given={"n": "?"}, model=ScriptedModel(answer), tools={"weather": weather})

    assert (found, asked) == ({"r": "Grüß: 4 °C 🥶 (weather) |", "ok": True}, ["Zürich"])


def test_a_model_that_answers_by_a_schema_feeds_several_consumers() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    drawing = flow(
        [
            start(),
            node("schema", "json_schema", "", "value", literalValue=schema),
            node("ask", "llm_call", "> prompt resp_schema", "> response meta"),
            node("data", "parse_json", "text", "result"),
            node("n", "get", "object key", "value", defaults={"key": "n"}),
            node("square", "power", "base exp", "result", defaults={"exp": 2}),
            node("both", "make_array", "a b c", "result"),
            node("mode", "get", "object key", "value", defaults={"key": "output_mode"}),
            end("all mode"),
        ],
        [
            *(
                "s > ask",
                "s/n -> ask/prompt",
                "schema/value -> ask/resp_schema",
                "ask > e",
                "ask/response -> data/text",
            ),
            *("data/result -> n/object", "n/value -> square/base", "n/value -> both/a", "square/result -> both/b"),
            *("n/value -> both/c", "both/result -> e/all", "ask/meta -> mode/object", "mode/value -> e/mode"),
        ],
    )

    found = output(drawing, given={"n": "how many?"}, model=ScriptedModel([{"data": {"n": 7}}]))

    assert found == {"all": [7, 49.0, 7], "mode": "structured"}


def test_variables_of_a_child_are_its_own_also_when_the_names_are_the_same() -> None:
    child = flow(
        [start(), setter("set", "shared", value="child"), variable("read", "shared"), end("r")],
        ["s > set", "set > e", "read/value -> e/r"],
        flow_id="child",
    )
    drawing = flow(
        [
            start(),
            setter("set", "shared", value="parent"),
            node("call", "subflow", "> n", "> r child_output", subflowId="child"),
            variable("read", "shared"),
            end("mine its all"),
        ],
        [
            *("s > set", "set > call", "s/n -> call/n", "call > e", "read/value -> e/mine", "call/r -> e/its"),
            "call/child_output -> e/all",
        ],
    )

    assert output(drawing, child) == {"mine": "parent", "its": "child", "all": {"r": "child", "success": True}}


def test_what_code_nests_too_deeply_fails_the_run_and_nothing_else() -> None:
    code = "def transform(_input):\n    found = []\n    for _ in range(900):\n        found = [found]\n    return found"
    drawing = flow(
        [start(), node("deep", "code", "> n", "> output", code=code), end("r")],
        ["s > deep", "deep > e", "deep/output -> e/r"],
    )

    ended = GatewayHarness(flows={"f": drawing}).run("f", {})

    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.startswith("node 'deep': CodeFailed: ")
    assert "nested more than 200 levels deep" in ended.error


@pytest.mark.parametrize("node_id", ["a.b", "a/b~c", "ä b", "a:b@1"])
def test_names_of_nodes_may_hold_anything(node_id: str) -> None:
    drawing = flow(
        [
            start(),
            node("ask", "ask_user", "> prompt", "> response", defaults={"prompt": "?"}),
            node("each", "loop", "> items", ">loop >done item", defaults={"items": []}),
            end("said item"),
        ],
        ["s > ask", "ask > each", "each/done > e", "ask/response -> e/said", "each/item -> e/item"],
    )
    for item in drawing["nodes"]:
        item["id"] = f"{item['id']} {node_id}"
    for edge in drawing["edges"]:
        edge["source"], edge["target"] = f"{edge['source']} {node_id}", f"{edge['target']} {node_id}"

    assert output(drawing, answers=["hi"]) == {"said": "hi", "item": None}
