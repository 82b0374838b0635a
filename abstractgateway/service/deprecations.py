"""Which workflows must not be started any more."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ..clock import Clock
from ..errors import Conflict, Invalid, Unavailable
from ..jsonvalue import JsonObject, dumps, loads
from ..stores.disk import Disk

ALL_FLOWS = "*"
FILE_NAME = "workflow_deprecations.json"


Entries = Mapping[str, Mapping[str, JsonObject]]
"""By bundle id and flow id, `*` for all flows of a bundle: `{deprecated_at, reason?}`."""


class DeprecationStore(Protocol):
    """Where deprecations are kept. Raises `Unavailable` when it cannot be read or written."""

    def current(self) -> Entries:
        """Return all entries as they are now."""

    def put(self, bundle_id: str, flow_id: str, entry: JsonObject) -> None:
        """Keep an entry durably, in place of an earlier one."""

    def remove(self, bundle_id: str, flow_id: str) -> bool:
        """Take exactly this entry away, durably, and say whether there was one."""


class Deprecations:
    """The deprecated flows of each bundle, for all its versions; `*` stands for all its flows."""

    def __init__(self, kept: DeprecationStore, *, clock: Clock) -> None:
        self._kept = kept
        self._clock = clock

    def find(self, bundle_id: str, flow_id: str) -> JsonObject | None:
        """Return `{deprecated_at, reason?}` of a flow, by its own entry or its bundle's; None for one in use."""
        flows = self._kept.current().get(bundle_id, {})
        return flows.get(flow_id) or flows.get(ALL_FLOWS)

    def check_start(self, workflow_id: str) -> None:
        """Raise `Conflict` when the workflow `id@version:flow` is deprecated."""
        ref, colon, flow_id = workflow_id.partition(":")
        bundle_id = ref.partition("@")[0]
        entry = self.find(bundle_id, flow_id) if colon else None
        if entry is not None:
            reason = f": {entry['reason']}" if entry.get("reason") else ""
            raise Conflict(f"Workflow '{bundle_id}:{flow_id}' is deprecated{reason}", code="workflow_deprecated")

    def add(self, bundle_id: str, flow_id: str, reason: str | None) -> JsonObject:
        """Deprecate a flow durably and return its entry."""
        at = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        entry: JsonObject = {"deprecated_at": at, **({"reason": reason} if reason else {})}
        self._kept.put(bundle_id, flow_id, entry)
        return entry

    def remove(self, bundle_id: str, flow_id: str) -> bool:
        """Take exactly this entry away, durably, and say whether there was one."""
        return self._kept.remove(bundle_id, flow_id)


class DeprecationFile:
    """A small file that other processes on the machine and AbstractGateway read as well, looked at whenever it changes.

    Without a path the entries live as long as the object.
    """

    def __init__(self, path: Path | None, *, clock: Clock, disk: Disk | None = None) -> None:
        self._path = path
        self._clock = clock
        self._disk = disk or Disk()
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._bundles: dict[str, dict[str, JsonObject]] = {}

    def current(self) -> Entries:
        with self._lock:
            return self._read()

    def put(self, bundle_id: str, flow_id: str, entry: JsonObject) -> None:
        with self._changing() as bundles:
            self._write({**bundles, bundle_id: {**bundles.get(bundle_id, {}), flow_id: entry}})

    def remove(self, bundle_id: str, flow_id: str) -> bool:
        with self._changing() as bundles:
            flows = dict(bundles.get(bundle_id, {}))
            if flows.pop(flow_id, None) is None:
                return False
            left = {**bundles, bundle_id: flows}
            self._write({name: entries for name, entries in left.items() if entries})
            return True

    @contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, JsonObject]]]:
        """Give what there is; changes by threads and by processes that share the file follow each other."""
        with self._lock:
            if self._path is None:
                yield self._bundles
                return
            lock = self._lock_file(self._path.with_suffix(".lock"))
            try:
                yield self._read()
            finally:
                os.close(lock)

    def _lock_file(self, path: Path) -> int:
        """Return the descriptor that holds the lock until it is closed."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Unavailable(f"{path.name!r} cannot be written: {error}", code="store_failed") from error
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock

    def _read(self) -> dict[str, dict[str, JsonObject]]:
        if self._path is None:
            return self._bundles
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                self._bundles, self._stamp = _bundles_in(self._path.read_bytes()), stamp
        except FileNotFoundError:
            self._bundles, self._stamp = {}, None
        except Invalid:
            self._set_aside(self._path)
        except OSError as error:
            raise Unavailable(f"{self._path.name!r} cannot be read: {error}", code="store_failed") from error
        return self._bundles

    def _set_aside(self, path: Path) -> None:
        """Keep a file that nobody can read for its owner to look at, and go on without it."""
        at = self._clock.now().strftime("%Y%m%dT%H%M%S%f")
        self._disk.rename(path, path.with_name(f"{path.name}.corrupt.{at}"))
        self._bundles, self._stamp = {}, None

    def _write(self, bundles: dict[str, dict[str, JsonObject]]) -> None:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                body = dumps({"version": 1, "bundles": bundles})
                self._disk.replace(self._path, body, is_durable=True)
                self._disk.sync_path(self._path.parent)
            except OSError as error:
                raise Unavailable(f"{self._path.name!r} cannot be written: {error}", code="store_failed") from error
        self._bundles, self._stamp = bundles, None


def _bundles_in(data: bytes) -> dict[str, dict[str, JsonObject]]:
    """Return the entries of a file; what is not one is left out. Raises `Invalid` when it is not a JSON object."""
    document = loads(data, field=FILE_NAME)
    if not isinstance(document, dict):
        raise Invalid(FILE_NAME, "is not an object")
    listed = document.get("bundles")
    return {
        bundle_id: {flow_id: entry for flow_id, entry in flows.items() if isinstance(entry, dict)}
        for bundle_id, flows in (listed.items() if isinstance(listed, dict) else ())
        if isinstance(flows, dict)
    }
