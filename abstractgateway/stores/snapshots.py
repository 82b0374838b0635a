"""Snapshots as files, each a JSON document a person can read: `snapshot_<id>.json`."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from ..clock import Clock, SystemClock
from ..errors import Invalid
from ..ids import check_safe_id
from ..jsonvalue import dumps, loads
from ..runtime.snapshots import Snapshot, checked, chosen
from .disk import Disk

_log = logging.getLogger(__name__)


class JsonSnapshotStore:
    """Snapshots in a directory, which is made if it is missing. A file is replaced as a whole, durably."""

    def __init__(self, directory: str | Path, *, clock: Clock | None = None, disk: Disk | None = None) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._clock = clock or SystemClock()
        self._disk = disk or Disk()
        self._lock = threading.Lock()

    def save(self, snapshot: Snapshot) -> Snapshot:
        """Keep a snapshot, in place of one with its id, and return it as it is stored: `updated_at` is now."""
        stored = checked(snapshot, self._clock)
        value = loads(dumps(stored.to_dict(), field="snapshot"))
        body = json.dumps(value, ensure_ascii=False, indent=2).encode()
        with self._lock:
            self._disk.replace(self._path(stored.snapshot_id), body, is_durable=True)
            self._disk.sync_path(self._directory)
        return stored

    def load(self, snapshot_id: str) -> Snapshot | None:
        """Return a snapshot, or None for an unknown id. Raises `Invalid` for a damaged file."""
        path = self._path(snapshot_id)
        try:
            body = path.read_bytes()
        except FileNotFoundError:
            return None
        return Snapshot.from_dict(loads(body, field=path.name))

    def delete(self, snapshot_id: str) -> bool:
        """Take a snapshot away; False when there was none."""
        path = self._path(snapshot_id)
        with self._lock:
            if not path.exists():
                return False
            self._disk.remove(path)
            self._disk.sync_path(self._directory)
        return True

    def list(
        self, *, run_id: str | None = None, tag: str | None = None, query: str | None = None, limit: int = 100
    ) -> list[Snapshot]:
        """Return the snapshots that all given conditions hold for, the newest first; damaged files are left out."""
        found: list[Snapshot] = []
        for path in sorted(self._directory.glob("snapshot_*.json")):
            try:
                found.append(Snapshot.from_dict(loads(path.read_bytes(), field=path.name)))
            except FileNotFoundError:
                continue  # deleted since the directory was read
            except Invalid as error:
                _log.warning("a snapshot was left out: %s", error)
        return chosen(found, run_id=run_id, tag=tag, query=query, limit=limit)

    def _path(self, snapshot_id: str) -> Path:
        return self._directory / f"snapshot_{check_safe_id(snapshot_id, field='snapshot_id')}.json"
