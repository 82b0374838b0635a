"""Requests over several connections at once, sent by one thread."""

from __future__ import annotations

import selectors
from collections.abc import Iterator

from .gateway import TOKEN, Gateway
from .wire import Wire

CONNECTIONS = 8


def answers(gateway: Gateway, request: bytes, most: int) -> Iterator[bytes]:
    """Send a request so many times and return the answers; each connection sends its next when it has an answer."""
    wires = [Wire(gateway.port, TOKEN) for _ in range(min(CONNECTIONS, most))]
    unsent, unanswered = most - len(wires), most
    with selectors.DefaultSelector() as poll:
        for wire in wires:
            poll.register(wire.send(request), selectors.EVENT_READ, wire)
        while unanswered:
            for key, _ in poll.select():
                answer = key.data.receive("one of many requests")
                if unsent:
                    key.data.send(request)
                    unsent -= 1
                unanswered -= 1
                yield answer
    for wire in wires:
        wire.close()
