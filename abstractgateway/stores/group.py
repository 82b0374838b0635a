"""One writer thread, many waiting commits: whatever has queued up while one batch was written is the next batch.

The cost of making bytes durable is shared by all commits of a batch, and the callers need not stand still meanwhile:
`done` is called in the writer thread once the batch is durable.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from ..errors import Unavailable
from .base import Commit, CommitReceipt, Done
from .feed import commit_and_wait

_log = logging.getLogger(__name__)

MAX_BATCH = 256
"""Beyond this many commits the fsync is a small part of a batch, and the first of them waits too long."""


class Submission:
    """A commit on its way: `receipt` or `error` is set by whoever writes the batch."""

    def __init__(self, commit: Commit, done: Done) -> None:
        self.commit = commit
        self.done = done
        self.receipt: CommitReceipt | None = None
        self.error: Exception | None = None


class GroupWriter:
    """Hands batches of submissions to `write_batch`, which decides each of them; never from two threads at once."""

    def __init__(self, write_batch: Callable[[list[Submission]], None], *, name: str) -> None:
        self._write_batch = write_batch
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def commit(self, commit: Commit) -> CommitReceipt:
        """Submit a commit and wait until it is decided. Raises what became of it."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("the writer thread cannot wait for itself; use submit")
        return commit_and_wait(self.submit, commit)

    def submit(self, commit: Commit, done: Done) -> None:
        """Queue a commit; `done(receipt, error)` is called in the writer thread once it is decided."""
        if self._is_closed:
            done(None, Unavailable("the store is closed", code="store_closed"))
            return
        self._queue.put(Submission(commit, done))

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._is_closed = True
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            batch, is_last = self._next_batch()
            if batch:
                self._decide(batch)
            if is_last:
                return

    def _next_batch(self) -> tuple[list[Submission], bool]:
        first = self._queue.get()
        if first is None:
            return [], True
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _decide(self, batch: list[Submission]) -> None:
        try:
            self._write_batch(batch)
        except Exception as error:  # the thread must live on: every waiting commit is told instead
            for item in batch:
                item.error = item.error or _as_unavailable(error)
        for item in batch:
            try:
                item.done(None if item.error else item.receipt, item.error)
            except Exception:  # a callback's fault is not the other commits' fault
                _log.exception("the callback of a commit failed")


def _as_unavailable(error: Exception) -> Exception:
    if isinstance(error, Unavailable):
        return error
    return Unavailable(f"the store could not write: {type(error).__name__}: {error}", code="store_failed")
