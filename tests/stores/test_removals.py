from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from abstractgateway.errors import Invalid, StaleWrite
from abstractgateway.runtime.commit import Commit, Removal
from abstractgateway.runtime.models import RunStatus
from abstractgateway.stores.base import RunQuery, Stores
from tests.stores.shapes import FILES, ON_A_DISK, Backend, Told, a_run, save, waiting, write


def remove(stores: Stores, *run_ids: str, keeps_id: bool = False) -> None:
    removed = tuple(Removal(run_id, stores.runs.row(run_id).revision, keeps_id) for run_id in run_ids)
    stores.commit(Commit(removed=removed))


def test_a_removed_run_is_an_unknown_run(stores: Stores) -> None:
    save(stores, a_run("root", status=RunStatus.COMPLETED), count=3)
    save(stores, a_run("child", status=RunStatus.COMPLETED, parent_run_id="root"), count=2)
    save(stores, a_run("other"), count=1)

    remove(stores, "root", "child")

    for run_id in ("root", "child"):
        assert stores.runs.open(run_id) is None
        assert stores.runs.row(run_id) is None
        assert stores.ledger.count(run_id) == 0
        assert list(stores.ledger.read(run_id, 0, 10).records) == []
        assert stores.ledger.read_record(run_id, 1) is None
    assert [row.run_id for row in stores.runs.find(RunQuery())] == ["other"]
    assert stores.runs.children_of("root") == []
    assert stores.ledger.count("other") == 1


def test_a_run_that_waited_is_waited_for_no_more(stores: Stores) -> None:
    save(stores, waiting("r1", key="k"))

    remove(stores, "r1")

    assert stores.runs.waiting_on(["k"]) == []


def test_only_the_ids_that_are_to_be_kept_are_known_afterwards(stores: Stores) -> None:
    for run_id in ("r1", "r2"):
        save(stores, a_run(run_id))

    remove(stores, "r1", keeps_id=True)
    remove(stores, "r2")

    assert stores.runs.was_removed("r1")
    assert not stores.runs.was_removed("r2")
    assert not stores.runs.was_removed("r3")
    assert stores.runs.removed_ids() == ["r1"]


def test_an_id_can_be_kept_of_a_run_that_was_removed_elsewhere(stores: Stores) -> None:
    stores.commit(Commit(removed=(Removal("r1", 0, True),)))

    assert stores.runs.removed_ids() == ["r1"]


def test_a_removal_from_an_older_revision_is_refused_and_changes_nothing(stores: Stores) -> None:
    first = save(stores, a_run("r1"), count=1)
    second = save(stores, a_run("r1", current_node="m"), count=1)
    save(stores, a_run("r2"))

    with pytest.raises(StaleWrite):
        stores.commit(Commit(removed=(Removal("r2", 1, True), Removal("r1", first.revision))))

    assert stores.runs.open("r1") == second
    assert stores.runs.row("r2") is not None
    assert stores.runs.removed_ids() == []


def test_a_write_that_was_made_before_the_removal_is_refused(stores: Stores) -> None:
    known = save(stores, a_run("r1"), count=1)
    remove(stores, "r1")

    with pytest.raises(StaleWrite):
        stores.commit(Commit(runs=(write(a_run("r1"), known, count=1),)))

    assert stores.runs.open("r1") is None


def test_a_run_is_not_written_and_removed_at_once(stores: Stores) -> None:
    known = save(stores, a_run("r1"))

    with pytest.raises(Invalid, match="two writes"):
        stores.commit(Commit(runs=(write(a_run("r1"), known),), removed=(Removal("r1", 1),)))


def test_a_new_run_may_have_the_id_of_a_removed_one(stores: Stores) -> None:
    save(stores, a_run("r1", vars={"text": "é" * 20_000}), count=200)
    remove(stores, "r1")

    made = save(stores, a_run("r1", vars={"n": 1}), count=2)

    assert (made.revision, made.ledger_len) == (1, 2)
    assert stores.runs.open("r1") == made
    assert len(stores.ledger.list("r1")) == 2


def test_listeners_are_told_of_what_comes_after_a_removal(stores: Stores) -> None:
    save(stores, a_run("r1"))
    remove(stores, "r1")
    told = Told(stores)

    save(stores, a_run("r2"))

    assert told.wait_until(lambda: told.has_heard("r2", 1))


def test_what_was_removed_stays_removed(
    durable: Backend, opened: Callable[[Backend, Path], Stores], tmp_path: Path
) -> None:
    stores = opened(durable, tmp_path)
    save(stores, a_run("r1"), count=3)
    save(stores, a_run("r2"), count=1)
    stores.close()
    stores = opened(durable, tmp_path)
    remove(stores, "r1", keeps_id=True)
    stores.close()

    again = opened(durable, tmp_path)

    assert again.runs.row("r1") is None
    assert again.runs.was_removed("r1")
    assert again.ledger.count("r1") == 0
    assert [row.run_id for row in again.runs.find(RunQuery())] == ["r2"]
    assert list(again.problems) == []


@ON_A_DISK
def test_another_process_sees_a_removal_and_what_comes_after_it(
    durable: Backend, opened: Callable[[Backend, Path], Stores], tmp_path: Path
) -> None:
    ours, theirs = opened(durable, tmp_path), opened(durable, tmp_path)
    save(ours, a_run("r1"), count=3)
    told = Told(theirs)
    save(ours, a_run("r1", current_node="m"), count=1)
    assert told.wait_until(lambda: told.has_heard("r1", 2))

    remove(ours, "r1", keeps_id=True)
    save(ours, a_run("r2"))

    assert told.wait_until(lambda: told.has_heard("r2", 1))
    assert theirs.runs.open("r1") is None
    assert list(theirs.ledger.read("r1", 0, 10).records) == []
    assert theirs.runs.was_removed("r1")


def test_no_file_of_a_removed_run_is_left(tmp_path: Path, opened: Callable[[Backend, Path], Stores]) -> None:
    stores = opened(FILES, tmp_path)
    save(stores, a_run("r1"), count=3)
    stores.close()
    stores = opened(FILES, tmp_path)
    remove(stores, "r1")
    stores.close()

    assert [path.name for path in tmp_path.iterdir() if "r1" in path.name] == []
