from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.testing import GatewayHarness, ScriptedModel


def single(draw: Any, kind: str, inputs: str, outputs: str, **data: Any) -> dict[str, Any]:
    """Make a flow with one node: its inputs are the run's, its outputs the flow's."""
    ins, outs = inputs.split(), outputs.split()
    return draw.flow(  # type: ignore[no-any-return]
        [
            draw.node("s", "on_flow_start", "", "> " + " ".join(ins)),
            draw.node("x", kind, "> " + " ".join(ins), "> " + " ".join(outs), **data),
            draw.node("e", "on_flow_end", "> " + " ".join(outs)),
        ],
        [
            "s > x",
            "x > e",
            *(f"s/{name} -> x/{name}" for name in ins),
            *(f"x/{name} -> e/{name}" for name in outs),
        ],
    )


NOTE = ("memory_note", "content tags location scope keep_in_context sources", "note_id raw")
QUERY = (
    "memory_query",
    "query limit tags tags_mode usernames locations since until scope recall_level",
    "results rendered span_ids raw",
)
TAG = ("memory_tag", "span_id tags merge scope", "success rendered results")
COMPACT = ("memory_compact", "preserve_recent compression_mode focus", "span_id")
REHYDRATE = ("memory_rehydrate", "span_ids placement max_messages recall_level", "inserted skipped artifacts")


@pytest.fixture
def harness(draw: Any) -> GatewayHarness:
    flows = {
        "note": single(draw, *NOTE),
        "kept": single(draw, *NOTE, effectConfig={"keepInContext": True}),
        "query": single(draw, *QUERY),
        "tag": single(draw, *TAG),
        "compact": single(draw, *COMPACT),
        "rehydrate": single(draw, *REHYDRATE),
    }
    return GatewayHarness(flows=flows, model=ScriptedModel(lambda call: '{"summary": "S", "key_points": []}'))


def run(harness: GatewayHarness, flow: str, session_id: str = "s1", **inputs: Any) -> Any:
    return harness.run(flow, inputs, session_id=session_id)


def remembered(harness: GatewayHarness, content: str = "the key is under the mat", **inputs: Any) -> str:
    outcome = run(harness, "note", content=content, scope="session", **inputs)
    assert outcome.output is not None, outcome.error
    name: str = outcome.output["note_id"]
    return name


def test_a_note_is_found_by_a_query(harness: GatewayHarness) -> None:
    name = remembered(harness, tags={"topic": "keys", "count": 3}, location="home")

    found = run(harness, "query", query="MAT", scope="session", tags={"topic": "keys"}, locations=["home"]).output

    assert found["span_ids"] == [name]
    assert [(match["span_id"], match["tags"]) for match in found["results"]] == [(name, {"topic": "keys"})]
    assert found["rendered"].startswith("Memory spans found: 1")
    assert found["raw"]["results"][0]["success"] is True


def test_a_query_finds_ten_spans_unless_told_otherwise(harness: GatewayHarness) -> None:
    for number in range(12):
        remembered(harness, f"note {number}")

    found = [
        run(harness, "query", scope="session", **inputs).output["span_ids"]
        for inputs in ({}, {"limit": 2}, {"recall_level": "urgent"})
    ]

    assert [len(names) for names in found] == [10, 2, 2]


def test_a_query_without_a_match_has_empty_results(harness: GatewayHarness) -> None:
    found = run(harness, "query", query="elephant", usernames=["nobody"]).output

    assert (found["results"], found["span_ids"], found["rendered"]) == ([], [], "No matching memory spans.")


def test_a_note_without_text_fails_the_run(harness: GatewayHarness) -> None:
    outcome = run(harness, "note", content=" ")

    assert (outcome.status, "is no text to remember" in outcome.error) == ("failed", True)


@pytest.mark.parametrize(("flow", "inputs"), [("kept", {}), ("note", {"keep_in_context": True})])
def test_a_note_may_be_kept_in_the_conversation(harness: GatewayHarness, flow: str, inputs: dict[str, Any]) -> None:
    outcome = run(harness, flow, content="remember", **inputs)

    (message,) = outcome.runs[0].vars["context"]["messages"]
    assert message["content"] == "[MEMORY NOTE]\nremember"


def test_the_pin_wins_over_the_setting_of_the_node(harness: GatewayHarness) -> None:
    outcome = run(harness, "kept", content="remember", keep_in_context=False)

    assert "context" not in outcome.runs[0].vars


def test_a_span_is_tagged(harness: GatewayHarness) -> None:
    name = remembered(harness)

    tagged = run(harness, "tag", span_id=name, scope="session", tags={"topic": "keys"}).output

    assert tagged["success"] is True
    assert tagged["results"] == [{"run_id": "session_memory_s1", "artifact_id": name, "tags": {"topic": "keys"}}]
    assert "topic=keys" in tagged["rendered"]


@pytest.mark.parametrize("inputs", [{"tags": {"a": "b"}}, {"span_id": "nothing", "tags": {"a": "b"}}, {"span_id": 1}])
def test_tagging_nothing_fails_the_run(harness: GatewayHarness, inputs: dict[str, Any]) -> None:
    assert run(harness, "tag", **inputs).status == "failed"


def conversation(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts]}


def test_a_conversation_is_compacted_by_a_model(harness: GatewayHarness) -> None:
    outcome = run(harness, "compact", context=conversation("a", "b", "c"), preserve_recent=1)

    messages = outcome.runs[0].vars["context"]["messages"]
    assert outcome.output["span_id"] == outcome.runs[0].vars["_runtime"]["memory_spans"][0]["artifact_id"]
    assert [message["content"].partition("]: ")[2] for message in messages] == ["S", ""]


def test_nothing_to_compact_gives_no_span(harness: GatewayHarness) -> None:
    outcome = run(harness, "compact", context=conversation("a"))

    assert (outcome.status, outcome.output["span_id"]) == ("completed", None)


def test_a_note_comes_back_into_the_conversation(harness: GatewayHarness) -> None:
    name = remembered(harness)

    outcome = run(harness, "rehydrate", span_ids=[name], context=conversation("a"), placement="end", max_messages=5)

    assert (outcome.output["inserted"], outcome.output["skipped"]) == (1, 0)
    assert outcome.output["artifacts"][0]["span_id"] == name
    assert outcome.runs[0].vars["context"]["messages"][1]["metadata"]["source_artifact_id"] == name


def test_no_spans_bring_nothing_back(harness: GatewayHarness) -> None:
    outcome = run(harness, "rehydrate", context=conversation("a"))

    assert (outcome.status, outcome.output["inserted"]) == ("completed", 0)
