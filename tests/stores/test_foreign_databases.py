"""A database that AbstractRuntime made, or writes to while nobody else has it open.

`test_original_data.py` has the same with AbstractRuntime itself, where there is an interpreter that has it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.commit import Commit
from abstractgateway.runtime.delta import encode_state
from abstractgateway.runtime.models import RunState, RunStatus
from abstractgateway.stores import open_sqlite_stores
from abstractgateway.stores.base import RunQuery
from tests.stores.shapes import a_command, a_run, applied, at, records, save, waiting, write

TABLES = """
CREATE TABLE runs (run_id TEXT PRIMARY KEY, workflow_id TEXT NOT NULL, status TEXT NOT NULL, wait_reason TEXT,
    wait_until TEXT, parent_run_id TEXT, actor_id TEXT, session_id TEXT, created_at TEXT, updated_at TEXT,
    run_json TEXT NOT NULL);
CREATE TABLE wait_index (run_id TEXT PRIMARY KEY, next_due_iso TEXT NOT NULL, updated_at_iso TEXT NOT NULL,
    status TEXT);
CREATE TABLE ledger (run_id TEXT NOT NULL, seq INTEGER NOT NULL, record_json TEXT NOT NULL,
    PRIMARY KEY (run_id, seq));
CREATE TABLE ledger_heads (run_id TEXT PRIMARY KEY, last_seq INTEGER NOT NULL);
CREATE TABLE commands (seq INTEGER PRIMARY KEY AUTOINCREMENT, command_id TEXT NOT NULL UNIQUE, run_id TEXT NOT NULL,
    type TEXT NOT NULL, payload_json TEXT NOT NULL, ts TEXT NOT NULL, client_id TEXT);
CREATE TABLE command_cursors (consumer_id TEXT PRIMARY KEY, cursor INTEGER NOT NULL, updated_at TEXT NOT NULL);
"""
COLUMNS = "run_id, workflow_id, status, wait_reason, wait_until, parent_run_id, created_at, updated_at, run_json"


def put_run(connection: sqlite3.Connection, state: RunState) -> None:
    wait = state.waiting
    values = (
        state.run_id,
        state.workflow_id,
        state.status.value,
        wait.reason.value if wait is not None else None,
        wait.until if wait is not None else None,
        state.parent_run_id,
        state.created_at,
        state.updated_at,
        encode_state(state).decode(),
    )
    updates = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS.split(", "))
    marks = ", ".join("?" * len(values))
    connection.execute(
        f"INSERT INTO runs ({COLUMNS}) VALUES ({marks}) ON CONFLICT (run_id) DO UPDATE SET {updates}", values
    )


def put_records(connection: sqlite3.Connection, run_id: str, bodies: list[str], first: int = 1) -> None:
    for number, body in enumerate(bodies, first):
        connection.execute("INSERT INTO ledger VALUES (?, ?, ?)", (run_id, number, body))
    connection.execute(
        "INSERT INTO ledger_heads (run_id, last_seq) VALUES (?, ?) "
        "ON CONFLICT (run_id) DO UPDATE SET last_seq = excluded.last_seq",
        (run_id, first + len(bodies) - 1),
    )


def chained(run_id: str, count: int) -> list[str]:
    bodies, _ = records(run_id, count)
    return [body.decode() for body in bodies]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A waiting run with three chained records, another with one that has no hash, and a command."""
    with closing(sqlite3.connect(tmp_path / "gateway.sqlite3")) as connection, connection:
        connection.executescript(TABLES)
        put_run(connection, waiting("asks", key="k", parent_run_id="p"))
        put_run(connection, waiting("sleeps", until=at(60)))
        put_records(connection, "asks", chained("asks", 3))
        put_records(
            connection, "sleeps", ['{"run_id": "sleeps", "step_id": "s1", "node_id": "n", "status": "started"}']
        )
        connection.execute("INSERT INTO commands VALUES (1, 'c1', 'asks', 'pause', '{\"x\": 1}', ?, NULL)", (at(0),))
    return tmp_path


def test_its_runs_records_and_commands_are_found(directory: Path) -> None:
    with closing(open_sqlite_stores(directory)) as stores:
        assert stores.runs.waiting_on(["k"]) == ["asks"]
        assert stores.runs.children_of("p") == ["asks"]
        assert [row.run_id for row in stores.runs.find(RunQuery(workflow_id="wf", statuses=(RunStatus.WAITING,)))]
        assert [state.run_id for state in stores.runs.list_due_wait_until(now_iso=at(61))] == ["sleeps"]
        assert stores.ledger.count("asks") == 3
        assert stores.commands.get("c1").payload == {"x": 1}
        assert stores.commands.outcome("c1") is None
        stores.commit(Commit(outcome=applied(a_command("c1"), 1)))
        assert stores.commands.outcome("c1").status == "applied"


def test_its_ledgers_go_on_with_the_hash_of_their_last_record(directory: Path) -> None:
    with closing(open_sqlite_stores(directory)) as stores:
        stored = stores.runs.open("asks")
        assert stored.ledger_hash == stores.ledger.list("asks")[2]["record_hash"]
        assert stores.runs.open("sleeps").ledger_hash is None

        save(stores, a_run("asks"), count=2)

        report = verify_chain(stores.ledger.list("asks"))
        assert (report.ok, report.count, stores.runs.open("asks").revision) == (True, 5, 2)


def test_what_it_writes_between_two_uses_is_taken_in(directory: Path) -> None:
    with closing(open_sqlite_stores(directory)) as stores:
        save(stores, a_run("asks"), count=1)
    with closing(sqlite3.connect(directory / "gateway.sqlite3")) as connection, connection:
        put_run(connection, a_run("asks", current_node="theirs", updated_at=at(5)))
        put_records(connection, "asks", [chained("asks", 5)[4]], first=5)

    with closing(open_sqlite_stores(directory)) as stores:
        found = stores.runs.open("asks")
        assert (found.state.current_node, found.revision, found.ledger_len) == ("theirs", 3, 5)
        assert found.ledger_hash == stores.ledger.list("asks")[4]["record_hash"]
        stores.commit(Commit(runs=(write(replace(found.state, current_node="ours"), found, count=1),)))
        assert stores.ledger.count("asks") == 6
        assert stores.runs.open("asks").state.current_node == "ours"
