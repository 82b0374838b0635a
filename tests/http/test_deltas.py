"""Deltas on the streams of a server: who gets them, in which order, and what they cost the others."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import pytest

from abstractgateway.runner.deltas import Delta
from abstractgateway_http.deltas import MOST_BYTES, DeltaBuffer
from abstractgateway_http.hub import HubLimits, StreamHub
from abstractgateway_http.stream import StreamRequest
from tests.http.conftest import StandInGateway, Tail
from tests.http.test_hub import pair

__all__ = ["pair"]

FRAMES = re.compile(rb"event: (\w+)\ndata: (\{.*\})\n\n")


def delta(text: str, *, cursor: int = 1, run_id: str = "r") -> Delta:
    return Delta(run_id, "ask", "step", 1, cursor, {"content": text, "offset": 0})


def publish(gateway: StandInGateway, found: Delta, root: str = "r") -> None:
    for listener in gateway.deltas.listeners_of((root,)):
        listener(found)


def shown(sent: bytes) -> list[Any]:
    """Return what a stream sent: the cursor of each record, and the text of each delta."""
    found = [(name, json.loads(data)) for name, data in FRAMES.findall(sent)]
    return [data["content"] if name == b"delta" else data["cursor"] for name, data in found if name != b"done"]


def test_who_does_not_ask_gets_none(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect().stream("r")
    client.read_until(b"}}\n\n")

    publish(gateway, delta("a"))
    has_listeners = gateway.deltas.has_listeners
    gateway.ledger.end("r")

    assert shown(client.read_to_end()) == []
    assert not has_listeners


def test_a_delta_waits_for_the_record_of_its_intent_and_precedes_the_next(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect().stream("r", query="?deltas=1")
    sent = client.read_until(b"}}\n\n")

    publish(gateway, delta("a", cursor=2))
    publish(gateway, delta("b", cursor=2))
    gateway.ledger.append("r", b'{"n":2}', b'{"n":3}')
    gateway.ledger.end("r")

    assert shown(sent + client.read_to_end()) == [1, 2, "a", "b", 3]


def test_a_delta_of_a_run_below_waits_for_nothing(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect().stream("r", query="?deltas=1")
    client.read_until(b"}}\n\n")

    publish(gateway, delta("a", cursor=9, run_id="child"))

    assert shown(client.read_until(b"}\n\n")) == ["a"]


def test_deltas_are_sent_without_a_look_at_the_ledger(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect().stream("r", query="?deltas=1")
    client.read_until(b"}}\n\n")
    publish(gateway, delta("a"))
    client.read_until(b"}\n\n")
    reads = gateway.ledger.reads

    for text in "bcdef":
        publish(gateway, delta(text))
        client.read_until(b"}\n\n")

    assert gateway.ledger.reads == reads


def test_readers_of_records_only_are_left_alone(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    clients = [connect().stream("r") for _ in range(20)]
    listening = connect().stream("r", query="?deltas=1")
    for client in (*clients, listening):
        client.read_until(b"}}\n\n")

    publish(gateway, delta("a"))
    listening.read_until(b"}\n\n")
    gateway.ledger.append("r", b'{"n":2}')
    gateway.ledger.end("r")

    assert [shown(client.read_to_end()) for client in clients] == [[2]] * 20


def test_a_reader_that_does_not_keep_up_loses_deltas_and_no_record(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    slow = connect(receive_buffer=4096).stream("r", query="?deltas=1")
    for _ in range(400):
        publish(gateway, delta("x" * 10_000))
    gateway.ledger.append("r", b'{"n":2}')
    gateway.ledger.end("r")

    found = shown(slow.read_to_end())

    assert [item for item in found if isinstance(item, int)] == [1, 2]
    assert 0 < len(found) - 2 < 400
    assert found[-1] == 2


def test_a_delta_that_comes_while_the_ledger_is_read_precedes_what_was_read(gateway, pair):
    one = pair()
    gateway.ledger.append("r", b'{"n":1}')

    def read_tail(run_id: str, after: int, max_bytes: int) -> Tail:
        if after == 1:
            publish(gateway, delta("a"))
            gateway.ledger.append("r", b'{"n":2}')
            gateway.ledger.end("r")
        return gateway.ledger.tail(run_id, after, max_bytes)

    hub = StreamHub(read_tail, HubLimits(), gateway.deltas.subscribe)
    hub.start()
    try:
        hub.reserve(StreamRequest("r", 0, 5.0, has_deltas=True)).adopt(one.connection)
        sent = one.read_to_end()
    finally:
        hub.stop()

    assert shown(sent) == [1, "a", 2]


def test_a_client_that_leaves_listens_no_more(gateway, connect, server):
    gateway.ledger.append("r")
    client = connect().stream("r", query="?deltas=1")
    was_heard = gateway.deltas.has_listeners

    client.sock.shutdown(socket.SHUT_RDWR)

    assert was_heard
    assert server.hub.wait_streams(0, 5)
    assert not gateway.deltas.has_listeners


def test_a_buffer_is_bounded_and_takes_more_when_it_was_emptied():
    wakes: list[bool] = []
    buffer = DeltaBuffer(lambda: wakes.append(True))
    for _ in range(10):
        buffer.put(delta("x" * 20_000))

    first = buffer.take(lambda run_id, cursor: True)
    buffer.put(delta("y"))
    second = buffer.take(lambda run_id, cursor: True)

    assert 0 < len(first) <= MOST_BYTES + 200
    assert len(shown(first)) == 3
    assert shown(second) == ["y"]
    assert len(wakes) == 2


@pytest.mark.parametrize("query", ["?include=parents", "?include=", "?deltas=maybe"])
def test_what_a_stream_cannot_have_is_refused(gateway, ask, query):
    gateway.ledger.append("r")

    answer = ask("GET", f"/api/gateway/runs/r/ledger/stream{query}")

    assert answer.status == 422
    assert answer.json["detail"][0]["loc"][0] == "query"
