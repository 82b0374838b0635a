"""Whether the gateway can do its work right now."""

from __future__ import annotations

import threading
from pathlib import Path

from ..clock import Clock, SystemClock
from ..errors import GatewayError, Unavailable
from ..stores.base import Stores
from ..stores.disk import Disk

PROBE_FILE = ".ready"
_FRESH_S = 1.0
"""Probing writes to the disk, and anybody may ask: not more often than this."""


class Readiness:
    """Tells whether the store can be read and the data directory written; without one, only the store is asked."""

    def __init__(
        self, *, stores: Stores, data_dir: Path | None, clock: Clock | None = None, disk: Disk | None = None
    ) -> None:
        self._stores = stores
        self._data_dir = data_dir
        self._clock = clock or SystemClock()
        self._disk = disk or Disk()
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._problem: str | None = None

    def check(self) -> None:
        """Raise `Unavailable` with the reason when requests that change something could not be acknowledged."""
        with self._lock:
            now = self._clock.monotonic()
            if self._looked_at is None or now - self._looked_at >= _FRESH_S:
                self._problem, self._looked_at = self._look(), now
            problem = self._problem
        if problem is not None:
            raise Unavailable(f"not ready: {problem}", code="not_ready")

    def _look(self) -> str | None:
        try:
            self._stores.runs.row("readiness")
            if self._data_dir is not None:
                self._disk.replace(self._data_dir / PROBE_FILE, b"ready\n", is_durable=True)
        except GatewayError as error:
            return f"the store cannot be read ({error.code})"
        except OSError as error:
            return f"the data directory cannot be written: {error.strerror or type(error).__name__}"
        return None
