"""What is special about statements in a file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Conflict, Unavailable
from abstractgateway.knowledge import Pattern, SqliteTripleStore, sqlite_statements
from abstractgateway.stores.problems import Problems

from .conftest import a_triple

ROOT = Path(__file__).resolve().parents[2]
MINE = (("run", "r"),)
PATIENCE_S = 60.0
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "kg.sqlite3"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Start other processes on the file of the test."""
    started: list[subprocess.Popen[str]] = []

    def start_one(name: str, count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.knowledge.speaker", str(path), name, str(count)]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def said(store: SqliteTripleStore, **pattern: Any) -> list[str]:
    return [found.triple.object for found in store.query(Pattern(MINE, **pattern))]


def test_the_file_is_made_by_the_first_statement(path: Path) -> None:
    with closing(SqliteTripleStore(path)) as store:
        store.query(Pattern(MINE))
        assert not path.parent.exists()
        store.add([a_triple()], skip_known=True)

    assert path.exists()
    assert store.describe() == {"backend": "sqlite", "path": "kg.sqlite3"}


def test_statements_are_there_after_a_restart_and_seen_by_everybody_at_once(path: Path) -> None:
    with closing(SqliteTripleStore(path)) as mine, closing(SqliteTripleStore(path)) as theirs:
        mine.add([a_triple()], skip_known=True)
        theirs.add([a_triple(object="milk")], skip_known=True)

        assert said(mine) == said(theirs) == ["milk", "tea"]

    with closing(SqliteTripleStore(path)) as again:
        assert said(again, words=("milk",)) == ["milk"]


def test_processes_that_write_at_once_all_get_on_and_keep_nothing_twice(path: Path, start: Start) -> None:
    processes = [start(name, 40) for name in ("a", "b", "c")]

    for process in processes:
        process.communicate(timeout=PATIENCE_S)

    with closing(SqliteTripleStore(path)) as store:
        objects = said(store)
        assert len(said(store, words=("shared",))) == 40
    expected = [f"of {name} {number}" for name in "abc" for number in range(40)]
    assert sorted(objects) == sorted([*expected, *(f"shared {number}" for number in range(40))])


def test_what_a_process_had_kept_when_it_was_killed_is_there(path: Path, start: Start) -> None:
    process = start("a", 100_000)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 20:
            break
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate(timeout=PATIENCE_S)
    acknowledged = max([20, *(int(line) for line in rest.split("\n")[:-1])])

    with closing(SqliteTripleStore(path)) as store:
        objects = said(store, is_newest_first=False)

    pairs = [(f"of a {number}", f"shared {number}") for number in range(len(objects) // 2)]
    assert objects == [text for pair in pairs for text in pair]
    assert len(pairs) in (acknowledged, acknowledged + 1)


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_an_error_that_shows_no_directory(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    store = SqliteTripleStore(path)

    for use in (lambda: store.query(Pattern(MINE)), lambda: store.add([a_triple()], skip_known=True)):
        with pytest.raises(Unavailable, match=r"'kg\.sqlite3' cannot be opened: .+; move it away") as refused:
            use()
        assert (refused.value.code, str(path.parent) in str(refused.value)) == ("database_unusable", False)
    assert path.read_bytes() == content

    path.unlink()
    assert store.add([a_triple()], skip_known=True) == [True]
    store.close()


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(Unavailable, match="cannot be opened: File exists") as refused:
        SqliteTripleStore(tmp_path / "file" / "kg.sqlite3").add([a_triple()], skip_known=True)
    assert str(tmp_path) not in str(refused.value)


def test_a_file_that_may_not_be_written_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SqliteTripleStore(path)) as store:
        store.add([a_triple()], skip_known=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, who may run the tests, may write everywhere

    with pytest.raises(Unavailable, match="cannot be opened: it may not be written"):
        SqliteTripleStore(path).query(Pattern(MINE))


def test_a_damaged_page_is_an_error_and_not_a_wrong_answer(path: Path) -> None:
    with closing(SqliteTripleStore(path)) as store:
        store.add([a_triple(object="long " * 1000, id=str(number)) for number in range(200)], skip_known=False)
    content = bytearray(path.read_bytes())
    content[8192 * 12 :] = b"\xfe" * (len(content) - 8192 * 12)
    path.write_bytes(content)

    with closing(SqliteTripleStore(path)) as store, pytest.raises(Unavailable, match="malformed|cannot be"):
        store.query(Pattern(MINE))


def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    with closing(SqliteTripleStore(path)) as store:
        store.add([a_triple()], skip_known=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")

    with pytest.raises(Conflict, match="schema version 99, this library knows 1") as refused:
        SqliteTripleStore(path).query(Pattern(MINE))
    assert refused.value.code == "schema_too_new"


ABSTRACTMEMORY = """
CREATE TABLE triples (
    assertion_id TEXT PRIMARY KEY, subject TEXT NOT NULL, predicate TEXT NOT NULL, object TEXT NOT NULL,
    scope TEXT NOT NULL, owner_id TEXT, observed_at TEXT NOT NULL, valid_from TEXT, valid_until TEXT, confidence REAL,
    provenance_json TEXT, attributes_json TEXT, text TEXT, embedding TEXT
)
"""


def write_as_abstractmemory(path: Path, *objects: str, **given: Any) -> None:
    fields = {"observed_at": "2026-01-01T02:00:00+02:00", "provenance_json": "{}", "attributes_json": "{}", **given}
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(ABSTRACTMEMORY.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
        for text in objects:
            row = {"assertion_id": text, "subject": "alice", "predicate": "schema:about", "object": text, **fields}
            row |= {"scope": "run", "owner_id": "r"}
            marks = ", ".join(f":{name}" for name in row)
            database.execute(f"INSERT INTO triples ({', '.join(row)}) VALUES ({marks})", row)


def test_a_file_of_abstractmemory_opens_and_what_it_adds_later_is_taken_in(path: Path) -> None:
    path.parent.mkdir()
    write_as_abstractmemory(path, "tea", attributes_json='{"n": 1}')
    with closing(SqliteTripleStore(path)) as store:
        store.add([a_triple(predicate="schema:about", object="milk")], skip_known=True)
        assert store.add([a_triple(predicate="schema:about", id="again")], skip_known=True) == [False]
        assert said(store) == ["milk", "tea"]
    write_as_abstractmemory(path, "coffee", observed_at="no time at all")

    with closing(SqliteTripleStore(path)) as store:
        assert said(store) == ["milk", "tea", "coffee"]
        assert said(store, words=("coffee",)) == ["coffee"]
        assert store.query(Pattern(MINE, object="tea"))[0].triple.attributes == {"n": 1}
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT text FROM triples WHERE object = 'milk'").fetchone() == (
            "alice schema:about milk",
        )


@pytest.mark.parametrize("damage", ["{", "[]", "5", "", b"\xff\xfe"])
def test_attributes_that_are_damaged_count_as_none_and_hide_no_statement(path: Path, damage: Any) -> None:
    path.parent.mkdir()
    write_as_abstractmemory(path, "tea", attributes_json=damage)

    with closing(SqliteTripleStore(path)) as store:
        assert [found.triple.attributes for found in store.query(Pattern(MINE))] == [{}]


def test_words_that_were_kept_without_an_index_get_into_it_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_statements, "can_index_words", lambda connection: False)
        with closing(SqliteTripleStore(path)) as store:
            store.add([a_triple()], skip_known=True)
            assert said(store, words=("tea",)) == ["tea"]

    with closing(SqliteTripleStore(path)) as store:
        assert said(store, words=("tea",)) == ["tea"]
        store.add([a_triple(object="green tea")], skip_known=True)
        assert said(store, words=("tea",)) == ["green tea", "tea"]


def test_what_others_say_does_not_crowd_out_what_is_looked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_statements, "MOST_FOUND_BY_TEXT", 3)
    theirs = [a_triple(object="tea tea tea", id=str(number), owner_id="other") for number in range(10)]
    with closing(SqliteTripleStore(path)) as store:
        store.add([*theirs, a_triple(object="a very long story about tea")], skip_known=False)

        assert said(store, words=("tea",)) == ["a very long story about tea"]


def test_a_sqlite_without_fts5_is_recognised() -> None:
    class Bare:
        def execute(self, statement: str) -> None:
            raise sqlite3.OperationalError("no such module: fts5")

    assert sqlite_statements.can_index_words(Bare()) is False  # type: ignore[arg-type]


@pytest.mark.parametrize("owner", [("run", "r"), ("run", None)])
@pytest.mark.parametrize("wanted", [{}, {"subject": "x"}, {"object": "x"}, {"predicate": "x"}, {"words": ("x",)}])
def test_no_query_reads_the_whole_table(owner: tuple[str, str | None], wanted: dict[str, Any]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        sqlite_statements.migrate(database, Problems())
        query, values = sqlite_statements.select(Pattern((owner,), limit=5, **wanted), owner, has_index=True)
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {query}", values)]

    assert not [step for step in plan if step.startswith("SCAN triples") and "INDEX" not in step], plan
    if owner[1] is not None and "words" not in wanted:
        assert "(scope=? AND owner_id=?" in plan[0]


def test_everything_is_durable_before_it_is_acknowledged(path: Path) -> None:
    with closing(SqliteTripleStore(path)) as store:
        store.add([a_triple()], skip_known=True)
        assert store._database().writer.execute("PRAGMA synchronous").fetchone() == (2,)
    with closing(SqliteTripleStore(path, is_durable=False)) as store:
        store.add([a_triple()], skip_known=True)
        assert store._database().writer.execute("PRAGMA synchronous").fetchone() == (1,)


def test_statements_that_the_disk_refuses_are_an_error_and_none_of_them_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteTripleStore(path)) as store:
        store.add([a_triple()], skip_known=True)
        with monkeypatch.context() as patched:
            patched.setattr(sqlite_statements, "INDEX_NEW_WORDS", "INSERT INTO nothing VALUES (1)")
            with pytest.raises(Unavailable, match="cannot be stored") as refused:
                store.add([a_triple(object="milk")], skip_known=True)

        assert refused.value.code == "store_failed"
        assert said(store) == ["tea"]
