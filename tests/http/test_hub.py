from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway_http.due import SLOT_SECONDS, DueTimes
from abstractgateway_http.hub import HubLimits, StreamHub
from abstractgateway_http.stream import Connection, Stream, StreamRequest


class Pair:
    """A stream's two ends: what the hub gets, and what the client reads."""

    def __init__(self, *, chunked: bool = False, unsent: bytes = b"") -> None:
        self.client, self.sock = socket.socketpair()
        self.client.settimeout(5)
        self.sock.setblocking(False)
        self.given_back = threading.Event()
        self.times_given_back = 0
        self.connection = Connection(self.sock, chunked, unsent, self._give_back)

    def _give_back(self) -> None:
        self.times_given_back += 1
        self.given_back.set()

    def close(self) -> None:
        self.client.close()
        self.sock.close()

    def read_to_end(self) -> bytes:
        return b"".join(iter(lambda: self.client.recv(65_536), b""))


@contextmanager
def running(gateway, **limits):
    hub = StreamHub(gateway.ledger.tail, HubLimits(**limits))
    unsubscribe = gateway.subscribe(hub.notify)
    hub.start()
    try:
        yield hub
    finally:
        unsubscribe()
        hub.stop()


@pytest.fixture
def pair():
    pairs = []

    def make(**options):
        pairs.append(Pair(**options))
        return pairs[-1]

    yield make
    for made in pairs:
        made.close()


@pytest.fixture
def never_full():
    """A socket that takes whatever is sent: a datagram that finds no room is lost."""
    with socket.socket(type=socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sender = socket.socket(type=socket.SOCK_DGRAM)
        sender.connect(sink.getsockname())
        sender.setblocking(False)
        yield sender
        sender.close()


def test_the_hub_gives_a_socket_back_once_and_never_closes_it_itself(gateway, pair):
    gateway.ledger.append("r")
    one = pair()
    with running(gateway) as hub:
        hub.reserve(StreamRequest("r", 0, 5.0)).adopt(one.connection)

        one.client.close()

        assert one.given_back.wait(5)
        assert one.sock.fileno() >= 0
    assert one.times_given_back == 1


def test_bytes_that_the_server_had_not_sent_come_first(gateway, pair):
    gateway.ledger.append("r", b"{}")
    gateway.ledger.end("r")
    one = pair(unsent=b"HTTP/1.1 200 OK\r\n\r\n")

    with running(gateway) as hub:
        hub.reserve(StreamRequest("r", 0, 5.0)).adopt(one.connection)
        received = one.read_to_end()

    assert received.startswith(b"HTTP/1.1 200 OK\r\n\r\nid: 1\n")


def test_a_connection_that_comes_after_the_end_is_ended_in_order(gateway, pair):
    gateway.ledger.append("r")
    one = pair(unsent=b"head", chunked=True)
    with running(gateway) as hub:
        seat = hub.reserve(StreamRequest("r", 0, 5.0))

    seat.adopt(one.connection)

    assert one.read_to_end() == b"headD\r\nretry: 2000\n\n\r\n0\r\n\r\n"
    assert one.times_given_back == 1
    assert hub.open_streams == 0


def test_a_hub_that_is_stopping_promises_no_streams(gateway):
    with running(gateway) as hub:
        hub.stop()

        with pytest.raises(Unavailable) as refusal:
            hub.reserve(StreamRequest("r", 0, 5.0))

    assert refusal.value.code == "stopping"


def test_a_hub_that_was_never_started_can_be_stopped(gateway):
    hub = StreamHub(gateway.ledger.tail)

    hub.stop()

    assert hub.open_streams == 0


def test_a_seat_is_given_back_once_however_often_it_is_left(gateway):
    with running(gateway, streams=1) as hub:
        seat = hub.reserve(StreamRequest("r", 0, 5.0))

        seat.release()
        seat.release()

        assert hub.open_streams == 0


def test_news_of_runs_that_nobody_watches_wakes_nobody(gateway):
    hub = StreamHub(gateway.ledger.tail)

    hub.notify(["other"])
    is_woken = hub._is_woken
    hub.stop()

    assert not is_woken


def test_a_replay_that_never_ends_does_not_keep_the_others_waiting(pair, never_full):
    short = pair()
    short_served = threading.Event()
    long_begun = threading.Event()

    def read_tail(run_id: str, after: int, max_bytes: int) -> SimpleNamespace:
        if run_id == "short" or short_served.is_set():
            return SimpleNamespace(records=(b"{}",) if after == 0 else (), next_after=1, ended=False)
        long_begun.set()
        return SimpleNamespace(records=(b"{}",), next_after=after + 1, ended=False)

    hub = StreamHub(read_tail)
    hub.start()
    hub.reserve(StreamRequest("long", 0, 5.0)).adopt(Connection(never_full, False, b"", never_full.close))
    assert long_begun.wait(5)
    hub.reserve(StreamRequest("short", 0, 5.0)).adopt(short.connection)
    try:
        received = short.client.recv(65_536)
    finally:
        short_served.set()
        hub.stop()

    assert received.startswith(b"id: 1\n")


def test_a_stream_is_hung_up_once(pair):
    one = pair()
    released: list[bool] = []
    stream = Stream("r", 0, 5.0, one.connection, lambda: released.append(True))

    stream.hang_up()
    stream.hang_up()

    assert (one.times_given_back, released) == (1, [True])


def test_a_late_deadline_is_met_after_its_time_and_not_before():
    due: DueTimes[str] = DueTimes()
    due.put("a", 10.0)
    due.put("b", 12.0)
    due.put("a", 11.0)
    due.drop("b")

    early = due.take(10.99)
    left = due.seconds_left(10.99)
    late = due.take(11.0 + SLOT_SECONDS)

    assert (early, late) == ([], ["a"])
    assert left is not None and 0.01 < left < 0.02 + SLOT_SECONDS
    assert due.seconds_left(12.0) is None
