"""One writer thread for many commits: what may be done in it, and that nothing which goes wrong in it ends it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from abstractgateway.errors import StaleWrite, Unavailable
from abstractgateway.runtime.commit import Commit
from abstractgateway.stores.base import CommitReceipt, Stores
from abstractgateway.stores.group import GroupWriter, Submission
from tests.stores.shapes import PATIENCE_S, Backend, Told, a_command, a_run, save, write

RECEIPT = CommitReceipt()


def accept(batch: list[Submission]) -> None:
    for item in batch:
        item.receipt = RECEIPT


def test_a_callback_that_would_wait_for_its_own_thread_is_told_so(
    durable: Backend, opened: Callable[[Backend, Path], Stores], tmp_path: Path
) -> None:
    stores = opened(durable, tmp_path)
    outcomes: queue.Queue[Exception | None] = queue.Queue()

    def commit_more(receipt: CommitReceipt | None, error: Exception | None) -> None:
        try:
            stores.commit(Commit(command=a_command("c2")))
        except Exception as refused:
            outcomes.put(refused)

    stores.submit(Commit(command=a_command("c1")), commit_more)

    assert "use submit" in str(outcomes.get(timeout=PATIENCE_S))
    assert stores.commands.append(a_command("c3")).seq == 2


def test_commits_go_on_where_tidying_up_fails(caplog: pytest.LogCaptureFixture) -> None:
    def tidy(is_idle: bool) -> bool:
        raise ValueError("a fault in the tidying")

    with closing(GroupWriter(accept, name="writer", tidy=tidy)) as writer:
        assert [writer.commit(Commit(command=a_command())) for _ in range(3)] == [RECEIPT] * 3

    assert "the store could not be tidied up" in caplog.text


def test_a_writer_that_ended_tidies_nothing_and_refuses_commits() -> None:
    tidied: list[bool] = []

    def tidy(is_idle: bool) -> bool:
        tidied.append(is_idle)
        return False

    writer = GroupWriter(accept, name="writer", tidy=tidy)
    writer.close()
    writer.tidy_soon()
    writer.close()

    with pytest.raises(Unavailable, match="closed"):
        writer.commit(Commit(command=a_command()))
    assert tidied == []


@pytest.mark.parametrize("is_mine", [True, False], ids=["in the writer's thread", "in the bell's thread"])
def test_a_listener_may_close_the_stores(
    durable: Backend, opened: Callable[[Backend, Path], Stores], tmp_path: Path, is_mine: bool
) -> None:
    stores, other = opened(durable, tmp_path), opened(durable, tmp_path)
    told = Told(stores)
    stores.subscribe(lambda changes: stores.close())
    told_last = Told(stores)

    if is_mine:
        stores.commands.append(a_command())
    else:
        save(other, a_run())

    assert told.wait_until(lambda: len(told.changes) == 1)
    assert told_last.wait_until(lambda: len(told_last.changes) == 1)
    with pytest.raises(Unavailable, match="closed"):
        stores.commit(Commit(command=a_command("late")))
    assert other.commands.append(a_command("theirs")).seq == (2 if is_mine else 1)


def test_what_was_written_is_measured(stores: Stores) -> None:
    before = stores.measures.commits

    for number in range(3):
        save(stores, a_run(f"r{number}"))

    assert stores.measures.commits - before == 3


def test_batches_are_timed_and_refused_commits_are_not(
    durable: Backend, opened: Callable[[Backend, Path], Stores], tmp_path: Path
) -> None:
    stores = opened(durable, tmp_path)
    save(stores, a_run())
    measures = stores.measures

    assert (measures.commits, sum(measures.batches.counts)) == (1, 1)
    assert measures.batches.seconds >= measures.syncs.seconds >= 0
    with pytest.raises(StaleWrite):
        stores.commit(Commit(runs=(write(a_run()),)))
    assert (measures.commits, sum(measures.batches.counts)) == (1, 1)
