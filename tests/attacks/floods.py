"""Attacks that hold something of the server: each is in progress inside its block, at the size that is given."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from tests.attacks.target import API, HEALTH, Target, head

PAUSE_S = 0.02
_RESET = struct.pack("ii", 1, 0)


def addresses() -> Iterator[str]:
    """Return addresses of the loopback network that are not 127.0.0.1, one after another."""
    return (f"127.{a}.{b}.{c}" for a in itertools.count(1) for b in range(256) for c in range(1, 255))


def _connections(stack: ExitStack, target: Target, count: int, **options: int) -> list[socket.socket]:
    opened = []
    for source in itertools.islice(addresses(), count):
        opened.append(target.connect(source=source, **options))
        stack.callback(opened[-1].close)
    return opened


@contextmanager
def _repeating(work: Callable[[], None]) -> Iterator[None]:
    """Do work again and again in the background; a connection that the server ended ends nothing."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(PAUSE_S):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _send_all(connections: list[socket.socket], data: bytes) -> None:
    for sock in connections:
        try:
            sock.sendall(data)
        except OSError:
            continue


@contextmanager
def idle(target: Target, size: int) -> Iterator[None]:
    """Connections that say nothing."""
    with ExitStack() as stack:
        _connections(stack, target, size)
        yield


@contextmanager
def one_address_idle(target: Target, size: int) -> Iterator[None]:
    """Connections that say nothing, all from one address."""
    with ExitStack() as stack:
        for _ in range(size):
            stack.callback(target.connect(source="127.9.9.9").close)
        yield


@contextmanager
def slow_heads(target: Target, size: int) -> Iterator[None]:
    """Heads that arrive a byte at a time and never end."""
    with ExitStack() as stack:
        opened = _connections(stack, target, size)
        _send_all(opened, b"GET / HTTP/1.1\r\nX-Slow: ")
        with _repeating(lambda: _send_all(opened, b"x")):
            yield


@contextmanager
def slow_bodies(target: Target, size: int) -> Iterator[None]:
    """Bodies that arrive a byte at a time and never end, after heads that are in order."""
    with ExitStack() as stack:
        opened = _connections(stack, target, size)
        request = head("POST", f"{API}/runs/start", "Content-Type: application/json", "Content-Length: 200000")
        _send_all(opened, request + b"{")
        with _repeating(lambda: _send_all(opened, b" ")):
            yield


@contextmanager
def slow_readers(target: Target, size: int) -> Iterator[None]:
    """Many large answers asked for at once, none of them read."""
    with ExitStack() as stack:
        opened = _connections(stack, target, size, receive_buffer=4096)
        _send_all(opened, head("GET", "/openapi.json") * 50)
        target.latencies_ms(20)  # behind what the kernel takes of the answers
        yield


@contextmanager
def half_open(target: Target, size: int) -> Iterator[None]:
    """Connections that end inside a request, by a FIN or by a reset, again and again."""
    sources = itertools.cycle(itertools.islice(addresses(), 200))

    def work() -> None:
        for number in range(max(1, size // 50)):
            with target.connect(source=next(sources)) as sock:
                sock.sendall(head("POST", f"{API}/runs/start", "Content-Length: 100") + b"{")
                if number % 2:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                else:
                    sock.shutdown(socket.SHUT_WR)

    with _repeating(work):
        yield


@contextmanager
def garbage(target: Target, size: int) -> Iterator[None]:
    """Bytes that are not HTTP, after requests that are, all in one piece."""
    sent = head("GET", HEALTH, token=None) + bytes(range(256)) * 40 + b"\r\n\r\n"
    with _hurling(target, sent, size):
        yield


@contextmanager
def header_floods(target: Target, size: int) -> Iterator[None]:
    """Heads of ten thousand headers, and of one that never ends."""
    many = head("GET", HEALTH, *(f"X-{number}: x" for number in range(10_000)))
    with _hurling(target, many + b"GET / HTTP/1.1\r\nX: " + b"x" * 400_000, max(1, size // 50)):
        yield


@contextmanager
def wrong_tokens(target: Target, size: int) -> Iterator[None]:
    """Requests with wrong tokens, `size` of them in all, each from another address."""
    sources = itertools.islice(addresses(), size)

    def work() -> None:
        for source in itertools.islice(sources, 20):
            target.exchange(head("GET", f"{API}/runs", "Connection: close", token="wrong-" * 4), source=source)

    with _repeating(work):
        yield


@contextmanager
def streams_without_token(target: Target, size: int) -> Iterator[None]:
    """Streams opened without a token, ten at a time on each of two connections."""
    request = head("GET", f"{API}/runs/some-run/ledger/stream", token=None)
    with _hurling(target, request * 10, max(1, size // 50)):
        yield


@contextmanager
def _hurling(target: Target, sent: bytes, size: int) -> Iterator[None]:
    """Send the same again and again, on up to four new connections each time, and read no answer."""
    sources = itertools.cycle(itertools.islice(addresses(), 200))

    def work() -> None:
        with ExitStack() as stack:
            for source in itertools.islice(sources, min(size, 4)):
                sock = target.connect(source=source)
                stack.callback(sock.close)
                sock.settimeout(0.2)
                _send_all([sock], sent)

    with _repeating(work):
        yield


Attack = Callable[[Target, int], AbstractContextManager[None]]
ATTACKS: dict[str, Attack] = {
    "idle connections": idle,
    "idle connections of one address": one_address_idle,
    "slow heads": slow_heads,
    "slow bodies": slow_bodies,
    "slow readers": slow_readers,
    "half-open connections": half_open,
    "garbage": garbage,
    "header floods": header_floods,
    "wrong tokens": wrong_tokens,
    "streams without a token": streams_without_token,
}
