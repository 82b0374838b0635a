"""On what terms a runner drives runs: all of a store's, or the share that it has of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Protocol

from ..stores.base import Stores
from .lock import RunnerLock

ALL_SLOTS = range(sys.maxsize)
COMMANDS = -1
"""The slot without runs: whoever holds it applies the commands of the inbox."""


class Tenure(Protocol):
    """Which slots of runs a runner holds, and under which epoch it writes.

    A slot that is held no more gets no new work; it is given to others once nothing of it is being driven.
    """

    is_over: bool
    """Whether it was lost and may be begun again."""
    may_return: bool
    """Whether a runner that lost its runs may begin again; otherwise others would be disturbed by it."""

    def begin(self, on_change: Callable[[], None], drives: Callable[[int], bool]) -> int | None:
        """Begin to hold runs, and return the epoch; None while somebody else has all of them.

        `on_change` is called when slots have come or all are lost, in any thread; `drives` says whether a run of a slot
        is being driven.
        """

    def holds(self, slot: int) -> bool:
        """Say whether runs of a slot are to be driven here, and for `COMMANDS`, whether commands are applied here."""

    def take_gained(self) -> Collection[int]:
        """Return the slots that have come since the last call; their runs are to be looked for."""

    def check(self) -> None:
        """Find out soon whether the lease is over, as a refused write says."""

    def is_sure(self) -> bool:
        """Say whether the lease holds, and wait for the answer where too much time has passed to know."""

    def end(self) -> None:
        """Give everything back."""


class SoleTenure:
    """Holds all runs of a store; with a lock, one process of a machine does."""

    is_over = False
    may_return = False

    def __init__(self, stores: Stores, owner: str, lock: RunnerLock | None, standby: RunnerLock | None) -> None:
        self._stores = stores
        self._owner = owner
        self._lock = lock
        self._standby = standby
        self._gained: Collection[int] = ()

    def begin(self, on_change: Callable[[], None], drives: Callable[[int], bool]) -> int | None:
        if self._lock is not None and not self._lock.try_acquire():
            if self._standby is not None:
                self._standby.try_acquire()
            return None
        epoch = self._stores.claim(self._owner)
        self._gained = ALL_SLOTS
        if self._standby is not None:
            self._standby.release()
        return epoch

    def holds(self, slot: int) -> bool:
        return True

    def take_gained(self) -> Collection[int]:
        gained, self._gained = self._gained, ()
        return gained

    def check(self) -> None:
        """There is nothing to find out: who claims later, holds."""

    def is_sure(self) -> bool:
        return True

    def end(self) -> None:
        for lock in (self._lock, self._standby):
            if lock is not None:
                lock.release()
