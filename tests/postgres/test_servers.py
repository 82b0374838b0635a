"""A server that restarts, crashes, is busy or misbehaves, and values that it cannot hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from abstractgateway.errors import Invalid, StaleWrite, Unavailable
from abstractgateway.runtime.commit import Commit, Premises
from abstractgateway_postgres import open_postgres_stores
from abstractgateway_postgres.batch import Batch
from tests.postgres.server import Server, shared, url_of
from tests.postgres.writers import writing
from tests.stores.shapes import a_run, save, waiting, write

ROUNDS = 3


@pytest.fixture
def own() -> Iterator[Server]:
    shared()  # skips where there is no server
    server = Server()
    yield server
    server.stop()


def test_what_was_acknowledged_outlives_a_server_that_ends_again_and_again(own: Server) -> None:
    with closing(open_postgres_stores(own.new_database(), patience_s=30.0)) as stores:
        with writing(stores) as writers:
            for number in range(ROUNDS):
                writers.wait_for(10)
                if number % 2:
                    own.restart()
                else:
                    own.kill()
                    own.start()

        places = writers.check()
        assert len(places) >= 10 * ROUNDS
        assert sorted(places) == list(range(1, len(places) + 1))


def test_a_server_that_stays_away_refuses_at_once_and_is_used_again_when_it_is_back(own: Server) -> None:
    with closing(open_postgres_stores(own.new_database(), patience_s=0.05)) as stores:
        save(stores, a_run())
        own.kill()
        with pytest.raises(Unavailable) as reading:
            stores.runs.open("r1")
        with pytest.raises(Unavailable):
            save(stores, a_run("r2"))
        own.start()

        assert reading.value.code == "database_unreachable"
        assert reading.value.retry_after > 0
        assert save(stores, a_run("r2")).revision == 1


def test_callers_beyond_the_connections_are_refused_with_a_time_to_try_again(tmp_path: Path) -> None:
    with closing(open_postgres_stores(url_of(tmp_path), connections=1, patience_s=0.05)) as stores:
        with stores.database.borrowed(), pytest.raises(Unavailable) as refused:
            stores.runs.row("r1")

        assert (refused.value.code, refused.value.retry_after) == ("store_busy", 1.0)
        assert stores.runs.row("r1") is None


def test_a_text_that_no_column_holds_refuses_its_own_commit_only(tmp_path: Path) -> None:
    with closing(open_postgres_stores(url_of(tmp_path))) as stores:
        decided: dict[str, Exception | None] = {}
        done = threading.Semaphore(0)

        def submit(name: str, commit: Commit) -> None:
            def decide(receipt: object, error: Exception | None) -> None:
                decided[name] = error
                done.release()

            stores.submit(commit, decide)

        submit("good", Commit(runs=(write(a_run("good"), count=1),)))
        submit("bad", Commit(runs=(write(waiting("bad", key="a\0b"), count=1),)))
        submit("late", Commit(runs=(write(a_run("late"), count=1),)))
        for _ in range(3):
            assert done.acquire(timeout=10)

        assert decided["good"] is None and decided["late"] is None
        assert isinstance(decided["bad"], Invalid)
        assert stores.runs.open("bad") is None
        assert stores.runs.waiting_on(["a\0b"]) == []


def test_a_commit_that_another_process_was_quicker_with_is_stale_not_overwritten(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    with closing(open_postgres_stores(url)) as one, closing(open_postgres_stores(url)) as two:
        outcomes: list[str] = []

        def fight(stores: object, name: str) -> None:
            for number in range(20):
                try:
                    stores.commit(Commit(runs=(write(a_run(f"r{number}", vars={"of": name}), count=1),)))  # type: ignore[attr-defined]
                    outcomes.append(f"r{number} {name}")
                except StaleWrite:
                    continue

        threads = [threading.Thread(target=fight, args=pair) for pair in ((one, "one"), (two, "two"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(outcomes) == 20
        for number in range(20):
            winner = one.runs.open(f"r{number}").state.vars["of"]
            assert f"r{number} {winner}" in outcomes


EVENT = Commit(runs=(write(a_run("event")),), premises=Premises(waiters=((("k",), frozenset()),)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(Commit(runs=(write(waiting("w", key="k")),)), EVENT, id="a listener that was not there"),
        pytest.param(
            Commit(runs=(write(a_run("w")),)),
            Commit(runs=(write(a_run("event")),), premises=Premises(revisions=(("w", 0),))),
            id="a run that was not there",
        ),
        pytest.param(
            Commit(runs=(replace(write(a_run("r1", current_node="first")), expected=1),)),
            Commit(runs=(replace(write(a_run("r1", current_node="second")), expected=1),)),
            id="the same revision",
        ),
    ],
)
def test_what_a_commit_relied_on_does_not_change_behind_its_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Commit, second: Commit
) -> None:
    """The second commit looks while the first is about to be written: it waits, and is refused."""
    url = url_of(tmp_path)
    has_looked, is_decided = threading.Event(), threading.Event()
    admit = Batch.admit

    def admit_slowly(batch: Batch) -> None:
        admit(batch)
        if batch.rows.keys() == {write.run_id for write in first.runs} and not has_looked.is_set():
            has_looked.set()
            is_decided.wait(0.3)

    with closing(open_postgres_stores(url)) as one, closing(open_postgres_stores(url)) as two:
        save(one, a_run("r1"))
        monkeypatch.setattr(Batch, "presume", lambda batch: False)
        monkeypatch.setattr(Batch, "admit", admit_slowly)
        thread = threading.Thread(target=one.commit, args=(first,))
        thread.start()
        assert has_looked.wait(10)
        with pytest.raises(StaleWrite):
            two.commit(second)
        is_decided.set()
        thread.join()

        assert one.runs.row(first.runs[0].run_id).revision == first.runs[0].expected + 1


def test_large_checkpoints_are_compressed_the_quick_way_where_the_server_can(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    with closing(open_postgres_stores(url)) as stores:
        save(stores, a_run("r1", vars={"text": "words " * 1000}))
    can = shared().execute("SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'")
    if can != [(True,)]:
        pytest.skip("this PostgreSQL is without LZ4")

    found = shared().execute("SELECT pg_column_compression(body) FROM abstractgateway.runs", url.rpartition("/")[2])

    assert found == [("lz4",)]
