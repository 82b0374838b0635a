"""What every store of statements does."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from abstractgateway.knowledge import Pattern, TripleStore
from abstractgateway.knowledge.relevance import wanted_words
from abstractgateway.knowledge.triples import micros

from .conftest import a_triple

MINE = (("run", "r"),)


def objects(store: TripleStore, **pattern: Any) -> list[str]:
    return [found.triple.object for found in store.query(Pattern(**{"owners": MINE, **pattern}))]


def found_by(store: TripleStore, text: str, **pattern: Any) -> list[tuple[str, float]]:
    asked = Pattern(**{"owners": MINE, "words": wanted_words(text), **pattern})
    return [(found.triple.object, round(found.score or 0.0, 2)) for found in store.query(asked)]


def at(day: int, hour: int = 0) -> str:
    return f"2026-01-{day:02}T{hour:02}:00:00+00:00"


def us(day: int, hour: int = 0) -> int:
    return micros(at(day, hour), field="t")


def test_a_new_store_has_nothing_and_says_so(store: TripleStore) -> None:
    assert (store.query(Pattern(MINE)), store.exists()) == ([], False)
    assert store.query(Pattern(MINE, words=("tea",))) == []


def test_a_statement_is_found_as_it_was_kept(store: TripleStore) -> None:
    kept = a_triple(
        object="Grüner Tee, 緑茶 \U0001f375",
        valid_from=at(1),
        valid_until=at(5),
        confidence=0.5,
        provenance={"span_id": "s", "deep": {"list": [1, None]}},
        attributes={"literal": True, "zero\0byte": "\0"},
    )

    assert store.add([kept], skip_known=True) == [True]

    assert [found.triple for found in store.query(Pattern(MINE))] == [kept]
    assert store.exists()


def test_nothing_to_keep_is_no_reason_to_make_a_store(store: TripleStore) -> None:
    assert store.add([], skip_known=True) == []
    assert not store.exists()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"subject": "alice"}, ["tea", "milk"]),
        ({"predicate": "ex:likes"}, ["tea", "coffee"]),
        ({"object": "milk"}, ["milk"]),
        ({"subject": "alice", "predicate": "ex:likes"}, ["tea"]),
        ({"subject": "bob", "object": "tea"}, []),
        ({"object": "TEA"}, []),
        ({}, ["tea", "milk", "coffee"]),
    ],
)
def test_every_term_that_is_given_must_be_the_same(store: TripleStore, pattern: Any, expected: list[str]) -> None:
    said = [a_triple(), a_triple(predicate="ex:drinks", object="milk"), a_triple("bob", object="coffee")]
    store.add(said, skip_known=True)

    assert objects(store, **pattern, is_newest_first=False) == expected


def test_a_literal_keeps_its_case_and_is_found_in_any(store: TripleStore) -> None:
    store.add([a_triple(object="McTea", attributes={"literal": True})], skip_known=True)

    assert objects(store, object="mctea") == ["McTea"]


def test_owners_are_apart_and_any_owner_of_a_scope_can_be_asked_for(store: TripleStore) -> None:
    places = [("run", "r"), ("run", "other"), ("session", "r"), ("global", "r")]
    said = [
        a_triple(object=f"{scope} {owner}", scope=scope, owner_id=owner, observed_at=at(day))
        for day, (scope, owner) in enumerate(places, 1)
    ]
    store.add(said, skip_known=True)

    assert objects(store) == ["run r"]
    assert objects(store, owners=(("run", None),)) == ["run other", "run r"]
    assert objects(store, owners=(("run", "r"), ("session", "r"), ("session", "nobody"))) == ["session r", "run r"]
    assert [text for text, _ in found_by(store, "run", owners=(("run", None), ("session", "r")))] == [
        "run other",
        "run r",
    ]


def test_the_last_observed_comes_first_and_of_equals_the_last_added(store: TripleStore) -> None:
    days = [3, 1, 2, 2, 2]
    said = [a_triple(object=f"{day}{letter}", observed_at=at(day)) for day, letter in zip(days, "abcde", strict=True)]
    store.add(said, skip_known=True)

    assert objects(store) == ["3a", "2e", "2d", "2c", "1b"]
    assert objects(store, is_newest_first=False) == ["1b", "2c", "2d", "2e", "3a"]
    assert objects(store, limit=2) == ["3a", "2e"]
    assert objects(store, limit=2, is_newest_first=False) == ["1b", "2c"]


def test_the_order_of_several_owners_is_one_order(store: TripleStore) -> None:
    said = [a_triple(object=str(day), owner_id="rq"[day % 2], observed_at=at(day)) for day in range(1, 7)]
    store.add(said, skip_known=True)

    assert objects(store, owners=(("run", "q"), ("run", "r")), limit=3) == ["6", "5", "4"]


def test_instants_are_compared_not_texts(store: TripleStore) -> None:
    times = {
        "early": "2026-01-02T00:30:00+01:00",
        "late": "2026-01-01T23:45:00Z",
        "exact": "2026-01-01T23:30:00.000001",
    }
    store.add([a_triple(object=name, observed_at=time) for name, time in times.items()], skip_known=True)

    assert objects(store, is_newest_first=False) == ["early", "exact", "late"]
    assert objects(store, since=us(1, 23) + 30 * 60 * 1_000_000 + 1) == ["late", "exact"]


def test_observed_since_and_until_take_their_ends_in(store: TripleStore) -> None:
    store.add([a_triple(object=str(day), observed_at=at(day)) for day in range(1, 6)], skip_known=True)

    assert objects(store, since=us(2), until=us(4)) == ["4", "3", "2"]
    assert objects(store, since=us(4), until=us(2)) == []


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (1, ["always", "until"]),
        (2, ["always", "from", "window"]),
        (3, ["always", "from", "window"]),
        (4, ["always", "from"]),
    ],
)
def test_a_statement_holds_from_its_beginning_until_before_its_end(
    store: TripleStore, day: int, expected: list[str]
) -> None:
    windows = {
        "always": {},
        "from": {"valid_from": at(2)},
        "until": {"valid_until": at(2)},
        "window": {"valid_from": at(2), "valid_until": at(4)},
    }
    store.add([a_triple(object=name, **window) for name, window in windows.items()], skip_known=True)

    assert sorted(objects(store, active_at=us(day))) == expected


def test_a_known_id_is_kept_once_and_stays_as_it_is(store: TripleStore) -> None:
    store.add([a_triple(id="1")], skip_known=False)

    assert store.add([a_triple(object="milk", id="1"), a_triple(object="coffee", id="2")], skip_known=False) == [
        True,
        True,
    ]
    assert objects(store) == ["coffee", "tea"]


def test_what_is_said_already_is_left_out_where_that_is_wanted(store: TripleStore) -> None:
    store.add([a_triple(id="1")], skip_known=True)
    again = [a_triple(id="2"), a_triple(object="milk", id="3"), a_triple(object="milk", id="4")]

    assert store.add(again, skip_known=True) == [False, True, False]
    assert store.add(again, skip_known=True) == [False, True, False]
    assert store.add([a_triple(id="5")], skip_known=False) == [True]
    assert objects(store) == ["tea", "milk", "tea"]


@pytest.mark.parametrize(
    "other",
    [{"owner_id": "q"}, {"scope": "session"}, {"valid_from": at(3)}, {"valid_until": at(3)}, {"subject": "bob"}],
)
def test_the_same_of_somebody_else_or_of_another_time_is_another_statement(store: TripleStore, other: Any) -> None:
    store.add([a_triple(id="1")], skip_known=True)

    assert store.add([a_triple(**other, id="2")], skip_known=True) == [True]


def test_a_text_finds_the_most_relevant_statement_first(store: TripleStore) -> None:
    for day, text in enumerate(["green tea", "black tea from green hills", "coffee", "teapot"], 1):
        store.add([a_triple("ex:bob", "ex:has", text, observed_at=at(day))], skip_known=True)

    assert found_by(store, "What about GREEN tea?") == [
        ("black tea from green hills", 1.0),
        ("green tea", 1.0),
        ("teapot", 0.25),
    ]
    assert found_by(store, "green tea", min_score=0.5, limit=1) == [("black tea from green hills", 1.0)]
    assert found_by(store, "pot") == []


@pytest.mark.parametrize("text", ["", "  ", "?!", "_", "% ' \" * ( ) : ^ -"])
def test_a_text_without_words_finds_nothing(store: TripleStore, text: str) -> None:
    store.add([a_triple()], skip_known=True)

    assert found_by(store, text) == []


@pytest.mark.parametrize(
    "text",
    ['"tea', "tea*", "tea AND", "words : tea", "NEAR(tea)", "(tea", "tea OR", "place:tea", "tea'); DROP TABLE triples"],
)
def test_no_text_is_a_command_to_the_store(store: TripleStore, text: str) -> None:
    store.add([a_triple()], skip_known=True)

    assert found_by(store, text) == [("tea", 1.0)]


@pytest.mark.parametrize(
    ("object", "text"),
    [
        ("Café crème", "cafe CREME"),
        ("緑茶が好き", "緑茶"),
        ("Straße", "STRASSE"),
        ("ﬁsh", "fish"),
        ("зелёный чай", "чай"),
        ("हिन्दी", "हिन्दी"),
        ("ex:person-ada-lovelace", "lovelace"),
        ("schema:SoftwareApplication", "softwareapplication"),
        ("it's 3 o'clock", "3"),
        ("🍵 tea", "tea"),
    ],
)
def test_words_of_any_script_are_found(store: TripleStore, object: str, text: str) -> None:
    store.add([a_triple("x", "ex:y", object), a_triple("x", "ex:y", "nothing")], skip_known=True)

    assert [found for found, _ in found_by(store, text)] == [object]


def test_a_text_and_a_pattern_must_both_hold(store: TripleStore) -> None:
    said = [a_triple(), a_triple("bob"), a_triple(object="tea late", observed_at=at(9)), a_triple(owner_id="q", id="q")]
    store.add(said, skip_known=True)

    assert found_by(store, "tea", subject="alice", until=us(5)) == [("tea", 1.0)]


def test_many_statements_are_all_found_and_a_limit_cuts_them(store: TripleStore) -> None:
    many = [a_triple(object=f"tea number {number}", id=str(number)) for number in range(10_050)]
    store.add(many, skip_known=True)

    assert len(objects(store)) == 10_050
    assert objects(store, limit=10_000)[-1] == "tea number 50"
    assert len(found_by(store, "tea")) == 5_000
    assert found_by(store, "777", limit=1) == [("tea number 777", 1.0)]


def test_threads_that_say_the_same_at_once_say_it_once(store: TripleStore) -> None:
    said: list[bool] = []
    begin = threading.Barrier(4)

    def say(name: str) -> None:
        begin.wait(10)
        for number in range(20):
            said.extend(store.add([a_triple(object=str(number), id=f"{name}{number}")], skip_known=True))

    threads = [threading.Thread(target=say, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert (sum(said), len(said)) == (20, 80)
    assert sorted(objects(store), key=int) == [str(number) for number in range(20)]


def test_a_store_that_was_closed_opens_again(store: TripleStore) -> None:
    store.add([a_triple()], skip_known=True)
    store.close()
    store.close()

    assert objects(store) == ["tea"]
