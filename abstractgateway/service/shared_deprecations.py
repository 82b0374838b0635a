"""Deprecations that the processes of a fleet share."""

from __future__ import annotations

import json
import threading

from ..jsonvalue import JsonObject, dumps, loads
from ..stores.shelf import NEVER_ANYTHING, Shelf
from .deprecations import DeprecationFile, Entries

DRAWER = "deprecations"


class SharedDeprecations:
    """The deprecations of a shelf, one file each; read again when the shelf has changed.

    Those that a file has from `before` are taken over, each once for all time. Safe to use from many threads.
    """

    def __init__(self, shelf: Shelf, *, before: DeprecationFile) -> None:
        self._shelf = shelf
        self._reading = threading.Lock()
        self._seen = -1
        self._digests: dict[str, str] = {}
        self._files: dict[str, bytes] = {}
        self._entries: Entries = {}
        had = before.current()
        own = {_name(bundle_id, flow_id): had[bundle_id][flow_id] for bundle_id in had for flow_id in had[bundle_id]}
        known = {item.name for item in shelf.list(DRAWER)}
        for name in sorted(own.keys() - known):
            shelf.put(DRAWER, name, dumps(own[name]), instead_of=NEVER_ANYTHING)

    def current(self) -> Entries:
        if self._shelf.told > self._seen:
            with self._reading:
                self._read(self._shelf.told)
        return self._entries

    def put(self, bundle_id: str, flow_id: str, entry: JsonObject) -> None:
        self._shelf.put(DRAWER, _name(bundle_id, flow_id), dumps(entry))

    def remove(self, bundle_id: str, flow_id: str) -> bool:
        return self._shelf.remove(DRAWER, [_name(bundle_id, flow_id)]) > 0

    def _read(self, told: int) -> None:
        """Read what has changed; what is read is at least as new as `told`."""
        digests = {item.name: item.sha256 for item in self._shelf.list(DRAWER)}
        kept = {name: body for name, body in self._files.items() if self._digests.get(name) == digests.get(name)}
        files = {**kept, **self._shelf.read(DRAWER, digests.keys() - kept.keys())}
        entries: dict[str, dict[str, JsonObject]] = {}
        for name, body in files.items():
            bundle_id, flow_id = json.loads(name)
            entries.setdefault(bundle_id, {})[flow_id] = loads(body, field=DRAWER)
        self._digests, self._files, self._entries, self._seen = digests, files, entries, told


def _name(bundle_id: str, flow_id: str) -> str:
    return json.dumps([bundle_id, flow_id])
