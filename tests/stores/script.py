"""A script of commits, what a store must hold after each of them, and playing it on a disk that fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abstractgateway.errors import StaleWrite, Unavailable
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.commit import Commit, Removal
from abstractgateway.stores import open_file_stores, open_memory_stores
from abstractgateway.stores.base import RunQuery, Stores
from abstractgateway.stores.disk import Disk
from abstractgateway.testing import FaultyDisk, PowerLoss
from tests.stores.shapes import a_command, a_run, appending, applied, changing, save, waiting, write

Step = Callable[[Stores], Any]
Picture = dict[str, Any]


def _both(stores: Stores) -> None:
    parent, child = stores.runs.open("r1"), stores.runs.open("r2")
    runs = (write(a_run("r1", current_node="b"), parent, count=1), write(waiting("r2", key="k"), child, count=2))
    stores.commit(Commit(runs=runs))


def _settled(stores: Stores) -> None:
    parent, child = stores.runs.open("r1"), stores.runs.open("r2")
    runs = (write(a_run("r1", current_node="c"), parent, count=2), write(a_run("r2"), child, count=1))
    stores.commit(Commit(runs=runs, outcome=applied(a_command("c1"), 1)))


def _change_large(stores: Stores, **changes: Any) -> None:
    """Write what changes of a large checkpoint, instead of all of it."""
    stored = stores.runs.open("r4")
    assert stored is not None
    stores.commit(Commit(runs=(changing(stored, changes, count=1),)))


def _remove(stores: Stores, **runs: bool) -> None:
    """Remove runs, each with whether its id is kept."""
    rows = {run_id: stores.runs.row(run_id) for run_id in runs}
    removed = tuple(Removal(run_id, rows[run_id].revision, keeps) for run_id, keeps in runs.items())
    stores.commit(Commit(removed=removed))


STEPS: tuple[Step, ...] = (
    lambda stores: save(stores, a_run("r1", vars={"text": "é" * 300}), count=2),
    lambda stores: stores.commands.append(a_command("c1", payload={"x": "é"})),
    _both,
    lambda stores: stores.commit(Commit(runs=(appending(stores.runs.open("r1"), 2),))),
    lambda stores: save(stores, a_run("r1", current_node="d", vars={"text": "ü" * 500}), count=1),
    _settled,
    lambda stores: stores.commands.append(a_command("c2")),
    lambda stores: save(stores, a_run("r3"), count=3),
    lambda stores: stores.commit(Commit(outcome=applied(a_command("c2"), 2), command=a_command("c3"))),
    lambda stores: save(stores, a_run("r4", vars={"large": ["x" * 17_000], "n": 0}), count=1),
    lambda stores: _change_large(stores, n=1),
    lambda stores: save(stores, a_run("r5", vars={"large": ["y" * 17_000]}), count=2),
    lambda stores: save(stores, waiting("r6", key="k"), count=1),
    lambda stores: _remove(stores, r5=False, r6=True),
    lambda stores: save(stores, a_run("r1", current_node="e"), count=4),
    lambda stores: _change_large(stores, n=2, more=["ü" * 600]),
    lambda stores: _change_large(stores, n=3),
)


def picture(stores: Stores) -> Picture:
    """Return all that a store holds, having checked that it is consistent in itself."""
    runs = {}
    for row in stores.runs.find(RunQuery(limit=None)):
        stored = stores.runs.open(row.run_id)
        ledger = list(stores.ledger.read(row.run_id, 0, 1000).records)
        report = verify_chain(stores.ledger.list(row.run_id))
        assert report.ok
        assert (row.revision, row.ledger_len) == (stored.revision, stored.ledger_len)
        assert (len(ledger), report.head_hash) == (stored.ledger_len, stored.ledger_hash)
        runs[row.run_id] = (stored, ledger)
    commands, _ = stores.commands.list_after(after=0)
    outcomes = {command.command_id: stores.commands.outcome(command.command_id) for command in commands}
    commands_read = {"commands": commands, "outcomes": outcomes, "cursor": stores.commands.get_cursor()}
    return {"runs": runs, "removed": stores.runs.removed_ids(), **commands_read}


def pictures() -> list[Picture]:
    """Return what a store holds before the script and after each of its steps."""
    stores = open_memory_stores()
    found = [picture(stores)]
    for step in STEPS:
        step(stores)
        found.append(picture(stores))
    return found


PICTURES = pictures()


@dataclass(frozen=True)
class Setting:
    """When journals end and when the files are written; `steps_before` are played on a healthy disk first."""

    journal_bytes: int
    pending_bytes: int
    steps_before: int = 0

    def open(self, directory: Path, disk: Disk | None = None) -> Stores:
        return open_file_stores(
            directory, disk=disk or FaultyDisk(), journal_bytes=self.journal_bytes, pending_bytes=self.pending_bytes
        )


@dataclass(frozen=True)
class Played:
    """How far a script came: how many steps were acknowledged, and whether the disk did what it was told to."""

    acknowledged: int
    has_failed: bool


def prepare(directory: Path, setting: Setting) -> None:
    if setting.steps_before:
        stores = setting.open(directory)
        for step in STEPS[: setting.steps_before]:
            step(stores)
        stores.close()


def play_until_the_crash(directory: Path, setting: Setting, disk: FaultyDisk) -> Played:
    """Play the script to its end or to the power loss, whichever comes first."""
    done = setting.steps_before
    stores: Stores | None = None
    with suppress(PowerLoss, Unavailable):
        stores = setting.open(directory, disk)
        for step in STEPS[setting.steps_before :]:
            step(stores)
            done += 1
    with suppress(PowerLoss):
        if stores is not None:
            stores.close()
    disk.cut_power()
    return Played(done, disk.has_failed)


def check_after_crash(directory: Path, setting: Setting, played: Played, *, restarts: bool) -> None:
    """Check that everything acknowledged is there and nothing by halves, and that the script can be played on."""
    stores = setting.open(directory)
    found = picture(stores)
    candidates = range(played.acknowledged, min(played.acknowledged + 2, len(PICTURES)))
    whole = [step for step in candidates if PICTURES[step] == found]
    assert whole, directory.name
    go_on(stores, directory, setting, whole[0], restarts=restarts)


def play_through_errors(directory: Path, setting: Setting, disk: FaultyDisk) -> Played:
    """Play the whole script: what is refused is tried again once the disk is well, if need be after a restart."""
    stores = _opened(directory, setting, disk)
    for number, step in enumerate(STEPS[setting.steps_before :], setting.steps_before):
        try:
            step(stores)
            continue
        except Unavailable:
            assert picture(stores) == PICTURES[number]
        disk.heal()
        try:
            step(stores)
        except Unavailable as error:
            assert "restart" in str(error)
            stores.close()
            stores = setting.open(directory)
            step(stores)
        except StaleWrite:
            raise AssertionError("what was refused had been written") from None
    assert picture(stores) == PICTURES[-1]
    stores.close()
    again = setting.open(directory)
    assert picture(again) == PICTURES[-1]
    again.close()
    return Played(len(STEPS), disk.has_failed)


def _opened(directory: Path, setting: Setting, disk: FaultyDisk) -> Stores:
    try:
        return setting.open(directory, disk)
    except Unavailable:
        disk.heal()
        return setting.open(directory, disk)


def go_on(stores: Stores, directory: Path, setting: Setting, done: int, *, restarts: bool) -> None:
    """Play what is left of the script, and check that everything is there, also after a restart."""
    for step in STEPS[done:]:
        step(stores)
    assert picture(stores) == PICTURES[-1]
    stores.close()
    if restarts:
        again = setting.open(directory)
        assert picture(again) == PICTURES[-1]
        again.close()
