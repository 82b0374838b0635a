"""Commits that are one statement: what they lock and check in it, and that they leave no half of themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from abstractgateway.errors import GatewayError, LeaseLost, StaleWrite
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.commit import Commit, Premises, StoredRun
from abstractgateway.stores.group import Submission
from abstractgateway_postgres import PostgresStores, open_postgres_stores
from abstractgateway_postgres.batch import Batch
from tests.postgres.proxy import Proxy
from tests.postgres.server import shared, url_of
from tests.stores.shapes import a_run, save, waiting, write

PATIENCE_S = 20.0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[PostgresStores, PostgresStores]]:
    """The stores of two processes."""
    url = url_of(tmp_path)
    with closing(open_postgres_stores(url)) as one, closing(open_postgres_stores(url)) as two:
        yield one, two


class Deed:
    """A commit in a thread of its own; `error` is what became of it."""

    def __init__(self, stores: PostgresStores, commit: Commit) -> None:
        self.error: GatewayError | None = None
        self._thread = threading.Thread(target=self._do, args=(stores, commit))
        self._thread.start()

    def _do(self, stores: PostgresStores, commit: Commit) -> None:
        try:
            stores.commit(commit)
        except GatewayError as error:
            self.error = error

    def ended(self) -> Deed:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self


@contextmanager
def holding(url: str, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold what a statement locks, until the block is left."""
    with psycopg.connect(url, options="-c search_path=abstractgateway") as connection:
        connection.execute(statement.encode())
        yield connection


def wait_for_waiting(url: str, count: int) -> None:
    """Return when that many sessions wait for a lock."""
    question = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = "
    until = time.monotonic() + PATIENCE_S
    while shared().execute(question + f"'{url.rpartition('/')[2]}'") != [(count,)]:
        assert time.monotonic() < until


LOCK_R1 = "SELECT 1 FROM runs WHERE run_id = 'r1' FOR UPDATE"


def test_of_two_that_change_a_run_at_once_one_is_stale(
    tmp_path: Path, pair: tuple[PostgresStores, PostgresStores]
) -> None:
    url, (one, two) = url_of(tmp_path), pair
    stored = save(one, a_run("r1"), count=1)
    with holding(url, LOCK_R1):
        deeds = [
            Deed(stores, Commit(runs=(write(a_run("r1", vars={"by": name}), stored, count=1), write(a_run(name)))))
            for name, stores in (("one", one), ("two", two))
        ]
        wait_for_waiting(url, 2)
    errors = [deed.ended().error for deed in deeds]

    loser = 0 if errors[0] else 1
    assert isinstance(errors[loser], StaleWrite) and errors[1 - loser] is None
    winner, other = ("two", "one") if loser == 0 else ("one", "two")
    assert one.runs.open("r1").state.vars == {"by": winner}
    assert one.runs.open("r1").revision == 2
    assert one.runs.open(winner) is not None and one.runs.open(other) is None


def test_what_others_changed_while_a_commit_waited_is_seen(
    tmp_path: Path, pair: tuple[PostgresStores, PostgresStores]
) -> None:
    url, (one, _) = url_of(tmp_path), pair
    stored = save(one, a_run("r1"), count=1)
    with holding(url, "UPDATE runs SET ledger_len = ledger_len + 1 WHERE run_id = 'r1'"):
        deed = Deed(one, Commit(runs=(write(a_run("r1"), stored, count=1),)))
        wait_for_waiting(url, 1)

    assert isinstance(deed.ended().error, StaleWrite)
    assert one.runs.row("r1").revision == 1


def test_a_lease_that_ends_while_a_commit_waits_for_it_refuses_the_commit(
    tmp_path: Path, pair: tuple[PostgresStores, PostgresStores]
) -> None:
    url, (one, _) = url_of(tmp_path), pair
    stored = save(one, a_run("r1"), count=1)
    epoch = one.claim("me")
    with holding(url, "DELETE FROM runners"):
        deed = Deed(one, Commit(runs=(write(a_run("r1"), stored, count=1),), epoch=epoch))
        wait_for_waiting(url, 1)

    assert isinstance(deed.ended().error, LeaseLost)
    assert one.runs.open("r1") == stored


def test_a_lease_cannot_end_while_a_commit_is_made_under_it(
    tmp_path: Path, pair: tuple[PostgresStores, PostgresStores]
) -> None:
    url, (one, two) = url_of(tmp_path), pair
    stored = save(one, a_run("r1"), count=1)
    save(one, a_run("r2"))
    epoch = one.claim("me")
    with holding(url, "INSERT INTO ledger VALUES ('r1', 2, '')") as in_the_way:  # the commit has its locks then
        deed = Deed(one, Commit(runs=(write(a_run("r1"), stored, count=1),), epoch=epoch))
        wait_for_waiting(url, 1)
        claims: list[int] = []
        claiming = threading.Thread(target=lambda: claims.append(two.claim("other")))
        claiming.start()
        wait_for_waiting(url, 2)
        assert claims == []
        in_the_way.rollback()
    claiming.join(PATIENCE_S)

    assert deed.ended().error is None
    assert claims == [epoch + 1]
    assert one.runs.row("r1").revision == 2


def test_an_event_does_not_miss_a_listener_that_is_being_written(
    tmp_path: Path, pair: tuple[PostgresStores, PostgresStores]
) -> None:
    url, (one, two) = url_of(tmp_path), pair
    stored = save(one, a_run("r1"))
    event = Commit(runs=(write(a_run("event")),), premises=Premises(waiters=((("k",), frozenset()),)))
    with holding(url, LOCK_R1):
        listening = Deed(one, Commit(runs=(write(waiting("r1", key="k"), stored),)))
        wait_for_waiting(url, 1)
        emitting = Deed(two, event)
        wait_for_waiting(url, 2)

    assert listening.ended().error is None
    assert isinstance(emitting.ended().error, StaleWrite)
    assert one.runs.open("event") is None


def test_of_two_that_add_the_same_run_one_is_stale(tmp_path: Path, pair: tuple[PostgresStores, PostgresStores]) -> None:
    url, (one, two) = url_of(tmp_path), pair
    save(one, a_run("r1"))
    with holding(url, "LOCK TABLE writers"):
        deeds = [
            Deed(stores, Commit(runs=(write(a_run("new", vars={"by": name}), count=1),)))
            for name, stores in (("one", one), ("two", two))
        ]
        wait_for_waiting(url, 2)
    errors = [deed.ended().error for deed in deeds]

    assert sorted(type(error).__name__ for error in errors) == ["NoneType", "StaleWrite"]
    assert one.ledger.head("new").ledger_len == 1


def test_the_others_of_a_batch_are_written_although_one_is_stale(pair: tuple[PostgresStores, PostgresStores]) -> None:
    one, two = pair
    first, second = save(one, a_run("r1")), save(one, a_run("r2"))
    save(two, a_run("r1", current_node="theirs"))
    decided: dict[str, Exception | None] = {}
    done = threading.Semaphore(0)
    for name, stored in (("r1", first), ("r2", second)):

        def decide(receipt: object, error: Exception | None, name: str = name) -> None:
            decided[name] = error
            done.release()

        one.submit(Commit(runs=(write(a_run(name, current_node="mine"), stored),)), decide)
    for _ in range(2):
        assert done.acquire(timeout=PATIENCE_S)

    assert isinstance(decided["r1"], StaleWrite) and decided["r2"] is None
    assert one.runs.open("r1").state.current_node == "theirs"
    assert one.runs.open("r2").state.current_node == "mine"


def test_the_server_is_asked_once_per_batch(tmp_path: Path) -> None:
    proxy = Proxy(shared().port)
    url = url_of(tmp_path).replace(f":{shared().port}/", f":{proxy.port}/")
    with closing(open_postgres_stores(url)) as stores:
        stores._news.close()  # its messages would be counted
        stored = save(stores, a_run("r1"), count=1)
        for _ in range(5):
            stored = save(stores, a_run("r1"), count=1)
        before = proxy.messages
        stores.commit(Commit(runs=(write(a_run("r1"), stored, count=1),)))
        asked = proxy.messages - before
    proxy.close()

    assert asked <= 4, "bind, describe, execute and sync"


def test_a_run_may_be_added_and_changed_by_one_batch(pair: tuple[PostgresStores, PostgresStores]) -> None:
    one, _ = pair
    first = write(a_run("new"), count=1)
    stored = StoredRun(a_run("new"), 1, 1, first.ledger_hash)
    second = write(a_run("new", current_node="second"), stored, count=2)
    batch = Batch(
        one._batches._connected(), [Submission(Commit(runs=(item,)), lambda *_: None) for item in (first, second)]
    )

    assert batch.presume() and batch.write_at_once("somebody", 1)

    found = one.runs.open("new")
    assert (found.state.current_node, found.revision, found.ledger_len) == ("second", 2, 3)
    assert verify_chain(one.ledger.list("new")).ok
