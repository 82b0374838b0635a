from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.runtime.context import StepContext
from abstractgateway.runtime.models import RunState
from abstractgateway.visualflow import compile_flow
from abstractgateway.visualflow.nodes.registry import REGISTRY

VISUALFLOWS = Path(__file__).resolve().parents[2].parent / "shared" / "flows" / "visualflows"


def _refusal(document: Any, **given: Any) -> str:
    with pytest.raises(Invalid) as caught:
        compile_flow(document, **given)
    assert caught.value.field == "flow"
    return caught.value.why


def _minimal(draw: Any, *more: dict[str, Any], edges: tuple[str, ...] = ()) -> dict[str, Any]:
    return draw.flow(
        [draw.node("s", "on_flow_start", "", ">"), draw.node("e", "on_flow_end", ">"), *more], ["s > e", *edges]
    )


def test_all_unknown_types_are_named_wherever_they_are(draw: Any) -> None:
    document = _minimal(draw, draw.node("c1", "read_mind", "> input", ">"), draw.node("c2", "frobnicate", "", ""))

    why = _refusal(document)

    assert why == (
        "node 'c1' has the type 'read_mind', which this gateway does not run; "
        "node 'c2' has the type 'frobnicate', which this gateway does not run"
    )


def test_what_is_wrong_with_a_part_that_is_never_reached_is_a_warning(draw: Any) -> None:
    document = _minimal(
        draw,
        draw.node("sub", "subflow", ">", ">"),
        draw.node("a", "not", "value", "result"),
        edges=("a/result -> a/value", "a/result -> sub/x"),
    )

    assert "node 'sub' (subflow) names no flow to run: set 'subflowId'" in compile_flow(document).warnings


def test_all_problems_of_a_flow_are_reported_at_once(draw: Any) -> None:
    document = _minimal(
        draw,
        draw.node("sub", "subflow", ">", ">"),
        draw.node("q", "sequence", ">", ">"),
        draw.node("l", "loop", ">", ">"),
        draw.node("key", "uppercase", "> text", "> result", outputKey="_runtime.x"),
        edges=("e > sub", "sub > q", "q/then:0 > l", "l/next > key"),
    )

    why = _refusal(document)

    assert "node 'sub' (subflow) names no flow to run" in why
    assert "node 'q' (sequence) lists no 'then:<n>' output pins" in why
    assert "node 'l' (loop) has no execution pin 'next'" in why
    assert "node 'key' (uppercase) has the reserved 'outputKey' '_runtime.x'" in why


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ("text", "not an object"),
        ({"nodes": []}, "has no 'id'"),
        ({"id": "f"}, "no execution node to start at"),
        ({"id": "f", "nodes": {}, "edges": 3}, "'edges' is not a list"),
        ({"id": "f", "nodes": [{"id": "a", "type": "if"}, {"id": "a", "type": "if"}]}, "two nodes have the id 'a'"),
        ({"id": "f", "nodes": [{"id": "a", "type": float("nan")}]}, "cannot be written as JSON"),
        ({"id": "f", "nodes": [{"id": "a", "type": None}]}, "has the type ''"),
        ({"id": "f", "nodes": [{"id": "a", "type": ["if"]}]}, "has the type ''"),
    ],
)
def test_a_document_that_is_no_flow_is_refused(document: Any, said: str) -> None:
    assert said in _refusal(document)


def test_values_that_depend_on_each_other_are_refused(draw: Any) -> None:
    document = _minimal(
        draw,
        draw.node("a", "not", "value", "result"),
        draw.node("b", "not", "value", "result"),
        edges=("a/result -> b/value", "b/result -> a/value", "b/result -> e/y"),
    )

    assert "the values of 'b' (pin 'value') and 'a' (pin 'value') depend on each other" in _refusal(document)


def test_nothing_that_is_wrong_hides_something_else_that_is_wrong(draw: Any) -> None:
    node = draw.node
    document = _minimal(
        draw,
        node("twice", "not", "value", "result"),
        node("twice", "not", "value", "result"),
        node("odd", "frobnicate", "x", "y"),
        *(node(name, "and", "a b", "result") for name in "pqrt"),
        node("broken", "function", "x", "result", code="import os\ndef transform(i): return 1"),
        node("sub", "subflow", "> x", "> output", subflowId="ghost"),
        edges=(
            *("p/result -> q/a", "q/result -> p/b", "r/result -> t/a", "t/result -> r/a", "p/result -> e/one"),
            *("r/result -> e/two", "broken/result -> sub/x", "e > sub", "twice/outcome -> sub/y"),
        ),
    )

    why = _refusal(document, known_flows=())

    assert "two nodes have the id 'twice'" in why
    assert "node 'odd' has the type 'frobnicate'" in why
    assert "node 'broken' (function) line 1: 'os' cannot be imported" in why
    assert "the values of 'p' (pin 'b') and 'q' (pin 'a') depend on each other" in why
    assert "the values of 'r' (pin 'a') and 't' (pin 'a') depend on each other" in why
    assert "node 'twice' (not) has an edge at the output pin 'outcome', which is not drawn" in why
    assert "node 'sub' (subflow) names the flow 'ghost', which is not here" in why


def test_without_a_place_to_start_everything_else_is_told_too(draw: Any) -> None:
    document = draw.flow([draw.node("odd", "frobnicate", "x", "y")], [])

    assert _refusal(document).startswith("there is no execution node to start at; node 'odd' has the type")


def test_pins_that_are_not_drawn_are_a_warning_that_names_them(draw: Any) -> None:
    document = _minimal(
        draw,
        draw.node("up", "uppercase", "text", "result"),
        draw.node("sw", "switch", "> value", ">case:a", switchConfig={"cases": [{"id": "a", "value": "x"}]}),
        edges=("s/nope -> up/text", "up/outcome -> e/r", "s/exec-out -> e/r", "e > sw", "sw/case:b > e"),
    )

    assert compile_flow(document).warnings == (
        "node 's' (on_flow_start) has an edge at the output pin 'nope', which is not drawn",
        "node 'up' (uppercase) has an edge at the output pin 'outcome', which is not drawn",
        "node 'e' (on_flow_end) has an edge at the input pin 'r', which is not drawn",
        "node 'e' has an edge from the execution pin 'exec-out' of 's' into 'r'; it does nothing",
        "node 'sw' (switch) has an edge at the output pin 'case:b', which is not drawn",
    )


def test_a_pin_that_leaves_no_node_is_the_one_that_is_named(draw: Any) -> None:
    document = _minimal(draw, edges=("s/value -> e/exec-in",))

    assert _refusal(document).startswith("node 's' (on_flow_start) has no execution pin 'value'")


def test_steps_that_all_read_thousands_of_values_are_refused_before_they_take_memory(draw: Any) -> None:
    count = 300
    document = _minimal(
        draw,
        *(draw.node(f"x{number}", "answer_user", "> message", ">") for number in range(count)),
        *(draw.node(f"p{number}", "uppercase", "text", "result") for number in range(count)),
        edges=(
            *("e > x0", *(f"x{number} > x{number + 1}" for number in range(count - 1))),
            *(f"p{number}/result -> p{number + 1}/text" for number in range(count - 1)),
            *(f"p{count - 1}/result -> x{number}/message" for number in range(count)),
        ),
    )

    assert _refusal(document) == "node 'x166' and those before it read more than 50000 computed values together"


def test_of_thousands_of_problems_the_first_are_told(draw: Any) -> None:
    document = _minimal(draw, *(draw.node(f"u{number}", "odd", "", "") for number in range(1_000)))

    why = _refusal(document)

    assert "node 'u199'" in why
    assert why.endswith("; and 800 more")


def test_a_tangle_of_thousands_of_values_is_refused_quickly(draw: Any) -> None:
    names = [f"n{number}" for number in range(1_000)]
    edges = [f"{name}/result -> {other}/p{other}" for name in names[::20] for other in names[::20]]
    chain = [f"{name}/result -> {after}/a" for name, after in zip(names, [*names[1:], names[0]], strict=True)]
    document = _minimal(
        draw,
        *(draw.node(name, "make_array", "a", "result") for name in names),
        edges=(*chain, *edges, "n0/result -> e/r"),
    )

    began = time.perf_counter()
    why = _refusal(document)

    assert "depend on each other" in why
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        (["i/true > e", "i/case:1 > e"], "branches by true/false and by cases at once"),
        (["i/sideways > e"], "node 'i' (if) has no execution pin 'sideways'"),
        (["i/true > e", "i/true > s"], "two execution edges on 'true'"),
        (["i/true > e", "i/true > e"], "entered twice from the same execution pin"),
    ],
)
def test_ways_out_that_make_no_sense_are_refused(draw: Any, edges: list[str], said: str) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("i", "if", "> condition", ">true >false"),
            draw.node("e", "on_flow_end", ">"),
        ],
        ["s > i", *edges],
    )

    assert said in _refusal(document)


@pytest.mark.parametrize(
    "written", ["on_flow_start", " on_flow_start ", "NodeType.ON_FLOW_START", {"value": "on_flow_start"}]
)
def test_old_spellings_of_types_are_understood(draw: Any, written: Any) -> None:
    document = _minimal(draw)
    document["nodes"][0]["type"] = written

    assert compile_flow(document).workflow.entry_node == "s"


def test_what_is_harmless_is_a_warning(draw: Any) -> None:
    document = _minimal(
        draw, draw.node("lost", "set_var", "> name", ">"), draw.node("idle", "llm_call", "prompt", "response")
    )
    document["nodes"].append("junk")
    document["edges"] += [{"source": "s"}, {"source": "s", "sourceHandle": "x", "target": "gone", "targetHandle": "y"}]

    compiled = compile_flow(document)

    assert compiled.warnings == (
        "nodes[4] has no 'id' and is left out",
        "edges[1] names no pins and is left out",
        "edges[2] leads to the unknown node 'gone' and is left out",
        "node 'lost' (set_var) is never reached",
        "node 'idle' (llm_call) has no execution pins and never runs",
    )


def test_of_several_edges_into_a_pin_the_last_counts(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("one", "literal_string", "", "value", literalValue="one"),
            draw.node("two", "literal_string", "", "value", literalValue="two"),
            draw.node("e", "on_flow_end", "> y"),
        ],
        ["s > e", "one/value -> e/y", "two/value -> e/y"],
    )

    assert driver.run(driver.add(document)).output["y"] == "two"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [("b", "b"), (None, "s"), ("v", "s"), ("gone", "s")],
)
def test_a_flow_starts_where_it_says_or_where_nothing_leads_to(draw: Any, entry: str | None, expected: str) -> None:
    document = draw.flow(
        [
            draw.node("v", "get_var", "name", "value"),
            draw.node("b", "on_flow_end", ">"),
            draw.node("s", "on_flow_start", "", ">"),
        ],
        ["s > b"],
        entry=entry,
    )

    assert compile_flow(document).workflow.entry_node == expected


def test_objects_that_can_dump_themselves_are_documents_too(draw: Any) -> None:
    class Model:
        def model_dump(self) -> dict[str, Any]:
            return _minimal(draw)

    assert compile_flow(Model()).workflow.workflow_id == "f"


def test_agents_get_a_loop_of_their_own(draw: Any) -> None:
    document = _minimal(draw, draw.node("a.1", "agent", "> prompt", ">"))
    document["edges"] = [
        {"source": "s", "sourceHandle": "exec-out", "target": "a.1", "targetHandle": "exec-in"},
    ]

    compiled = compile_flow(document, workflow_id="b@1.0.0:f")

    assert [spec.workflow_id for spec in compiled.derived] == ["visual_react_agent_b_1_0_0_f_a_1"]


def test_every_type_of_the_library_has_a_sentence_and_a_family() -> None:
    for name, row in REGISTRY.items():
        assert (row.name, row.text[-1:], bool(row.family)) == (name, ".", True)


def _shared_flows() -> list[Any]:
    found = sorted(VISUALFLOWS.glob("*.json")) if VISUALFLOWS.is_dir() else []
    return found or [pytest.param(None, marks=pytest.mark.skip(reason="the shared drawings are not here"))]


@pytest.mark.parametrize("path", _shared_flows(), ids=lambda path: getattr(path, "stem", "none"))
def test_drawn_flows_compile_or_name_the_types_that_are_not_run(path: Path) -> None:
    document = json.loads(path.read_text())
    unknown = {item["type"] for item in document["nodes"]} - set(REGISTRY)

    if unknown:
        why = _refusal(document)
        assert all(repr(name) in why for name in unknown)
        assert why.count("node ") == why.count("which this gateway does not run")
    else:
        assert compile_flow(document).workflow.nodes


def test_a_step_costs_the_same_however_many_nodes_are_elsewhere(draw: Any) -> None:
    def seconds_per_step(others: int) -> float:
        extra = [draw.node(f"x{i}", "concat", "a b", "result", defaults={"a": "1"}) for i in range(others)]
        more = [draw.node(f"y{i}", "answer_user", "> message", ">") for i in range(others)]
        nodes = [
            draw.node("s", "on_flow_start", "", "> n"),
            draw.node("u", "uppercase", "> text", "> result"),
            draw.node("up", "add", "a b", "result", defaults={"b": 1}),
        ]
        wires = [f"x{i}/result -> y{i}/message" for i in range(others)]
        document = draw.flow([*nodes, *extra, *more], ["s > u", "s/n -> up/a", "up/result -> u/text", *wires])
        spec = compile_flow(document).workflow
        run = RunState.new(workflow_id="f", entry_node="s", vars={"n": 1})
        context = StepContext(None, "r", 1)  # type: ignore[arg-type]
        spec.nodes["s"](run, context)
        handle = spec.nodes["u"]
        times = []
        for _ in range(30):
            began = time.perf_counter()
            for _ in range(50):
                handle(run, context)
            times.append((time.perf_counter() - began) / 50)
        return min(times)

    few, many = seconds_per_step(0), seconds_per_step(500)

    assert many < few * 2
    assert many < 100e-6
