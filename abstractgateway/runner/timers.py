"""The times at which runs are to go on: a heap, so that the next one is known without asking the store."""

from __future__ import annotations

import heapq
import threading


class Timers:
    """Run ids by the second (since the epoch) at which they are due; safe to use from several threads."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    def add(self, due: float, run_id: str) -> None:
        """Note that a run is due; an entry that is out of date by then is harmless, the run is simply looked at."""
        with self._lock:
            heapq.heappush(self._heap, (due, run_id))

    def next_due(self) -> float | None:
        """Return when the first run is due, or None when none is."""
        with self._lock:
            return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[str]:
        """Return the runs that are due at `now`, and forget them."""
        due: list[str] = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                due.append(heapq.heappop(self._heap)[1])
        return due
