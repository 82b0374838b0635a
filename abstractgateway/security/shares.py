"""How many requests are worked on at once, in all and for each client."""

from __future__ import annotations

import threading
from collections import Counter

from .decision import Deny, too_many

_PATIENCE_S = 0.01


class Shares:
    """Counted places; 0 for `each` leaves clients as many as there are."""

    def __init__(self, total: int, each: int = 0) -> None:
        self._each = each
        self._places = threading.BoundedSemaphore(total)
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, client: str) -> Deny | None:
        """Take a place for a client, waiting for one for a moment, or say why there is none."""
        if self._each and not self._count(client):
            return too_many("client_busy", "concurrency limit of one client", 1)
        if self._places.acquire(timeout=_PATIENCE_S):
            return None
        self._uncount(client)
        return too_many("concurrency_limit", "concurrency limit", 1)

    def give(self, client: str) -> None:
        """Give a place back."""
        self._places.release()
        self._uncount(client)

    def _count(self, client: str) -> bool:
        with self._lock:
            if self._taken[client] >= self._each:
                return False
            self._taken[client] += 1
            return True

    def _uncount(self, client: str) -> None:
        if not self._each:
            return
        with self._lock:
            self._taken[client] -= 1
            if self._taken[client] <= 0:
                del self._taken[client]


class Tally:
    """How much of something each client has open, up to a limit; 0 for none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def add(self, client: str) -> bool:
        """Count one more and say whether the client may have it; where not, nothing is counted."""
        if not self._limit:
            return True
        with self._lock:
            if self._open[client] >= self._limit:
                return False
            self._open[client] += 1
            return True

    def drop(self, client: str) -> None:
        """Count one less."""
        if not self._limit:
            return
        with self._lock:
            self._open[client] -= 1
            if self._open[client] <= 0:
                del self._open[client]

    def __getitem__(self, client: str) -> int:
        return self._open.get(client, 0)
