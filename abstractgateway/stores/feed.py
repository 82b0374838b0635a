"""Telling listeners what became durable, and waiting for a commit that is decided in another thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from .base import Changes, Commit, CommitReceipt, Listener

_log = logging.getLogger(__name__)


class Feed:
    """The listeners of a store."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.Lock()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        with self._lock:
            self._listeners = (*self._listeners, listener)
        return lambda: self._remove(listener)

    def notify(self, changes: Changes) -> None:
        """Tell every listener; one that raises is logged and does not keep the others from their news."""
        if not changes.runs and not changes.has_commands:
            return
        for listener in self._listeners:
            try:
                listener(changes)
            except Exception:  # the commit is durable: nothing a listener does may make it look failed
                _log.exception("a listener of the store failed")

    def _remove(self, listener: Listener) -> None:
        with self._lock:
            self._listeners = tuple(item for item in self._listeners if item is not listener)


class Decision:
    """What became of a submitted commit; `wait` blocks until it is known."""

    def __init__(self) -> None:
        self._receipt: CommitReceipt | None = None
        self._error: Exception | None = None
        self._latch = threading.Lock()  # a bare lock is the cheapest one-shot event
        self._latch.acquire()

    def __call__(self, receipt: CommitReceipt | None, error: Exception | None) -> None:
        self._receipt, self._error = receipt, error
        self._latch.release()

    def wait(self) -> CommitReceipt:
        self._latch.acquire()
        if self._error is not None:
            raise self._error
        assert self._receipt is not None
        return self._receipt


def commit_and_wait(submit: Callable[[Commit, Decision], None], commit: Commit) -> CommitReceipt:
    """Submit a commit and return its receipt, or raise what became of it."""
    decision = Decision()
    submit(commit, decision)
    return decision.wait()
