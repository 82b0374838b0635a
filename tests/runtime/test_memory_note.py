from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from abstractgateway.runtime import EffectType, RunStatus, Runtime
from abstractgateway.runtime.effects.memory.owners import session_memory_id
from tests.runtime.remembering import BACKENDS, meta, note, opened, perform, results, spans, steps
from tests.runtime.workflows import Json, World


def stored(world: World, artifact_id: str) -> Json:
    body: Json = json.loads(world.stores.artifacts.load(artifact_id))
    return body


def test_a_note_is_an_artifact_and_a_span_of_its_run(world: World) -> None:
    state = perform(world, note(tags={"topic": "keys", "kind": "x"}, location="home"), session_id="s1", actor_id="ar_1")

    told = meta(results(state)[0])
    (span,) = spans(state)
    now = world.clock.now().isoformat()
    sources = {"run_id": state.run_id, "span_ids": [], "message_ids": []}
    assert told == {"span_id": span["artifact_id"], "created_at": now, "note_preview": "the key is under the mat"}
    assert span == {
        "kind": "memory_note",
        "artifact_id": told["span_id"],
        "created_at": now,
        "from_timestamp": now,
        "to_timestamp": now,
        "message_count": 0,
        "note_preview": "the key is under the mat",
        "location": "home",
        "tags": {"topic": "keys"},
        "sources": sources,
        "created_by": "ar_1",
    }
    assert stored(world, told["span_id"]) == {
        "note": "the key is under the mat",
        "sources": sources,
        "created_at": now,
        "location": "home",
        "actor_id": "ar_1",
        "session_id": "s1",
    }
    metadata = world.stores.artifacts.get_metadata(told["span_id"])
    assert (metadata.run_id, metadata.tags) == (state.run_id, {"kind": "memory_note", "topic": "keys"})


def test_the_result_has_the_form_of_a_tool_call(world: World) -> None:
    state = perform(world, note(), note("b", tool_name="jot", call_id="c1"))

    first, second = results(state)
    assert first["mode"] == "executed"
    assert {key: first["results"][0][key] for key in ("call_id", "name", "success", "error")} == {
        "call_id": "memory",
        "name": "remember_note",
        "success": True,
        "error": None,
    }
    assert (second["results"][0]["call_id"], second["results"][0]["name"]) == ("c1", "jot")


def test_a_long_note_has_a_preview_of_160_characters_on_one_line(world: World) -> None:
    state = perform(world, note("line\n" + "x" * 300))

    preview = spans(state)[0]["note_preview"]
    assert len(preview) == 160
    assert preview.startswith("line xxx")


def test_the_same_note_at_the_same_moment_is_one_span(world: World) -> None:
    state = perform(world, note(), note(tags={"topic": "later"}))

    assert [span["tags"] for span in spans(state)] == [{"topic": "later"}]


@pytest.mark.parametrize(
    ("session_id", "owner"),
    [
        ("s1", "session_memory_s1"),
        ("a b", "session_memory_sha_" + hashlib.sha256(b"a b").hexdigest()[:32]),
        ("x" * 250, "session_memory_sha_" + hashlib.sha256(b"x" * 250).hexdigest()[:32]),
    ],
)
def test_a_note_of_the_session_goes_to_the_run_that_holds_its_memory(world: World, session_id: str, owner: str) -> None:
    state = perform(world, note(scope="session"), note("another", scope="session"), session_id=session_id)

    holder = world.state(owner)
    assert session_memory_id(session_id) == owner
    assert [span["note_preview"] for span in spans(holder)] == ["the key is under the mat", "another"]
    assert spans(holder)[0]["sources"]["run_id"] == state.run_id
    assert spans(state) == []
    assert (holder.status, holder.workflow_id, holder.current_node, holder.session_id, holder.output) == (
        RunStatus.COMPLETED,
        "__session_memory__",
        "done",
        session_id,
        {"messages": []},
    )


def test_without_a_session_the_root_of_the_tree_holds_its_memory(world: World) -> None:
    root = perform(world, note("of the root"))
    middle = perform(world, note("of the middle"), parent_run_id=root.run_id)

    perform(world, note("of the leaf", scope="session"), parent_run_id=middle.run_id)

    assert [span["note_preview"] for span in spans(world.state(root.run_id))] == ["of the root", "of the leaf"]


def test_a_note_for_everybody_goes_to_the_global_memory(world: World) -> None:
    perform(world, note(scope="global"), session_id="s1")
    perform(world, note("second", scope="global"), session_id="s2")

    holder = world.state("global_memory")
    assert (len(spans(holder)), holder.workflow_id, holder.session_id) == (2, "__global_memory__", None)


def test_a_note_may_be_for_another_run_and_is_committed_with_the_step(world: World) -> None:
    other = perform(world, note("own"))

    writer = perform(world, note("for you", target_run_id=other.run_id, keep_in_context=True))

    target = world.state(other.run_id)
    assert [span["note_preview"] for span in spans(target)] == ["own", "for you"]
    assert target.vars["context"]["messages"][0]["content"] == "[MEMORY NOTE]\nfor you"
    assert spans(writer) == []
    assert "context" not in writer.vars


def test_a_note_kept_in_context_is_one_system_message(world: World) -> None:
    context = {"task": "t", "messages": [{"role": "user", "content": "hi"}]}

    state = perform(world, note(keepInContext=True), note(keep_in_context="true"), vars={"context": context})

    first, second = (meta(result) for result in results(state))
    name = first["span_id"]
    assert (first["kept_in_context"], second["kept_in_context"]) == (
        {"inserted": 1, "skipped": 0},
        {"inserted": 0, "skipped": 1},
    )
    assert state.vars["context"]["task"] == "t"
    assert state.vars["context"]["messages"][1:] == [
        {
            "role": "system",
            "content": "[MEMORY NOTE]\nthe key is under the mat",
            "metadata": {
                "kind": "memory_note",
                "rehydrated": True,
                "source_artifact_id": name,
                "message_id": f"memory_note:{name}",
            },
        }
    ]


def test_sources_are_kept_as_far_as_they_are_texts(world: World) -> None:
    given = {"run_id": "r9", "span_ids": ["a", 3, ""], "message_ids": "m1"}

    state = perform(world, note(sources=given))

    assert spans(state)[0]["sources"] == {"run_id": "r9", "span_ids": ["a"], "message_ids": ["m1"]}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({}, "memory_note requires payload.note"),
        ({"note": "  "}, "memory_note requires payload.note"),
        ({"note": "x", "scope": "all"}, "scope: 'all' is not one of run, session, global"),
        ({"note": "x", "scope": "galaxy"}, "scope: 'galaxy' is not one of run, session, global"),
        ({"note": "x", "tags": ["a"]}, "tags: must be an object of texts, not list"),
        ({"note": "x", "tags": {"a": ["b"]}}, "tags: 'a' is ['b']; a tag is a text"),
        ({"note": "x", "target_run_id": "nobody"}, "Unknown run_id: 'nobody'"),
        ({"note": "x", "keep_in_context": "perhaps"}, "keep_in_context: 'perhaps' is neither true nor false"),
    ],
)
def test_a_note_that_cannot_be_kept_fails_and_leaves_no_trace(world: World, payload: Json, why: str) -> None:
    state = perform(world, (EffectType.MEMORY_NOTE, payload), session_id="s1")

    assert state.status is RunStatus.FAILED
    assert why in (state.error or "")
    assert spans(state) == []


def test_without_an_artifact_store_the_effect_says_what_to_give(world: World) -> None:
    class WithoutArtifacts:
        artifacts = None

        def __init__(self) -> None:
            self.runs, self.ledger, self.commit = world.stores.runs, world.stores.ledger, world.stores.commit

    workflow = steps(note())
    runtime = Runtime(stores=WithoutArtifacts(), clock=world.clock)
    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert "the stores of this Runtime have no artifact store; give it stores that do" in (state.error or "")


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_note_is_there_after_a_restart(backend: str, tmp_path: Path) -> None:
    stores = opened(backend, tmp_path)
    perform(World(stores), note(scope="session"), session_id="s1")
    stores.close()

    again = opened(backend, tmp_path)

    holder = again.runs.load("session_memory_s1")
    assert holder is not None
    (span,) = spans(holder)
    assert json.loads(again.artifacts.load(span["artifact_id"]))["note"] == "the key is under the mat"
    again.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_that_write_into_one_memory_at_once_lose_no_note(backend: str, tmp_path: Path) -> None:
    world = World(opened(backend, tmp_path))
    workflow = steps(*(note(f"note {number}", scope="session") for number in range(3)))
    runtime = world.runtime()
    executions = []
    for _ in range(3):
        run_id = runtime.start(workflow=workflow, session_id="s1")
        execution = runtime.open_execution(workflow, run_id)
        execution.advance(1)
        executions.append((run_id, execution))

    first = executions[0][1].to_commit()
    world.stores.commit(first)
    for run_id, _ in executions:
        runtime.tick(workflow=workflow, run_id=run_id)

    authors = [span["sources"]["run_id"] for span in spans(world.state("session_memory_s1"))]
    assert sorted(authors) == sorted(run_id for run_id, _ in executions for _ in range(3))
    world.stores.close()


def test_a_circle_of_parents_ends_somewhere(world: World) -> None:
    first = perform(world, note("a"))
    second = perform(world, note("b"), parent_run_id=first.run_id)
    state = world.state(first.run_id)
    state.parent_run_id = second.run_id
    world.stores.runs.save(state)

    perform(world, note("c", scope="session"), parent_run_id=first.run_id)

    counts = [len(spans(world.state(run_id))) for run_id in (first.run_id, second.run_id)]
    assert sorted(counts) == [1, 2]
