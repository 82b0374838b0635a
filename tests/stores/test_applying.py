from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.commit import Commit
from abstractgateway.stores.files import FileStores, open_file_stores
from abstractgateway.stores.group import Submission
from tests.stores.shapes import a_run, appending, write


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[FileStores]:
    found = open_file_stores(tmp_path / "live")
    yield found
    found.close()


def commit_only(stores: FileStores, commit: Commit) -> None:
    """Commit as the writer does, and leave the files for later."""
    item = Submission(commit, lambda receipt, error: None)
    stores._write_batch([item])
    assert item.error is None


def apply_oldest(stores: FileStores, size: int | None) -> None:
    with stores._exclusive():
        stores._apply_pending(size)


def six_steps(stores: FileStores) -> list[bytes]:
    for number in range(6):
        stored = stores.runs.open("r1")
        commit_only(stores, Commit(runs=(write(a_run(vars={"n": number}), stored, count=2),)))
    return list(stores.ledger.read("r1", 0, 100).records)


def lines(stores: FileStores) -> list[bytes]:
    return stores.layout.ledger("r1").read_bytes().splitlines()


def test_readers_get_from_memory_what_the_files_do_not_have(stores: FileStores) -> None:
    records = six_steps(stores)

    assert not stores.layout.run("r1").exists()
    assert not stores.layout.ledger("r1").exists()
    assert len(records) == 12
    assert stores.runs.open("r1").state.vars == {"n": 5}


@pytest.mark.parametrize("applied", range(1, 7))
def test_pages_put_together_what_is_in_the_file_and_what_is_not(stores: FileStores, applied: int) -> None:
    records = six_steps(stores)

    for _ in range(applied):
        apply_oldest(stores, 1)

    assert lines(stores) == records[: 2 * applied]
    for first in range(13):
        for limit in range(13):
            assert list(stores.ledger.read("r1", first, limit).records) == records[first : first + limit]
    assert verify_chain(stores.ledger.list("r1")).ok


def test_a_checkpoint_with_a_newer_one_behind_it_is_not_written(stores: FileStores) -> None:
    six_steps(stores)

    apply_oldest(stores, 1)
    exists_early = stores.layout.run("r1").exists()
    apply_oldest(stores, None)

    assert not exists_early
    assert json.loads(stores.layout.run("r1").read_bytes())["vars"] == {"n": 5}
    assert stores.runs.open("r1").revision == 6


def test_a_checkpoint_with_only_records_behind_it_is_written(stores: FileStores) -> None:
    commit_only(stores, Commit(runs=(write(a_run(), count=1),)))
    commit_only(stores, Commit(runs=(appending(stores.runs.open("r1"), 2),)))

    apply_oldest(stores, 1)
    exists = stores.layout.run("r1").exists()
    apply_oldest(stores, None)

    assert exists
    assert (stores.runs.open("r1").revision, stores.runs.open("r1").ledger_len) == (1, 3)
    assert len(lines(stores)) == 3


@pytest.mark.parametrize("applied", range(7))
def test_a_process_killed_between_two_slices_loses_nothing(stores: FileStores, tmp_path: Path, applied: int) -> None:
    records = six_steps(stores)
    for _ in range(applied):
        apply_oldest(stores, 1)
    shutil.copytree(stores.layout.directory, tmp_path / "killed", ignore=shutil.ignore_patterns("*.sock"))

    again = open_file_stores(tmp_path / "killed")

    assert list(again.ledger.read("r1", 0, 100).records) == records
    assert again.runs.open("r1") == stores.runs.open("r1")
    assert list(again.problems) == []
    again.close()


def test_what_waits_for_the_files_stays_within_its_bound(tmp_path: Path) -> None:
    stores = open_file_stores(tmp_path / "bounded", pending_bytes=20_000)

    for number in range(100):
        item = Submission(
            Commit(
                runs=(write(a_run(f"r{number % 3}", vars={"text": "x" * 500}), stores.runs.open(f"r{number % 3}")),)
            ),
            lambda receipt, error: None,
        )
        stores._write_batch([item])
        stores._tidy(is_idle=False)
        assert stores.view.pending_bytes <= 20_000

    stores.close()
