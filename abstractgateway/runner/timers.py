"""What is to be done at which time: a heap, so that the next moment is known without asking the store."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_FEW = 64
"""So many items are kept without a look whether they are over."""


class Timers(Generic[Item]):
    """Items by the second at which they are due, on whatever clock; safe to use from several threads.

    With `is_over` items may become superfluous before they are due; they are dropped once they are half of all.
    """

    def __init__(self, is_over: Callable[[Item], bool] | None = None) -> None:
        self._is_over = is_over
        self._drop_at = _FEW
        self._heap: list[tuple[float, int, Item]] = []
        self._numbers = itertools.count()  # items that are due at the same time come in the order they were added
        self._lock = threading.Lock()

    def add(self, due: float, item: Item) -> bool:
        """Note that an item is due, and say whether it is the first one now.

        An entry that is out of date by then is harmless: the run is simply looked at.
        """
        with self._lock:
            if self._is_over is not None and len(self._heap) >= self._drop_at:
                self._drop(self._is_over)
            heapq.heappush(self._heap, (due, next(self._numbers), item))
            return self._heap[0][0] == due

    def __len__(self) -> int:
        return len(self._heap)

    def _drop(self, is_over: Callable[[Item], bool]) -> None:
        self._heap = [entry for entry in self._heap if not is_over(entry[2])]
        heapq.heapify(self._heap)
        self._drop_at = max(_FEW, 2 * len(self._heap))

    def next_due(self) -> float | None:
        """Return when the first item is due, or None when none is."""
        with self._lock:
            return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[Item]:
        """Return the items that are due at `now`, and forget them."""
        due: list[Item] = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                due.append(heapq.heappop(self._heap)[2])
        return due
