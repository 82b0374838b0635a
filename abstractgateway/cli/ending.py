"""How signals end a process: the first one in order, the second one at once. Whatever is durable then stays."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""The exit code that a shell expects of a command that Ctrl-C ended."""

_ENDING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def signals_end_at_once() -> Iterator[None]:
    """Let the signals that end a process do so at once, wherever it is; only a main thread can see to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def first_signal() -> Iterator[Callable[[], int]]:
    """Yield what waits for the first signal; the next one ends the process at once."""

    def let_the_next_end(number: int, frame: FrameType | None) -> None:
        for other in _ENDING:
            signal.signal(other, signal.SIG_DFL)

    hears, tells = socket.socketpair()
    tells.setblocking(False)
    with hears, tells, signals_end_at_once():
        for number in _ENDING:
            signal.signal(number, let_the_next_end)
        # The system writes the number there at once; a handler in Python could come too late for whoever waits already.
        before = signal.set_wakeup_fd(tells.fileno())
        try:
            yield lambda: _heard(hears)
        finally:
            signal.set_wakeup_fd(before)


def _heard(hears: socket.socket) -> int:
    while (number := hears.recv(1)[0]) not in _ENDING:
        continue
    return number
