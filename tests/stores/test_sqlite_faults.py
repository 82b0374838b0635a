from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.stores import open_sqlite_stores, sqlite_database
from abstractgateway.stores.base import Commit, RunWrite, Stores
from tests.stores import script
from tests.stores.failing_vfs import CRASHES, ERRORS, IOERR_FSYNC, KINDS, FailingVfs, SqliteFaults, failing
from tests.stores.script import PICTURES, STEPS
from tests.stores.shapes import PATIENCE_S, a_command, a_run, save, write

MANY = 60
"""From how many places of a fault on a part of them is enough for every day."""


@dataclass(frozen=True)
class Setting:
    """The VFS, when the log is checkpointed, and how many steps are played on a healthy disk first."""

    vfs: FailingVfs
    checkpoint_pages: int
    steps_before: int = 0

    def open(self, directory: Path, disk: SqliteFaults | None = None) -> Stores:
        self.vfs.faults = disk or SqliteFaults()
        return open_sqlite_stores(directory)


@pytest.fixture
def vfs() -> Iterator[FailingVfs]:
    try:
        with failing() as registered:
            yield registered
    except OSError as error:
        pytest.skip(f"faults cannot be put into SQLite here: {error}")


LAZY, CHECKPOINTING, RESTARTED = (16000, 0), (20, 0), (20, 5)
"""From how many pages on the log is checkpointed, and how many steps come before the faults."""
SETTINGS = pytest.mark.parametrize(
    "setting", [LAZY, CHECKPOINTING, RESTARTED], ids=["lazy", "checkpointing", "restarted"], indirect=True
)


@pytest.fixture
def setting(request: pytest.FixtureRequest, vfs: FailingVfs, monkeypatch: pytest.MonkeyPatch) -> Setting:
    checkpoint_pages, steps_before = request.param
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_PAGES", checkpoint_pages)
    return Setting(vfs, checkpoint_pages, steps_before)


def prepared(scratch: Path, setting: Setting, name: object) -> Path:
    """Return a directory in which the steps before the faults have been played."""
    template = scratch / "template"
    if not template.exists():
        template.mkdir()
        script.prepare(template, setting)
    return Path(shutil.copytree(template, scratch / str(name)))


def places(scratch: Path, setting: Setting, mode: str) -> list[int]:
    """Return the numbers of the script's operations that can fail in a mode: of many, every fourth.

    Which fourth depends on the mode. All of them are tried with `EVERY_FAULT=1` in the environment.
    """
    disk = SqliteFaults()
    script.play_until_the_crash(prepared(scratch, setting, "counted"), setting, disk)
    numbers = [number for number, kind in enumerate(disk.operations, 1) if kind in KINDS[mode]]
    if os.environ.get("EVERY_FAULT") or len(numbers) < MANY:
        return numbers
    return numbers[(*CRASHES, *ERRORS).index(mode) % 4 :: 4]


@SETTINGS
@pytest.mark.parametrize("mode", CRASHES)
def test_after_a_crash_at_any_operation_everything_acknowledged_is_there_and_nothing_by_halves(
    scratch: Path, setting: Setting, mode: str
) -> None:
    crashes = 0

    for number in places(scratch, setting, mode):
        directory = prepared(scratch, setting, number)
        played = script.play_until_the_crash(directory, setting, SqliteFaults(number, mode))
        script.check_after_crash(directory, setting, played, restarts=number % 8 == 0)
        crashes += played.has_failed
        shutil.rmtree(directory)

    print(f"{crashes} faults tried")
    assert crashes > 30


@SETTINGS
@pytest.mark.parametrize("mode", ERRORS)
def test_after_an_error_at_any_operation_the_store_goes_on_with_everything(
    scratch: Path, setting: Setting, mode: str
) -> None:
    errors = 0

    for number in places(scratch, setting, mode):
        directory = prepared(scratch, setting, number)
        errors += script.play_through_errors(directory, setting, SqliteFaults(number, mode)).has_failed
        shutil.rmtree(directory)

    print(f"{errors} faults tried")
    assert errors >= (1 if mode == "no_index" else 10)


@SETTINGS
@pytest.mark.parametrize("mode", ["full", "eio", "eio_sync"])
def test_after_an_error_that_stays_the_store_goes_on_once_it_is_gone(
    scratch: Path, setting: Setting, mode: str
) -> None:
    errors = 0

    for number in places(scratch, setting, mode)[::3]:
        directory = prepared(scratch, setting, number)
        disk = SqliteFaults(number, mode, is_persistent=True)
        errors += script.play_through_errors(directory, setting, disk).has_failed
        shutil.rmtree(directory)

    print(f"{errors} faults tried")
    assert errors >= 3


@SETTINGS
@pytest.mark.parametrize("mode", ERRORS)
def test_what_was_refused_is_not_there_after_a_kill_either(scratch: Path, setting: Setting, mode: str) -> None:
    refused = 0

    for number in places(scratch, setting, mode):
        directory = prepared(scratch, setting, number)
        with suppress(Unavailable):
            stores = setting.open(directory, SqliteFaults(number, mode))
            done = setting.steps_before + _play_until_refused(stores, STEPS[setting.steps_before :])
            killed = killed_copy(directory, scratch / f"killed-{number}")
            stores.close()
            again = setting.open(killed)
            assert script.picture(again) == PICTURES[done], f"operation {number}"
            again.close()
            refused += done < len(STEPS)

    print(f"{refused} faults tried")
    assert refused >= (0 if mode == "no_index" else 5)


def _play_until_refused(stores: Stores, steps: tuple[script.Step, ...]) -> int:
    for number, step in enumerate(steps):
        try:
            step(stores)
        except Unavailable as error:
            assert error.code == "store_failed"
            return number
    return len(steps)


def killed_copy(directory: Path, target: Path) -> Path:
    """Return what a process that is killed now would leave: the database and its log."""
    target.mkdir()
    for path in directory.glob("gateway.sqlite3*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, target)
    return target


def test_a_failed_fsync_refuses_everything_until_the_database_is_opened_again(vfs: FailingVfs, tmp_path: Path) -> None:
    disk = vfs.faults = SqliteFaults()
    stores = open_sqlite_stores(tmp_path)
    save(stores, a_run("before"))
    disk.fail("eio_sync", only="-wal")

    with pytest.raises(Unavailable, match="disk I/O error") as lost:
        stores.commands.append(a_command("lost"))
    disk.heal()
    with pytest.raises(Unavailable, match="restart") as refused:
        stores.commands.append(a_command("refused"))
    with pytest.raises(Unavailable, match="restart"):
        stores.claim("runner")
    read = stores.runs.open("before")
    stores.close()
    again = open_sqlite_stores(tmp_path)

    assert (lost.value.code, refused.value.code) == ("store_failed", "store_failed")
    assert read is not None
    assert again.commands.get_last_seq() == 0
    assert again.commands.append(a_command("lost")).accepted
    assert again.claim("runner") == 1
    again.close()


@pytest.mark.parametrize("mode", ["full", "short"])
def test_a_full_disk_refuses_commits_and_claims_and_after_that_the_store_goes_on(
    vfs: FailingVfs, tmp_path: Path, mode: str
) -> None:
    disk = vfs.faults = SqliteFaults()
    stores = open_sqlite_stores(tmp_path)
    save(stores, a_run("before"), count=1)
    disk.fail(mode)

    for name in ("one", "two"):
        with pytest.raises(Unavailable, match="full"):
            stores.commit(Commit(runs=(write(a_run(name)),)))
    with pytest.raises(Unavailable, match="full"):
        stores.claim("runner")
    disk.heal()
    save(stores, a_run("after"), count=1)

    assert [row.run_id for row in stores.runs.find(script.RunQuery())] == ["after", "before"]
    assert stores.claim("runner") == 1
    stores.close()


@pytest.mark.parametrize("mode", ["full", "eio", "eio_sync"])
def test_a_log_that_cannot_be_checkpointed_keeps_nobody_from_committing(
    vfs: FailingVfs, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_database, "CHECKPOINT_PAGES", 20)
    disk = vfs.faults = SqliteFaults()
    stores = open_sqlite_stores(tmp_path)
    disk.fail(mode, only=".sqlite3")

    for number in range(20):
        save(stores, a_run(vars={"n": number, "text": "x" * 5000}), count=3)
    killed = killed_copy(tmp_path, tmp_path / "killed")
    stores.close()
    disk.heal()

    assert disk.has_failed
    for directory in (killed, tmp_path):
        again = open_sqlite_stores(directory)
        assert script.picture(again)["runs"]["r1"][0].state.vars["n"] == 19
        assert len(again.ledger.read("r1", 0, 100).records) == 60
        again.close()


class FailingOnce(SqliteFaults):
    """Syncs that succeed but for one, counted from when it is set."""

    syncs_until_failure = -1

    def sync(self, path: Path) -> tuple[bool, int]:
        self.syncs_until_failure -= 1
        return (False, IOERR_FSYNC) if self.syncs_until_failure == 0 else super().sync(path)


def test_commits_that_are_durable_are_not_refused_with_the_later_ones_of_their_batch(
    vfs: FailingVfs, tmp_path: Path
) -> None:
    """A batch that cannot be written because of what is in it is written one by one; here an fsync fails meanwhile."""
    disk = vfs.faults = FailingOnce()
    stores = open_sqlite_stores(tmp_path)
    decided: dict[str, Exception | None] = {}
    all_decided = threading.Event()

    def tell(name: str, error: Exception | None) -> None:
        decided[name] = error
        if name == "last":
            all_decided.set()

    def submit(wanted: RunWrite) -> None:
        stores.submit(Commit(runs=(wanted,)), lambda receipt, error: tell(wanted.run_id, error))

    with stores.database.exclusive():  # the writer waits with the first of them, the others become one batch
        submit(write(a_run("alone")))
        submit(replace(write(a_run("impossible")), body=b"{\xff}"))
        for name in ("first", "second", "last"):
            submit(write(a_run(name)))
        disk.syncs_until_failure = 3
    assert all_decided.wait(PATIENCE_S)
    refused = {name for name, error in decided.items() if error is not None}
    there = {row.run_id for row in stores.runs.find(script.RunQuery())}
    stores.close()

    assert refused == {"impossible", "second", "last"}
    assert there == {"alone", "first"}
