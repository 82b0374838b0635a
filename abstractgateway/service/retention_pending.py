"""Which runs have been removed, or are just being removed, whose artifacts are still to go."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

FILE_NAME = "artifacts.pending"


class PendingRuns:
    """A file of run ids, one on each line, durable before their runs are removed."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def add(self, run_ids: Iterable[str]) -> None:
        """Note runs that are about to be removed. Raises `OSError`."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.writelines(f"{run_id}\n" for run_id in run_ids)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(self._path.parent)

    def run_ids(self) -> list[str]:
        """Return the ids that were noted; a torn line is of a run that was not removed."""
        if not self._path.exists():
            return []
        return [line.strip() for line in self._path.read_text(encoding="utf-8").splitlines() if line.strip()]

    def clear(self) -> None:
        """Forget all of them."""
        self._path.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Return once the names in a directory are on stable storage."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
