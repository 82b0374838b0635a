from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from abstractgateway.runtime import Effect, EffectOutcome, EffectType, RunState, RunStatus, WaitReason
from abstractgateway.runtime.effects.memory.compact import COMPACT_WORKFLOW_ID, transcript
from abstractgateway.runtime.effects.memory.summary import summarise_with
from abstractgateway.runtime.registry import kernel_workflow
from tests.runtime.remembering import (
    BACKENDS,
    compact,
    contents,
    meta,
    note,
    opened,
    output,
    perform,
    results,
    said,
    spans,
    steps,
)
from tests.runtime.workflows import Calls, Crash, World

ANSWER = {"content": json.dumps({"summary": "they greeted", "key_points": ["hello"], "confidence": 0.5})}


def model(answer: Any = None) -> dict[EffectType, Calls]:
    return {EffectType.LLM_CALL: Calls(then=EffectOutcome.completed(answer if answer is not None else ANSWER))}


def compacted(world: World, *texts: str, answer: Any = None, system: str | None = None, **fields: Any) -> RunState:
    vars = said(*texts, system=system)
    return perform(world, compact(**fields), vars=vars, handlers=model(answer), session_id="s1", actor_id="ar_1")


def child_of(world: World, run_id: str) -> RunState:
    (child,) = world.stores.runs.children_of(run_id)
    return world.state(child)


def test_the_older_messages_are_archived_and_a_summary_takes_their_place(world: World) -> None:
    state = compacted(world, "a", "b", "c", "d", preserve_recent=2, system="be kind", focus="names")

    (span,) = spans(state)
    told = meta(results(state)[0])
    assert contents(state) == [
        "be kind",
        f"[CONVERSATION HISTORY SUMMARY span_id={span['artifact_id']}]: they greeted",
        "c",
        "d",
    ]
    assert told == {
        "llm_run_id": child_of(world, state.run_id).run_id,
        "span_id": span["artifact_id"],
        "summary_message_id": span["summary_message_id"],
        "preserve_recent": 2,
        "compression_mode": "standard",
        "focus": "names",
        "key_points": ["hello"],
        "confidence": 0.5,
    }
    assert output(results(state)[0]) == f"Compacted 2 messages into span_id={span['artifact_id']}."


def test_the_archive_the_span_and_the_summary_agree(world: World) -> None:
    state = compacted(world, "a", "b", "c", preserve_recent=1, compression_mode="HEAVY")

    (span,) = spans(state)
    archive = json.loads(world.stores.artifacts.load(span["artifact_id"]))
    summary = state.vars["context"]["messages"][0]
    ids = [message["metadata"]["message_id"] for message in archive["messages"]]
    now = world.clock.now().isoformat()
    bounds = {"from_timestamp": now, "to_timestamp": now, "from_message_id": ids[0], "to_message_id": ids[1]}
    assert [message["content"] for message in archive["messages"]] == ["a", "b"]
    assert archive["span"] == {**bounds, "message_count": 2}
    assert span == {
        "kind": "conversation_span",
        "artifact_id": span["artifact_id"],
        "created_at": now,
        "summary_message_id": summary["metadata"]["message_id"],
        **bounds,
        "message_count": 2,
        "compression_mode": "heavy",
        "focus": None,
        "created_by": "ar_1",
    }
    assert summary["metadata"] == {
        "message_id": span["summary_message_id"],
        "kind": "memory_summary",
        "timestamp": now,
        "compression_mode": "heavy",
        "preserve_recent": 1,
        "source_artifact_id": span["artifact_id"],
        "source_message_count": 2,
        **{f"source_{name}": value for name, value in bounds.items()},
    }
    assert world.stores.artifacts.get_metadata(span["artifact_id"]).tags == {
        "kind": "conversation_span",
        "preserve_recent": "1",
        "compression_mode": "heavy",
    }


def test_ids_and_times_that_messages_have_are_kept(world: World) -> None:
    vars = said("a", "b")
    vars["context"]["messages"][0]["metadata"] = {"message_id": "m1", "timestamp": "2020-01-01T00:00:00+00:00"}
    vars["context"]["messages"][1]["timestamp"] = "2021-01-01T00:00:00+00:00"

    state = perform(world, compact(preserve_recent=0), vars=vars, handlers=model())

    (span,) = spans(state)
    assert (span["from_message_id"], span["from_timestamp"]) == ("m1", "2020-01-01T00:00:00+00:00")
    assert span["to_timestamp"] == "2021-01-01T00:00:00+00:00"
    assert span["to_message_id"].startswith("msg_")


def test_six_messages_stay_unless_told_otherwise(world: World) -> None:
    state = compacted(world, *"abcdefgh")

    assert contents(state)[1:] == list("cdefgh")


def test_nothing_to_compact_is_a_success_that_says_so(world: World) -> None:
    state = compacted(world, "a", "b", system="be kind")

    assert output(results(state)[0]) == "Nothing to compact: the conversation has 2 messages, and 6 are to stay."
    assert meta(results(state)[0]) is None
    assert world.stores.runs.children_of(state.run_id) == []


def test_the_model_is_asked_once_with_the_transcript_and_the_focus(world: World) -> None:
    handlers = model()

    perform(world, compact(preserve_recent=0, focus="names"), vars=said("hi", "there"), handlers=handlers)

    (called,) = handlers[EffectType.LLM_CALL].effects
    assert called.payload["prompt"] == "user: hi\n\nassistant: there"
    assert "Pay special attention to: names." in called.payload["system_prompt"]
    assert called.payload["response_schema"]["required"] == ["summary"]


@pytest.mark.parametrize(
    "answer",
    [
        {"content": "they greeted"},
        {"content": '```json\n{"summary": " they greeted ", "key_points": "odd"}\n```'},
        {"content": None, "data": {"summary": "they greeted"}},
    ],
)
def test_a_summary_is_read_from_whatever_the_model_writes(world: World, answer: Any) -> None:
    state = compacted(world, "a", "b", preserve_recent=0, answer=answer)

    assert contents(state)[0].endswith("]: they greeted")
    assert meta(results(state)[0])["key_points"] == []


@pytest.mark.parametrize("answer", [{"content": ""}, {"content": None}, {"content": '{"summary": 5}'}])
def test_a_model_without_a_summary_fails_the_run_and_leaves_the_conversation(world: World, answer: Any) -> None:
    state = compacted(world, "a", "b", preserve_recent=0, answer=answer)

    assert state.status is RunStatus.FAILED
    assert "the model gave no summary of the conversation" in (state.error or "")
    assert (contents(state), spans(state)) == (["a", "b"], [])


def test_a_model_that_fails_fails_the_run(world: World) -> None:
    handlers = {EffectType.LLM_CALL: Calls(then=EffectOutcome.failed("no credit"))}

    state = perform(world, compact(preserve_recent=0), vars=said("a"), handlers=handlers)

    assert state.status is RunStatus.FAILED
    assert "no credit" in (state.error or "")


def test_a_model_that_takes_its_time_blocks_nobody(world: World) -> None:
    workflow = steps(compact(preserve_recent=0))
    runtime = world.runtime(model())
    run_id = runtime.start(workflow=workflow, vars=said("a", "b"))

    execution = runtime.open_execution(workflow, run_id)
    execution.advance(10)
    world.stores.commit(execution.to_commit())

    waiting = world.state(run_id).waiting
    assert waiting is not None
    child = child_of(world, run_id)
    assert (waiting.reason, waiting.wait_key) == (WaitReason.SUBWORKFLOW, f"subworkflow:{child.run_id}")
    assert (child.status, child.workflow_id) == (RunStatus.RUNNING, COMPACT_WORKFLOW_ID)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_crash_in_the_middle_of_a_compaction_loses_nothing(backend: str, tmp_path: Path) -> None:
    stores = opened(backend, tmp_path)
    world = World(stores)
    workflow = steps(compact(preserve_recent=1))
    crashing = {EffectType.LLM_CALL: Calls(Crash())}
    runtime = world.runtime(crashing)
    run_id = runtime.start(workflow=workflow, vars=said("a", "b", "c"))
    with pytest.raises(Crash):
        runtime.tick(workflow=workflow, run_id=run_id)

    if backend != "memory":
        stores.close()
        world = World(opened(backend, tmp_path))
    restarted = world.runtime(model())
    child_id = child_of(world, run_id).run_id
    restarted.tick(workflow=kernel_workflow(COMPACT_WORKFLOW_ID), run_id=child_id)  # type: ignore[arg-type]
    state = restarted.tick(workflow=workflow, run_id=run_id)

    assert state.status is RunStatus.COMPLETED
    assert contents(state)[1:] == ["c"]
    assert len(spans(state)) == 1
    world.stores.close()


def test_the_summary_and_the_end_of_the_child_are_one_commit(world: World) -> None:
    workflow = steps(compact(preserve_recent=0))
    runtime = world.runtime(model())
    run_id = runtime.start(workflow=workflow, vars=said("a", "b"))
    execution = runtime.open_execution(workflow, run_id)
    execution.advance(10)
    world.stores.commit(execution.to_commit())
    child_id = child_of(world, run_id).run_id
    seen: list[tuple[RunStatus, int]] = []

    world.stores.subscribe(lambda changes: seen.append((world.state(child_id).status, len(spans(world.state(run_id))))))
    runtime.tick(workflow=kernel_workflow(COMPACT_WORKFLOW_ID), run_id=child_id)  # type: ignore[arg-type]

    assert set(seen) == {(RunStatus.RUNNING, 0), (RunStatus.COMPLETED, 1)}
    assert world.state(run_id).status is RunStatus.RUNNING


def test_a_paused_run_gets_its_summary_when_it_goes_on(world: World) -> None:
    workflow = steps(compact(preserve_recent=0))
    runtime = world.runtime(model())
    run_id = runtime.start(workflow=workflow, vars=said("a", "b"))
    execution = runtime.open_execution(workflow, run_id)
    execution.advance(10)
    world.stores.commit(execution.to_commit())
    runtime.pause_run(run_id)
    runtime.tick(workflow=kernel_workflow(COMPACT_WORKFLOW_ID), run_id=child_of(world, run_id).run_id)  # type: ignore[arg-type]

    runtime.resume_run(run_id)
    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert meta(results(state)[0])["span_id"] == spans(state)[0]["artifact_id"]


def test_messages_that_came_meanwhile_stay(world: World) -> None:
    workflow = steps(compact(preserve_recent=0))
    runtime = world.runtime(model())
    run_id = runtime.start(workflow=workflow, vars=said("a", "b"))
    execution = runtime.open_execution(workflow, run_id)
    execution.advance(10)
    world.stores.commit(execution.to_commit())
    perform(world, note("new", keep_in_context=True, target_run_id=run_id))

    runtime.tick(workflow=kernel_workflow(COMPACT_WORKFLOW_ID), run_id=child_of(world, run_id).run_id)  # type: ignore[arg-type]

    assert [text.partition("]")[0] for text in contents(world.state(run_id))] == [
        "[MEMORY NOTE",
        f"[CONVERSATION HISTORY SUMMARY span_id={spans(world.state(run_id))[-1]['artifact_id']}",
    ]


def test_the_conversation_of_another_run_can_be_compacted(world: World) -> None:
    other = perform(world, note("x"), vars=said("a", "b", "c"))

    state = perform(world, compact(preserve_recent=1, target_run_id=other.run_id), handlers=model())

    target = world.state(other.run_id)
    assert contents(target)[1:] == ["c"]
    assert [span["kind"] for span in spans(target)] == ["memory_note", "conversation_span"]
    assert meta(results(state)[0])["span_id"] == spans(target)[1]["artifact_id"]


def test_compacting_again_keeps_the_earlier_summary(world: World) -> None:
    handlers = model()

    state = perform(
        world, compact(preserve_recent=2), compact(preserve_recent=1), vars=said(*"abcd"), handlers=handlers
    )

    assert [span["message_count"] for span in spans(state)] == [2, 1]
    assert [text[:22] for text in contents(state)] == ["[CONVERSATION HISTORY "] * 2 + ["d"]


@pytest.mark.parametrize("is_object", [True, False])
def test_a_chat_summarizer_does_the_work_of_the_model(world: World, is_object: bool) -> None:
    asked: list[Any] = []

    def summarize(messages: list[Any], *, preserve_recent: int, focus: str | None, compression_mode: str) -> Any:
        asked.append(([message["content"] for message in messages], preserve_recent, focus, compression_mode))
        return SimpleNamespace(summary="S", key_points=["k"], confidence=0.9)

    summarizer = SimpleNamespace(summarize_chat_history=summarize) if is_object else summarize
    state = perform(
        world,
        compact(preserve_recent=1, compression_mode="light", focus="f"),
        vars=said("a", "b", "c"),
        options={"chat_summarizer": summarizer},
    )

    assert asked == [(["a", "b"], 0, "f", "light")]
    assert meta(results(state)[0])["key_points"] == ["k"]
    assert contents(state)[0].endswith("]: S")


def test_a_chat_summarizer_that_raises_fails_the_run(world: World) -> None:
    def summarize(messages: list[Any], **_: Any) -> Any:
        raise ValueError("too sad")

    state = perform(world, compact(preserve_recent=0), vars=said("a"), options={"chat_summarizer": summarize})

    assert "ValueError: too sad" in (state.error or "")


def test_the_child_inherits_the_model_of_its_parent(world: World) -> None:
    vars = {**said("a"), "_runtime": {"provider": "p", "model": "m"}}

    state = perform(world, compact(preserve_recent=0), vars=vars, handlers=model())

    own = child_of(world, state.run_id).vars["_runtime"]
    assert (own["provider"], own["model"]) == ("p", "m")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"compression_mode": "squash"}, "compression_mode: 'squash' is not one of light, standard, heavy"),
        ({"preserve_recent": "few"}, "preserve_recent: 'few' is not a whole number"),
        ({"target_run_id": "nobody"}, "Unknown run_id: 'nobody'"),
    ],
)
def test_a_compaction_that_means_nothing_fails(world: World, fields: dict[str, Any], why: str) -> None:
    state = perform(world, compact(**fields), vars=said(*"abcdefgh"), handlers=model())

    assert state.status is RunStatus.FAILED
    assert why in (state.error or "")


def test_a_transcript_cuts_long_messages_and_leaves_none_out() -> None:
    messages = [{"role": "user", "content": "x" * 5000}, {"content": [{"type": "text", "text": "short"}, 5]}]

    shown = transcript(messages, 1000)

    assert shown == f"user: {'x' * 500} […]\n\nunknown: short"


def test_a_chat_summarizer_needs_the_archive(world: World) -> None:
    handler = summarise_with(lambda messages, **_: {"summary": "S"}, world.stores.artifacts)
    homeless = summarise_with(lambda messages, **_: {"summary": "S"}, None)
    run = RunState.new(workflow_id="w", entry_node="n", vars={"compaction": {"artifact_id": "gone"}})
    effect = Effect(EffectType.LLM_CALL)

    assert "the archived conversation cannot be read: no artifact 'gone'" in (handler(run, effect, None).error or "")
    assert "needs an artifact store" in (homeless(run, effect, None).error or "")
