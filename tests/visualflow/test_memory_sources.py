"""What models are told of memory: the memory pins of `llm_call` and `agent`, in a whole gateway."""

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime.models import RunState
from abstractgateway.testing import GatewayHarness, ScriptedModel
from tests.visualflow.conftest import flow, node

Json = dict[str, Any]
KINDS = ["llm_call", "agent"]
MODEL = {"provider": "p", "model": "m"}


class Graph:
    """A knowledge graph that notes what it is asked."""

    def __init__(self, answer: Json) -> None:
        self.asked: list[Json] = []
        self.answer = answer

    def assert_statements(self, run: RunState, request: Json) -> Json:
        return {"assertion_ids": [], "count": 0, "ok": True}

    def query(self, run: RunState, request: Json) -> Json:
        self.asked.append(request)
        return self.answer

    def resolve(self, run: RunState, request: Json) -> Json:
        return {"candidates": [], "count": 0, "ok": True}


TEA = {"ok": True, "count": 1, "items": [], "active_memory_text": "alice likes tea"}


def drawing(kind: str, **defaults: Any) -> Json:
    """A flow that notes something for the session, and then asks a model or an agent."""
    note = {"content": "the key is under the mat", "scope": "session"}
    pins = {**MODEL, "prompt": "where is the key?", **defaults}
    return flow(
        [
            node("s", "on_flow_start", "", ">"),
            node("n", "memory_note", ">", ">", defaults=note),
            node("x.1", kind, ">", "> response success", defaults=pins),
            node("e", "on_flow_end", "> response success"),
        ],
        ["s > n", "n > x.1", "x.1 > e", "x.1/response -> e/response", "x.1/success -> e/success"],
    )


def run(kind: str, graph: Graph | None = None, **defaults: Any) -> tuple[Any, list[Json]]:
    """Return how the flow ended, and the calls that its model got."""
    model = ScriptedModel(lambda call: "under the mat")
    harness = GatewayHarness(flows={"f": drawing(kind, **defaults)}, model=model, knowledge=graph or Graph(TEA))
    return harness.run("f", session_id="s1"), list(model.calls)


def told(call: Json) -> str:
    return str([call.get("system_prompt"), *call["messages"]]) if call.get("messages") else str(call)


SPANS = {"use_span_memory": True, "memory_scope": "session"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_nested", [True, False], ids=["in memory", "on the node"])
def test_what_the_session_remembers_is_said_to_the_model(kind: str, is_nested: bool) -> None:
    ended, calls = run(kind, **({"memory": SPANS} if is_nested else SPANS))

    assert ended.output == {"response": "under the mat", "success": True}
    (call,) = calls
    assert "the key is under the mat" in call["messages"][0]["content"]
    assert call["messages"][-1]["content"] == "where is the key?"
    sources = ended.runs[0].vars["_temp"]["memory_sources"]["x.1"]
    assert len(sources["_meta"]["span_ids"]) == sources["span_rehydrate"]["inserted"] == 1
    assert len(sources["_meta"]["fingerprint"]) == 32
    assert sources["_meta"]["warnings"] == ["max_span_messages is 80: neither it nor recall_level was given"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_finds_only_what_mentions_it(kind: str) -> None:
    _, found = run(kind, **SPANS, memory_query="the mat")
    _, missed = run(kind, **SPANS, memory_query="the table")

    assert "under the mat" in told(found[0])
    assert "under the mat" not in told(missed[0])


@pytest.mark.parametrize("kind", KINDS)
def test_statements_of_the_knowledge_graph_are_part_of_the_system_prompt(kind: str) -> None:
    graph = Graph(TEA)

    ended, calls = run(kind, graph, system="be brief", use_kg_memory=True, kg_limit=5, kg_min_score=0.5)

    assert calls[0]["system_prompt"] == "be brief\n\nalice likes tea"
    asked = {"query_text": "where is the key?", "scope": "run", "limit": 5, "min_score": 0.5}
    assert graph.asked == [{**asked, "max_input_tokens": 1200}]
    sources = ended.runs[0].vars["_temp"]["memory_sources"]["x.1"]
    assert sources["_meta"]["kg_active_memory_text_len"] == len("alice likes tea")


@pytest.mark.parametrize("kind", KINDS)
def test_a_recall_level_says_how_much(kind: str) -> None:
    graph = Graph(TEA)

    ended, _ = run(kind, graph, use_kg_memory=True, **SPANS, recall_level="urgent", memory_query="mat")

    assert graph.asked == [{"query_text": "mat", "scope": "session", "recall_level": "urgent"}]
    sources = ended.runs[0].vars["_temp"]["memory_sources"]["x.1"]
    assert sources["span_rehydrate"]["effort"]["recall_level"] == "urgent"
    assert sources["_meta"]["warnings"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_that_cannot_answer_leaves_a_warning(kind: str) -> None:
    ended, calls = run(kind, Graph({"ok": False, "count": 0, "items": [], "error": "broken"}), use_kg_memory=True)

    assert ended.output["response"] == "under the mat"
    assert ended.runs[0].vars["_flow_warnings"] == ["use_kg_memory of node 'x.1' found nothing: broken"]
    assert not calls[0].get("system_prompt")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("pins", "reason"),
    [
        ({**SPANS, "recall_level": "much"}, "'much'"),
        ({**SPANS, "max_span_messages": 0}, "max_span_messages"),
        ({"use_kg_memory": True, "kg_limit": "many"}, "kg_limit"),
        ({**SPANS, "memory_scope": "galaxy"}, "'galaxy'"),
    ],
)
def test_a_setting_that_means_nothing_fails_the_run_by_name(kind: str, pins: Json, reason: str) -> None:
    ended, calls = run(kind, **pins)

    assert ended.status == "failed"
    assert reason in str(ended.error)
    assert calls == []


@pytest.mark.parametrize("value", [False, None, "false", ""])
def test_sources_that_are_off_are_not_asked(value: Any) -> None:
    graph = Graph(TEA)

    ended, calls = run("llm_call", graph, memory={"use_kg_memory": value, "use_span_memory": value})

    assert ended.status == "completed"
    assert graph.asked == []
    assert "memory_sources" not in ended.runs[0].vars["_temp"]
    assert calls[0]["prompt"] == "where is the key?"


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_asked_anew_each_time_execution_comes_by(kind: str) -> None:
    document = flow(
        [
            node("s", "on_flow_start", "", ">"),
            node("l", "loop", "> items", ">loop >done item", defaults={"items": ["x", "y"]}),
            node("x", kind, "> prompt", "> response", defaults={**MODEL, "use_kg_memory": True}),
        ],
        ["s > l", "l/loop > x", "l/item -> x/prompt"],
    )
    graph, model = Graph(TEA), ScriptedModel(lambda call: "fine")

    ended = GatewayHarness(flows={"f": document}, model=model, knowledge=graph).run("f")

    assert ended.status == "completed"
    assert [request["query_text"] for request in graph.asked] == ["x", "y"]
    assert len(model.calls) == 2
