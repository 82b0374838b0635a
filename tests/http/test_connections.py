"""The loop looks at a connection only when something about it may have changed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from abstractgateway_http.connections import Connections
from abstractgateway_http.handover import HandoverChannel


class Member:
    """One end of a pair of sockets, as waitress keeps it in its map."""

    accepting = False

    def __init__(self, *, reads: bool = True, writes: bool = False) -> None:
        self.socket, self.other = socket.socketpair()
        self.reads, self.writes = reads, writes
        self.asked = 0
        self.events: list[str] = []

    @property
    def number(self) -> int:
        return self.socket.fileno()

    def readable(self) -> bool:
        self.asked += 1
        return self.reads

    def writable(self) -> bool:
        return self.writes

    def handle_read_event(self) -> None:
        self.events.append("read")
        self.socket.recv(100)

    def handle_write_event(self) -> None:
        self.events.append("write")
        self.writes = False

    def handle_close(self) -> None:
        self.events.append("close")

    def close(self) -> None:
        self.socket.close()
        self.other.close()


@pytest.fixture
def opened() -> Iterator[Connections]:
    connections = Connections()
    yield connections
    connections.close()


@pytest.fixture
def members(opened: Connections) -> Iterator[Any]:
    made: list[Member] = []

    def add(**answers: bool) -> Member:
        member = Member(**answers)
        made.append(member)
        opened[member.number] = member
        return member

    yield add
    for member in made:
        member.close()


def test_a_member_is_told_what_happens(opened: Connections, members: Any) -> None:
    reader, writer = members(), members(writes=True)
    reader.other.send(b"x")

    opened.turn(1)

    assert (reader.events, writer.events) == (["read"], ["write"])


def test_a_member_that_nothing_happens_to_is_not_asked_again(opened: Connections, members: Any) -> None:
    idle, busy = members(), members()
    opened.turn(0)

    for _ in range(5):
        busy.other.send(b"x")
        opened.turn(1)

    assert len(busy.events) == 5
    assert idle.asked == 1


def test_what_a_member_waits_for_follows_its_answers(opened: Connections, members: Any) -> None:
    member = members()
    opened.turn(0)
    member.reads, member.writes = False, True
    opened.note(member.number)
    member.other.send(b"x")

    opened.turn(1)
    opened.turn(0)
    member.reads = True
    opened.ask_all()
    opened.turn(1)

    assert member.events == ["write", "read"]


def test_a_member_that_waits_for_nothing_is_left_alone_when_its_peer_goes(opened: Connections, members: Any) -> None:
    member = members(reads=False)
    opened.turn(0)
    member.other.close()

    opened.turn(0)
    opened.turn(0)

    assert member.events == []


def test_a_member_that_is_taken_out_hears_nothing_more(opened: Connections, members: Any) -> None:
    member = members()
    opened.turn(0)
    del opened[member.number]
    opened.note(member.number)
    member.other.send(b"x")

    opened.turn(0)

    assert member.events == []


def test_a_number_that_is_used_again_belongs_to_the_new_member(opened: Connections, members: Any) -> None:
    first = members()
    opened.turn(0)
    number = first.number
    first.socket.close()
    del opened[number]
    second = members()
    assert second.number == number
    second.other.send(b"x")

    opened.turn(1)

    assert (first.events, second.events) == ([], ["read"])


def test_members_that_are_always_asked_are_asked_in_every_turn(opened: Connections, members: Any) -> None:
    member = members(reads=False)
    opened.ask_always([member.number])

    for _ in range(3):
        opened.turn(0)

    assert member.asked >= 3


def test_idle_connections_cost_a_request_nothing(server: Any, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [connect() for _ in range(20)]
    for client in idle:
        client.send("GET", "/api/health").answer()
    asked: list[Any] = []
    readable = HandoverChannel.readable

    def spy(channel: HandoverChannel) -> bool:
        asked.append(channel)
        return readable(channel)

    monkeypatch.setattr(server._connections, "ask_all", lambda: None)
    monkeypatch.setattr(HandoverChannel, "readable", spy)

    for _ in range(5):
        idle[0].send("GET", "/api/health").answer()

    assert len(set(asked)) == 1
