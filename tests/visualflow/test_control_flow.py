from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime.models import EffectType


def _say(draw: Any, node_id: str, message: Any = None) -> dict[str, Any]:
    return draw.node(node_id, "answer_user", "> message level", "> message", defaults={"message": message or node_id})


def _said(driver: Any) -> list[str]:
    return [payload["message"] for payload in driver.payloads(EffectType.ANSWER_USER)]


def _loop_flow(draw: Any, kind: str, inputs: str, *, defaults: dict[str, Any], pin: str = "item") -> dict[str, Any]:
    return draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("l", kind, f"> {inputs}", ">loop >done item index total i", defaults=defaults),
            draw.node("say", "answer_user", "> message", ">"),
            draw.node("e", "on_flow_end", "> item index total i"),
        ],
        [
            "s > l",
            "l/loop > say",
            f"l/{pin} -> say/message",
            "l/done > e",
            *(f"l/{p} -> e/{p}" for p in ("item", "index", "total", "i")),
        ],
    )


@pytest.mark.parametrize(
    ("items", "said", "end"),
    [
        ([1, None, "x"], None, None),
        ([1, 2, "x"], ["1", "2", "x"], {"item": "x", "index": 2, "total": 3}),
        ("alone", ["alone"], {"item": "alone", "index": 0, "total": 1}),
        ({"k": 1}, ["{'k': 1}"], {"item": {"k": 1}, "index": 0, "total": 1}),
        ([], [], {"item": None, "index": None, "total": None}),
        (None, [], {"item": None, "index": None, "total": None}),
    ],
)
def test_loop_runs_its_body_for_each_item(driver: Any, draw: Any, items: Any, said: Any, end: Any) -> None:
    document = _loop_flow(draw, "loop", "items", defaults={"items": items})

    result = driver.run(driver.add(document))

    if said is None:
        assert (result.status, _said(driver)) == ("failed", ["1"])
        assert "message: is null" in result.error
    else:
        assert _said(driver) == said
        assert result.output == {**end, "i": None, "success": True}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": 0, "end": 3}, ["0.0", "1.0", "2.0"]),
        ({"start": "2", "end": 0, "step": -1}, ["2.0", "1.0"]),
        ({"start": 0, "end": 1, "step": 0.5}, ["0.0", "0.5"]),
        ({"start": 0, "end": 2, "step": "x"}, ["0.0", "1.0"]),
        ({"start": 5, "end": 1}, []),
    ],
)
def test_for_counts_up_to_its_end(driver: Any, draw: Any, given: dict[str, Any], said: list[str]) -> None:
    document = _loop_flow(draw, "for", "start end step", defaults=given, pin="i")

    result = driver.run(driver.add(document))

    assert result.status == "completed"
    assert _said(driver) == said


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"start": 0}, "end: None is not a number"),
        ({"start": "a", "end": 1}, "start: 'a' is not a number"),
        ({"start": 0, "end": 1, "step": 0}, "step: is 0"),
        ({"start": 0, "end": 10_001}, "at most 10000 are run"),
    ],
)
def test_a_range_that_cannot_be_run_fails_the_run(driver: Any, draw: Any, given: dict[str, Any], why: str) -> None:
    document = _loop_flow(draw, "for", "start end step", defaults=given, pin="i")

    result = driver.run(driver.add(document))

    assert result.status == "failed"
    assert why in result.error


def _while_flow(draw: Any, condition: str) -> dict[str, Any]:
    return draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> n"),
            draw.node("w", "while", "> condition", ">loop >done item index"),
            draw.node("get", "get_var", "name", "value", defaults={"name": "n"}),
            draw.node("minus", "subtract", "a b", "result", defaults={"b": 1}),
            draw.node("cmp", "compare", "a op b", "result", defaults={"op": ">", "b": 0}),
            draw.node("set", "set_var", "> name value", "> value", defaults={"name": "n"}),
            draw.node("always", "literal_boolean", "", "value", literalValue=True),
        ],
        [
            "s > w",
            "w/loop > set",
            "get/value -> minus/a",
            "minus/result -> set/value",
            "get/value -> cmp/a",
            f"{condition} -> w/condition",
        ],
    )


def test_while_looks_at_its_condition_afresh_each_round(driver: Any, draw: Any) -> None:
    result = driver.run(driver.add(_while_flow(draw, "cmp/result")), {"n": 3})

    assert result.vars["n"] == 0.0
    assert result.output == {"success": True, "result": {"n": 3, "item": {"n": 3}, "index": 2}}
    assert result.vars["_temp"]["_control"] == {"stack": [], "frames": {}}


def test_a_while_that_never_ends_fails_after_ten_thousand_rounds(driver: Any, draw: Any) -> None:
    result = driver.run(driver.add(_while_flow(draw, "always/value")), {"n": 3})

    assert result.status == "failed"
    assert "still true after 10000 rounds" in result.error


@pytest.mark.parametrize(("given", "said"), [(True, ["yes"]), ("false", ["yes"]), (0, ["no"]), (None, ["no"])])
def test_if_takes_the_branch_of_its_condition(driver: Any, draw: Any, given: Any, said: list[str]) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> c"),
            draw.node("i", "if", "> condition", ">true >false"),
            _say(draw, "yes"),
            _say(draw, "no"),
        ],
        ["s > i", "s/c -> i/condition", "i/true > yes", "i/false > no"],
    )

    result = driver.run(driver.add(document), {"c": given})

    assert _said(driver) == said
    assert result.output == {"success": True, "result": {"message": said[0], "level": "message"}}


def test_an_if_whose_branch_leads_nowhere_ends_the_run(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("i", "if", "> condition", ">true >false"),
            _say(draw, "yes"),
        ],
        ["s > i", "i/true > yes"],
    )

    result = driver.run(driver.add(document))

    assert result.output == {"branch": "false", "condition": None, "success": True}


@pytest.mark.parametrize(
    ("value", "said"),
    [(1, "one"), ("1", "one"), (1.0, "other"), (True, "true"), (None, "empty"), ("ONE", "other")],
)
def test_switch_compares_texts_exactly(driver: Any, draw: Any, value: Any, said: str) -> None:
    cases = [
        {"id": "a", "value": 1},
        {"id": "b", "value": "True"},
        {"id": "c", "value": ""},
        {"id": "", "value": "x"},
        {"id": "d"},
    ]
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> v"),
            draw.node("w", "switch", "> value", ">case:a >case:b >case:c >default", switchConfig={"cases": cases}),
            *(_say(draw, name) for name in ("one", "true", "empty", "other")),
        ],
        ["s > w", "s/v -> w/value", "w/case:a > one", "w/case:b > true", "w/case:c > empty", "w/default > other"],
    )

    driver.run(driver.add(document), {"v": value})

    assert _said(driver) == [said]


@pytest.mark.parametrize(("kind", "said"), [("sequence", ["b", "a"]), ("parallel", ["b", "a", "after"])])
def test_branches_run_one_after_the_other_in_the_order_of_their_numbers(
    driver: Any, draw: Any, kind: str, said: list[str]
) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> x"),
            draw.node("q", kind, ">", ">then:10 >then:2 >then:3 >completed"),
            *(_say(draw, name) for name in ("a", "b", "after")),
        ],
        ["s > q", "q/then:10 > a", "q/then:2 > b", *(["q/completed > after"] if kind == "parallel" else [])],
    )

    result = driver.run(driver.add(document), {"x": 1})

    assert _said(driver) == said
    assert result.status == "completed"


def test_blocks_nest_and_each_gets_its_own_branches_back(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("q", "sequence", ">", ">then:0 >then:1"),
            draw.node("outer", "loop", "> items", ">loop >done item", defaults={"items": ["a", "b"]}),
            draw.node("inner", "loop", "> items", ">loop >done item", defaults={"items": [1, 2]}),
            draw.node("c", "concat", "a b", "result"),
            draw.node("say", "answer_user", "> message", ">"),
            _say(draw, "last"),
        ],
        [
            "s > q",
            "q/then:0 > outer",
            "q/then:1 > last",
            "outer/loop > inner",
            "inner/loop > say",
            "outer/item -> c/a",
            "inner/item -> c/b",
            "c/result -> say/message",
        ],
    )

    result = driver.run(driver.add(document))

    assert _said(driver) == ["a 1", "a 2", "b 1", "b 2", "last"]
    assert result.output["success"] is True


def test_an_end_node_ends_the_run_even_inside_a_loop(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("l", "loop", "> items", ">loop >done item", defaults={"items": [1, 2]}),
            draw.node("e", "on_flow_end", "> item"),
        ],
        ["s > l", "l/loop > e", "l/item -> e/item"],
    )

    assert driver.run(driver.add(document)).output == {"item": 1, "success": True}


def test_a_body_wired_back_to_its_loop_continues_it(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("l", "loop", "> items", ">loop >done item", defaults={"items": ["a", "b"]}),
            draw.node("say", "answer_user", "> message", ">"),
        ],
        ["s > l", "l/loop > say", "say > l", "l/item -> say/message"],
    )

    driver.run(driver.add(document))

    assert _said(driver) == ["a", "b"]


def test_a_failing_node_inside_a_loop_fails_the_run(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("l", "loop", "> items", ">loop >done item", defaults={"items": ["{}", "no json", "{}"]}),
            draw.node("p", "parse_json", "text", "result"),
            draw.node("set", "set_var", "> name value", ">", defaults={"name": "x"}),
        ],
        ["s > l", "l/loop > set", "l/item -> p/text", "p/result -> set/value"],
    )

    result = driver.run(driver.add(document))

    assert result.status == "failed"
    assert result.error == "node 'set': NodeFailed: node 'p' (parse_json): Invalid: text: 'no json' holds no JSON value"


def _routed_flow(draw: Any) -> dict[str, Any]:
    overrides = {
        "message": {
            "first": {"sourceNodeId": "one", "sourceHandle": "value"},
            "second": {"source": "two", "handle": "value"},
        }
    }
    routes = [
        {"key": "first", "sourceNodeId": "i", "sourceHandle": "true"},
        {"key": "second", "source": "i", "sourceHandle": "false"},
    ]
    return draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> c"),
            draw.node("i", "if", "> condition", ">true >false"),
            draw.node("one", "literal_string", "", "value", literalValue="by true"),
            draw.node("two", "literal_string", "", "value", literalValue="by false"),
            draw.node("say", "answer_user", "> message", ">", entryRoutes=routes, inputRouteOverrides=overrides),
        ],
        ["s > i", "s/c -> i/condition", "i/false > say", "i/true > say"],
    )


@pytest.mark.parametrize(("given", "said"), [(True, "by true"), (False, "by false")])
def test_a_pin_may_depend_on_the_way_by_which_a_node_was_entered(
    driver: Any, draw: Any, given: bool, said: str
) -> None:
    result = driver.run(driver.add(_routed_flow(draw)), {"c": given})

    assert _said(driver) == [said]
    assert result.vars["_temp"]["node_outputs"]["__internal_join_exec__say"]["which"] == (0 if given else 1)


def test_a_routed_pin_without_a_source_for_this_way_takes_its_edge_or_default(driver: Any, draw: Any) -> None:
    document = _routed_flow(draw)
    data = document["nodes"][4]["data"]
    del data["inputRouteOverrides"]["message"]["first"]
    data["pinDefaults"] = {"message": "the default"}

    driver.run(driver.add(document), {"c": True})

    assert _said(driver) == ["the default"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data["entryRoutes"].pop(), "'entryRoutes' that are not the execution edges"),
        (lambda data: data["entryRoutes"].append(data["entryRoutes"][0]), "two entry routes with the key 'first'"),
        (lambda data: data["inputRouteOverrides"]["message"].update(third={}), "unknown route 'third'"),
        (
            lambda data: data["inputRouteOverrides"]["message"]["first"].update(sourceNodeId="gone"),
            "overrides pin 'message' with a node that does not exist",
        ),
    ],
)
def test_routes_that_do_not_fit_the_drawing_are_refused(driver: Any, draw: Any, change: Any, why: str) -> None:
    document = _routed_flow(draw)
    change(document["nodes"][4]["data"])

    with pytest.raises(ValueError, match=why):
        driver.add(document)


def test_recursion_ends_with_the_innermost_answer(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> number"),
            draw.node("if", "if", "> condition", ">true >false"),
            draw.node("cmp", "compare", "a op b", "result", defaults={"op": ">", "b": 0}),
            draw.node("minus", "subtract", "a b", "result", defaults={"b": 1}),
            draw.node("again", "subflow", "> number", "> response", subflowId="rec"),
            draw.node("text", "concat", "a b", "result", defaults={"a": "Final number : "}),
            draw.node("say", "answer_user", "> message", "> message"),
            draw.node("end1", "on_flow_end", "> response"),
            draw.node("end2", "on_flow_end", "> response"),
        ],
        [
            "s > if",
            "s/number -> cmp/a",
            "cmp/result -> if/condition",
            "if/true > again",
            "s/number -> minus/a",
            "minus/result -> again/number",
            "again > end1",
            "again/response -> end1/response",
            "if/false > say",
            "s/number -> text/b",
            "text/result -> say/message",
            "say > end2",
            "say/message -> end2/response",
        ],
        "rec",
    )
    driver.add(document)

    answers = [driver.run("rec", given).output for given in ({"number": 3}, {"number": 0}, {}, {"number": "2"})]

    assert [answer["response"] for answer in answers] == [
        "Final number :  0.0",
        "Final number :  0",
        "Final number :  ",
        "Final number :  2",
    ]
    assert all(answer["success"] for answer in answers)
    assert len(driver.children) == 3


def test_a_block_that_gets_its_branch_back_keeps_the_way_by_which_it_was_entered(driver: Any, draw: Any) -> None:
    overrides = {
        "condition": {
            "i::true": {"sourceNodeId": "always", "sourceHandle": "value"},
            "i::false": {"sourceNodeId": "more", "sourceHandle": "value"},
        }
    }
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> c"),
            draw.node("i", "if", "> condition", ">true >false"),
            draw.node("always", "literal_boolean", "", "value", literalValue=True),
            draw.node("more", "get_var", "name", "value", defaults={"name": "more"}),
            draw.node("w", "while", "> condition", ">loop >done", inputRouteOverrides=overrides),
            draw.node("set", "set_var", "> name value", ">", defaults={"name": "more", "value": False}),
        ],
        ["s > i", "s/c -> i/condition", "i/true > w", "i/false > w", "w/loop > set"],
    )

    result = driver.run(driver.add(document), {"c": False, "more": True})

    assert result.status == "completed"
    assert driver.visited == ["s", "i", "w", "set", "w"]
