from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime import Effect, EffectType, RunState, RunStatus, StepPlan
from tests.runtime.remembering import (
    compact,
    contents,
    note,
    perform,
    rehydrate,
    results,
    said,
    spans,
)
from tests.runtime.workflows import Json, World, end, spec

SUMMARIZER = {"chat_summarizer": lambda messages, **_: {"summary": "S", "key_points": [], "confidence": 1}}


def told(state: RunState) -> Json:
    found: Json = results(state)[-1]
    return found


def summary_of(state: RunState) -> str:
    return f"[CONVERSATION HISTORY SUMMARY span_id={spans(state)[0]['artifact_id']}]: S"


def revive(world: World, *texts: str, preserve: int = 1, **fields: Any) -> RunState:
    """Return a run that archives its conversation and brings it back."""
    vars = said(*texts, system="be kind")
    effects = (compact(preserve_recent=preserve), rehydrate(**{"span_ids": [1], **fields}))
    return perform(world, *effects, vars=vars, options=SUMMARIZER)


def test_archived_messages_come_back_after_their_summary(world: World) -> None:
    state = revive(world, "a", "b", "c")

    (span,) = spans(state)
    assert contents(state) == ["be kind", summary_of(state), "a", "b", "c"]
    revived = state.vars["context"]["messages"][2]["metadata"]
    assert (revived["rehydrated"], revived["source_artifact_id"]) == (True, span["artifact_id"])
    assert told(state) == {
        "inserted": 2,
        "skipped": 0,
        "artifacts": [
            {
                "span_id": span["artifact_id"],
                "inserted": 2,
                "skipped": 0,
                "error": None,
                "kind": "conversation_span",
                "preview": "a",
            }
        ],
        "effort": None,
        "warnings": [],
    }


@pytest.mark.parametrize(
    ("placement", "order"),
    [
        ("after_summary", ["be kind", "S", "a", "b", "c"]),
        ("After_System", ["be kind", "S", "a", "b", "c"]),
        ("end", ["be kind", "S", "c", "a", "b"]),
    ],
)
def test_the_placement_is_the_one_asked_for(world: World, placement: str, order: list[str]) -> None:
    state = revive(world, "a", "b", "c", placement=placement)

    assert [text.replace(summary_of(state), "S") for text in contents(state)] == order


def test_messages_go_behind_their_own_summary_wherever_it_stands(world: World) -> None:
    vars = said("a", "b", "c", system="be kind")
    before = perform(world, compact(preserve_recent=1), vars=vars, options=SUMMARIZER)
    state = world.state(before.run_id)
    system, summary, last = state.vars["context"]["messages"]
    state.vars["context"]["messages"] = [system, last, summary, {"role": "user", "content": "d"}]
    world.stores.runs.save(state)

    perform(world, rehydrate(span_ids=[1], target_run_id=before.run_id))

    assert contents(world.state(before.run_id)) == ["be kind", "c", summary_of(state), "a", "b", "d"]


def test_a_note_comes_before_conversations_and_after_the_system_messages(world: World) -> None:
    vars = said("hello", system="be kind")

    state = perform(world, note("remember me"), rehydrate(span_id=1), vars=vars)

    assert contents(state) == ["be kind", "[MEMORY NOTE]\nremember me", "hello"]
    assert told(state)["artifacts"][0]["preview"] == "remember me"


def test_notes_and_conversations_are_placed_notes_first(world: World) -> None:
    first = perform(world, compact(preserve_recent=0), vars=said("old", "older"), options=SUMMARIZER)
    conversation = spans(first)[0]["artifact_id"]
    noted = perform(world, note("n"))
    named = [conversation, spans(noted)[0]["artifact_id"]]

    state = perform(world, rehydrate(span_ids=named), vars=said("now", system="be kind"))

    assert contents(state) == ["be kind", "[MEMORY NOTE]\nn", "old", "older", "now"]


def test_a_conversation_of_system_messages_only_gets_the_rest_at_its_end(world: World) -> None:
    state = perform(world, note("n"), rehydrate(span_ids=1), vars=said(system="be kind"))

    assert contents(state) == ["be kind", "[MEMORY NOTE]\nn"]


def test_what_is_there_is_not_inserted_again(world: World) -> None:
    vars = said("a", "b", "c")

    effects = (compact(preserve_recent=1), rehydrate(span_ids=[1]), rehydrate(span_ids=[1, 1]))

    state = perform(world, *effects, vars=vars, options=SUMMARIZER)

    assert (told(state)["inserted"], told(state)["skipped"]) == (0, 2)
    assert contents(state)[1:] == ["a", "b", "c"]


def test_another_key_may_tell_messages_apart(world: World) -> None:
    vars = said("a", "b", "c")
    for message in vars["context"]["messages"]:
        message["metadata"] = {"lang": "en"}

    state = perform(
        world, compact(preserve_recent=1), rehydrate(span_ids=[1], dedup_by="lang"), vars=vars, options=SUMMARIZER
    )

    assert (told(state)["inserted"], told(state)["skipped"]) == (0, 2)


def test_of_too_many_messages_the_latest_come_back(world: World) -> None:
    state = revive(world, *"abcdefg", max_messages=2)

    assert contents(state)[2:] == ["e", "f", "g"]
    assert (told(state)["inserted"], told(state)["skipped"]) == (2, 4)


def test_a_recall_level_bounds_how_many(world: World) -> None:
    texts = [f"m{number}" for number in range(81)]

    state = revive(world, *texts, recall_level="urgent", max_messages=-1)

    assert told(state)["inserted"] == 60
    assert told(state)["effort"] == {"recall_level": "urgent", "applied": {"max_messages": 60}}
    assert told(state)["warnings"] == ["max_messages: unlimited is more than recall level 'urgent' gives; 60 is used"]


def test_no_spans_is_no_work(world: World) -> None:
    state = perform(world, rehydrate(span_ids=[]), vars=said("a"))

    assert (told(state)["inserted"], told(state)["artifacts"], contents(state)) == (0, [], ["a"])


def test_one_bad_span_does_not_keep_the_others_away(world: World) -> None:
    world.stores.artifacts.store(b"{}", tags={"kind": "evidence"})
    evidence = world.stores.artifacts.store(b"[]", tags={"kind": "evidence"}).artifact_id
    odd = world.stores.artifacts.store(b"[1]", tags={"kind": "memory_note"}).artifact_id

    state = perform(world, note("n"), rehydrate(span_ids=[7, "nothing", evidence, odd, 1]), vars=said("a"))

    assert [entry["error"] for entry in told(state)["artifacts"]] == [
        "no span number 7; there are 1",
        "no span 'nothing'",
        "spans of kind 'evidence' are not part of a conversation",
        f"span_id: artifact {odd!r} does not hold a span",
        None,
    ]
    assert told(state)["inserted"] == 1


def test_the_output_of_a_finished_run_follows_its_conversation(world: World) -> None:
    noted = perform(world, note("n"))

    perform(world, rehydrate(span_ids=[1], target_run_id=noted.run_id))

    state = world.state(noted.run_id)
    assert state.output is not None
    assert state.output["messages"] == state.vars["context"]["messages"]
    assert "results" in state.output


def test_what_a_session_remembers_comes_back_into_the_run(world: World) -> None:
    perform(world, note("shared", scope="session"), session_id="s1")
    name = spans(world.state("session_memory_s1"))[0]["artifact_id"]

    state = perform(world, rehydrate(span_ids=[name]), session_id="s1")

    assert contents(state) == ["[MEMORY NOTE]\nshared"]


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({}, "memory_rehydrate requires payload.span_ids"),
        ({"span_ids": [1], "placement": "middle"}, "placement: 'middle' is not one of"),
        ({"span_ids": [1], "recall_level": "x"}, "recall_level: 'x' is not one of"),
    ],
)
def test_what_cannot_be_brought_back_fails(world: World, payload: Json, why: str) -> None:
    state = perform(world, (EffectType.MEMORY_REHYDRATE, payload))

    assert state.status is RunStatus.FAILED
    assert why in (state.error or "")


@pytest.mark.parametrize(
    "effect", [note("n", keep_in_context=True), rehydrate(span_ids=["$note"]), compact(preserve_recent=0)]
)
def test_a_conversation_that_the_flow_holds_is_replaced_and_not_changed(
    world: World, effect: tuple[EffectType, Json]
) -> None:
    noted = perform(world, note("n"))
    name = spans(noted)[0]["artifact_id"]
    payload = {**effect[1], **({"span_ids": [name]} if "span_ids" in effect[1] else {})}

    def hold(run: RunState, ctx: Any) -> StepPlan:
        run.vars["held"] = run.vars["context"]
        return StepPlan("hold", Effect(effect[0], payload), next_node="end")

    workflow = spec("holds", hold=hold, end=end("end", "held", "context"))
    runtime = world.runtime({}, **SUMMARIZER)
    run_id = runtime.start(workflow=workflow, vars=said("a"))
    execution = runtime.open_execution(workflow, run_id)
    execution.advance(1)

    before, after = execution.state.vars["held"]["messages"], execution.state.vars["context"]["messages"]
    assert before == [{"role": "user", "content": "a"}]
    assert after != before
