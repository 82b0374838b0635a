"""Who is due when: deadlines in slots, so that thousands of re-armed keep-alives cost nothing to cancel."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

SLOT_SECONDS = 0.05


class DueTimes(Generic[Item]):
    """Items with one deadline each, in seconds of a monotonic clock; a deadline is met up to one slot late."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Item]] = {}
        self._slot_of: dict[Item, int] = {}
        self._order: list[int] = []

    def put(self, item: Item, when: float) -> None:
        """Set the deadline of an item, replacing an earlier one."""
        self.drop(item)
        slot = int(when / SLOT_SECONDS) + 1
        if slot not in self._slots:
            self._slots[slot] = set()
            heapq.heappush(self._order, slot)
        self._slots[slot].add(item)
        self._slot_of[item] = slot

    def drop(self, item: Item) -> None:
        """Forget an item, if it is known."""
        slot = self._slot_of.pop(item, None)
        if slot is not None:
            self._slots[slot].discard(item)

    def take(self, now: float) -> list[Item]:
        """Remove and return the items whose deadline has passed."""
        taken: list[Item] = []
        while self._order and self._order[0] * SLOT_SECONDS <= now:
            taken.extend(self._slots.pop(heapq.heappop(self._order)))
        for item in taken:
            del self._slot_of[item]
        return taken

    def seconds_left(self, now: float) -> float | None:
        """Return how long nothing is due, or None when nothing will ever be."""
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heapq.heappop(self._order)]
        return max(0.0, self._order[0] * SLOT_SECONDS - now) if self._order else None
