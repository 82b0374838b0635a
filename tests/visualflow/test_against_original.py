"""The same flows on AbstractRuntime 0.4.9 and here: equal outputs, but a node that raises fails its run here."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from abstractgateway.runtime.context import StepContext
from abstractgateway.runtime.models import RunState, StepPlan, WorkflowSpec
from tests.visualflow.original import AGENT, REPLY, scripted
from tests.visualflow.random_flows import flows, variables

PYTHON = os.environ.get("ABSTRACTRUNTIME_PYTHON", "")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="ABSTRACTRUNTIME_PYTHON does not name an interpreter that has abstractruntime 0.4.9"
)

TEXTS = ["", "abc", " a, b ,,c ", "a{x}{{y}}", "Äß\n1", "null", '{"a": [1, {"b": 2}]}', "```json\n[1, 2]\n```", "2.5"]
NUMBERS = [0, 1, -3, 2.5, 1e3]
MATH = [None, True, False, *NUMBERS, -7, 0.1, "2.5", " 3 ", "x", [], {}]
OBJECTS = [{}, {"a": 1, "b": None}, {"a": {"b": [1, {"c": "x"}]}, "x": "y"}]
LISTS: list[Any] = [[], [1, 2, 1, True, "1", None], ["a", " b", ""], [{"a": 1}, {"a": 2, "b": 1}, "z"]]
ANYTHING = [None, True, False, *NUMBERS, *TEXTS, *OBJECTS, *LISTS]
KEYS = ["a", "a.b", "a.b[1].c", "a.b.0", "zz", "", "x"]

PURE: dict[str, dict[str, list[Any]]] = {
    "compare": {"a": ANYTHING, "op": ["==", "!=", "<", "<=", ">", ">=", "=~", None], "b": ANYTHING},
    "not": {"value": ANYTHING},
    "and": {"a": ANYTHING, "b": ANYTHING},
    "or": {"a": ANYTHING, "b": ANYTHING},
    "coalesce": {"a": ANYTHING, "b": ANYTHING},
    "add": {"a": MATH, "b": MATH},
    "subtract": {"a": MATH, "b": MATH},
    "multiply": {"a": MATH, "b": MATH},
    "divide": {"a": MATH, "b": MATH},
    "modulo": {"a": [*NUMBERS, -5, "7"], "b": [*NUMBERS, 3, -3, "2"]},
    "power": {"base": [*NUMBERS, "2", None], "exp": [*NUMBERS, "3", 0.5]},
    "abs": {"value": MATH},
    "round": {"value": [*NUMBERS, 2.345, -2.5, "3.7", None], "decimals": [0, 1, 2, -1, "1", None]},
    "concat": {"a": ANYTHING, "b": ANYTHING},
    "split": {"text": ANYTHING, "delimiter": [",", "", None, " ", "\\n", "b"]},
    "join": {"items": ANYTHING, "delimiter": [",", "", None, "\\n", " - "]},
    "string_template": {
        "template": [
            "{{a}}",
            "{{ a.b | json }}",
            "{{x|upper}} {{zz}}",
            "{{a.b[1].c}}",
            "{{a|join(', ')}}",
            "{{ }} {",
            "",
        ],
        "vars": [*OBJECTS, {"a": [1, "x", None]}, None, "a"],
    },
    "uppercase": {"text": ANYTHING},
    "lowercase": {"text": ANYTHING},
    "trim": {"text": ANYTHING},
    "substring": {"text": ["abcdef", "", 12345, None], "start": [0, 1, -2, 2.9, "1"], "end": [None, 0, 3, -1, 99]},
    "length": {"text": ANYTHING},
    "contains": {"text": ANYTHING, "pattern": ["", "a", None, "1", "A"]},
    "replace": {
        "text": [*TEXTS, None, 12],
        "pattern": ["a", "", None, "1"],
        "replacement": ["X", "", None],
        "mode": ["all", "first", "2", "-1", "0", "junk"],
    },
    "get": {"object": [*OBJECTS, *LISTS, None, "text"], "key": KEYS, "default": [None, 7]},
    "set": {"object": OBJECTS, "key": ["a", "a.b", "n.m", "x"], "value": [1, None, {"k": 1}]},
    "merge": {"a": OBJECTS, "b": OBJECTS},
    "make_object": {"a": ANYTHING, "b": ANYTHING},
    "parse_json": {"text": [*ANYTHING, "x [1] y", "{'a': True}", "true", "plain words", '"quoted"']},
    "stringify_json": {"value": ANYTHING, "mode": ["beautify", "minified", "none", "other"]},
    "make_context": {"task": ANYTHING, "messages": [None, [], [{"role": "user", "content": "x"}], "x"]},
    "make_array": {"a": ANYTHING, "b": ANYTHING},
    "array_concat": {"a": ANYTHING, "b": ANYTHING},
    "array_map": {"items": [*LISTS, {"a": 1}, "ab"], "key": ["a", "zz", "b"]},
    "array_filter": {"items": [*LISTS, {"a": 1}, "ab"], "key": ["a", "zz"], "value": [1, None, "a"]},
    "array_length": {"array": ANYTHING},
    "array_append": {"array": ANYTHING, "item": [None, 1, [2]]},
    "array_dedup": {"array": [*LISTS, None, [1, 1.0, "1", True, [1], [1]]], "key": ["", "a", None]},
    "get_element": {
        "array": [*LISTS, None, "ab"],
        "index": [0, 1, -1, 9, 1.7, "1", True, None, "x"],
        "default": [None, 5],
    },
    "has_tools": {"array": ANYTHING},
}
CASES_PER_TYPE = 60
ODD = [None, True, False, 0, 1, -3, 2.5, "", "abc", "[1]", [], [1], [["a", 1]], ["ab"], {}, {"a": 1}]
USUAL: dict[str, dict[str, Any]] = {
    "merge": {"a": {"x": 1}, "b": {"y": 2}},
    "set": {"object": {"a": 1}, "key": "k", "value": 1},
    "get": {"object": {"a": 1}, "key": "a", "default": 0},
    "array_map": {"items": [{"1": 1, "None": 3, "True": 4, "": 5}], "key": "a"},
    "array_filter": {"items": [{"1": 1}], "key": "1", "value": 1},
    "array_concat": {"a": [1], "b": [2]},
    "array_dedup": {"array": [1, 1], "key": ""},
    "get_element": {"array": [1], "index": 0, "default": 5},
    "format": {"template": "{a}", "values": {"a": 1}},
    "string_template": {"template": "{{a}}", "vars": {"a": 1}},
    "replace": {"text": "aab", "pattern": "a", "replacement": "x", "mode": "all"},
    "substring": {"text": "abc", "start": 0, "end": 2},
    "join": {"items": ["a"], "delimiter": ","},
    "split": {"text": "a,b", "delimiter": ","},
    "stringify_json": {"value": {"a": 1}, "mode": "beautify"},
    "make_context": {"task": "t", "messages": []},
    "make_scratchpad": {"task": "t", "steps": []},
    "make_meta": {
        "schema": "s",
        "version": 2,
        "extra": {},
        "output_mode": "x",
        "provider": "p",
        "iterations": 1,
        "model": "m",
        "sub_run_id": "r",
        "tool_calls": 1,
        "tool_results": 2,
        "ttft_ms": 3,
        "usage": {},
        "trace": "t",
        "warnings": ["w"],
        "debug": {},
        "finish_reason": "f",
        "gen_time": 1.5,
    },
    "break_object": {"object": {"a": 1}},
    "modulo": {"a": 5, "b": 3},
    "round": {"value": 1.5, "decimals": 0},
    "coalesce": {"a": None, "b": 1},
    "compare": {"a": 1, "op": "==", "b": 1},
    "contains": {"text": "ab", "pattern": "a"},
    "path_mux": {"select": 0, "in0": 1, "fallback": 2},
    "provider_catalog": {"allowed_providers": ["a"]},
    "provider_models": {"provider": "p", "allowed_models": ["a"]},
}


def drawn(draw: Any, kind: str, pins: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """Return start → end with one computing node between them, whose inputs are the run's."""
    wired = [pin for pin in pins if pin in given]
    found: dict[str, Any] = draw.flow(
        [
            draw.node("start", "on_flow_start", "", "> " + " ".join(wired)),
            draw.node("x", kind, " ".join(pins), "result value context found"),
            draw.node("end", "on_flow_end", "> y z", ""),
        ],
        [
            "start > end",
            *(f"start/{pin} -> x/{pin}" for pin in wired),
            f"x/{ {'get': 'value', 'make_context': 'context'}.get(kind, 'result') } -> end/y",
            "x/found -> end/z",
        ],
    )
    return found


def combinations(kind: str) -> list[dict[str, Any]]:
    """Return some of the ways to give a type its inputs, among them those that leave one out."""
    pins = PURE[kind]
    choices = [[(pin, value) for value in values] for pin, values in pins.items()]
    every = [dict(chosen) for chosen in itertools.islice(itertools.product(*choices), 20_000)]
    chosen = random.Random(kind).sample(every, min(CASES_PER_TYPE, len(every)))
    without = [{name: value for name, value in chosen[0].items() if name != pin} for pin in pins]
    return [*chosen, *without]


def original(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    program = Path(__file__).with_name("original.py")
    finished = subprocess.run(
        [PYTHON, str(program)], input=json.dumps(cases), capture_output=True, text=True, timeout=120, check=True
    )
    found: list[dict[str, Any]] = json.loads(finished.stdout)
    return found


def here(make_driver: Any, case: dict[str, Any]) -> dict[str, Any]:
    driver = make_driver()
    result = driver.run(driver.add(case["flow"], "f"), case["vars"])
    return {"status": result.status, "output": result.output, "error": result.error}


def is_failure(ended: dict[str, Any]) -> bool:
    """AbstractRuntime completes runs of nodes that raise with `success: false`; here they fail."""
    output = ended["output"]
    return ended["status"] != "completed" or (isinstance(output, dict) and "error" in output and not output["success"])


def differences(cases: list[dict[str, Any]], make_driver: Any) -> list[str]:
    found = []
    for case, theirs in zip(cases, original(cases), strict=True):
        ours = here(make_driver, case)
        if is_failure(ours) and is_failure(theirs):
            continue
        if is_failure(ours) or is_failure(theirs) or exact(ours["output"]) != exact(theirs["output"]):
            found.append(f"{json.dumps(case['vars'])}: here {ours}, there {theirs}")
    return found


def exact(value: Any) -> str:
    """Return a text that tells 1 from 1.0 and from true."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("kind", PURE)
def test_a_node_that_computes_gives_what_it_gives_there(make_driver: Any, draw: Any, kind: str) -> None:
    cases = [{"flow": drawn(draw, kind, list(PURE[kind]), given), "vars": given} for given in combinations(kind)]

    found = differences(cases, make_driver)

    assert not found, "\n" + "\n".join(found[:8])


@pytest.mark.parametrize("kind", USUAL)
def test_a_node_with_one_odd_input_gives_what_it_gives_there(make_driver: Any, draw: Any, kind: str) -> None:
    usual = USUAL[kind]
    given = [{**usual, pin: value} for pin in usual for value in ODD]
    given += [{name: value for name, value in usual.items() if name != pin} for pin in usual]
    cases = [{"flow": drawn(draw, kind, list(usual), variables), "vars": variables} for variables in given]

    found = differences(cases, make_driver)

    assert not found, "\n" + "\n".join(found[:8])


STATEMENT = {"subject": "a", "predicate": "b", "object": "c"}
RESULTS: list[Any] = [
    None,
    {},
    {"items": "zz"},
    {"items": [{**STATEMENT, "object": f"c{number}"} for number in range(70)]},
    {"items": [{**STATEMENT, "subject": ""}, {"subject": "a"}, 5, STATEMENT, STATEMENT, {**STATEMENT, "object": 1}]},
    {
        "items": [{**STATEMENT, "provenance": {"span_id": "P"}, "attributes": {"_retrieval": {"score": 0.7}}}],
        "ok": True,
    },
    {"packets": [{"statement": "s", "span_id": "x", "observed_at": "2026"}, {"text": "t"}, STATEMENT], "count": 2},
    {"items": [{**STATEMENT, "subject": " a  x ", "object": {"k": 1}}]},
]
BEFORE = {"active_memory": {"current_context": [{"id": "x", "text": "KG: old"}, {"id": "y", "text": "mine"}]}}


def test_active_memory_takes_the_statements_it_takes_there(make_driver: Any, draw: Any) -> None:
    pins = "kg_result marker max_items"
    nodes = [
        draw.node("start", "on_flow_start", "", f"> {pins}"),
        draw.node("x", "memact_compose", f"> {pins}", "> ok delta trace active_memory"),
        draw.node("end", "on_flow_end", "> ok delta trace active_memory"),
    ]
    wires = [f"start/{pin} -> x/{pin}" for pin in pins.split()]
    document = draw.flow(
        nodes,
        [
            "start > x",
            "x > end",
            *wires,
            *(f"x/{pin} -> end/{pin}" for pin in ("ok", "delta", "trace", "active_memory")),
        ],
    )
    given = [{"kg_result": result, "_runtime": BEFORE} for result in RESULTS]
    given += [{"kg_result": RESULTS[3], "max_items": most} for most in (2, "3", 0, -1, None, 2.7, True, "x")]
    given += [{"kg_result": RESULTS[6], "marker": marker} for marker in ("M:", "", None)]
    cases = [{"flow": document, "vars": variables} for variables in given]

    theirs = [remembered(ended["output"]) for ended in original(cases)]
    ours = [remembered(here(make_driver, case)["output"]) for case in cases]

    assert [case for case, mine, other in zip(cases, ours, theirs, strict=True) if mine != other] == []


def remembered(output: Any) -> Any:
    """Return what was remembered, without ids, times and what the trace says of the node's own work."""
    trace = {key: value for key, value in output["trace"].items() if key not in ("applied", "packet_source")}
    context = [item["text"] for item in output["active_memory"].get("current_context", [])]
    return output["ok"], output["delta"], trace, context


OWN_WORDS = frozenset({"agent_trace_report", "format_tool_results", "is_empty_string"})
"""Reports are worded differently here, and the original does not know the last one."""

CACHED_THERE = frozenset({"get_context", "get_var"})


def test_flows_drawn_at_random_end_as_they_end_there(make_driver: Any) -> None:
    """Without loops and with each variable written once, so that values the original keeps too long do not count."""
    cases: list[dict[str, Any]] = []

    @settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(flows(without=OWN_WORDS | CACHED_THERE, segments="pppb"), variables)
    def draw_cases(document: dict[str, Any], inputs: dict[str, Any]) -> None:
        cases.append({"flow": document, "vars": inputs})

    draw_cases()
    found = differences(cases, make_driver)

    assert not found, "\n" + "\n".join(found[:5])


def accumulate(draw: Any, head: Any, edge: str, *, body: str = "concat") -> dict[str, Any]:
    """Return a block whose body adds the bus's item or index to a variable, which is the output in the end."""
    found: dict[str, Any] = draw.flow(
        [
            draw.node("start", "on_flow_start", "", "> items n"),
            draw.node("init", "set_var", "> name value", "> value", defaults={"name": "acc", "value": "-"}),
            head,
            draw.node("get", "get_var", "name", "value", defaults={"name": "acc"}),
            draw.node("mix", body, "a b", "result"),
            draw.node("keep", "set_var", "> name value", "> value", defaults={"name": "acc"}),
            draw.node("last", "get_var", "name", "value", defaults={"name": "acc"}),
            draw.node("end", "on_flow_end", "> acc item index total i", ""),
        ],
        [
            *("start > init", "init > block", "block/loop > keep", "block/done > end", "get/value -> mix/a"),
            *(edge, "mix/result -> keep/value", "last/value -> end/acc"),
        ],
    )
    return found


def looped(draw: Any, kind: str, pins: str, outputs: str, wires: tuple[str, ...], edge: str, **data: Any) -> Any:
    flow = accumulate(draw, draw.node("block", kind, "> " + pins, ">loop >done " + outputs, **data), edge)
    flow["edges"] += draw.flow([], list(wires))["edges"]
    return flow


CODE = "def transform(_input):\n    return {'branch': 'true' if _input.get('n', 0) > 1 else 'false', 'm': [1, 2]}\n"


def block_flows(draw: Any) -> dict[str, Any]:
    """Return flows of loops, sequences and parallel branches."""
    node, flow = draw.node, draw.flow
    for_each = ("loop", "items", "item index total", ("start/items -> block/items",), "block/item -> mix/b")
    counted = ("for", "start end step", "i index total", ("start/n -> block/end",), "block/i -> mix/b")
    return {
        "a loop over items": looped(draw, *for_each),
        "a loop by number": looped(draw, *counted, defaults={"start": 0, "step": 1}),
        "a loop backwards": looped(draw, *counted, defaults={"start": 9, "step": -2}),
        "a sequence": flow(
            [
                node("start", "on_flow_start", "", "> n"),
                node("q", "sequence", ">", ">then:0 >then:1"),
                node("a", "set_var", "> name value", ">", defaults={"name": "a", "value": 1}),
                node("b", "set_var", "> name value", ">", defaults={"name": "b.c", "value": 2}),
                node("read", "get_var", "name", "value", defaults={"name": "b"}),
                node("end", "on_flow_end", "> y", ""),
            ],
            ["start > q", "q/then:0 > a", "q/then:1 > b", "b > end", "read/value -> end/y"],
        ),
        "branches side by side": flow(
            [
                node("start", "on_flow_start", "", "> n"),
                node("p", "parallel", ">", ">then:0 >then:1 >completed"),
                node("a", "set_var", "> name value", ">", defaults={"name": "a", "value": 1}),
                node("b", "set_var", "> name value", ">", defaults={"name": "a", "value": 2}),
                node("read", "get_var", "name", "value", defaults={"name": "a"}),
                node("end", "on_flow_end", "> y", ""),
            ],
            ["start > p", "p/then:0 > a", "p/then:1 > b", "p/completed > end", "read/value -> end/y"],
        ),
        "an end in a loop": flow(
            [
                node("start", "on_flow_start", "", "> items"),
                node("l", "loop", "> items", ">loop >done item"),
                node("end", "on_flow_end", "> y index", ""),
            ],
            ["start > l", "start/items -> l/items", "l/loop > end", "l/item -> end/y"],
        ),
        "a flow without an end": flow(
            [node("start", "on_flow_start", "", "> n"), node("up", "uppercase", "> text", "> result")],
            ["start > up", "start/n -> up/text"],
        ),
    }


def branch_flows(draw: Any) -> dict[str, Any]:
    """Return flows that go on by one of several pins."""
    node, flow = draw.node, draw.flow
    ends = [node(name, "on_flow_end", "> y", "", defaults={"y": name}) for name in ("one", "two", "other")]
    cases = [{"id": "a", "value": "1"}, {"id": "b", "value": "x"}]
    return {
        "a branch": flow(
            [node("start", "on_flow_start", "", "> n"), node("if", "if", "> condition", ">true >false"), *ends[:2]],
            ["start > if", "start/n -> if/condition", "if/true > one", "if/false > two"],
        ),
        "a branch that leads nowhere": flow(
            [node("start", "on_flow_start", "", "> n"), node("if", "if", "> condition", ">true >false"), ends[0]],
            ["start > if", "start/n -> if/condition", "if/true > one"],
        ),
        "a switch": flow(
            [
                node("start", "on_flow_start", "", "> n"),
                node("s", "switch", "> value", ">case:a >case:b >default", switchConfig={"cases": cases}),
                *ends,
            ],
            ["start > s", "start/n -> s/value", "s/case:a > one", "s/case:b > two", "s/default > other"],
        ),
        "code that branches": flow(
            [node("start", "on_flow_start", "", "> n"), node("c", "code", "> n", ">true >false", code=CODE), *ends[:2]],
            ["start > c", "start/n -> c/n", "c/true > one", "c/false > two"],
        ),
        "code and the bus": flow(
            [
                node("start", "on_flow_start", "", "> n items"),
                node(
                    "c", "code", "> input", "> output", code="def transform(d):\n    return {'k': sorted(d), 'm': 1}\n"
                ),
                node("end", "on_flow_end", "> m output k", "", defaults={"m": 5}),
            ],
            ["start > c", "c > end", "c/output -> end/output", "start/n -> c/input"],
        ),
    }


GIVEN = (
    {"items": ["a", "b", 3], "n": 3},
    {"items": [], "n": 0},
    {"items": "x", "n": 1},
    {"items": None, "n": "x"},
    {},
)


def test_flows_of_blocks_and_branches_end_as_they_end_there(make_driver: Any, draw: Any) -> None:
    found = []
    for name, flow in {**block_flows(draw), **branch_flows(draw)}.items():
        cases = [{"flow": flow, "vars": given} for given in GIVEN]
        found += [f"{name}: {line}" for line in differences(cases, make_driver)]

    assert not found, "\n" + "\n".join(found)


SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "flows" / "visualflows"
NOT_COMPARED = ("on_event", "on_schedule", "tool_calls", "call_tool", "system_datetime", "wait_until")
REMEMBERED = ("active_memory", "memact_blocks", "memact_system_prompt")
VOLATILE = (*REMEMBERED, "meta", "sub_run_id", "trace", "event_id", "wait_key", "delivered_to", "resumed")


def comparable() -> dict[str, dict[str, Any]]:
    """Return the drawn flows that need no tool, memory or clock, and run no other flow that does.

    Those that read the old pin `result` of an agent are left out: here it carries the answer, there only other pins do.
    """
    drawn_flows = {item["id"]: item for item in (json.loads(path.read_bytes()) for path in SHARED.glob("*.json"))}
    kept = {flow_id: flow for flow_id, flow in drawn_flows.items() if not is_skipped(flow)}
    while lost := [flow_id for flow_id, flow in kept.items() if not subflows(flow) <= set(kept)]:
        for flow_id in lost:
            del kept[flow_id]
    return dict(sorted(kept.items()))


def is_skipped(flow: dict[str, Any]) -> bool:
    kinds = {node["id"]: node["type"] for node in flow["nodes"]}
    reads_old_pin = any(
        kinds.get(edge["source"]) == "agent" and edge["sourceHandle"] == "result" for edge in flow["edges"]
    )
    return reads_old_pin or any(kind in NOT_COMPARED or is_memory(kind) for kind in kinds.values())


def is_memory(kind: str) -> bool:
    return kind.startswith("memory_") and not kind.startswith("memory_kg_")


def subflows(flow: dict[str, Any]) -> set[str]:
    return {node["data"].get("subflowId") for node in flow["nodes"] if node["type"] == "subflow"}


def needed(flow: dict[str, Any], flows: dict[str, Any]) -> list[Any]:
    """Return the flows that a flow runs, and those that they run: the original compiles what it is given at once."""
    found: dict[str, Any] = {}
    waiting = subflows(flow)
    while waiting:
        flow_id = waiting.pop()
        if flow_id not in found:
            found[flow_id] = flows[flow_id]
            waiting |= subflows(flows[flow_id])
    return list(found.values())


def answered_by_the_agent(run: RunState, context: StepContext) -> StepPlan:
    return StepPlan("done", complete_output=dict(AGENT))


def steady(value: Any) -> Any:
    """Return a value without what is different in every run."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in VOLATILE}
    return [steady(item) for item in value] if isinstance(value, list) else value


def test_drawn_flows_end_as_they_end_there(make_driver: Any) -> None:
    flows = comparable()
    if not flows:
        pytest.skip("the shared drawings are not here")
    given = {"prompt": "p", "request": "r", "query": "q", "nb1": 2, "nb2": 3, "number": 2, "text": "t"}
    cases = [{"flow": flow, "vars": given, "others": needed(flow, flows)} for flow in flows.values()]

    found = []
    for case, theirs in zip(cases, original(cases), strict=True):
        driver = make_driver(llm=scripted, answers=["Blue"] * 50, events=[dict(REPLY)] * 50)
        for other in flows.values():
            driver.add(other)
        for name in [name for name in driver.workflows if name not in flows]:
            driver.workflows[name] = WorkflowSpec(name, "done", {"done": answered_by_the_agent})
        ours = driver.run(case["flow"]["id"], given)
        ended = {"status": ours.status, "output": ours.output, "error": ours.error}
        if is_failure(ended) and is_failure(theirs):
            continue
        if exact(steady(ended["output"])) != exact(steady(theirs["output"])):
            found.append(f"{case['flow']['id']}: here {ended}, there {theirs}")

    assert not found, "\n" + "\n".join(found)
