"""Which artifacts each run has: an index in memory of a directory of descriptions, which other processes write too."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

SUFFIX = ".meta"

SETTLED_NS = 2_000_000_000
"""A directory that changed less than this ago may change again under the same time stamp."""

RunOf = Callable[[str], str | None]


@dataclass
class _Seen:
    """A directory as it was when it was read last; `names` are artifact ids, each with what changes with its file."""

    changed_ns: int = -1
    is_settled: bool = False
    names: dict[str, tuple[int, int]] = field(default_factory=dict)


class ArtifactIndex:
    """The artifact ids below some directories, by run.

    `run_of` reads a description and returns the run it names; it is called once for each, and again when another file
    takes its place. The names are read again only when a directory has changed.
    """

    def __init__(self, directories: Iterable[Path], run_of: RunOf) -> None:
        self._directories = {directory: _Seen() for directory in directories}
        self._run_of = run_of
        self._runs: dict[str, str | None] = {}
        self._ids: dict[str | None, set[str]] = {}
        self._lock = threading.Lock()

    def of_run(self, run_id: str) -> list[str]:
        """Return the ids of a run's artifacts."""
        with self._lock:
            self._refresh()
            return sorted(self._ids.get(run_id, ()))

    def all(self) -> list[str]:
        """Return the ids of all artifacts."""
        with self._lock:
            self._refresh()
            return sorted(self._runs)

    def _refresh(self) -> None:
        for directory, seen in self._directories.items():
            now = time.time_ns()
            changed_ns = _changed_ns(directory)
            if seen.is_settled and seen.changed_ns == changed_ns:
                continue
            seen.changed_ns, seen.is_settled = changed_ns, now - changed_ns > SETTLED_NS
            before, seen.names = seen.names, _names(directory)
            self._take_in(before, seen.names)

    def _take_in(self, before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> None:
        if before == after:
            return
        for name in before.keys() - after.keys():
            self._forget(name)
        for name, signature in after.items():
            if before.get(name) != signature:
                self._forget(name)
                run_id = self._runs[name] = self._run_of(name)
                self._ids.setdefault(run_id, set()).add(name)

    def _forget(self, name: str) -> None:
        if name in self._runs:
            run_id = self._runs.pop(name)
            self._ids[run_id].discard(name)
            if not self._ids[run_id]:
                del self._ids[run_id]


def _changed_ns(directory: Path) -> int:
    try:
        return directory.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _names(directory: Path) -> dict[str, tuple[int, int]]:
    try:
        with os.scandir(directory) as entries:
            found = ((entry.name, _signature(entry)) for entry in entries if entry.name.endswith(SUFFIX))
            return {name.removesuffix(SUFFIX): signature for name, signature in found if signature is not None}
    except FileNotFoundError:
        return {}


def _signature(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """Return the inode of a file and when it changed; None for one that has gone meanwhile."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns
