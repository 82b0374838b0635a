"""The real disk: many files are made durable at once where the system can be trusted with it, and one by one else."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.stores import disk, open_file_stores
from abstractgateway.stores.disk import Disk
from abstractgateway.stores.journal import MAX_BYTES
from tests.stores.shapes import a_command, a_run, save

MANY = disk.MANY_FILES + 1


class Noting(Disk):
    """A disk that notes which files and directories are synced one by one."""

    def __init__(self) -> None:
        self.synced: list[Path] = []

    def sync_path(self, path: Path) -> None:
        self.synced.append(path)
        super().sync_path(path)


def many_files(directory: Path) -> list[Path]:
    paths = [directory / f"f{number}" for number in range(MANY)]
    for path in paths:
        path.write_text("x")
    return paths


def a_kernel(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr("abstractgateway.stores.disk.os.uname", lambda: SimpleNamespace(release=release))


def test_many_files_are_synced_by_one_call_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_kernel(monkeypatch, "5.8.0-generic")
    noting = Noting()

    noting.sync_files(many_files(tmp_path), tmp_path)

    assert noting.synced == [tmp_path]


@pytest.mark.parametrize("release", ["5.7.19", "4.19.0-26-amd64", "custom", "x.y", ""])
def test_a_system_that_may_keep_quiet_about_failed_writes_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    a_kernel(monkeypatch, release)
    paths, noting = many_files(tmp_path), Noting()

    noting.sync_files(paths, tmp_path)

    assert noting.synced == [*paths, tmp_path]


def test_a_system_that_cannot_sync_everything_at_once_syncs_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *arguments, **options: SimpleNamespace())
    paths, noting = many_files(tmp_path), Noting()

    noting.sync_files(paths, tmp_path)

    assert noting.synced == [*paths, tmp_path]


def test_a_sync_of_everything_that_failed_refuses_commits_until_the_directory_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(fd: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    a_kernel(monkeypatch, "6.1.0")
    stores = open_file_stores(tmp_path)
    for number in range(MANY):
        save(stores, a_run(f"r{number}"))
    with monkeypatch.context() as patched:
        patched.setattr(ctypes, "CDLL", lambda *arguments, **options: SimpleNamespace(syncfs=failing))
        with stores._exclusive(), pytest.raises(OSError, match=os.strerror(errno.EIO)):
            stores._apply_pending(None)
            stores._begin_generation()

    with pytest.raises(Unavailable, match="restart"):
        stores.commands.append(a_command())
    stores.close()
    with closing(open_file_stores(tmp_path)) as again:
        assert len(again.runs.list_runs(limit=1000)) == MANY
        assert again.commands.append(a_command()).accepted


@pytest.mark.parametrize("journal_bytes", [MAX_BYTES, 1000], ids=["one journal", "many journals"])
def test_commits_that_need_not_be_durable_sync_nothing_and_are_there_after_a_restart(
    tmp_path: Path, journal_bytes: int
) -> None:
    class Slow(Disk):
        syncs: list[str] = []

        def sync(self, fd: int) -> None:
            self.syncs.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

        def sync_files(self, *arguments: Any) -> None:
            self.syncs.append("files")

    slow = Slow()
    with closing(open_file_stores(tmp_path, disk=slow, is_durable=False, journal_bytes=journal_bytes)) as stores:
        for number in range(10):
            save(stores, a_run(f"r{number % 3}"), count=1)
    with closing(open_file_stores(tmp_path)) as again:
        assert [again.runs.row(f"r{number}").ledger_len for number in range(3)] == [4, 3, 3]

    assert not {"files", "journal.log"} & set(slow.syncs)
