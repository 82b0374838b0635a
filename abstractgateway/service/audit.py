"""The audit log of a data directory: written beside the requests, in order, by one thread.

An entry is noted in memory and written within hundredths of a second; a crash of the process can cost those, a loss
of power the last second. Entries that cannot be written are kept, up to `MOST_WAITING`, and tried again every second;
with `is_required`, requests that change something are refused meanwhile. More are lost: they are counted in the log of
the process and in its measures, and in the audit log as soon as that can be written.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from ..clock import Clock, SystemClock, to_iso
from ..config import GatewayConfig
from ..errors import Invalid
from ..jsonvalue import JsonObject
from ..measures import Family, counter, gauge
from ..security.audit import LOST
from ..stores.disk import Disk
from .audit_files import ChainFile, Entry, read_tail

MOST_WAITING = 10_000

_GATHER_S = 0.02
_RETRY_S = 1.0
_SYNC_EVERY_S = 1.0
_FLUSH_S = 5.0

log = logging.getLogger("abstractgateway.audit")


class AuditLog:
    """Takes entries from any thread; without a file there is no log."""

    def __init__(
        self,
        file: ChainFile | None = None,
        *,
        is_required: bool = False,
        is_durable: bool = True,
        clock: Clock | None = None,
        headers: tuple[str, ...] = (),
    ) -> None:
        self.headers = headers
        self._file = file
        self._is_required = is_required
        self._is_durable = is_durable
        self._clock = clock or SystemClock()
        self._lock = threading.Condition()
        self._waiting: deque[Entry] = deque()
        self._written = 0
        self._lost = self._lost_in_all = 0
        self._failure: str | None = None
        self._closing = threading.Event()
        self._news = threading.Event()
        self._thread: threading.Thread | None = None

    @staticmethod
    def of(config: GatewayConfig, clock: Clock | None = None, disk: Disk | None = None) -> AuditLog:
        """Return the log that the settings describe; stores in memory have none."""
        is_on = config.security if config.audit_log is None else config.audit_log
        if not is_on or config.store_backend == "memory":
            return AuditLog()
        clock = clock or SystemClock()
        file = ChainFile(
            Path(config.data_dir),
            max_bytes=config.audit_log_max_bytes,
            rotations=config.audit_log_rotations,
            clock=clock,
            disk=disk or Disk(),
        )
        return AuditLog(
            file,
            is_required=config.audit_log_required,
            is_durable=config.durability == "full",
            clock=clock,
            headers=config.audit_log_headers,
        )

    @property
    def is_on(self) -> bool:
        return self._file is not None

    def note(self, entry: Entry) -> None:
        """Have an entry written soon; the caller does not wait."""
        if self._file is None or self._closing.is_set():
            return
        if len(self._waiting) >= MOST_WAITING:
            self._lose()
            return
        self._waiting.append(entry)
        if not self._news.is_set():
            self._news.set()
        if self._thread is None:
            self._start()

    def families(self) -> Iterator[Family]:
        """Return the measures of the log, none where there is no log."""
        if self._file is None:
            return
        yield counter("abstractgateway_audit_entries_total", "Entries written to the audit log.", self._written)
        about = "Entries of the audit log that could not be written and were too many to be kept."
        yield counter("abstractgateway_audit_entries_lost_total", about, self._lost_in_all)
        yield gauge("abstractgateway_audit_entries_waiting", "Entries that are to be written.", len(self._waiting))
        about = "Whether the audit log could not be written the last time it was tried."
        yield gauge("abstractgateway_audit_failing", about, int(self._failure is not None))

    def problem(self) -> str | None:
        """Return why requests that change something must be refused now, or None."""
        if not self._is_required or self._file is None:
            return None
        if len(self._waiting) >= MOST_WAITING:
            return "more entries wait than are kept"
        return self._failure

    def flush(self, timeout: float = _FLUSH_S) -> bool:
        """Wait until everything noted is written, and say whether it is."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._waiting, timeout)

    def tail(self, max_bytes: int) -> JsonObject:
        """Return `{ok, bytes, truncated, content}`: the last whole lines of the current file, up to `max_bytes`."""
        self.flush(_RETRY_S)
        content, is_truncated = read_tail(self._file.path, max_bytes) if self._file is not None else (b"", False)
        text = content.decode("utf-8", "replace")
        return {"ok": True, "bytes": len(content), "truncated": is_truncated, "content": text}

    def close(self) -> None:
        """Write what is left, and take nothing more."""
        self._closing.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(_FLUSH_S)
        if self._waiting or self._lost:
            log.error("%d entries of the audit log were never written", len(self._waiting) + self._lost)

    def _lose(self) -> None:
        with self._lock:
            self._lost += 1
            self._lost_in_all += 1
            is_first = self._lost == 1
        if is_first:
            log.error("%d entries wait for the audit log; further ones are lost, and counted", MOST_WAITING)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="abstractgateway-audit", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        synced_at, is_dirty = self._clock.monotonic(), False
        while not self._closing.is_set() or (self._waiting and self._failure is None):
            self._news.wait(_SYNC_EVERY_S if is_dirty else None)
            # Some requests come together; after a failure, the disk gets time to recover.
            self._closing.wait(_GATHER_S if self._failure is None else _RETRY_S)
            self._news.clear()
            if self._waiting:
                is_dirty = self._write_waiting() or is_dirty
            now = self._clock.monotonic()
            if is_dirty and (now - synced_at >= _SYNC_EVERY_S or self._closing.is_set()):
                synced_at, is_dirty = now, not self._sync()

    def _write_waiting(self) -> bool:
        assert self._file is not None
        batch = list(self._waiting)
        lost = self._lost
        told = [{"ts": to_iso(self._clock.now()), "event": LOST, "count": lost}] if lost else []
        try:
            self._file.append([*batch, *told])
        except (OSError, Invalid) as error:
            self._fail(error)
            return False
        with self._lock:
            for _ in batch:
                self._waiting.popleft()
            self._lost -= lost
            self._written += len(batch)
            self._recover()
        if lost:
            log.error("%d entries of the audit log were lost; the log says so", lost)
        return True

    def _recover(self) -> None:
        if self._failure is not None:
            log.warning("the audit log can be written again")
        with self._lock:
            self._failure = None
            self._lock.notify_all()

    def _fail(self, error: Exception) -> None:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        if self._failure is None:
            log.error("the audit log cannot be written: %s; it is tried again every second", error)
        with self._lock:
            self._failure = reason
            self._lock.notify_all()
        self._news.set()

    def _sync(self) -> bool:
        if not self._is_durable or self._file is None:
            return True
        try:
            self._file.sync()
        except OSError as error:
            self._fail(error)
            return False
        if not self._waiting:  # what waits shows whether it can be written
            self._recover()
        return True
