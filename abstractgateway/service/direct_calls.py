"""Calls of models that are made for a request while it waits: so many at once, each with so many seconds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Unavailable

RETRY_AFTER_S = 5.0


class DirectCalls:
    """The places for such calls. Each holds a thread of the server, so there are fewer of them than of those."""

    def __init__(self, *, most: int, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._most = most
        self._places = threading.Semaphore(most)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place while the block lasts. Raises `Unavailable` at once when none is free."""
        if not self._places.acquire(blocking=False):
            raise Unavailable(
                f"all {self._most} calls that may be made for requests at once are under way; try again, "
                "or raise ABSTRACTGATEWAY_DIRECT_CALLS",
                retry_after=RETRY_AFTER_S,
                code="calls_full",
            )
        try:
            yield
        finally:
            self._places.release()
