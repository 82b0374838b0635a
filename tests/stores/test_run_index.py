"""`runs.index`: a start reads from the files only what the index does not have, and never shows what is not true."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from abstractgateway.runtime.commit import Commit
from abstractgateway.runtime.models import StepRecord, StepStatus
from abstractgateway.stores import open_file_stores, run_index
from abstractgateway.stores.base import RunQuery, Stores
from abstractgateway.stores.files import FileStores
from abstractgateway.stores.group import Submission
from abstractgateway.stores.layout import STAMP
from abstractgateway.testing import FaultyDisk
from tests.stores.shapes import AT, a_run, at, save, waiting, write

LONG_AGO_NS = 1_700_000_000_000_000_000
INDEX = "runs.index"


def age(directory: Path) -> None:
    """Let every file have been changed long ago."""
    for path in directory.glob("*_*.json*"):
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of five runs, all of which the index has, closed."""
    with closing(open_file_stores(tmp_path)) as stores:
        save(stores, a_run("r1", session_id="s", actor_id="gateway"), count=3)
        save(stores, waiting("r2", key="k", parent_run_id="r1", updated_at=at(2)), count=1)
        save(stores, waiting("r3", until=at(600), parent_run_id="r1", created_at=at(1), updated_at=at(3)))
        save(stores, a_run("r4", workflow_id="ü", updated_at="whenever"))
        stores.ledger.append(StepRecord("alone", "s0", "n", StepStatus.COMPLETED))
    age(tmp_path)
    open_file_stores(tmp_path).close()
    return tmp_path


def picture(stores: Stores) -> list[object]:
    rows = stores.runs.find(RunQuery(limit=None))
    ids = [*(row.run_id for row in rows), "alone"]
    heads = [stores.ledger.head(run_id) for run_id in ids]
    waiters = stores.runs.waiting_on(["k"]), stores.runs.children_of("r1")
    return [rows, heads, waiters, [stores.runs.open(row.run_id) for row in rows]]


@contextmanager
def reopened(directory: Path) -> Iterator[FileStores]:
    with closing(open_file_stores(directory)) as stores:
        yield stores


def commit_and_settle(stores: FileStores) -> None:
    """Put everything into the files, and let them have been changed long ago."""
    with stores._exclusive():
        stores._apply_pending(None)
    age(stores.layout.directory)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the checkpoints and ledgers that are read as bytes from now on."""
    found: list[str] = []
    read_bytes = Path.read_bytes

    def noting(path: Path) -> bytes:
        if path.name.startswith(("run_", "ledger_")):
            found.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noting)
    return found


def from_files(directory: Path) -> list[object]:
    """Return what the files say when there is no index."""
    copy = directory.parent / f"{directory.name}-copy"
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.sock"))
    (copy / INDEX).unlink(missing_ok=True)
    with reopened(copy) as stores:
        return picture(stores)


def test_a_start_reads_no_file_that_the_index_has(directory: Path, reads: list[str]) -> None:
    with reopened(directory) as stores:
        assert reads == []
        assert picture(stores) == from_files(directory)


def test_a_run_that_was_saved_a_moment_ago_is_read_from_its_file(directory: Path, reads: list[str]) -> None:
    with reopened(directory) as stores:
        save(stores, a_run("r1", current_node="later"), count=1)
    reads.clear()

    with reopened(directory) as stores:
        assert reads == ["run_r1.json"]
        assert stores.runs.row("r1").revision == 2


Change = Callable[[Path], object]


def _in_place(directory: Path) -> None:
    """Change a checkpoint like a foreign program does that keeps its size: the time of its change tells."""
    path = directory / "run_r1.json"
    body = path.read_bytes()
    path.write_bytes(body.replace(b'"running"', b'"waiting"'))


def _replaced(directory: Path) -> None:
    """Put another file of the same size and time in a checkpoint's place: its inode tells."""
    path, new = directory / "run_r1.json", directory / "new"
    new.write_bytes(path.read_bytes().replace(b'"running"', b'"waiting"'))
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.replace(path)


def _foreign_checkpoint(directory: Path) -> None:
    fields = json.loads((directory / "run_r2.json").read_bytes())
    del fields["_gateway"]
    (directory / "run_r2.json").write_text(json.dumps({**fields, "status": "completed", "waiting": None}))


def _foreign_record(directory: Path) -> None:
    with open(directory / "ledger_r2.jsonl", "a") as file:
        file.write('{"run_id": "r2", "step_id": "x", "record_hash": "h"}\n')


def _new_run(directory: Path) -> None:
    fields = json.loads((directory / "run_r1.json").read_bytes())
    (directory / "run_r9.json").write_text(json.dumps({**fields, "run_id": "r9", "updated_at": at(9)}))


CHANGES: list[Change] = [
    _in_place,
    _replaced,
    _foreign_checkpoint,
    _foreign_record,
    _new_run,
    lambda directory: (directory / "run_r2.json").unlink(),
    lambda directory: (directory / "ledger_r1.jsonl").unlink(),
    lambda directory: (directory / "ledger_alone.jsonl").unlink(),
    lambda directory: (directory / "run_r1.json").write_bytes(b"{"),
    lambda directory: (directory / INDEX).unlink(),
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_what_others_did_to_the_files_is_seen(directory: Path, change: Change) -> None:
    with reopened(directory) as stores:
        before = picture(stores)
    change(directory)
    expected = from_files(directory)

    with reopened(directory) as stores:
        assert picture(stores) == expected
    with reopened(directory) as stores:
        assert picture(stores) == expected
    assert expected != before or not (directory / INDEX).exists() or change is CHANGES[-1]


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\0" * 500, b"AGWRIDX9" + b"x" * 100, b"AGWRIDX1" + b"\0" * 12, b"AGWRIDX1\1"],
    ids=["empty", "json", "zeros", "later version", "empty block", "torn"],
)
def test_an_index_that_is_none_is_reported_and_made_anew(directory: Path, content: bytes, reads: list[str]) -> None:
    (directory / INDEX).write_bytes(content)
    expected = from_files(directory)

    with reopened(directory) as stores:
        assert picture(stores) == expected
        assert [problem.where for problem in stores.problems] == [INDEX]
    reads.clear()
    with reopened(directory) as stores:
        assert (reads, list(stores.problems)) == ([], [])


def test_no_flipped_bit_and_no_truncation_of_the_index_shows_anything_else(directory: Path) -> None:
    whole = (directory / INDEX).read_bytes()
    expected = from_files(directory)

    for place in range(0, len(whole), 13):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]):
            (directory / INDEX).write_bytes(damaged)
            with reopened(directory) as stores:
                assert picture(stores) == expected, f"byte {place}"


def test_a_block_that_was_torn_costs_its_own_entries_only(directory: Path, reads: list[str]) -> None:
    with reopened(directory) as stores:
        save(stores, a_run("r5"))
    age(directory)
    before = (directory / INDEX).read_bytes()
    open_file_stores(directory).close()
    grown = (directory / INDEX).read_bytes()
    (directory / INDEX).write_bytes(before + grown[len(before) : -5])
    reads.clear()
    os.utime(directory / "run_r1.json", ns=(1, 1))

    with reopened(directory) as stores:
        assert len(stores.runs.find(RunQuery())) == 5
    assert "run_r5.json" in reads


def commit_only(stores: FileStores, state: object) -> None:
    """Commit as the writer does, and leave the files for later."""
    stores._write_batch([Submission(Commit(runs=(write(state, stores.runs.open(state.run_id), count=1),)), _ignore)])


def _ignore(receipt: object, error: object) -> None:
    assert error is None


@pytest.mark.parametrize("applied", [False, True])
def test_a_killed_process_leaves_nothing_stale(directory: Path, tmp_path: Path, applied: bool) -> None:
    killed = tmp_path.parent / f"{tmp_path.name}-killed"
    with reopened(directory) as stores:
        commit_only(stores, a_run("r1", current_node="later"))
        commit_only(stores, a_run("new", updated_at=at(9)))
        if applied:
            with stores._exclusive():
                stores._apply_pending(None)
        expected = picture(stores)
        shutil.copytree(directory, killed, ignore=shutil.ignore_patterns("*.sock"))

    with reopened(killed) as stores:
        assert picture(stores) == expected


def test_runs_of_the_journal_are_read_though_their_files_look_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("layout", "run_index"):
        monkeypatch.setattr(f"abstractgateway.stores.{module}.stamp", lambda path: STAMP.pack(1, 1, 1))
    with reopened(tmp_path) as stores:
        save(stores, a_run("r1"), count=1)
        save(stores, a_run("r2"), count=1)
    with reopened(tmp_path) as stores:
        commit_only(stores, a_run("r1", current_node="later"))
        with stores._exclusive():
            stores._apply_pending(None)
        with closing(open_file_stores(tmp_path)) as other:
            assert [other.runs.row(name).revision for name in ("r1", "r2")] == [2, 1]


def test_the_index_follows_at_the_end_of_each_journal(tmp_path: Path, reads: list[str]) -> None:
    stores = open_file_stores(tmp_path, journal_bytes=5_000)
    for number in range(40):
        commit_only(stores, a_run(f"r{number}"))
        with stores._exclusive():
            stores._apply_pending(None)
        age(tmp_path)
        stores._tidy(is_idle=False)
    shutil.copytree(
        tmp_path, tmp_path / "killed", copy_function=os.link, ignore=shutil.ignore_patterns("*.sock", "killed")
    )
    stores.close()
    reads.clear()

    with reopened(tmp_path / "killed") as again:
        assert len(again.runs.find(RunQuery())) == 40
    assert 0 < len(reads) < 20


def test_an_index_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.fail("enospc", only=INDEX)
    with closing(open_file_stores(tmp_path, disk=disk)) as stores:
        save(stores, a_run("r1"))
    age(tmp_path)

    with closing(open_file_stores(tmp_path, disk=disk)) as stores:
        assert stores.runs.open("r1") is not None
        assert INDEX in {problem.where for problem in stores.problems}
    assert not (tmp_path / INDEX).exists() or (tmp_path / INDEX).stat().st_size == 0


def test_a_directory_that_was_opened_often_has_a_small_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abstractgateway.stores.run_index.SMALL_BYTES", 1000)
    sizes = []
    for number in range(30):
        with reopened(tmp_path) as stores:
            save(stores, a_run("r1", vars={"n": number}))
        age(tmp_path)
        sizes.append((tmp_path / INDEX).stat().st_size)

    assert max(sizes) < 6000
    with reopened(tmp_path) as stores:
        assert stores.runs.open("r1").revision == 30


def test_runs_keep_their_order_of_one_instant(directory: Path) -> None:
    with reopened(directory) as stores:
        for name in ("b", "c", "a"):
            save(stores, a_run(name, updated_at=at(50), created_at=AT))
        before = [row.run_id for row in stores.runs.find(RunQuery(limit=3))]
    age(directory)

    orders = []
    for _ in range(3):
        with reopened(directory) as stores:
            orders.append([row.run_id for row in stores.runs.find(RunQuery(limit=3))])

    assert before == ["a", "c", "b"]
    assert orders[0] == orders[1] == orders[2]


def test_an_index_that_cannot_be_read_or_written_costs_only_time(directory: Path) -> None:
    expected = from_files(directory)
    (directory / INDEX).unlink()
    (directory / INDEX).mkdir()

    with closing(open_file_stores(directory, journal_bytes=0)) as stores:
        assert picture(stores) == expected
        save(stores, a_run("r5"), count=1)
    told = [problem.why for problem in stores.problems if problem.where == INDEX]
    assert any("cannot be read" in why for why in told)
    assert any("cannot be written" in why for why in told)
    with reopened(directory) as stores:
        assert stores.runs.row("r5").ledger_len == 1


def test_an_index_to_which_nothing_can_be_added_costs_only_time(directory: Path) -> None:
    disk = FaultyDisk()
    with closing(open_file_stores(directory, disk=disk)) as stores:
        save(stores, a_run("r5"), count=1)
        commit_and_settle(stores)
        disk.fail("eio", only=INDEX)
        stores._begin_generation()
        assert [problem.where for problem in stores.problems] == [INDEX]
        disk.heal()
        save(stores, a_run("r6"), count=1)

    with reopened(directory) as stores:
        assert (stores.runs.row("r5").ledger_len, stores.runs.row("r6").ledger_len) == (1, 1)


def test_an_index_that_has_grown_too_large_is_left_until_the_stores_are_closed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_index, "SMALL_BYTES", 0)
    monkeypatch.setattr(run_index, "BYTES_PER_RUN", 1)
    size = (directory / INDEX).stat().st_size

    with closing(open_file_stores(directory)) as stores:
        save(stores, a_run("r1", current_node="later"), count=1)
        commit_and_settle(stores)
        stores._begin_generation()
        assert (directory / INDEX).stat().st_size == size
    with reopened(directory) as stores:
        assert stores.runs.row("r1").revision == 2
        assert picture(stores) == from_files(directory)


def test_the_runs_of_several_blocks_are_all_found(
    directory: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_index, "BLOCK", 2)
    expected = from_files(directory)
    (directory / INDEX).unlink()
    open_file_stores(directory).close()
    reads.clear()

    assert [len(block) for block in run_index._blocks((directory / INDEX).read_bytes())] == [2, 2, 1]
    with reopened(directory) as stores:
        assert reads == []
        assert picture(stores) == expected
