"""What clients were told of runs that have ended or wait, encoded: it does not change until they do."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ..stores.base import RunRow

_Key = tuple[str, int, int]


class RestingRuns:
    """The latest asked for, up to `max_bytes` together; any thread may use it."""

    def __init__(self, max_bytes: int = 4 << 20) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._bodies: OrderedDict[_Key, bytes] = OrderedDict()

    def get(self, row: RunRow) -> bytes | None:
        """Return what was kept of a run, if it is still as it was then."""
        key = _key(row)
        with self._lock:
            body = self._bodies.get(key)
            if body is not None:
                self._bodies.move_to_end(key)
        return body

    def put(self, row: RunRow, body: bytes) -> None:
        """Keep what is told of a run that does nothing now, unless it would take the place of many others."""
        if len(body) > self._max_bytes // 64:
            return
        with self._lock:
            self._bytes += len(body) - len(self._bodies.pop(_key(row), b""))
            self._bodies[_key(row)] = body
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._bodies.popitem(last=False)[1])


def _key(row: RunRow) -> _Key:
    return row.run_id, row.revision, row.ledger_len
