"""Clients that ask and do not read: they keep neither a thread nor memory, and not for long."""

from __future__ import annotations

import socket
import time

import pytest

from abstractgateway_http import handover
from tests.attacks.target import statuses

PATIENCE_S = 10.0
ASKED = b"GET /api/gateway/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer a-token-of-some-length\r\n\r\n"


def test_requests_behind_an_answer_that_nobody_reads_are_not_worked_on(gateway, connect):
    gateway.runs.list = lambda **given: gateway.calls.append(("runs.list", given)) or {"items": ["x" * 8_000_000]}
    reader = connect(receive_buffer=4_096)

    reader.sock.sendall(ASKED * 5)
    assert reader.sock.recv(1, socket.MSG_PEEK)
    # These come behind the second request in the same queue, if that is in it.
    for _ in range(20):
        connect().send("GET", "/api/health").answer()

    assert len(gateway.calls) == 1


def test_all_answers_come_to_who_reads_them(gateway, connect):
    gateway.runs.list = lambda **given: {"items": ["x" * 300_000]}
    reader = connect(receive_buffer=4_096)

    reader.sock.sendall(ASKED * 4 + ASKED.replace(b"Host", b"Connection: close\r\nHost"))

    assert statuses(reader.read_to_end()) == [200] * 5


def test_who_takes_nothing_of_an_answer_is_disconnected(gateway, connect, monkeypatch):
    monkeypatch.setattr(handover, "_STUCK_S", 0.1)
    gateway.runs.list = lambda **given: {"items": ["x" * 40_000_000]}
    reader = connect(receive_buffer=4_096)

    reader.sock.sendall(ASKED)
    reader.sock.settimeout(10)
    assert reader.sock.recv(1, socket.MSG_PEEK)
    poller = connect()
    until = time.monotonic() + PATIENCE_S
    while not is_over(reader.sock):
        assert time.monotonic() < until
        poller.send("GET", "/api/health").answer()


def is_over(sock: socket.socket) -> bool:
    try:
        sock.send(b" ")
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


@pytest.mark.parametrize("target", ["/api/gateway/runs", "http://127.0.0.1/api/gateway/runs"])
def test_the_host_of_a_target_overrules_the_header(connect, target):
    answer = connect().send("GET", target, "Host: evil.example").answer()

    assert answer.status == (403 if target.startswith("/") else 200)
