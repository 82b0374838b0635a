"""Deltas on their way to one reader: pieces of answers that are being written, and that no ledger will have.

A delta follows the record of the intent of its effect and precedes that of the outcome, as the records themselves do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .frames import Batch, Cursor, delta_frame

MOST_BYTES = 65_536

IsSent = Callable[[str, int], bool]
"""Says whether a record, by run id and cursor, is with the reader already, or will never be."""


class Delta(Protocol):
    """A delta, as the service passes it on."""

    @property
    def run_id(self) -> str:
        """The run whose effect gives it."""

    @property
    def cursor(self) -> int:
        """Where the intent of the effect is in that run's ledger."""

    @property
    def body(self) -> bytes:
        """The delta as JSON."""


Unsubscribe = Callable[[], None]
Subscribe = Callable[[str, Callable[[Delta], object]], Unsubscribe]
"""Has a function called with every delta of a run and of those below it; returns how to stop that."""


class DeltaBuffer:
    """The deltas that wait for one reader, up to 64 KB; others are dropped, which their readers see by the offsets.

    `wake` is called, by any thread, when there is a first one.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._waiting: deque[Delta] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, delta: Delta) -> None:
        """Take a delta; called by the thread that performs the effect."""
        with self._lock:
            if self._bytes + len(delta.body) > MOST_BYTES:
                return
            self._bytes += len(delta.body)
            self._waiting.append(delta)
            is_first = len(self._waiting) == 1
        if is_first:
            self._wake()

    def take(self, is_sent: IsSent) -> bytes:
        """Remove and return, as frames, the deltas whose intents are sent; empty when there are none."""
        frames: list[bytes] = []
        with self._lock:
            while self._waiting and is_sent(self._waiting[0].run_id, self._waiting[0].cursor):
                body = self._waiting.popleft().body
                self._bytes -= len(body)
                frames.append(delta_frame(body))
        return b"".join(frames)

    def next_intent(self) -> tuple[str, int] | None:
        """Return the run id and cursor of the record that the next delta waits for, or None when there is no delta."""
        with self._lock:
            return (self._waiting[0].run_id, self._waiting[0].cursor) if self._waiting else None


def batch_of(frames: bytes, cursor: Cursor) -> Batch:
    """Return deltas as a stretch of a stream, which they do not advance."""
    return Batch(frames, cursor, False)
