from __future__ import annotations

import json
from typing import Any

import pytest

from abstractgateway.runtime import EffectType, RunState, RunStatus
from tests.runtime.remembering import meta, note, output, perform, query, results, said, spans
from tests.runtime.workflows import Json, World


def remember(world: World, *texts: str, every_s: float = 60, **fields: Any) -> RunState:
    """Return a run with these notes, one minute apart; `fields` may be lists, one value for each note."""
    holder = perform(world, note("seed"))
    stored = world.stores.runs.load(holder.run_id)
    assert stored is not None
    stored.vars["_runtime"]["memory_spans"] = []
    world.stores.runs.save(stored)
    for number, text in enumerate(texts):
        own = {name: value[number] if isinstance(value, list) else value for name, value in fields.items()}
        actor = own.pop("actor", None)
        perform(world, note(text, target_run_id=holder.run_id, **own), actor_id=actor)
        world.clock.move(every_s)
    return world.state(holder.run_id)


def ask(world: World, holder: RunState, **fields: Any) -> Json:
    state = perform(world, query(target_run_id=holder.run_id, **fields))
    result: Json = results(state)[0]
    return result


def previews(result: Json) -> list[str]:
    return [match["note_preview"] for match in meta(result)["matches"]]


def archive(world: World, *texts: str, tags: dict[str, str] | None = None) -> RunState:
    """Return a run that has archived a conversation of these messages."""
    answer = {"content": json.dumps({"summary": "they talked", "key_points": [], "confidence": 1})}
    state = perform(
        world,
        (EffectType.MEMORY_COMPACT, {"preserve_recent": 0}),
        vars=said(*texts),
        options={"chat_summarizer": lambda messages, **_: json.loads(answer["content"])},
    )
    assert state.status is RunStatus.COMPLETED, state.error
    return state


def test_spans_come_newest_first(world: World) -> None:
    holder = remember(world, "one", "two", "three")

    result = ask(world, holder)

    assert previews(result) == ["three", "two", "one"]
    assert meta(result)["span_ids"] == [span["artifact_id"] for span in reversed(spans(holder))]


def test_the_text_has_a_heading_and_a_line_about_each_span(world: World) -> None:
    holder = remember(world, "first\nsecond line", tags={"topic": "x"}, location="here", actor="ann")

    shown = output(ask(world, holder)).splitlines()

    (span,) = spans(holder)
    assert shown == [
        "Memory spans found: 1",
        "",
        f"[1] span_id={span['artifact_id']} kind=memory_note msgs=0 created_at={span['created_at']} "
        "created_by=ann location=here tags=topic:x",
        "  first",
        "  second line",
    ]


def test_no_match_is_said_so(world: World) -> None:
    holder = remember(world, "one")

    result = ask(world, holder, query="elephant")

    assert output(result) == "No matching memory spans."
    assert meta(result) == {"matches": [], "span_ids": []}


def test_a_match_is_told_with_its_metadata(world: World) -> None:
    holder = remember(world, "one", tags={"topic": "x"}, location="here", actor="ann")

    (match,) = meta(ask(world, holder))["matches"]

    (span,) = spans(holder)
    assert match == {
        "span_id": span["artifact_id"],
        "kind": "memory_note",
        "created_at": span["created_at"],
        "from_timestamp": span["from_timestamp"],
        "to_timestamp": span["to_timestamp"],
        "tags": {"topic": "x"},
        "created_by": "ann",
        "location": "here",
        "note_preview": "one",
        "message_count": 0,
    }


@pytest.mark.parametrize(
    ("shape", "has_text", "has_meta"),
    [(None, True, False), ("rendered", True, False), ("META", False, True), ("both", True, True)],
)
def test_the_result_has_the_shape_asked_for(world: World, shape: str | None, has_text: bool, has_meta: bool) -> None:
    holder = remember(world, "one")

    result = ask(world, holder, **{"return": shape})

    entry = result["results"][0]
    assert (bool(entry["output"]), entry["meta"] is not None) == (has_text, has_meta)


@pytest.mark.parametrize(
    ("needle", "found"),
    [("KEY", ["the key"]), ("home", ["the door"]), ("ann", ["the door"]), ("x" * 190, []), ("tail", ["l" * 159 + "…"])],
)
def test_a_query_looks_into_notes_and_metadata_in_any_case(world: World, needle: str, found: list[str]) -> None:
    long = "l" * 170 + "tail"
    holder = remember(world, "the key", "the door", long, location=[None, "Home", None], actor=[None, "ann", None])

    assert previews(ask(world, holder, query=needle)) == found


@pytest.mark.parametrize(
    ("wanted", "mode", "found"),
    [
        ({"topic": "x"}, None, ["b", "a"]),
        ({"topic": "x", "person": "ann"}, "all", ["a"]),
        ({"topic": "x", "person": "ann"}, "and", ["a"]),
        ({"topic": "x", "person": "ann"}, "any", ["c", "b", "a"]),
        ({"topic": "x", "person": "ann"}, "OR", ["c", "b", "a"]),
        ({"topic": ["x", "y"]}, None, ["c", "b", "a"]),
        ({"kind": "memory_note"}, None, ["c", "b", "a"]),
        ({"topic": "z"}, None, []),
        ({"topic": ""}, None, ["c", "b", "a"]),
    ],
)
def test_tags_choose_spans(world: World, wanted: Json, mode: str | None, found: list[str]) -> None:
    tags = [{"topic": "x", "person": "ann"}, {"topic": "x"}, {"topic": "y", "person": "ann"}]
    holder = remember(world, "a", "b", "c", tags=tags)

    assert previews(ask(world, holder, tags=wanted, tags_mode=mode)) == found


def test_authors_and_places_choose_spans_in_any_case(world: World) -> None:
    holder = remember(world, "a", "b", "c", actor=["Ann", "bob", None], location=["Paris", "Rome", "paris"])

    assert previews(ask(world, holder, usernames=["ANN", "carl"])) == ["a"]
    assert previews(ask(world, holder, authors="bob")) == ["b"]
    assert previews(ask(world, holder, locations=["PARIS"])) == ["c", "a"]
    assert previews(ask(world, holder, location="rome", users=["ann"])) == []


def test_a_range_takes_the_spans_that_touch_it(world: World) -> None:
    begin = world.clock.now().timestamp()
    holder = remember(world, "a", "b", "c")
    second = spans(holder)[1]["created_at"]

    assert world.clock.now().timestamp() - begin == 180
    assert previews(ask(world, holder, since=second)) == ["c", "b"]
    assert previews(ask(world, holder, until=second)) == ["b", "a"]
    assert previews(ask(world, holder, since=second, until=second)) == ["b"]


def test_a_span_without_times_is_in_no_range(world: World) -> None:
    holder = remember(world, "a")
    state = world.state(holder.run_id)
    state.vars["_runtime"]["memory_spans"] = [{"kind": "memory_note", "artifact_id": "x", "note_preview": "a"}]
    world.stores.runs.save(state)

    assert previews(ask(world, holder, since="2000-01-01T00:00:00Z")) == []
    assert previews(ask(world, holder)) == ["a"]


def test_a_range_in_another_offset_means_the_same_instants(world: World) -> None:
    holder = remember(world, "a")
    hours_ahead = world.clock.now().isoformat().replace("+00:00", "-05:00")

    assert previews(ask(world, holder, since=hours_ahead)) == []


def test_numbers_count_from_the_newest_and_unknown_ones_are_said(world: World) -> None:
    holder = remember(world, "a", "b", "c")

    result = ask(world, holder, span_ids=[1, "3", 9, spans(holder)[0]["artifact_id"]])

    assert previews(result) == ["c", "a"]
    assert meta(result)["warnings"] == ["no span number 9; there are 3"]


def test_evidence_is_not_memory(world: World) -> None:
    holder = remember(world, "a")
    state = world.state(holder.run_id)
    state.vars["_runtime"]["memory_spans"].append({"kind": "evidence", "artifact_id": "e"})
    world.stores.runs.save(state)

    assert previews(ask(world, holder)) == ["a"]


def test_a_scope_chooses_whose_memory(world: World) -> None:
    perform(world, note("of all", scope="global"))
    perform(world, note("of the session", scope="session"), session_id="s1")
    perform(world, note("of another session", scope="session"), session_id="s2")

    state = perform(
        world,
        note("own"),
        *(query(scope=scope) for scope in ("run", "session", "global")),
        query(scope="all", limit_spans=10),
        session_id="s1",
    )

    assert [previews(result) for result in results(state)[1:4]] == [["own"], ["of the session"], ["of all"]]
    assert sorted(previews(results(state)[4])) == ["of all", "of the session", "own"]


def test_looking_into_a_memory_that_does_not_exist_makes_none(world: World) -> None:
    perform(world, query(scope="all"), session_id="s1")

    assert world.stores.runs.load("session_memory_s1") is None
    assert world.stores.runs.load("global_memory") is None


@pytest.mark.parametrize(("limit", "found"), [(None, 5), (2, 2), (0, 1), (10, 7)])
def test_as_many_spans_are_found_as_asked_for(world: World, limit: int | None, found: int) -> None:
    holder = remember(world, *"abcdefg")

    assert len(previews(ask(world, holder, limit_spans=limit))) == found


def test_a_deep_scan_reads_archived_messages(world: World) -> None:
    holder = archive(world, "hello", "the elephant is grey", "bye")

    deep, shallow = ask(world, holder, query="ELEPHANT"), ask(world, holder, query="elephant", deep=False)
    limited = ask(world, holder, query="elephant", deep_limit_messages_per_span=1)
    none_left = ask(world, holder, query="elephant", deep_limit_spans=0)

    (span,) = spans(holder)
    assert meta(deep)["span_ids"] == [span["artifact_id"]]
    assert [meta(result)["span_ids"] for result in (shallow, limited, none_left)] == [[], [], []]


def test_the_summary_of_a_conversation_is_found_and_shown(world: World) -> None:
    holder = archive(world, "hello", "bye")

    result = ask(world, holder, query="they talked", deep=False, max_messages=1)

    (match,) = meta(result)["matches"]
    assert (match["message_count"], match["summary_message_id"]) == (2, spans(holder)[0]["summary_message_id"])
    assert output(result).splitlines()[3:] == [
        f"  [CONVERSATION HISTORY SUMMARY span_id={match['span_id']}]: they talked",
        "  - user: hello",
        "  … 1 more messages",
    ]


def test_connected_spans_are_neighbours_in_time_and_those_with_the_same_topic(world: World) -> None:
    topics = [{"topic": "x"}, {}, {}, {"topic": "x"}, {}]
    holder = remember(world, "a", "b", "c", "needle", "e", tags=topics)

    alone = ask(world, holder, query="needle", limit_spans=1)
    near = ask(world, holder, query="needle", limit_spans=1, connected=True)
    far = ask(world, holder, query="needle", limit_spans=1, connected=True, neighbor_hops=2, connect_by=[])

    assert previews(alone) == ["needle"]
    assert previews(near) == ["needle", "a", "c", "e"]
    assert previews(far) == ["needle", "b", "c", "e"]


def test_a_missing_artifact_is_a_warning(world: World) -> None:
    holder = remember(world, "x" * 200)
    state = world.state(holder.run_id)
    state.vars["_runtime"]["memory_spans"][0]["artifact_id"] = "gone"
    world.stores.runs.save(state)

    result = ask(world, holder)

    assert "  " + "x" * 159 + "…" in output(result).splitlines()
    assert meta(result)["warnings"] == [
        "span 'gone' cannot be read: no artifact 'gone'; a span id is that of a note or an archived conversation"
    ]


def test_a_recall_level_bounds_the_effort_and_says_so(world: World) -> None:
    holder = remember(world, *"abcdef")

    result = ask(
        world, holder, recallLevel="Urgent", limit_spans=50, deep=True, connected=True, max_messages=-1, neighbor_hops=3
    )

    told = meta(result)
    assert len(told["matches"]) == 3
    assert told["effort"] == {
        "recall_level": "urgent",
        "applied": {
            "limit_spans": 3,
            "deep": False,
            "deep_limit_spans": 0,
            "deep_limit_messages_per_span": 0,
            "connected": False,
            "neighbor_hops": 0,
            "max_messages": 60,
        },
    }
    assert [warning.partition(":")[0] for warning in told["warnings"]] == [
        "limit_spans",
        "deep",
        "connected",
        "neighbor_hops",
        "max_messages",
    ]


def test_a_recall_level_gives_the_defaults(world: World) -> None:
    holder = remember(world, *"abc")

    told = meta(ask(world, holder, recall_level="standard", query="a"))

    assert told["warnings"] == []
    assert told["effort"]["applied"] == {
        "limit_spans": 5,
        "deep": True,
        "deep_limit_spans": 25,
        "deep_limit_messages_per_span": 200,
        "connected": True,
        "neighbor_hops": 1,
        "max_messages": 80,
    }


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"scope": "galaxy"}, "scope: 'galaxy' is not one of run, session, global, all"),
        ({"return": "poem"}, "return: 'poem' is not one of rendered, meta, both"),
        ({"recall_level": "lazy"}, "recall_level: 'lazy' is not one of urgent, standard, deep"),
        ({"scope": "all", "span_ids": [1]}, "means nothing in scope 'all'"),
        ({"tags_mode": "some"}, "tags_mode: 'some' is not one of all, and, any, or"),
        ({"tags": "x"}, "tags: must be an object"),
        ({"since": "yesterday"}, "since: 'yesterday' is not an ISO 8601 time"),
        ({"limit_spans": "many"}, "limit_spans: 'many' is not a whole number"),
        ({"limit_spans": 1.5}, "limit_spans: 1.5 is not a whole number"),
        ({"limit_spans": True}, "limit_spans: True is not a whole number"),
        ({"span_ids": [None]}, "None is neither the id of a span nor its number"),
    ],
)
def test_a_query_that_means_nothing_fails(world: World, fields: Json, why: str) -> None:
    state = perform(world, query(**fields))

    assert state.status is RunStatus.FAILED
    assert why in (state.error or "")


@pytest.mark.parametrize(("reference", "found"), [(2.0, ["a"]), ("2", ["a"]), (2, ["a"])])
def test_a_number_may_come_as_a_text_or_with_a_fraction_of_nothing(
    world: World, reference: Any, found: list[str]
) -> None:
    holder = remember(world, "a", "b")

    assert previews(ask(world, holder, span_id=reference)) == found


def test_a_span_whose_time_is_no_time_is_the_oldest(world: World) -> None:
    holder = remember(world, "a", "b")
    state = world.state(holder.run_id)
    state.vars["_runtime"]["memory_spans"][1]["created_at"] = "long ago"
    world.stores.runs.save(state)

    assert previews(ask(world, holder)) == ["a", "b"]


def test_a_message_without_words_says_nothing(world: World) -> None:
    vars = {"context": {"messages": [{"role": "user", "content": None}, {"role": "user", "content": 42}]}}
    holder = perform(
        world,
        (EffectType.MEMORY_COMPACT, {"preserve_recent": 0}),
        vars=vars,
        options={"chat_summarizer": lambda messages, **_: {"summary": "S"}},
    )

    assert output(ask(world, holder)).splitlines()[-2:] == ["  - user: ", "  - user: 42"]
