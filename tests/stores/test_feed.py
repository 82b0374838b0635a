from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from abstractgateway.stores.base import Changes, Commit, RunRow, Stores
from abstractgateway.stores.feed import Feed
from tests.stores.shapes import PATIENCE_S, Backend, Told, a_command, a_run, appending, applied, save, write

Open = Callable[[Backend, Path], Stores]


def test_a_listener_is_told_every_change_once_and_in_order(stores: Stores) -> None:
    told = Told(stores)

    for number in range(30):
        save(stores, a_run(f"r{number % 3}"))

    assert told.wait_until(lambda: len(told.revisions) >= 30)
    assert told.revisions == [(f"r{number % 3}", number // 3 + 1) for number in range(30)]


def test_a_listener_finds_what_it_is_told_of(stores: Stores) -> None:
    seen: list[tuple[int, int]] = []
    decided = threading.Event()

    def look(changes: Changes) -> None:
        (row,) = changes.runs
        seen.append((stores.runs.open("r1").revision, len(stores.ledger.read("r1", 0, 99).records)))
        decided.set()

    stores.subscribe(look)
    save(stores, a_run(), count=4)

    assert decided.wait(PATIENCE_S)
    assert seen == [(1, 4)]


def test_a_listener_is_told_of_commands_and_not_of_outcomes(stores: Stores) -> None:
    told = Told(stores)

    stores.commands.append(a_command("a"))
    stores.commit(Commit(outcome=applied(a_command("a"), 1)))
    stores.commands.append(a_command("a"))
    save(stores, a_run())

    assert told.wait_until(lambda: bool(told.revisions))
    assert [(len(changes.runs), changes.has_commands) for changes in told.changes] == [(0, True), (1, False)]


def test_a_listener_is_told_of_records_alone(stores: Stores) -> None:
    stored = save(stores, a_run(), count=1)
    told = Told(stores)

    stores.commit(Commit(runs=(appending(stored, 2),)))

    assert told.wait_until(lambda: bool(told.changes))
    assert [row.ledger_len for row in told.changes[0].runs] == [3]


def test_what_was_posted_before_it_is_delivered_keeps_its_order() -> None:
    feed = Feed()
    told: list[Changes] = []
    posted = [Changes((RunRow.of(a_run(name), revision=1, ledger_len=0),)) for name in "abc"]
    feed.subscribe(lambda changes: (told.append(changes), len(told) == 1 and feed.post(posted[2]), feed.deliver()))

    feed.post(posted[0])
    feed.post(posted[1])
    feed.post(Changes(()))
    feed.deliver()

    assert told == posted


def test_a_refused_commit_tells_nobody(stores: Stores) -> None:
    save(stores, a_run())
    told = Told(stores)

    stores.submit(Commit(runs=(write(a_run()),)), lambda receipt, error: None)
    save(stores, a_run("r2"))

    assert told.wait_until(lambda: bool(told.revisions))
    assert told.revisions == [("r2", 1)]


def test_a_listener_that_fails_keeps_nobody_from_their_news(stores: Stores) -> None:
    stores.subscribe(lambda changes: 1 // 0)
    told = Told(stores)

    save(stores, a_run())

    assert told.wait_until(lambda: bool(told.revisions))


def test_a_listener_may_submit_what_follows_and_hears_of_it_afterwards(stores: Stores) -> None:
    def follow(changes: Changes) -> None:
        if changes.runs[0].run_id == "first":
            stores.submit(Commit(runs=(write(a_run("second")),)), lambda receipt, error: None)

    stores.subscribe(follow)
    told = Told(stores)

    save(stores, a_run("first"))

    assert told.wait_until(lambda: len(told.revisions) == 2)
    assert told.revisions == [("first", 1), ("second", 1)]


def test_a_listener_that_left_is_told_nothing_more(stores: Stores) -> None:
    gone, told = Told(stores), Told(stores)
    gone.stop()
    gone.stop()

    save(stores, a_run())

    assert told.wait_until(lambda: bool(told.revisions))
    assert gone.changes == []


def test_two_stores_of_one_directory_in_one_process_tell_each_other(
    durable: Backend, opened: Open, tmp_path: Path
) -> None:
    one, two = opened(durable, tmp_path), opened(durable, tmp_path)
    told_one, told_two = Told(one), Told(two)

    for _ in range(10):
        for writer, reader in ((one, told_two), (two, told_one)):
            revision = save(writer, a_run("r1"), count=1).revision
            assert reader.wait_until(partial(reader.has_heard, "r1", revision))

    wanted = [("r1", revision) for revision in range(1, 21)]
    assert told_one.revisions == wanted
    assert told_two.revisions == wanted


def test_two_stores_of_one_directory_give_out_each_place_once(durable: Backend, opened: Open, tmp_path: Path) -> None:
    pair = [opened(durable, tmp_path), opened(durable, tmp_path)]
    seqs: list[int] = []

    def send(stores: Stores, name: str) -> None:
        for number in range(40):
            seqs.append(stores.commands.append(a_command(f"{name}-{number}")).seq)

    threads = [threading.Thread(target=send, args=(stores, name)) for stores, name in zip(pair, "ab", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(seqs) == list(range(1, 81))


def test_an_epoch_claimed_by_one_ends_the_other_ones(durable: Backend, opened: Open, tmp_path: Path) -> None:
    one, two = opened(durable, tmp_path), opened(durable, tmp_path)
    mine = one.claim("one")
    two.claim("two")
    told: list[str] = []
    decided = threading.Event()

    one.submit(
        Commit(runs=(write(a_run()),), epoch=mine), lambda receipt, error: (told.append(error.code), decided.set())
    )

    assert decided.wait(PATIENCE_S)
    assert told == ["lease_lost"]
