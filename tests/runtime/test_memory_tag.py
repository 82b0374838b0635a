from __future__ import annotations

import pytest

from abstractgateway.runtime import EffectType, RunStatus
from tests.runtime.remembering import meta, note, output, perform, results, spans, tag
from tests.runtime.workflows import Json, World


def test_tags_are_added_to_those_there_are(world: World) -> None:
    state = perform(
        world, note("a", tags={"topic": "x"}), tag(span_id=1, tags={"person": "ann", "kind": "z"}), actor_id="ar_1"
    )

    (span,) = spans(state)
    told = meta(results(state)[1])
    assert span["tags"] == {"topic": "x", "person": "ann"}
    assert (span["tagged_at"], span["tagged_by"]) == (world.clock.now().isoformat(), "ar_1")
    assert told["applied"] == [{"run_id": state.run_id, "artifact_id": span["artifact_id"], "tags": span["tags"]}]
    assert output(results(state)[1]) == f"Tagged span_id={span['artifact_id']}: topic=x, person=ann"


def test_without_merge_the_tags_replace_those_there_were(world: World) -> None:
    state = perform(world, note("a", tags={"topic": "x"}), tag(span_id=1, tags={"person": "ann"}, merge=False))

    assert spans(state)[0]["tags"] == {"person": "ann"}


def test_a_number_counts_from_the_oldest(world: World) -> None:
    state = perform(world, note("old"), note("new"), tag(span_id="1", tags={"is": "old"}))

    assert [span.get("tags") for span in spans(state)] == [{"is": "old"}, None]


def test_an_id_is_found_in_every_memory(world: World) -> None:
    before = perform(world, note("shared", scope="session"), session_id="s1")
    name = meta(results(before)[0])["span_id"]

    state = perform(world, note("own"), tag(span_id=name, tags={"a": "b"}, scope="all"), session_id="s1")

    assert [entry["run_id"] for entry in meta(results(state)[1])["applied"]] == ["session_memory_s1"]
    assert spans(world.state("session_memory_s1"))[0]["tags"] == {"a": "b"}


def test_tagging_changes_no_list_that_somebody_may_hold(world: World) -> None:
    runtime = world.runtime()
    before = perform(world, note("a"))
    held = spans(before)

    perform(world, tag(span_id=1, tags={"a": "b"}, target_run_id=before.run_id))

    assert "tags" not in held[0]
    assert spans(runtime.get_state(before.run_id))[0]["tags"] == {"a": "b"}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({"tags": {"a": "b"}}, "memory_tag requires payload.span_id"),
        ({"span_id": 1}, "tags: is empty"),
        ({"span_id": 1, "tags": {"kind": "x", "a": ""}}, "tags: is empty"),
        ({"span_id": 2, "tags": {"a": "b"}}, "no span number 2; there are 1"),
        ({"span_id": 0, "tags": {"a": "b"}}, "no span number 0; there are 1"),
        ({"span_id": "f" * 32, "tags": {"a": "b"}}, f"no span '{'f' * 32}' among the 1 there are"),
        ({"span_id": "f" * 32, "tags": {"a": "b"}, "scope": "all"}, f"no span '{'f' * 32}'"),
        ({"span_id": 1, "tags": {"a": "b"}, "scope": "all"}, "means nothing in scope 'all'"),
        ({"span_id": 1, "tags": {"a": "b"}, "scope": "session"}, "no span 1 in this scope"),
        ({"span_id": True, "tags": {"a": "b"}}, "True is neither the id of a span nor its number"),
    ],
)
def test_what_cannot_be_tagged_fails(world: World, payload: Json, why: str) -> None:
    state = perform(world, note("a"), (EffectType.MEMORY_TAG, payload), session_id="s1")

    assert state.status is RunStatus.FAILED
    assert why in (state.error or "")
