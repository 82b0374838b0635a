"""One writer thread, many waiting commits: whatever has queued up while one batch was written is the next batch.

The cost of making bytes durable is shared by all commits of a batch, and the callers need not stand still meanwhile:
`done` is called in the writer thread once the batch is durable.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from ..errors import GatewayError, Unavailable
from ..measures import CommitMeasures
from .base import Commit, CommitReceipt, Done
from .checks import check_commit
from .feed import commit_and_wait

_log = logging.getLogger(__name__)

MAX_BATCH = 256
"""Beyond this many commits the fsync is a small part of a batch, and the first of them waits too long."""
IDLE_S = 0.01
"""After how long without a commit the writer does what could wait; short enough that nobody waits for it."""


class Submission:
    """A commit on its way: `receipt` or `error` is set by whoever writes the batch."""

    def __init__(self, commit: Commit, done: Done) -> None:
        self.commit = commit
        self.done = done
        self.receipt: CommitReceipt | None = None
        self.error: Exception | None = None


class GroupWriter:
    """Hands batches of submissions to `write_batch`, which decides each of them; never from two threads at once.

    `tidy(is_idle)` is called after each batch, and again whenever the queue has been empty for a moment until it
    returns False: there is nothing left to tidy up.
    """

    def __init__(
        self,
        write_batch: Callable[[list[Submission]], None],
        *,
        name: str,
        tidy: Callable[[bool], bool] = lambda is_idle: False,
    ) -> None:
        self._write_batch = write_batch
        self._tidy = tidy
        self._is_untidy = False
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self.measures = CommitMeasures()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def commit(self, commit: Commit) -> CommitReceipt:
        """Submit a commit and wait until it is decided. Raises what became of it."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("the writer thread cannot wait for itself; use submit")
        return commit_and_wait(self.submit, commit)

    def submit(self, commit: Commit, done: Done) -> None:
        """Queue a commit; `done(receipt, error)` is called in the writer thread once it is decided.

        A commit that no store could take is refused at once, in the caller's thread.
        """
        try:
            check_commit(commit)
        except GatewayError as error:
            done(None, error)
            return
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._queue.put(Submission(commit, done))
        if is_closed:
            done(None, closed_error())

    def tidy_soon(self) -> None:
        """Let `tidy` be called although nothing was committed here."""
        self._is_untidy = True
        self._queue.put(Submission(Commit(), lambda receipt, error: None))

    def close(self) -> None:
        """Write what is queued and end the thread."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            is_last = False
            while not is_last:
                batch, is_last = self._next_batch()
                self._decide(batch)
        except BaseException as error:  # nobody above this thread could handle it, and nobody may wait for ever
            _log.critical("the writer ended: %s: %s", type(error).__name__, error)
        self._refuse_the_rest()

    def _next_batch(self) -> tuple[list[Submission], bool]:
        batch: list[Submission] = []
        item = self._first()
        while item is not None:
            batch.append(item)
            if len(batch) >= MAX_BATCH or self._queue.empty():
                return batch, False
            item = self._queue.get()
        return batch, True

    def _first(self) -> Submission | None:
        while self._is_untidy:
            try:
                return self._queue.get(timeout=IDLE_S)
            except queue.Empty:
                self._clean_up(is_idle=True)
        return self._queue.get()

    def _clean_up(self, *, is_idle: bool) -> None:
        try:
            self._is_untidy = self._tidy(is_idle)
        except Exception:  # what could wait can wait longer; the commits must go on
            self._is_untidy = False
            _log.exception("the store could not be tidied up")

    def _decide(self, batch: list[Submission]) -> None:
        """Write a batch and tell its callers what became of it."""
        begun = time.perf_counter()
        try:
            self._write_batch(batch)
            self._measure(batch, time.perf_counter() - begun)
        except BaseException as error:  # every waiting commit must be told, whatever ended its batch
            for item in batch:
                item.error = item.error or as_unavailable(error)
            if not isinstance(error, Exception):
                raise
        finally:
            for item in batch:
                self._tell(item)
        if batch:
            self._clean_up(is_idle=False)

    def _measure(self, batch: list[Submission], seconds: float) -> None:
        """Count what became durable."""
        written = sum(item.error is None for item in batch)
        if written:
            self.measures.commits += written
            self.measures.batches.add(seconds)

    def _tell(self, item: Submission) -> None:
        try:
            item.done(None if item.error else item.receipt, item.error)
        except Exception:  # a callback's fault is not the other commits' fault
            _log.exception("the callback of a commit failed")

    def _refuse_the_rest(self) -> None:
        """Refuse what is queued; the thread ends."""
        with self._lock:
            self._is_closed = True
        while not self._queue.empty():
            item = self._queue.get()
            if item is not None:
                item.done(None, closed_error())


def closed_error() -> Unavailable:
    """Return the error of a commit to a store that is closed."""
    return Unavailable("the store is closed", code="store_closed")


def as_unavailable(error: BaseException) -> Exception:
    """Return what the callers of a batch are told that could not be written."""
    if isinstance(error, GatewayError):
        return error
    return Unavailable(f"the store could not write: {type(error).__name__}: {error}", code="store_failed")
