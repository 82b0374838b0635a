"""How long a client that sends wrong tokens has to wait: longer each time, for a bounded number of clients.

Whoever has a valid token is served meanwhile, from the same address too, so nobody can lock others out. It follows that
waiting does not stop somebody who guesses; the length of a token does, and `startup` refuses short ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from ..clock import Clock

MOST_CLIENTS = 10_000
FORGET_S = 900.0
"""After so many quiet seconds a client's failures are forgotten."""

_MOST_DOUBLINGS = 60


@dataclass
class _Failures:
    count: int
    locked_until: float
    last: float


class Lockout:
    """The clients that failed; any thread may ask and tell.

    The lock after failure number `after` lasts `base_s` seconds, each further one twice as long, up to `max_s` (0: no
    limit). With `base_s` 0 nobody is locked out.
    """

    def __init__(self, clock: Clock, *, after: int, base_s: float, max_s: float) -> None:
        self._clock = clock
        self._after = after
        self._base_s = base_s
        self._max_s = max_s
        self._lock = threading.Lock()
        self._clients: OrderedDict[str, _Failures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clients)

    def locked(self) -> int:
        """Return how many clients are locked out now."""
        now = self._clock.monotonic()
        with self._lock:
            return sum(failures.locked_until > now for failures in self._clients.values())

    def remaining(self, client: str) -> float:
        """Return for how many seconds a client is still locked out."""
        found = self._clients.get(client)
        return max(0.0, found.locked_until - self._clock.monotonic()) if found is not None else 0.0

    def fail(self, client: str) -> float:
        """Count a failure, unless the client is locked out already, and return the seconds it has to wait now."""
        if self._base_s <= 0:
            return 0.0
        now = self._clock.monotonic()
        with self._lock:
            self._forget(now)
            failures = self._clients.pop(client, None) or _Failures(0, 0.0, now)
            self._clients[client] = failures
            failures.last = now
            if failures.locked_until <= now:
                failures.count += 1
                failures.locked_until = now + self._length(failures.count)
            return max(0.0, failures.locked_until - now)

    def succeed(self, client: str) -> None:
        """Forget a client's failures."""
        if client in self._clients:
            with self._lock:
                self._clients.pop(client, None)

    def _length(self, count: int) -> float:
        if count < self._after:
            return 0.0
        length = self._base_s * 2.0 ** min(count - self._after, _MOST_DOUBLINGS)
        return min(length, self._max_s) if self._max_s > 0 else length

    def _forget(self, now: float) -> None:
        """Drop who was quiet for long, and the quietest when there are too many; the order is that of failures."""
        while self._clients:
            oldest = next(iter(self._clients.values()))
            is_old = now - max(oldest.last, oldest.locked_until) >= FORGET_S
            if not is_old and len(self._clients) < MOST_CLIENTS:
                return
            self._clients.popitem(last=False)
