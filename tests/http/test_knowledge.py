from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from abstractgateway.knowledge import Triple
from tests.http.conftest import LiveGateway, packed

Json = dict[str, Any]


@pytest.fixture
def live(go_live: Callable[..., LiveGateway]) -> LiveGateway:
    """A gateway, with its stores in memory, whose statements are in a file of its data directory."""
    return go_live(memory_store_backend="sqlite")


def keep(
    live: LiveGateway, *objects: str, scope: str = "session", owner: str = "session_memory_s1", **given: Any
) -> None:
    store = live.service.knowledge._knowledge.store
    at = "2026-01-01T00:00:00+00:00"
    said = [Triple(f"{scope} {owner} {text}", "alice", "ex:likes", text, scope, owner, at, **given) for text in objects]
    store.add(said, skip_known=True)


def query(live: LiveGateway, **body: Any) -> Json:
    answer = live.ask("POST", "/kg/query", body=body)
    assert answer.status == 200, answer.body
    found: Json = answer.json
    return found


def objects(answer: Json) -> list[str]:
    return [item["object"] for item in answer["items"]]


def test_before_anything_is_said_the_answer_is_empty_and_says_why(live: LiveGateway) -> None:
    assert query(live, session_id="s1") == {
        "ok": True,
        "scope": "session",
        "owner_id": "session_memory_s1",
        "count": 0,
        "items": [],
        "warnings": ["the knowledge graph is empty: nothing has been asserted yet"],
        "store": {"backend": "sqlite", "path": "kg.sqlite3", "require_vector": False},
    }


def test_a_statement_is_answered_as_it_was_kept(live: LiveGateway) -> None:
    keep(live, "tea", confidence=0.5, provenance={"span_id": "s"})

    answer = query(live, session_id=" s1 ", subject="ALICE", predicate="Ex:likes", object="Tea")

    assert (answer["count"], answer["warnings"]) == (1, None)
    assert answer["items"] == [
        {
            "assertion_id": "session session_memory_s1 tea",
            "subject": "alice",
            "predicate": "ex:likes",
            "object": "tea",
            "scope": "session",
            "owner_id": "session_memory_s1",
            "observed_at": "2026-01-01T00:00:00+00:00",
            "confidence": 0.5,
            "provenance": {"span_id": "s"},
            "attributes": {},
        }
    ]


def test_each_scope_has_its_owner(live: LiveGateway) -> None:
    live.upload(packed())
    run_id = live.start(bundle_id="echo", session_id="s1")
    keep(live, "of run", scope="run", owner=run_id)
    keep(live, "of session")
    keep(live, "of all", scope="global", owner="global_memory")
    keep(live, "of nobody here", scope="run", owner="another")

    assert objects(query(live, scope="RUN", run_id=run_id)) == ["of run"]
    assert objects(query(live, run_id=run_id)) == ["of session"]
    assert objects(query(live, scope="global")) == ["of all"]
    assert objects(query(live, scope="run", owner_id="another")) == ["of nobody here"]
    assert sorted(objects(query(live, scope="all", run_id=run_id))) == ["of all", "of run", "of session"]
    assert sorted(objects(query(live, scope="run", all_owners=True))) == ["of nobody here", "of run"]
    whole = query(live, scope="all", all_owners=True)
    assert (whole["count"], whole["owner_id"]) == (4, None)


@pytest.mark.parametrize(("given", "why"), [({}, "no run_id is given"), ({"run_id": "nope"}, "Run 'nope' not found")])
def test_all_scopes_of_a_session_leave_out_those_of_a_run_and_say_so(live: LiveGateway, given: Json, why: str) -> None:
    keep(live, "of session")

    answer = query(live, scope="all", session_id="s1", **given)

    assert objects(answer) == ["of session"]
    assert answer["warnings"] == [f"{why}: the statements of scope run are left out"]


def test_a_text_finds_the_most_relevant(live: LiveGateway) -> None:
    keep(live, "green tea", "black tea", "coffee")

    answer = query(live, session_id="s1", query_text="green tea", min_score=0.2)

    assert objects(answer) == ["green tea", "black tea"]
    assert answer["items"][0]["attributes"]["_retrieval"] == {"score": 1.0, "metric": "words"}
    assert objects(query(live, session_id="s1", query_text="green tea", min_score=1)) == ["green tea"]


def test_the_number_and_the_order_of_statements_can_be_chosen(live: LiveGateway) -> None:
    keep(live, *(str(number) for number in range(600)))

    assert query(live, session_id="s1")["count"] == 500
    assert [query(live, session_id="s1", limit=limit)["count"] for limit in (0, -1, 3)] == [600, 600, 3]
    assert objects(query(live, session_id="s1", limit=2, order="asc")) == ["0", "1"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"scope": "galaxy"}, "scope: 'galaxy' is not one of run, session, global, all"),
        ({"scope": "all", "owner_id": "x"}, "owner_id: is not supported when scope=all"),
        ({"owner_id": "x", "all_owners": True}, "all_owners: cannot be combined with owner_id"),
        ({}, "run_id or session_id: is required for scope=session, or give an owner_id"),
        ({"scope": "run", "session_id": "s1"}, "run_id: is required for scope=run, or give an owner_id"),
        ({"scope": "all"}, "run_id or session_id: is required for scope=all, or set all_owners"),
        ({"session_id": "s1", "since": "yesterday"}, "since: 'yesterday' is not an ISO 8601 time"),
        ({"session_id": "s1", "active_at": "0001-01-01T00:00:00+14:00"}, "active_at:"),
        ({"session_id": "s1", "order": "sideways"}, "order: 'sideways' is neither asc nor desc"),
        ({"session_id": "s1", "object": "x" * 10_001}, "object: has 10001 characters"),
    ],
)
def test_what_means_nothing_is_refused(live: LiveGateway, body: Json, detail: str) -> None:
    answer = live.ask("POST", "/kg/query", body=body)

    assert (answer.status, answer.json["code"]) == (400, "invalid")
    assert detail in answer.json["detail"]


@pytest.mark.parametrize("scope", ["session", "all"])
def test_an_unknown_run_whose_session_is_wanted_is_not_found(live: LiveGateway, scope: str) -> None:
    answer = live.ask("POST", "/kg/query", body={"scope": scope, "run_id": "nope"})

    assert (answer.status, answer.json["code"], answer.json["detail"]) == (404, "run_not_found", "Run 'nope' not found")


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 10_001},
        {"limit": -2},
        {"limit": "many"},
        {"limit": None},
        {"min_score": "high"},
        {"min_score": True},
        {"min_score": [1]},
        {"all_owners": "perhaps"},
        {"subject": 5},
        {"subject": {"$ne": ""}},
        {"query_text": ["tea"]},
        {"scope": 7},
    ],
)
def test_a_field_of_another_kind_is_refused_with_its_place(live: LiveGateway, body: Json) -> None:
    answer = live.ask("POST", "/kg/query", body={"session_id": "s1", **body})

    assert (answer.status, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["detail"][0]["loc"] == ["body", next(iter(body))]


def test_a_lone_surrogate_and_a_huge_number_are_refused(live: LiveGateway) -> None:
    for raw in (b'{"session_id":"s1","subject":"\\ud800"}', b'{"session_id":"s1","min_score":1e999}'):
        assert live.ask("POST", "/kg/query", "Content-Type: application/json", body=raw).status == 422


def test_a_damaged_file_is_an_error_that_shows_no_directory(live: LiveGateway) -> None:
    path = live.service.config.knowledge_path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 1000)

    answer = live.ask("POST", "/kg/query", body={"session_id": "s1"})

    assert (answer.status, answer.json["code"]) == (503, "database_unusable")
    assert "'kg.sqlite3' cannot be opened" in answer.json["detail"]
    assert str(path.parent) not in json.dumps(answer.json)
    assert live.ask("GET", "/runs").status == 200
