from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from abstractgateway import GatewayService
from abstractgateway.errors import NotFound, Unavailable
from tests.service.conftest import Open
from tests.service.waiting import PATIENCE_S, wait_for_status


def asked(gateway: GatewayService) -> str:
    run_id = gateway.runs.start(bundle_id="ask")
    wait_for_status(gateway, run_id, "waiting")
    return run_id


def answer(gateway: GatewayService, run_id: str) -> None:
    gateway.commands.submit(run_id=run_id, type="resume", payload={"payload": {"response": "Bob"}})


class Follower(threading.Thread):
    """Follows a ledger in a thread of its own and remembers what came."""

    def __init__(self, entries: Any) -> None:
        super().__init__(daemon=True)
        self.cursors: list[int] = []
        self.error: Exception | None = None
        self.has_some = threading.Event()
        self._entries = entries

    def run(self) -> None:
        try:
            for entry in self._entries:
                self.cursors.append(entry.cursor)
                if len(self.cursors) == 2:
                    self.has_some.set()
        except Exception as error:
            self.error = error


def test_pages_of_a_ledger_join_up(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(bundle_id="hello")
    wait_for_status(gateway, run_id, "completed")

    whole = gateway.ledger.read(run_id, limit=1000)
    pages = [gateway.ledger.read(run_id, after, 1) for after in range(whole.next_after)]

    assert [record for page in pages for record in page.records] == list(whole.records)
    assert [page.next_after for page in pages] == list(range(1, whole.next_after + 1))
    assert gateway.ledger.read(run_id, whole.next_after).records == type(whole.records)()
    assert gateway.ledger.read(run_id, whole.next_after).next_after == whole.next_after


def test_an_unknown_run_has_no_records_but_nothing_to_follow(gateway: GatewayService) -> None:
    assert list(gateway.ledger.read("nope").records) == []
    with pytest.raises(NotFound, match="Run 'nope' not found"):
        gateway.ledger.tail("nope", 0, 1000)
    with pytest.raises(NotFound, match="Run 'nope' not found"):
        gateway.ledger.follow("nope")


def test_a_tail_holds_at_least_one_record_and_says_when_all_is_told(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(bundle_id="hello")
    wait_for_status(gateway, run_id, "completed")
    count = len(gateway.ledger.read(run_id).records)

    tails = [gateway.ledger.tail(run_id, after, max_bytes=1) for after in range(count)]

    assert [len(tail.records) for tail in tails] == [1] * count
    assert [tail.ended for tail in tails] == [False] * (count - 1) + [True]
    assert gateway.ledger.tail(run_id, 0, max_bytes=1 << 20).next_after == count
    assert gateway.ledger.tail(run_id, count, max_bytes=1).ended


def test_a_tail_of_a_live_run_does_not_end(gateway: GatewayService) -> None:
    run_id = asked(gateway)

    tail = gateway.ledger.tail(run_id, 2, max_bytes=1000)

    assert (list(tail.records), tail.next_after, tail.ended) == ([], 2, False)


def test_who_follows_a_run_gets_each_record_once_and_is_done_when_the_run_is(gateway: GatewayService) -> None:
    run_id = asked(gateway)
    followers = [Follower(gateway.ledger.follow(run_id, after)) for after in (0, 0, 1)]
    for follower in followers:
        follower.start()
    assert followers[0].has_some.wait(PATIENCE_S)

    answer(gateway, run_id)
    for follower in followers:
        follower.join(PATIENCE_S)

    count = len(gateway.ledger.read(run_id).records)
    assert [follower.cursors for follower in followers] == [
        list(range(1, count + 1)),
        list(range(1, count + 1)),
        list(range(2, count + 1)),
    ]


def test_records_are_followed_as_they_are_stored(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(bundle_id="hello")

    followed = [entry.record for entry in gateway.ledger.follow(run_id)]

    assert followed == [json.loads(body) for body in gateway.ledger.read(run_id).records]


def test_who_follows_a_run_is_told_when_the_gateway_is_closed(gateway: GatewayService) -> None:
    run_id = asked(gateway)
    follower = Follower(gateway.ledger.follow(run_id))
    follower.start()
    assert follower.has_some.wait(PATIENCE_S)

    gateway.close()
    follower.join(PATIENCE_S)

    assert not follower.is_alive()
    assert isinstance(follower.error, Unavailable)


def test_who_stops_following_leaves_no_listener_behind(gateway: GatewayService) -> None:
    run_id = asked(gateway)
    entries = gateway.ledger.follow(run_id)
    next(entries)

    entries.close()  # type: ignore[attr-defined]
    never_begun = gateway.ledger.follow(run_id)

    assert gateway.ledger._followers == set()
    assert never_begun is not entries


def test_a_ledger_can_be_read_while_it_grows(gateway: GatewayService) -> None:
    seen: list[int] = []
    ids = [gateway.runs.start(bundle_id="hello") for _ in range(10)]

    for run_id in ids:
        lengths = []
        while not gateway.ledger.tail(run_id, 0, 1 << 20).ended:
            lengths.append(len(gateway.ledger.read(run_id).records))
        assert lengths == sorted(lengths)
        seen.append(len(gateway.ledger.read(run_id).records))

    assert len(set(seen)) == 1


def test_a_ledger_is_the_same_after_a_restart(open_gateway: Open, backend: str) -> None:
    if backend == "memory":
        pytest.skip("nothing survives the process")
    first = open_gateway()
    run_id = asked(first)
    before = list(first.ledger.read(run_id).records)
    first.close()

    second = open_gateway()

    assert list(second.ledger.read(run_id).records) == before
