"""What one client may have open at once, and how long its requests may take to arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from abstractgateway.security import Proxies, Tally, client_key


class CountedStream:
    """A stream that keeps its worker thread, and whose end is told once."""

    def __init__(self, stream: Any, on_left: Callable[[], None]) -> None:
        self._stream = stream
        self._on_left: Callable[[], None] | None = on_left

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def close(self) -> None:
        on_left, self._on_left = self._on_left, None
        self._stream.close()
        if on_left is not None:
            on_left()


class Doorkeeper:
    """Makes the channels of new connections, unless their address has as many as it may.

    It stands in for waitress's `channel_class`. A trusted proxy speaks for many clients and may have any number.
    """

    def __init__(self, make_channel: Callable[..., Any], connections: Tally, proxies: Proxies) -> None:
        self._make_channel = make_channel
        self._connections = connections
        self._proxies = proxies

    def __call__(self, server: Any, sock: Any, addr: Any, adj: Any, map: Any = None) -> Any:
        peer = str(addr[0])
        if self._proxies.trusts(peer):
            return self._make_channel(server, sock, addr, adj, map=map)
        client = client_key(peer)
        if not self._connections.add(client):
            sock.close()
            return None
        channel = self._make_channel(server, sock, addr, adj, map=map)
        channel.on_left = partial(self._connections.drop, client)
        return channel


class ArrivalTime:
    """When the request that a connection is sending began to arrive."""

    def __init__(self, head_s: float, whole_s: float) -> None:
        self._head_s = head_s
        self._whole_s = whole_s
        self._request: Any = None
        self._began = 0.0

    def note(self, request: Any, now: float) -> None:
        """Take notice of the request that is incomplete now; None for none."""
        if request is not self._request:
            self._request, self._began = request, now

    def is_over(self, now: float) -> bool:
        """Say whether the request should have arrived by now."""
        if self._request is None:
            return False
        most = self._whole_s if self._request.headers_finished else min(self._head_s, self._whole_s)
        return now - self._began > most


def close_late(channels: Iterable[Any], now: float) -> None:
    """End the connections whose request takes too long to arrive and that wait for no answer, and those whose client
    takes nothing of an answer.
    """
    for channel in channels:
        if channel.is_stuck(now):
            channel.handle_close()  # `will_close` is heeded when the client takes something
        elif not channel.requests and channel.arrival.is_over(now):
            channel.will_close = True
