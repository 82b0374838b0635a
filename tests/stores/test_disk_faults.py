from __future__ import annotations

from pathlib import Path

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.stores import open_file_stores
from abstractgateway.stores.base import Commit
from abstractgateway.testing import FaultyDisk
from abstractgateway.testing.disk import CRASHES, ERRORS
from tests.stores import script
from tests.stores.script import Setting
from tests.stores.shapes import a_command, a_run, save, write

LAZY = Setting(journal_bytes=1 << 20, pending_bytes=1 << 20)
TINY_JOURNALS = Setting(journal_bytes=2500, pending_bytes=0)
RESTARTED = Setting(journal_bytes=2500, pending_bytes=1 << 20, steps_before=5)
SETTINGS = pytest.mark.parametrize(
    "setting", [LAZY, TINY_JOURNALS, RESTARTED], ids=["lazy", "tiny-journals", "restarted"]
)


def places(scratch: Path, setting: Setting) -> range:
    """Return the numbers of the operations that a script makes, and a few that it may not reach."""
    disk = FaultyDisk()
    directory = scratch / "counted"
    script.prepare(directory, setting)
    script.play_until_the_crash(directory, setting, disk)
    assert disk.operations > 40
    return range(1, disk.operations + 3)


@SETTINGS
@pytest.mark.parametrize("mode", CRASHES)
def test_after_a_crash_at_any_operation_everything_acknowledged_is_there_and_nothing_by_halves(
    scratch: Path, setting: Setting, mode: str
) -> None:
    crashes = 0

    for number in places(scratch, setting):
        directory = scratch / str(number)
        script.prepare(directory, setting)
        played = script.play_until_the_crash(directory, setting, FaultyDisk(number, mode))
        script.check_after_crash(directory, setting, played, restarts=number % 4 == 0)
        crashes += played.has_failed

    assert crashes > 40


@SETTINGS
@pytest.mark.parametrize("mode", ERRORS)
def test_after_an_error_at_any_operation_the_store_goes_on_with_everything(
    scratch: Path, setting: Setting, mode: str
) -> None:
    errors = 0

    for number in places(scratch, setting):
        directory = scratch / str(number)
        script.prepare(directory, setting)
        errors += script.play_through_errors(directory, setting, FaultyDisk(number, mode)).has_failed

    assert errors > 15


@SETTINGS
@pytest.mark.parametrize("mode", ["enospc", "eio", "eio_sync"])
def test_after_an_error_that_stays_the_store_goes_on_once_it_is_gone(
    scratch: Path, setting: Setting, mode: str
) -> None:
    errors = 0

    for number in list(places(scratch, setting))[::5]:
        directory = scratch / str(number)
        script.prepare(directory, setting)
        disk = FaultyDisk(number, mode, is_persistent=True)
        errors += script.play_through_errors(directory, setting, disk).has_failed

    assert errors > 5


def test_a_full_disk_refuses_commits_and_after_that_the_store_goes_on_without_a_restart(tmp_path: Path) -> None:
    disk = FaultyDisk()
    stores = open_file_stores(tmp_path, disk=disk, pending_bytes=0)
    save(stores, a_run("before"), count=1)
    disk.fail("enospc")

    for name in ("one", "two"):
        with pytest.raises(Unavailable, match="No space left"):
            stores.commit(Commit(runs=(write(a_run(name)),)))
    disk.heal()
    save(stores, a_run("after"), count=1)

    assert [row.run_id for row in stores.runs.find(script.RunQuery())] == ["after", "before"]
    stores.close()


def test_a_failed_fsync_refuses_everything_until_the_directory_is_opened_again(tmp_path: Path) -> None:
    disk = FaultyDisk()
    stores = open_file_stores(tmp_path, disk=disk)
    save(stores, a_run("before"))
    disk.fail("eio_sync")

    with pytest.raises(Unavailable, match="durable"):
        stores.commands.append(a_command("lost"))
    disk.heal()
    with pytest.raises(Unavailable, match="restart"):
        stores.commands.append(a_command("refused"))
    stores.close()
    again = open_file_stores(tmp_path)

    assert again.commands.get_last_seq() == 0
    assert again.commands.append(a_command("lost")).accepted
    assert again.runs.open("before") is not None
    again.close()


def test_files_that_cannot_be_written_keep_nobody_from_committing_and_reading(tmp_path: Path) -> None:
    disk = FaultyDisk()
    stores = open_file_stores(tmp_path, disk=disk, pending_bytes=0)
    disk.fail("eio", only="run_")

    for number in range(5):
        save(stores, a_run(vars={"n": number}), count=3)

    assert stores.runs.open("r1").state.vars == {"n": 4}
    assert len(stores.ledger.read("r1", 0, 100).records) == 15
    assert not (tmp_path / "run_r1.json").exists()
    assert "cannot be written" in str(stores.problems[0])
    disk.heal()
    stores.close()
    assert (tmp_path / "run_r1.json").exists()


def test_commits_are_refused_when_the_files_cannot_be_written_for_too_long(tmp_path: Path) -> None:
    disk = FaultyDisk()
    stores = open_file_stores(tmp_path, disk=disk, pending_bytes=0, journal_bytes=2000)
    disk.fail("eio", only="run_")

    with pytest.raises(Unavailable, match="journal is full"):
        for number in range(100):
            save(stores, a_run(f"r{number}"), count=1)
    disk.heal()
    save(stores, a_run("after"))

    assert stores.runs.open("after") is not None
    stores.close()
