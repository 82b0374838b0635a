from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from abstractgateway.cli import main
from abstractgateway.errors import GatewayError, Unavailable
from abstractgateway.stores import open_sqlite_stores
from abstractgateway.stores.base import RunQuery
from tests.cli.processes import environment
from tests.stores import script
from tests.stores.other import ROOT
from tests.stores.script import PICTURES, STEPS
from tests.stores.shapes import a_command, a_run, save

DATABASE, LOG, INDEX = "gateway.sqlite3", "gateway.sqlite3-wal", "gateway.sqlite3-shm"

RUNS = PICTURES[-1]["runs"]

Damage = Callable[[Path], object]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with everything in it, closed."""
    stores = open_sqlite_stores(tmp_path / "data")
    for step in STEPS:
        step(stores)
    stores.close()
    return tmp_path / "data"


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A directory as a killed process leaves it: everything is in the log, nothing in the database."""
    stores = open_sqlite_stores(tmp_path / "live")
    for step in STEPS:
        step(stores)
    (tmp_path / "data").mkdir()
    for name in (DATABASE, LOG, INDEX):
        shutil.copy(tmp_path / "live" / name, tmp_path / "data")
    stores.close()
    return tmp_path / "data"


def garbage(size: int) -> bytes:
    return random.Random(1).randbytes(size)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def in_its_place(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


UNUSABLE: dict[str, Damage] = {
    "cut in half": lambda directory: cut(directory / DATABASE, 0.5),
    "cut at the end": lambda directory: cut(directory / DATABASE, 0.95),
    "a text": lambda directory: (directory / DATABASE).write_text("this is a letter\n" * 500),
    "a directory": lambda directory: in_its_place(directory / DATABASE),
    "a directory as the log": lambda directory: in_its_place(directory / LOG),
    "a directory as the index of the log": lambda directory: in_its_place(directory / INDEX),
    "without its tables": lambda directory: change(directory, "DROP TABLE commands"),
    "with a cursor that is no number": lambda directory: change(directory, "UPDATE command_cursors SET cursor = 'x'"),
}


@pytest.mark.parametrize("damage", UNUSABLE.values(), ids=list(UNUSABLE))
def test_a_database_that_cannot_be_used_ends_the_start_with_one_line(
    directory: Path, damage: Damage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(directory, "sqlite").items():
        monkeypatch.setenv(name, value)
    damage(directory)

    code = main(["serve", "--port", "0"])
    said = capfd.readouterr().err

    assert code == 1
    assert said.startswith("abstractgateway: ")
    assert said.count("\n") == 1
    assert DATABASE in said and "cannot be used as a database" in said


def test_a_database_that_may_not_be_written_is_refused_at_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (directory / DATABASE).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("abstractgateway.stores.sqlite_database.os.access", lambda path, mode: mode != os.W_OK)
        with pytest.raises(Unavailable, match="may not be written"):
            open_sqlite_stores(directory)

    assert (directory / DATABASE).read_bytes() == before
    with closing(open_sqlite_stores(directory)) as stores:
        assert script.picture(stores) == PICTURES[-1]


@pytest.mark.parametrize("is_database", [True, False], ids=["the database", "what lies beside it"])
def test_a_directory_that_cannot_be_made_is_an_error_that_says_what_to_do(tmp_path: Path, is_database: bool) -> None:
    if is_database:
        (tmp_path / "data").write_text("a file")
    else:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "wake").write_text("a file")

    with pytest.raises(Unavailable, match="ABSTRACTGATEWAY_DATA_DIR") as refused:
        open_sqlite_stores(tmp_path / "data")

    assert refused.value.code == "data_dir_unusable"


def test_a_start_that_is_interrupted_leaves_the_database_to_others(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("abstractgateway.stores.sqlite.Wake", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_sqlite_stores(directory)

    with closing(open_sqlite_stores(directory)) as stores:
        assert script.picture(stores) == PICTURES[-1]
        assert stores.commands.append(a_command("after")).accepted


@pytest.mark.parametrize("mode", [0o444, 0o000], ids=["read-only", "not readable"])
def test_a_database_that_may_not_be_written_ends_the_start_with_one_line(mode: int) -> None:
    code = (
        "import os, sys\n"
        "import abstractgateway.stores.sqlite, abstractgateway_http.server, abstractgateway.cli.commands\n"
        "from abstractgateway.cli import main\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "sys.exit(main(['serve', '--port', '0']))\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        open_sqlite_stores(directory).close()
        Path(directory).chmod(0o777)
        for path in Path(directory).iterdir():
            path.chmod(0o777)
        (Path(directory) / DATABASE).chmod(mode)

        finished = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(Path(directory), "sqlite"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert finished.returncode == 1, finished.stderr
    assert finished.stderr.count("\n") == 1
    assert "cannot be used as a database" in finished.stderr


def test_no_page_of_garbage_ends_a_start_or_a_read_with_anything_but_a_clear_error(
    directory: Path, tmp_path: Path
) -> None:
    whole = (directory / DATABASE).read_bytes()
    with closing(sqlite3.connect(directory / DATABASE)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    unharmed = 0

    for start in range(0, len(whole), size):
        kept = 100 if start == 0 else 0  # the header, without which it is no database
        (directory / DATABASE).write_bytes(
            whole[: start + kept] + garbage(size - kept) + whole[start + size :],
        )
        unharmed += _is_readable(directory)
        (directory / LOG).unlink(missing_ok=True)

    (directory / DATABASE).write_bytes(whole)
    assert unharmed < len(whole) // size
    with closing(open_sqlite_stores(directory)) as stores:
        assert script.picture(stores) == PICTURES[-1]


def _is_readable(directory: Path) -> bool:
    """Say whether everything can be read; what cannot must say so."""
    try:
        stores = open_sqlite_stores(directory)
    except Unavailable as error:
        assert error.code == "database_unusable"
        return False
    with closing(stores):
        try:
            stores.runs.find(RunQuery())
            for run_id in RUNS:
                stores.runs.open(run_id)
                stores.ledger.read(run_id, 0, 100)
            stores.commands.list_after(after=0)
            stores.commands.append(a_command("new"))
            save(stores, a_run("new"), count=1)
        except Unavailable:
            return False
    return True


@pytest.mark.parametrize("lost", [1, 24, 2000, 4120])
def test_a_torn_end_of_the_log_costs_what_was_being_written_only(killed: Path, lost: int) -> None:
    content = (killed / LOG).read_bytes()
    (killed / LOG).write_bytes(content[:-lost])

    with closing(open_sqlite_stores(killed)) as stores:
        assert script.picture(stores) == PICTURES[-2]
        STEPS[-1](stores)
        assert script.picture(stores) == PICTURES[-1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda directory: (directory / INDEX).write_bytes(garbage(40_000)),
        lambda directory: (directory / INDEX).write_bytes(b""),
        lambda directory: (directory / INDEX).unlink(),
        lambda directory: (directory / LOG).write_bytes((directory / LOG).read_bytes() + garbage(9000)),
    ],
    ids=["index is garbage", "index is empty", "no index", "garbage behind the log"],
)
def test_garbage_beside_the_log_costs_nothing(killed: Path, damage: Damage) -> None:
    damage(killed)

    with closing(open_sqlite_stores(killed)) as stores:
        assert script.picture(stores) == PICTURES[-1]


def test_a_log_that_is_missing_costs_what_was_in_it_only(directory: Path, tmp_path: Path) -> None:
    stores = open_sqlite_stores(directory)
    save(stores, a_run("late"))
    shutil.copy(directory / DATABASE, tmp_path / DATABASE)
    stores.close()

    with closing(open_sqlite_stores(tmp_path)) as stores:
        assert script.picture(stores) == PICTURES[-1]


def test_a_database_without_a_byte_is_started_anew_and_reported(directory: Path) -> None:
    (directory / DATABASE).write_bytes(b"")

    with closing(open_sqlite_stores(directory)) as stores:
        assert [(problem.where, "no bytes" in problem.why) for problem in stores.problems] == [(DATABASE, True)]
        assert script.picture(stores) == PICTURES[0]
        save(stores, a_run())


def change(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / DATABASE)) as connection:
        connection.execute(statement)
        connection.commit()


NO_UTF8 = "CAST(X'7bff7d' AS TEXT)"


@pytest.mark.parametrize("value", ["'{'", "'[]'", "'12'", "''", "X'ff00ff'", NO_UTF8])
@pytest.mark.parametrize("seen", ["", ", seen_at = 'elsewhere'"], ids=["ours", "written by another"])
def test_a_checkpoint_that_is_damaged_hides_no_other(directory: Path, value: str, seen: str) -> None:
    change(directory, f"UPDATE runs SET run_json = {value}{seen} WHERE run_id = 'r1'")

    with closing(open_sqlite_stores(directory)) as stores:
        assert {row.run_id for row in stores.runs.find(RunQuery())} == set(RUNS)
        with pytest.raises(Unavailable) as damaged:
            stores.runs.open("r1")
        assert damaged.value.code == "run_damaged"
        assert stores.runs.open("r2") is not None
        assert len(stores.ledger.read("r1", 0, 100).records) == 12
        assert save(stores, a_run("r9"), count=1).revision == 1


@pytest.mark.parametrize("column", ["workflow_id", "updated_at", "status", "session_id"])
def test_a_row_with_a_text_that_is_no_utf8_hides_no_other(directory: Path, column: str) -> None:
    change(directory, f"UPDATE runs SET {column} = {NO_UTF8} WHERE run_id = 'r1'")

    with closing(open_sqlite_stores(directory)) as stores:
        assert {row.run_id for row in stores.runs.find(RunQuery())} == set(RUNS) - {"r1"}
        assert [problem.where for problem in stores.problems] == ["run r1"]
        assert stores.runs.row("r1") is None
        assert save(stores, a_run("r2"), count=1).revision == 3


@pytest.mark.parametrize("value", ["'not json'", "'{'", "X'ffee'", NO_UTF8])
@pytest.mark.parametrize("place", [3, 12])
def test_a_record_that_is_damaged_hides_no_other_and_the_run_goes_on(directory: Path, value: str, place: int) -> None:
    change(directory, f"UPDATE ledger SET record_json = {value} WHERE run_id = 'r1' AND seq = {place}")

    with closing(open_sqlite_stores(directory)) as stores:
        found = stores.ledger.read("r1", 0, 100).records
        assert len(found) == 12
        with pytest.raises(GatewayError, match="not valid JSON"):
            stores.ledger.list("r1")
        assert len(stores.ledger.list("r3")) == 3
        assert save(stores, a_run("r1"), count=1).ledger_len == 13


@pytest.mark.parametrize("value", ["'{'", "'[]'", "X'ff'", NO_UTF8])
def test_a_command_that_is_damaged_hides_no_other(directory: Path, value: str) -> None:
    change(directory, f"UPDATE commands SET payload_json = {value} WHERE command_id = 'c2'")

    with closing(open_sqlite_stores(directory)) as stores:
        found, place = stores.commands.list_after(after=0)
        assert [command.command_id for command in found] == ["c1", "c3"]
        assert place == 3
        assert [problem.where for problem in stores.problems] == ["command c2"]
        with pytest.raises(Unavailable, match="damaged"):
            stores.commands.get("c2")
        assert stores.commands.append(a_command("c2")).duplicate
        assert stores.commands.append(a_command("c4")).seq == 4
