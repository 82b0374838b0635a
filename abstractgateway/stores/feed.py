"""Telling listeners what became durable, and waiting for a commit that is decided in another thread."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from .base import Changes, Commit, CommitReceipt, Listener

_log = logging.getLogger(__name__)


class Feed:
    """The listeners of a store, and what they have not been told yet.

    `post` is called where changes become visible, under the store's lock, so that their order is that of the commits;
    `deliver` is called without any lock, so that a listener may do what it likes.
    """

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.Lock()
        self._posted: deque[Changes] = deque()
        self._delivering = threading.Lock()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell a listener of what is posted from now on; return how to stop that."""
        with self._lock:
            self._listeners = (*self._listeners, listener)
        return lambda: self._remove(listener)

    def post(self, changes: Changes) -> None:
        """Note changes that the listeners are to be told."""
        if changes.runs or changes.has_commands:
            self._posted.append(changes)

    def deliver(self) -> None:
        """Tell the listeners what is posted; where that is under way already, whoever does it goes on with the rest."""
        while self._posted and self._delivering.acquire(blocking=False):
            try:
                while self._posted:
                    self._tell(self._posted.popleft())
            finally:
                self._delivering.release()

    def _tell(self, changes: Changes) -> None:
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
