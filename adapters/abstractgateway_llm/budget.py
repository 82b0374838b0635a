"""How long a call may still take, and whether its answer is still wanted."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from abstractgateway.clock import Clock

from .errors import Stopped


class Stop(Protocol):
    """What says that an answer is not wanted any more: a `threading.Event`, or the `stop` of a gateway's effect.

    The latter also has `on_set(callback)`, which returns how to take the callback back; with it a call ends at once.
    """

    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Budget:
    """The time of one call: `timeout_s` seconds from now (None: any number), or until `stop` is set."""

    def __init__(
        self,
        *,
        clock: Clock,
        timeout_s: float | None = None,
        stop: Stop | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._ends_at = None if timeout_s is None else clock.monotonic() + timeout_s
        self._stop: Stop = stop if stop is not None else threading.Event()
        self._forget: list[Callable[[], None]] = []
        self._sleep = sleep or self._stop.wait

    def check(self) -> None:
        """Raise `Stopped` when the answer is not wanted any more, or comes too late."""
        if self._stop.is_set():
            raise Stopped("the call was cancelled")
        if self._ends_at is not None and self._clock.monotonic() >= self._ends_at:
            raise Stopped(f"no complete answer within {self._timeout_s:g} s")

    def shorter(self, seconds: float) -> float:
        """Return these seconds, or what is left where that is less."""
        return seconds if self._ends_at is None else max(min(seconds, self._ends_at - self._clock.monotonic()), 0.001)

    def allows(self, seconds: float) -> bool:
        """Say whether there is time for anything after a pause of these seconds."""
        return self._ends_at is None or self._clock.monotonic() + seconds < self._ends_at

    def wait(self, seconds: float) -> None:
        """Pause. Raises `Stopped` as soon as the answer is not wanted any more."""
        self._sleep(seconds)
        self.check()

    def watch(self, sock: socket.socket) -> None:
        """Have a socket closed when the answer is not wanted any more: whoever waits for it comes back at once."""
        on_set = getattr(self._stop, "on_set", None)
        if on_set is not None:
            self._forget.append(on_set(lambda: _shut_down(sock)))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the sockets of the calling thread meanwhile; afterwards they may serve others."""
        _watcher.budget = self
        try:
            yield
        finally:
            _watcher.budget = None
            while self._forget:
                self._forget.pop()()


class _Watcher(threading.local):
    """The budget of the call that a thread makes: the client library tells of a connection only with its answer."""

    budget: Budget | None = None


_watcher = _Watcher()


def watch(sock: socket.socket | None) -> None:
    """Have a socket closed with the call that this thread makes, if there is one."""
    if sock is not None and _watcher.budget is not None:
        _watcher.budget.watch(sock)


def _shut_down(sock: socket.socket) -> None:
    # Past the layer of TLS, which another thread is reading from.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
