"""The large checkpoints of one generation of the journal: each whole once, then as what changed.

A generation that has a delta of a run also has the checkpoint it changes, so that redoing the journal never depends on
what a crash left of the plain files.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..runtime.delta import DELTA_FROM_BYTES, Checkpoint
from .entries import Entry, RunEntry


class Chains:
    """The newest checkpoint of every run whose next write may be a delta."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Checkpoint]] = {}

    def get(self, run_id: str) -> Checkpoint | None:
        return self._known[run_id][1] if run_id in self._known else None

    def has(self, run_id: str, revision: int) -> bool:
        """Say whether the checkpoint of a revision is here, so that a delta can follow."""
        return run_id in self._known and self._known[run_id][0] == revision

    def take_in(self, run: RunEntry) -> Checkpoint | None:
        """Return a run's checkpoint after an entry; None where the entry has none, or a delta of what is not here."""
        if run.body:
            checkpoint = Checkpoint(run.body)
        elif run.delta:
            if not self.has(run.run_id, run.revision - 1):
                return None
            checkpoint = self._known[run.run_id][1].with_delta(run.delta)
        else:
            return None
        if len(checkpoint.body) >= DELTA_FROM_BYTES:
            self._known[run.run_id] = run.revision, checkpoint
        else:
            self._known.pop(run.run_id, None)
        return checkpoint

    def take_in_all(self, entries: Iterable[Entry]) -> dict[str, int]:
        """Take in entries, oldest first.

        Return the runs of which some have deltas of what is not here, each with the revision of what is here, or 0.
        """
        broken: dict[str, int] = {}
        for entry in entries:
            for run in entry.runs:
                found = self.take_in(run)
                if run.delta and found is None:
                    broken[run.run_id] = self._known[run.run_id][0] if run.run_id in self._known else 0
                elif run.body:
                    broken.pop(run.run_id, None)
            for run_id in entry.removed:
                self.forget(run_id)
                broken.pop(run_id, None)
        return broken

    def forget(self, run_id: str) -> None:
        self._known.pop(run_id, None)

    def clear(self) -> None:
        self._known.clear()
