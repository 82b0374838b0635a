"""The shelf of a database: what is put there, by whom, and what is seen of it when."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from abstractgateway.errors import Invalid, Unavailable
from abstractgateway.stores.shelf import NEVER_ANYTHING, NOTHING, Shelf
from abstractgateway_postgres import PostgresStores, open_postgres_stores
from tests.postgres.proxy import Cut, Proxy
from tests.postgres.server import shared, url_of

PATIENCE_S = 10.0
MOST_MESSAGES = 40
LARGE = bytes(range(256)) * 8_000


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[PostgresStores]:
    with closing(open_postgres_stores(url_of(tmp_path))) as opened:
        yield opened


@pytest.fixture
def shelf(stores: PostgresStores) -> Shelf:
    return stores.shelf


@pytest.fixture
def other(tmp_path: Path) -> Iterator[PostgresStores]:
    """The same database from another process."""
    with closing(open_postgres_stores(url_of(tmp_path))) as opened:
        yield opened


def names(shelf: Shelf, drawer: str = "d") -> list[str]:
    return [item.name for item in shelf.list(drawer)]


def test_what_is_put_is_read_by_all(shelf: Shelf, other: PostgresStores) -> None:
    is_kept = shelf.put("d", "é b@1.flow", LARGE)
    shelf.put("e", "é b@1.flow", b"")

    (item,) = other.shelf.list("d")
    assert is_kept
    assert (item.name, item.sha256) == ("é b@1.flow", hashlib.sha256(LARGE).hexdigest())
    assert other.shelf.read("d", ["é b@1.flow", "none"]) == {"é b@1.flow": LARGE}
    assert other.shelf.read("e", ["é b@1.flow"]) == {"é b@1.flow": b""}
    assert other.shelf.read("d", []) == {}


def test_files_are_listed_by_name(shelf: Shelf) -> None:
    for name in ("b", "B", "a-1", "a"):
        shelf.put("d", name, b"x")

    assert names(shelf) == ["B", "a", "a-1", "b"]


def test_a_file_is_put_only_in_place_of_what_is_expected(shelf: Shelf) -> None:
    first = hashlib.sha256(b"1").hexdigest()
    done = [
        shelf.put("d", "a", b"0", instead_of=first),
        shelf.put("d", "a", b"1", instead_of=NOTHING),
        shelf.put("d", "a", b"2", instead_of=NOTHING),
        shelf.put("d", "a", b"3", instead_of=first),
        shelf.put("d", "a", b"4", instead_of=first),
        shelf.put("d", "a", b"5"),
    ]

    assert done == [False, True, False, True, False, True]
    assert shelf.read("d", ["a"]) == {"a": b"5"}


def test_what_was_taken_away_is_gone_and_may_be_put_again_but_does_not_come_back_by_itself(shelf: Shelf) -> None:
    assert [shelf.put("d", name, b"1", instead_of=NEVER_ANYTHING) for name in ("a", "b", "c")] == [True] * 3

    removed = shelf.remove("d", ["a", "b", "unknown"])

    assert (removed, shelf.remove("d", ["a", "b"])) == (2, 0)
    assert names(shelf) == ["c"]
    assert shelf.read("d", ["a"]) == {}
    assert not shelf.put("d", "a", b"2", instead_of=NEVER_ANYTHING)
    assert shelf.put("d", "b", b"2", instead_of=NOTHING)
    assert names(shelf) == ["b", "c"]


def test_every_change_has_a_higher_revision_and_a_refused_one_has_none(shelf: Shelf, other: PostgresStores) -> None:
    before = shelf.newest()
    shelf.put("d", "a", b"1")
    put = shelf.newest()
    shelf.put("d", "a", b"2", instead_of=NOTHING)
    refused = shelf.newest()
    shelf.remove("d", ["a"])

    assert before < put == refused < shelf.told
    assert other.shelf.newest() == shelf.told


def test_of_several_that_put_the_same_name_at_once_one_succeeds(shelf: Shelf, other: PostgresStores) -> None:
    both = (shelf, other.shelf)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: both[n % 2].put("d", "a", str(n).encode(), instead_of=NOTHING), range(8)))

    assert sorted(done) == [False] * 7 + [True]
    assert shelf.read("d", ["a"]) == {"a": str(done.index(True)).encode()}


def test_others_are_told_of_a_change_without_asking(shelf: Shelf, other: PostgresStores) -> None:
    heard = threading.Event()
    newest = other.shelf.newest

    def listen() -> None:
        newest()
        if other.shelf.told >= shelf.told > 0:
            heard.set()

    other._news.on_shelf = listen
    shelf.put("d", "a", b"1")

    assert heard.wait(PATIENCE_S)


def test_what_was_taken_away_is_known(shelf: Shelf, other: PostgresStores) -> None:
    for name in ("a", "b", "c"):
        shelf.put("d", name, b"1")
    shelf.remove("d", ["a", "b", "unknown"])
    shelf.put("d", "b", b"2")

    assert (other.shelf.removed("d"), other.shelf.removed("e")) == ({"a"}, set())


def test_a_listener_that_fails_is_told_again(shelf: Shelf, other: PostgresStores) -> None:
    told_again = threading.Event()
    calls: list[str] = []

    def listen() -> None:
        calls.append("called")
        if len(calls) == 1:
            raise Unavailable("not now", code="store_busy")
        told_again.set()

    other.shelf.subscribe(listen)
    shelf.put("d", "a", b"1")

    assert told_again.wait(PATIENCE_S)


def test_a_damaged_file_is_left_out(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("d", "a", b"1")
    shelf.put("d", "b", b"1")
    database = url_of(tmp_path).rpartition("/")[2]
    shared().execute("UPDATE abstractgateway.shelf SET content = 'x' WHERE name = 'a'", database)

    assert shelf.read("d", ["a", "b"]) == {"b": b"1"}


def test_a_name_that_the_database_cannot_hold_is_refused(shelf: Shelf) -> None:
    with pytest.raises(Invalid, match="NUL"):
        shelf.put("d", "a\0", b"1")


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    opened = Proxy(shared().port)
    yield opened
    opened.close()


@pytest.fixture
def cut(proxy: Proxy, tmp_path: Path) -> Iterator[PostgresStores]:
    """Stores whose connections go through the proxy."""
    url = url_of(tmp_path).replace(f":{shared().port}/", f":{proxy.port}/")
    opened = open_postgres_stores(url, patience_s=PATIENCE_S)
    opened._news.close()  # its messages would be counted
    opened.shelf.newest()
    yield opened
    opened.close()


@pytest.mark.parametrize("how", ["before", "after", "silent"])
def test_a_change_whose_connection_is_cut_anywhere_is_made_once(
    proxy: Proxy, cut: PostgresStores, shelf: Shelf, how: Cut
) -> None:
    for message in range(1, MOST_MESSAGES):
        revision = shelf.newest()
        proxy.cut_at(message, how)
        is_kept = cut.shelf.put("d", "a", LARGE + bytes([message]), instead_of=NOTHING)
        has_cut = proxy.has_cut
        proxy.heal()
        assert (is_kept, shelf.newest()) == (True, revision + 1)
        assert shelf.read("d", ["a"]) == {"a": LARGE + bytes([message])}

        proxy.cut_at(message, how)
        removed = cut.shelf.remove("d", ["a"])
        proxy.heal()
        assert (removed, shelf.newest()) == (1, revision + 2)
        assert cut.shelf.told == revision + 2
        if not has_cut:
            break
    assert 5 < message < MOST_MESSAGES - 1


def test_a_change_that_cannot_be_finished_is_whole_or_not_there(
    proxy: Proxy, cut: PostgresStores, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut.database, "patience_s", 0.02)
    outcomes: dict[str, set[bool]] = {}
    for message in range(1, MOST_MESSAGES):
        proxy.cut_at(message, "after", stays_away=True)
        code = _code_of(lambda: cut.shelf.put("d", "a", LARGE, instead_of=NOTHING))
        proxy.heal()
        if code is None:
            break

        there = shelf.read("d", ["a"])
        assert there in ({}, {"a": LARGE})
        outcomes.setdefault(code, set()).add(bool(there))
        shelf.remove("d", ["a"])
        cut.shelf.newest()

    assert outcomes == {"database_unreachable": {False}, "outcome_unknown": {True}}


def _code_of(action: Callable[[], object]) -> str | None:
    try:
        action()
    except Unavailable as error:
        return error.code
    return None
