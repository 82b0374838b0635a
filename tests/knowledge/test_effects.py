"""The effects on the gateway's own knowledge graph, as nodes see them."""

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import Invalid, Unavailable
from abstractgateway.knowledge import Owners, Pattern, StoredKnowledge
from abstractgateway.knowledge.packing import estimated_tokens
from abstractgateway.runtime.models import RunState
from abstractgateway.testing import ManualClock

from .conftest import Json

TEA = {"subject": "Alice", "predicate": "ex:likes", "object": "Tea"}
CUSTOM = {"allow_custom_predicates": True}


def tell(knowledge: StoredKnowledge, run: RunState, *said: Any, key: str = "", **given: Any) -> Json:
    return knowledge.assert_statements(run, {"assertions": list(said), **CUSTOM, **given}, idempotency_key=key)


def like(*objects: str, **given: Any) -> list[Json]:
    return [{**TEA, "object": text, **given} for text in objects]


def ask(knowledge: StoredKnowledge, run: RunState, **given: Any) -> list[str]:
    return [item["object"] for item in knowledge.query(run, given)["items"]]


def everything(knowledge: StoredKnowledge) -> int:
    return len(knowledge.store.query(Pattern(tuple((scope, None) for scope in ("run", "session", "global")))))


def test_a_statement_is_kept_in_canonical_form_with_where_it_comes_from(
    knowledge: StoredKnowledge, run: RunState
) -> None:
    told = tell(
        knowledge,
        run,
        {"subject": "  ex:Person_Ada  Lovelace ", "predicate": "Schema:Description", "object": "Émile\u0301 \n Zola "},
        span_id="s-1",
        attributes_defaults={"source": "chat"},
    )

    (item,) = knowledge.query(run, {})["items"]
    assert told["assertion_ids"] == [item["assertion_id"]]
    assert {name: value for name, value in item.items() if name != "assertion_id"} == {
        "subject": "ex:person-ada-lovelace",
        "predicate": "dcterms:description",
        "object": "émilé zola",
        "scope": "run",
        "owner_id": run.run_id,
        "observed_at": "2026-01-01T00:00:00+00:00",
        "provenance": {"span_id": "s-1", "writer_run_id": run.run_id, "writer_workflow_id": "w"},
        "attributes": {"source": "chat"},
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ex:Café Zoë", "ex:cafe-zoe"),
        ("EX:a__b--c!", "ex:a-b-c"),
        ("ex:東京", "ex:東京"),
        ("ex:हिन्दी", "ex:हिन्दी"),
        ("ex:🍵", "ex:🍵"),
        ("ex:", "ex:"),
        ("schema:Person", "schema:person"),
        ("İstanbul", "i̇stanbul"),
    ],
)
def test_names_are_the_same_in_every_case_and_script(
    knowledge: StoredKnowledge, run: RunState, given: str, kept: str
) -> None:
    tell(knowledge, run, {**TEA, "subject": given})

    assert [item["subject"] for item in knowledge.query(run, {"subject": f" {given.upper()} "})["items"]] == [kept]


def test_a_literal_keeps_its_case(knowledge: StoredKnowledge, run: RunState) -> None:
    tell(knowledge, run, {**TEA, "object": " McDonald ", "attributes": {"literal": True}})

    assert ask(knowledge, run, object="MCDONALD") == ["McDonald"]


def test_what_a_statement_says_of_itself_wins(knowledge: StoredKnowledge, run: RunState) -> None:
    own = {
        "scope": "Session",
        "owner_id": "me",
        "observed_at": "2025-05-05T12:00:00+02:00",
        "valid_from": "2025-05-05T00:00:00Z",
        "valid_until": "2026-05-05",
        "confidence": "0.75",
        "provenance": {"span_id": "mine", "page": 3},
        "attributes": {"source": "book"},
    }
    tell(
        knowledge,
        run,
        {**TEA, **own},
        scope="global",
        owner_id="x",
        span_id="s",
        attributes_defaults={"source": "c", "n": 1},
    )

    (item,) = knowledge.query(run, {"scope": "session", "owner_id": "me"})["items"]
    assert (item["observed_at"], item["valid_from"]) == ("2025-05-05T10:00:00+00:00", "2025-05-05T00:00:00+00:00")
    assert (item["valid_until"], item["confidence"]) == ("2026-05-05T00:00:00+00:00", 0.75)
    assert item["provenance"] == {"span_id": "mine", "page": 3, "writer_run_id": run.run_id, "writer_workflow_id": "w"}
    assert item["attributes"] == {"source": "book", "n": 1}


@pytest.mark.parametrize("name", ["assertions", "triples", "items"])
@pytest.mark.parametrize("as_list", [True, False])
def test_statements_come_under_three_names_and_one_needs_no_list(
    knowledge: StoredKnowledge, run: RunState, name: str, as_list: bool
) -> None:
    told = knowledge.assert_statements(run, {name: [TEA] if as_list else TEA, "allow_custom": True})

    assert (told["count"], ask(knowledge, run)) == (1, ["tea"])


def test_an_empty_list_is_no_failure(knowledge: StoredKnowledge, run: RunState) -> None:
    assert tell(knowledge, run) == {"ok": True, "count": 0, "assertion_ids": [], "skipped": True}


def test_what_is_said_already_is_skipped_unless_repetitions_are_wanted(
    knowledge: StoredKnowledge, run: RunState
) -> None:
    tell(knowledge, run, TEA, key="1")

    again = tell(knowledge, run, TEA, {**TEA, "subject": "ALICE "}, *like("milk"), key="2")
    assert (again["count"], again["count_attempted"], again["skipped_duplicates"]) == (1, 3, 2)
    assert tell(knowledge, run, TEA, key="3", dedupe=False)["count"] == 1
    assert ask(knowledge, run) == ["tea", "milk", "tea"]


@pytest.mark.parametrize("dedupe", [True, False])
def test_the_same_performance_of_an_effect_keeps_its_statements_once(
    knowledge: StoredKnowledge, run: RunState, dedupe: bool
) -> None:
    said = like("tea", "milk", "tea")
    first = tell(knowledge, run, *said, key="k", dedupe=dedupe)

    assert tell(knowledge, run, *said, key="k", dedupe=dedupe) == first
    assert everything(knowledge) == first["count"] == (2 if dedupe else 3)
    assert tell(knowledge, run, *said, key="other", dedupe=False)["count"] == 3


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"assertions": None}, "assertions: must be a list of objects, not null"),
        ({"assertions": "alice likes tea"}, "assertions: must be a list of objects, not str"),
        ({"assertions": [TEA] * 10_001}, "at most 10000"),
        ({"assertions": [TEA, 5]}, r"assertions\[1\]: must be an object"),
        ({"assertions": [{}]}, r"assertions\[0\]\.subject: must be a text"),
        ({"assertions": [{**TEA, "subject": " \n"}]}, r"assertions\[0\]\.subject: .*not ' \\n'"),
        ({"assertions": [{**TEA, "object": 5}]}, r"\.object: .*not 5"),
        ({"assertions": [{**TEA, "object": ["tea"]}]}, r"\.object: .*not a list"),
        ({"assertions": [{**TEA, "object": "x" * 10_001}]}, r"\.object: has 10001 characters"),
        ({"assertions": [{**TEA, "object": "\ud83c"}]}, r"\.object: is no text in Unicode"),
        ({"assertions": [{**TEA, "predicate": None}]}, r"\.predicate"),
        ({"assertions": [TEA, {**TEA, "predicate": "likes"}]}, "predicate: unknown: 'likes'"),
        ({"assertions": [{**TEA, "predicate": "ex:"}]}, "predicate: unknown: 'ex:'"),
        ({"assertions": [TEA], "allow_custom_predicates": False}, "unknown: 'ex:likes'; use one of"),
        ({"assertions": [TEA], "scope": "all"}, "scope: 'all' is not one of run, session, global"),
        ({"assertions": [{**TEA, "scope": "galaxy"}]}, r"assertions\[0\]\.scope: 'galaxy'"),
        ({"assertions": [{**TEA, "observed_at": "yesterday"}]}, r"\.observed_at: 'yesterday' is not an ISO 8601 time"),
        ({"assertions": [{**TEA, "valid_from": "2026-13-01"}]}, r"\.valid_from"),
        ({"assertions": [{**TEA, "valid_from": "2026-01-02", "valid_until": "2026-01-02"}]}, "not after valid_from"),
        ({"assertions": [{**TEA, "valid_until": "0001-01-01T00:00:00+14:00"}]}, "valid_until"),
        ({"assertions": [{**TEA, "confidence": "high"}]}, r"\.confidence: 'high' is not a number"),
        ({"assertions": [{**TEA, "confidence": True}]}, r"\.confidence"),
        ({"assertions": [{**TEA, "confidence": float("nan")}]}, r"\.confidence"),
        ({"assertions": [{**TEA, "provenance": "a book"}]}, r"\.provenance: must be an object"),
        ({"assertions": [{**TEA, "attributes": {"x": {1, 2}}}]}, r"\.attributes"),
        ({"assertions": [TEA], "attributes_defaults": [1]}, "attributes_defaults: must be an object"),
        ({"assertions": [TEA], "dedupe": "perhaps"}, "dedupe"),
    ],
)
def test_a_wrong_statement_is_named_and_nothing_is_kept(
    knowledge: StoredKnowledge, run: RunState, wrong: Json, why: str
) -> None:
    with pytest.raises(Invalid, match=why):
        knowledge.assert_statements(run, {**CUSTOM, **wrong})

    assert everything(knowledge) == 0


def test_each_scope_has_its_owner_and_all_is_the_three(knowledge: StoredKnowledge, run: RunState) -> None:
    for scope in ("run", "session", "global"):
        tell(knowledge, run, *like(scope), scope=scope)
    other = RunState.new(workflow_id="w", entry_node="n", session_id="s1")

    assert {item["owner_id"] for item in knowledge.query(run, {"scope": "all"})["items"]} == {
        run.run_id,
        "session_memory_s1",
        "global_memory",
    }
    assert sorted(ask(knowledge, other, scope="all")) == ["global", "session"]
    assert ask(knowledge, other) == []
    assert ask(knowledge, other, owner_id=run.run_id) == ["run"]


def test_without_a_session_the_run_at_the_top_owns_its_statements(knowledge: StoredKnowledge) -> None:
    runs = {"top": RunState.new(workflow_id="w", entry_node="n")}
    runs["below"] = RunState.new(workflow_id="w", entry_node="n", parent_run_id="top")
    below = RunState.new(workflow_id="w", entry_node="n", parent_run_id="below")
    runs["top"].run_id = "top"
    of_tree = StoredKnowledge(knowledge.store, Owners(runs.get), ManualClock())

    tell(of_tree, below, TEA, scope="session")

    assert of_tree.query(runs["top"], {"scope": "session"})["items"][0]["owner_id"] == "top"


def test_a_query_takes_terms_times_and_an_order(knowledge: StoredKnowledge, run: RunState) -> None:
    for day in range(1, 6):
        tell(knowledge, run, *like(f"tea {day}", observed_at=f"2026-01-0{day}", valid_until=f"2026-02-0{day}"))

    assert ask(knowledge, run, predicate="EX:Likes", limit="2") == ["tea 5", "tea 4"]
    assert ask(knowledge, run, order="ASC", limit=1) == ["tea 1"]
    assert ask(knowledge, run, since="2026-01-03T02:00:00+02:00", until="2026-01-04") == ["tea 4", "tea 3"]
    assert ask(knowledge, run, active_at="2026-02-03") == ["tea 5", "tea 4"]
    assert ask(knowledge, run, subject="", predicate=None, since=" ", limit=0) == [
        f"tea {day}" for day in range(5, 0, -1)
    ]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"scope": "galaxy"}, "scope: 'galaxy'"),
        ({"since": "yesterday"}, "since: 'yesterday'"),
        ({"until": 5}, "until: '5'"),
        ({"active_at": "2026-99-99"}, "active_at"),
        ({"limit": "many"}, "limit: 'many'"),
        ({"limit": 1.5}, "limit"),
        ({"order": "sideways"}, "order: 'sideways' is neither asc nor desc"),
        ({"subject": 5}, "subject"),
        ({"object": "\ud800"}, "object"),
        ({"min_score": "high", "query_text": "tea"}, "min_score: 'high' is not a number"),
        ({"max_input_tokens": [1]}, "max_input_tokens"),
    ],
)
def test_a_query_that_means_nothing_is_told_in_the_result(
    knowledge: StoredKnowledge, run: RunState, wrong: Json, why: str
) -> None:
    tell(knowledge, run, TEA)

    told = knowledge.query(run, wrong)

    assert {name: told[name] for name in ("ok", "count", "items")} == {"ok": False, "count": 0, "items": []}
    assert why in told["error"]


def test_a_store_that_cannot_be_read_is_told_in_the_result(
    knowledge: StoredKnowledge, run: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pattern: Pattern) -> None:
        raise Unavailable("the disk is away")

    monkeypatch.setattr(knowledge.store, "query", refuse)

    assert knowledge.query(run, {}) == {"ok": False, "count": 0, "items": [], "error": "the disk is away"}
    assert knowledge.resolve(run, {"label": "x"})["error"] == "the disk is away"


def test_a_limit_is_at_most_ten_thousand(knowledge: StoredKnowledge, run: RunState) -> None:
    for part in range(2):
        tell(knowledge, run, *like(*(f"{part} {number}" for number in range(6_000))))

    assert len(ask(knowledge, run)) == 100
    assert len(ask(knowledge, run, limit=1_000_000)) == 10_000


def test_a_text_gives_scores_and_the_best_first(knowledge: StoredKnowledge, run: RunState) -> None:
    tell(knowledge, run, *like("green tea", "black tea", "coffee"))

    items = knowledge.query(run, {"query_text": "Does she like green TEA?", "limit": 5})["items"]

    assert [item["object"] for item in items][:2] == ["green tea", "black tea"]
    assert [item["attributes"]["_retrieval"]["score"] for item in items][0] == pytest.approx(0.8333, abs=0.001)
    assert items[0]["attributes"]["_retrieval"]["metric"] == "words"
    assert len(ask(knowledge, run, query_text="green tea", min_score=0.9)) == 1


@pytest.mark.parametrize(("level", "limit", "score", "tokens"), [("urgent", 20, 0.55, 600), ("Deep", 200, 0.25, 2400)])
def test_a_recall_level_sets_what_is_not_given(
    knowledge: StoredKnowledge, run: RunState, level: str, limit: int, score: float, tokens: int
) -> None:
    tell(knowledge, run, *like(*(f"tea {number}" for number in range(250))))

    told = knowledge.query(run, {"recall_level": level, "query_text": "tea"})

    assert told["count"] == limit
    applied = {"limit": limit, "max_input_tokens": tokens, "min_score": score}
    assert told["effort"] == {"recall_level": level.lower(), "applied": applied}
    assert told["packed_count"] + told["dropped"] == limit
    assert 0 < told["estimated_tokens"] <= tokens


def test_a_recall_level_cuts_down_what_is_asked_and_says_so(knowledge: StoredKnowledge, run: RunState) -> None:
    asked = {"limit": 500, "max_input_tokens": 9_000, "min_score": 0.1, "query_text": "tea", "recall_level": "standard"}

    told = knowledge.query(run, asked)

    assert told["effort"]["applied"] == {"limit": 200, "max_input_tokens": 3000, "min_score": 0.25}
    assert [warning.split(":")[0] for warning in told["warnings"]] == ["limit", "max_input_tokens", "min_score"]
    assert "packets" not in knowledge.query(run, {"recall_level": "deep", "max_input_tokens": 0})


@pytest.mark.parametrize("effect", ["query", "resolve"])
def test_an_unknown_recall_level_fails(knowledge: StoredKnowledge, run: RunState, effect: str) -> None:
    with pytest.raises(Invalid, match="recall_level: 'wild' is not one of urgent, standard, deep"):
        getattr(knowledge, effect)(run, {"recall_level": "wild", "label": "x"})


def test_statements_are_packed_into_a_text_up_to_its_tokens(knowledge: StoredKnowledge, run: RunState) -> None:
    tell(knowledge, run, *like(*(f"tea number {number}" for number in range(20))), span_id="s-1")

    told = knowledge.query(run, {"max_in_tokens": "100"})

    lines = told["active_memory_text"].splitlines()
    assert lines[:2] == ["## KG ACTIVE MEMORY", "(scope=run; order=time; budget=100 tokens)"]
    assert lines[3] == "- [2026-01-01T00:00:00+00:00] alice —ex:likes→ tea number 19 (span:s-1)"
    assert 90 < estimated_tokens(told["active_memory_text"]) <= told["estimated_tokens"] <= 100
    assert (len(told["packets"]), told["packed_count"]) == (len(lines) - 3, len(lines) - 3)
    assert told["dropped"] == 20 - told["packed_count"] > 0
    assert told["packets_version"] == told["packets"][0]["version"] == 0
    assert told["packets"][0]["writer_run_id"] == run.run_id
    assert "score:1.000" in knowledge.query(run, {"query_text": "19", "max_input_tokens": 100})["active_memory_text"]


def test_a_budget_that_fits_no_statement_is_said(knowledge: StoredKnowledge, run: RunState) -> None:
    tell(knowledge, run, TEA)

    told = knowledge.query(run, {"max_input_tokens": 10})

    assert (told["active_memory_text"], told["packed_count"], told["dropped"], told["estimated_tokens"]) == (
        "",
        0,
        1,
        0,
    )
    assert told["warnings"] == ["max_input_tokens: 10 is too little for a single statement"]


def test_what_was_said_twice_is_packed_once(knowledge: StoredKnowledge, run: RunState) -> None:
    tell(knowledge, run, TEA, TEA, dedupe=False)

    told = knowledge.query(run, {"max_input_tokens": 1000})

    assert (told["count"], told["packed_count"], told["dropped"]) == (2, 1, 0)


PEOPLE = [
    {"subject": "ex:person-ada", "predicate": "schema:name", "object": "Ada Lovelace"},
    {"subject": "ex:person-ada", "predicate": "skos:altLabel", "object": "Countess of Lovelace"},
    {"subject": "ex:person-ada", "predicate": "rdf:type", "object": "schema:Person"},
    {"subject": "ex:village", "predicate": "schema:name", "object": "Lovelace"},
    {"subject": "ex:village", "predicate": "rdf:type", "object": "schema:Place"},
    {"subject": "lovelace", "predicate": "schema:name", "object": "Lovelace"},
]


def resolve(knowledge: StoredKnowledge, run: RunState, **asked: Any) -> list[str]:
    return [candidate["id"] for candidate in knowledge.resolve(run, asked)["candidates"]]


def test_a_label_is_resolved_to_what_has_it(knowledge: StoredKnowledge, run: RunState) -> None:
    tell(knowledge, run, *PEOPLE)

    told = knowledge.resolve(run, {"label": "  ADA   lovelace "})

    (candidate,) = told["candidates"]
    assert (told["ok"], told["count"], told["raw"]) == (True, 1, {"label": "ada lovelace", "expected_type": None})
    assert {name: candidate[name] for name in ("id", "label", "types", "scope", "owner_id", "score")} == {
        "id": "ex:person-ada",
        "label": "ada lovelace",
        "types": ["schema:person"],
        "scope": "run",
        "owner_id": run.run_id,
        "score": 1.0,
    }
    assert [item["predicate"] for item in candidate["evidence"]] == ["schema:name"]


def test_labels_that_are_alike_are_looked_at_where_none_is_equal(knowledge: StoredKnowledge, run: RunState) -> None:
    tell(knowledge, run, *PEOPLE)

    assert resolve(knowledge, run, label="lovelace") == ["ex:village"]
    assert resolve(knowledge, run, query="countess") == ["ex:person-ada"]
    assert resolve(knowledge, run, query_text="countess", include_semantic=False) == []
    assert resolve(knowledge, run, label="countess", recall_level="urgent") == []
    assert set(resolve(knowledge, run, label="lovelace", recall_level="deep")) == {"ex:village", "ex:person-ada"}


def test_only_what_has_the_expected_type_is_a_candidate(knowledge: StoredKnowledge, run: RunState) -> None:
    tell(knowledge, run, *PEOPLE)

    assert resolve(knowledge, run, label="lovelace", recall_level="deep", expected_type="schema:PERSON") == [
        "ex:person-ada"
    ]
    assert resolve(knowledge, run, label="lovelace", type="schema:Event") == []


def test_the_number_of_candidates_is_bounded(knowledge: StoredKnowledge, run: RunState) -> None:
    names = [{"subject": f"ex:person-{n}", "predicate": "schema:name", "object": "Kim"} for n in range(60)]
    tell(knowledge, run, *names)

    counts = [
        {},
        {"recall_level": "urgent"},
        {"recall_level": "deep"},
        {"max_candidates": 7},
        {"limit": 900},
        {"limit": -1},
    ]
    assert [len(resolve(knowledge, run, label="kim", **asked)) for asked in counts] == [5, 3, 10, 7, 50, 1]


@pytest.mark.parametrize("wrong", [{}, {"label": " "}, {"label": "x", "scope": "y"}, {"label": "x", "limit": "z"}])
def test_a_label_that_cannot_be_resolved_is_told_in_the_result(
    knowledge: StoredKnowledge, run: RunState, wrong: Json
) -> None:
    told = knowledge.resolve(run, wrong)

    assert (told["ok"], told["count"], told["candidates"]) == (False, 0, [])
    assert told["error"]
