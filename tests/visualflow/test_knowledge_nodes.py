from __future__ import annotations

import itertools
from typing import Any

import pytest

from abstractgateway.runtime.models import Effect, EffectType, RunState
from abstractgateway.testing import GatewayHarness
from abstractgateway.visualflow import compile_flow
from abstractgateway.visualflow.nodes.elsewhere import REFUSALS
from abstractgateway.visualflow.nodes.knowledge import knowledge_effects
from abstractgateway.visualflow.nodes.registry import REGISTRY

from .conftest import flow, node

Json = dict[str, Any]
OUTPUTS = "ok delta trace active_memory memact_blocks memact_system_prompt"


class Graph:
    """Says what it was asked."""

    def assert_statements(self, run: RunState, request: Json) -> Json:
        return {"assertion_ids": ["1"], "count": 1, "ok": True, "asked": request}

    def query(self, run: RunState, request: Json) -> Json:
        return {"items": [TEA], "count": 1, "ok": True, "asked": request}

    def resolve(self, run: RunState, request: Json) -> Json:
        return {"candidates": ["alice"], "count": 1, "ok": True, "asked": request}


TEA = {"subject": "alice", "predicate": "likes", "object": "tea"}
KINDS = [EffectType.MEMORY_KG_ASSERT, EffectType.MEMORY_KG_QUERY, EffectType.MEMORY_KG_RESOLVE]


@pytest.mark.parametrize("kind", KINDS)
def test_a_knowledge_graph_is_given_the_pins_of_the_node_and_gives_its_outputs(kind: EffectType) -> None:
    perform = knowledge_effects(Graph())[kind]

    outcome = perform(RunState.new(workflow_id="w", entry_node="n"), Effect(kind, {"label": "x"}), None)

    assert outcome.result is not None
    assert (outcome.result["asked"], outcome.result["count"]) == ({"label": "x"}, 1)


def test_a_flow_asks_the_knowledge_graph_it_is_run_with() -> None:
    nodes = [
        node("s", "on_flow_start", "", ">"),
        node("kg", "memory_kg_query", "> query_text", "> items", defaults={"query_text": "tea"}),
        node("e", "on_flow_end", "> items"),
    ]
    document = flow(nodes, ["s > kg", "kg > e", "kg/items -> e/items"])

    outcome = GatewayHarness(flows={"f": document}, knowledge=Graph()).run("f")

    assert outcome.output == {"items": [TEA], "success": True}


def remembering(times: int = 1) -> Json:
    """Draw so many memact_compose nodes in a row, each on its own input `kg<n>`."""
    steps = [f"m{number}" for number in range(times)]
    nodes = [
        node("s", "on_flow_start", "", "> max_items marker " + " ".join(f"kg{number}" for number in range(times))),
        *(node(step, "memact_compose", "> kg_result max_items marker", f"> {OUTPUTS}") for step in steps),
        node("e", "on_flow_end", f"> {OUTPUTS}"),
    ]
    line = ["s", *steps, "e"]
    edges = [f"{first} > {then}" for first, then in itertools.pairwise(line)]
    for number, step in enumerate(steps):
        edges += [f"s/kg{number} -> {step}/kg_result", f"s/max_items -> {step}/max_items", f"s/marker -> {step}/marker"]
    return flow(nodes, [*edges, *(f"{steps[-1]}/{pin} -> e/{pin}" for pin in OUTPUTS.split())])


def composed(driver: Any, *results: Any, **variables: Any) -> Json:
    workflow_id = driver.add(remembering(len(results)))
    result = driver.run(workflow_id, {**{f"kg{at}": item for at, item in enumerate(results)}, **variables})
    assert result.status == "completed", result.error
    return result.output  # type: ignore[no-any-return]


def texts(output: Json) -> list[str]:
    return [item["text"] for item in output["active_memory"]["current_context"]]


def test_statements_become_the_current_context_the_last_first(driver: Any) -> None:
    output = composed(driver, {"items": [TEA, {**TEA, "object": "milk", "span_id": "s-1"}], "count": 2})

    added = ["KG: alice —likes→ tea", "KG: alice —likes→ milk (span:s-1)"]
    assert output["ok"] is True
    assert output["delta"] == {"current_context": {"added": added, "removed": []}}
    assert texts(output) == added[::-1]
    assert (output["trace"]["kg"]["count"], output["trace"]["packet_source"]) == (2, "kg_result.items")
    assert (
        "## CURRENT CONTEXT\n- [26/03/01 12:00:00] KG: alice —likes→ milk (span:s-1)\n"
        in output["memact_system_prompt"]
    )
    assert [block["component_id"] for block in output["memact_blocks"]][:2] == ["persona", "relationships"]


def test_what_was_put_there_before_under_the_same_marker_is_replaced(driver: Any) -> None:
    own = {"_runtime": {"active_memory": {"current_context": [{"id": "x", "text": "mine"}, {"text": "KG: old"}]}}}

    output = composed(driver, {"items": [TEA]}, {"items": [{**TEA, "object": "milk"}]}, **own)

    assert texts(output) == ["KG: alice —likes→ milk", "mine"]
    assert output["delta"]["current_context"]["removed"] == ["KG: alice —likes→ tea"]


def test_packets_come_before_items(driver: Any) -> None:
    output = composed(driver, {"packets": [{"statement": "packed"}], "items": [TEA]}, marker="M:")

    assert texts(output) == ["M: packed"]


@pytest.mark.parametrize(("most", "count"), [(2, 2), ("3", 3), (0, 5), (-1, 5), (None, 5), ("many", 5)])
def test_at_most_so_many_statements_are_taken(driver: Any, most: Any, count: int) -> None:
    items = [{**TEA, "object": f"tea {number}"} for number in range(5)]

    assert len(texts(composed(driver, {"items": items}, max_items=most))) == count


def test_the_context_keeps_to_its_limit(driver: Any) -> None:
    items = [{**TEA, "object": f"tea {number}"} for number in range(70)]

    assert len(texts(composed(driver, {"items": items}))) == 60


@pytest.mark.parametrize("items", [[], None, "none", [5, {}, {"subject": "a"}, {**TEA, "subject": " "}]])
def test_a_result_without_statements_clears_the_context(driver: Any, items: Any) -> None:
    output = composed(driver, {"items": [TEA]}, {"items": items})

    assert (output["ok"], texts(output)) == (True, [])


def test_the_same_statement_is_taken_once(driver: Any) -> None:
    assert len(texts(composed(driver, {"items": [TEA, dict(TEA)]}))) == 1


@pytest.mark.parametrize("result", [None, "text", [TEA]])
def test_what_is_no_result_changes_nothing_and_says_so(driver: Any, result: Any) -> None:
    output = composed(driver, result)

    assert (output["ok"], output["active_memory"], output["memact_blocks"]) == (False, {}, [])


@pytest.mark.parametrize("limits", ["x", {"current_context": "many"}, {"current_context": None}])
def test_a_memory_that_is_damaged_is_used_as_far_as_it_goes(driver: Any, limits: Any) -> None:
    own = {"_runtime": {"active_memory": {"current_context": "x", "limits": limits}}}

    assert texts(composed(driver, {"items": [TEA]}, **own)) == ["KG: alice —likes→ tea"]


@pytest.mark.parametrize("kind", sorted(REFUSALS))
def test_a_type_that_only_the_editor_knows_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(ValueError) as caught:
        compile_flow(flow([node("s", "on_flow_start", "", ">"), node("x", kind, ">", ">")], ["s > x"]))

    assert f"node 'x' has the type {kind!r}, which this gateway does not run: {REFUSALS[kind]}" in str(caught.value)


def test_a_type_is_either_run_or_refused() -> None:
    assert not REFUSALS.keys() & REGISTRY.keys()
