from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Conflict, Unavailable
from abstractgateway.runtime.models import RunStatus, WaitReason
from abstractgateway.stores import open_file_stores, open_sqlite_stores, sqlite_database
from abstractgateway.stores.base import Commit, PageKey, RunQuery
from abstractgateway.stores.group import Submission
from abstractgateway.stores.sqlite_ports import statement_of
from tests.stores import script
from tests.stores.other import ROOT
from tests.stores.script import PICTURES, STEPS
from tests.stores.shapes import PATIENCE_S, Told, a_command, a_run, appending, save, waiting, write

R, W = RunStatus.RUNNING, RunStatus.WAITING
KEY = PageKey(1.0, "r1")


def test_the_database_may_lie_elsewhere(tmp_path: Path) -> None:
    stores = open_sqlite_stores(tmp_path / "data", database=tmp_path / "db" / "runs.db")

    save(stores, a_run())
    stores.close()

    assert (tmp_path / "db" / "runs.db").exists()
    assert not (tmp_path / "data" / "gateway.sqlite3").exists()


def test_a_timer_that_begins_and_ends_in_one_batch_leaves_no_trace_for_abstractruntime(tmp_path: Path) -> None:
    with closing(open_sqlite_stores(tmp_path)) as stores:
        stored = save(stores, a_run())
        waits = write(waiting(until="2026-11-21T08:00:00+00:00"), stored)
        noted = replace(stored, revision=2)
        batch = [waits, appending(noted, 1), replace(write(a_run(), noted), ledger_len=1)]
        submitted = [Submission(Commit(runs=(each,)), lambda receipt, error: None) for each in batch]

        stores._write_batch(submitted)

        assert [item.error for item in submitted] == [None] * 3
        assert stores.database.rows("SELECT * FROM wait_index") == []


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"\1" * 200, b"\0" * 5000])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "gateway.sqlite3"
    path.write_bytes(content)

    with pytest.raises(Unavailable, match="cannot be used as a database") as refused:
        open_sqlite_stores(tmp_path)

    assert refused.value.code == "database_unusable"
    assert path.read_bytes() == content


def test_a_database_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_sqlite_stores(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "gateway.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(Conflict, match="version 99"):
        open_sqlite_stores(tmp_path)


def test_a_row_that_is_nonsense_hides_no_other(tmp_path: Path) -> None:
    stores = open_sqlite_stores(tmp_path)
    for name in ("good", "odd", "broken"):
        save(stores, a_run(name))
    stores.close()
    connection = sqlite3.connect(tmp_path / "gateway.sqlite3")
    connection.execute("UPDATE runs SET status = 'dreaming' WHERE run_id = 'odd'")
    connection.execute("UPDATE runs SET run_json = '{' WHERE run_id = 'broken'")
    connection.execute(
        "INSERT INTO runs (run_id, workflow_id, status, updated_at, run_json) VALUES ('x', 'w', 'running', 't', '')"
    )
    connection.commit()
    connection.close()

    stores = open_sqlite_stores(tmp_path)

    assert {row.run_id for row in stores.runs.find(RunQuery())} == {"good", "broken", "x"}
    with pytest.raises(Unavailable, match="damaged"):
        stores.runs.open("broken")
    assert {problem.where for problem in stores.problems} == {"run odd", "run x"}
    assert save(stores, a_run("good")).revision == 2
    stores.close()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RunQuery(), "idx_own_updated"),
        (RunQuery(statuses=(R,)), "idx_own_status"),
        (RunQuery(statuses=(R, W)), "idx_own_status"),
        (RunQuery(statuses=(W,), wait_reason=WaitReason.UNTIL, limit=None), "idx_own_timers"),
        (RunQuery(workflow_id="wf"), "idx_own_workflow_status"),
        (RunQuery(session_id="s"), "idx_own_session"),
        (RunQuery(parent_run_id="p"), "idx_own_parent"),
        (RunQuery(root_only=True, hide_internal=True), "idx_own_updated"),
        (RunQuery(statuses=(R,), wait_reason=WaitReason.USER), "idx_own_status"),
        (RunQuery(statuses=(R, W), workflow_id="wf"), "idx_own_workflow_status"),
        (RunQuery(statuses=(R, W), session_id="s", workflow_id="wf"), "idx_own_session"),
        (RunQuery(statuses=(R,), parent_run_id="p", session_id="s"), "idx_own_parent"),
        (RunQuery(updated_from=1.0, updated_to=2.0), "idx_own_updated"),
        (RunQuery(updated_from=1.0, statuses=(R,)), "idx_own_status"),
        (RunQuery(before=KEY), "idx_own_updated"),
        (RunQuery(before=KEY, updated_from=1.0, workflow_id="wf"), "idx_own_workflow_status"),
        (RunQuery(before=KEY, session_id="s"), "idx_own_session"),
        (RunQuery(before=KEY, parent_run_id="p"), "idx_own_parent"),
        (RunQuery(before=KEY, statuses=(W,)), "idx_own_status"),
    ],
    ids=repr,
)
def test_every_listing_uses_an_index(tmp_path: Path, query: RunQuery, index: str) -> None:
    stores = open_sqlite_stores(tmp_path)
    statement, values = statement_of(query)

    plan = [row[3] for row in stores.database.rows(f"EXPLAIN QUERY PLAN {statement}", values)]

    stores.close()
    looked_through = [line for line in plan if line.startswith(("SCAN", "SEARCH")) and "runs" in line.split()]
    listed = [line for line in looked_through if "(run_id=?)" not in line]  # the run that a page ends with
    assert listed and all(index in line for line in listed), plan
    parts = statement.count("UNION ALL") + 1
    sorts = [line for line in plan if "TEMP B-TREE" in line]
    assert len(sorts) == (parts if parts > 1 else 0), plan  # what each part found within its limit is merged, no more


def test_a_few_running_runs_are_found_quickly_among_many(tmp_path: Path) -> None:
    stores = open_sqlite_stores(tmp_path, is_durable=False)
    for number in range(40):
        for part in range(10):
            stores.submit(
                script.Commit(runs=(write(waiting(f"w{number}-{part}", key="k")),)), lambda receipt, error: None
            )
    save(stores, a_run("running"))

    found = stores.runs.find(RunQuery(statuses=(R, RunStatus.FAILED)))

    assert [row.run_id for row in found] == ["running"]
    stores.close()


def test_the_log_is_checkpointed_where_nobody_owns_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abstractgateway.stores.sqlite_database.CHECKPOINT_PAGES", 50)
    stores = open_sqlite_stores(tmp_path, is_durable=False)

    for number in range(300):
        save(stores, a_run(vars={"n": number, "text": "x" * 5000}))

    assert (tmp_path / "gateway.sqlite3-wal").stat().st_size < 2_000_000
    stores.close()


@pytest.mark.parametrize("backend", ["sqlite", "file"])
def test_a_directory_that_cannot_be_written_is_an_error_that_says_what_to_do(backend: str) -> None:
    code = (
        "import os, sys\n"
        "import abstractgateway.stores.sqlite\n"
        "from abstractgateway.errors import Unavailable\n"
        f"from abstractgateway.stores import open_{backend}_stores as open_stores\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: open_stores(sys.argv[1])\n"
        "except Unavailable as error: print(error.code)\n"
    )

    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o555)
        finished = subprocess.run(
            [sys.executable, "-c", code, directory], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        Path(directory).chmod(0o755)

    assert finished.stdout.strip() == "data_dir_unusable", finished.stderr


@pytest.mark.parametrize("open_stores", [open_sqlite_stores, open_file_stores])
def test_copying_the_closed_directory_copies_everything(tmp_path: Path, open_stores: object) -> None:
    stores = open_stores(tmp_path / "one")
    for step in STEPS:
        step(stores)
    stores.close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")

    again = open_stores(tmp_path / "two")

    assert script.picture(again) == PICTURES[-1]
    assert again.commands.append(a_command("c2")).duplicate
    again.close()


def test_a_database_of_an_earlier_version_gets_the_indices_of_this_one(tmp_path: Path) -> None:
    stores = open_sqlite_stores(tmp_path)
    save(stores, a_run("r1", parent_run_id="p"))
    stores.close()
    connection = sqlite3.connect(tmp_path / "gateway.sqlite3")
    for name in ("idx_own_parent", "idx_own_workflow_status"):
        connection.execute(f"DROP INDEX {name}")
    connection.execute("CREATE INDEX idx_runs_parent ON runs (parent_run_id)")
    connection.execute("CREATE INDEX idx_own_workflow ON runs (workflow_id, updated_s)")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()

    stores = open_sqlite_stores(tmp_path)

    names = {row[0] for row in stores.database.rows("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert names >= {"idx_own_parent", "idx_own_workflow_status"}
    assert not names & {"idx_runs_parent", "idx_own_workflow"}
    assert [row.run_id for row in stores.runs.find(RunQuery(parent_run_id="p", workflow_id="wf"))] == ["r1"]
    stores.close()


def test_a_closed_database_is_not_read(tmp_path: Path) -> None:
    stores = open_sqlite_stores(tmp_path)
    stores.close()

    with pytest.raises(Unavailable, match="closed") as refused:
        stores.runs.open("r1")
    assert refused.value.code == "store_closed"


def test_many_readers_at_once_leave_few_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = sqlite_database.SPARE_READERS + 4
    stores = open_sqlite_stores(tmp_path)
    save(stores, a_run())
    together = threading.Barrier(many)
    fetch = sqlite_database._fetch

    def fetch_together(*arguments: Any) -> list[Any]:
        found = fetch(*arguments)
        together.wait(PATIENCE_S)
        return found

    with monkeypatch.context() as patched, ThreadPoolExecutor(many) as pool:
        patched.setattr(sqlite_database, "_fetch", fetch_together)
        found = list(pool.map(stores.database.row, ["SELECT run_id FROM runs"] * many))

    assert found == [("r1",)] * many
    assert len(stores.database._spare) == sqlite_database.SPARE_READERS
    assert stores.runs.open("r1").revision == 1
    stores.close()


def test_a_commit_whose_news_cannot_be_read_is_durable_and_told_of_by_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable(*arguments: object) -> list[Any]:
        raise Unavailable("the database cannot be read: disk I/O error", code="store_failed")

    with closing(open_sqlite_stores(tmp_path)) as mine, closing(open_sqlite_stores(tmp_path)) as theirs:
        mine._wake.close()  # it hears of the others when it looks
        told = Told(mine)
        save(theirs, a_run("theirs"))
        with monkeypatch.context() as patched:
            patched.setattr(mine.database, "rows", unreadable)
            mine.commit(Commit(runs=(write(a_run("mine")),)))

        assert told.changes == []
        assert "could not be told yet" in caplog.text
        mine.look()
        assert told.revisions == [("theirs", 1), ("mine", 1)]
