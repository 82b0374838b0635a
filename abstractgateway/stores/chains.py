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

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._known

    def __getitem__(self, run_id: str) -> Checkpoint:
        return self._known[run_id][1]

    def take_in(self, run: RunEntry) -> Checkpoint | None:
        """Return a run's checkpoint after an entry; None where the entry has none, or a delta of what is not here."""
        if run.body:
            checkpoint = Checkpoint(run.body)
        elif run.delta:
            revision, known = self._known.get(run.run_id, (0, None))
            if known is None or revision + 1 != run.revision:
                self._known.pop(run.run_id, None)
                return None
            checkpoint = known.with_delta(run.delta)
        else:
            return None
        if len(checkpoint.body) >= DELTA_FROM_BYTES:
            self._known[run.run_id] = run.revision, checkpoint
        else:
            self._known.pop(run.run_id, None)
        return checkpoint

    def take_in_all(self, entries: Iterable[Entry]) -> set[str]:
        """Take in entries, oldest first, and return the runs of which some have deltas of what is not here."""
        broken: set[str] = set()
        for entry in entries:
            for run in entry.runs:
                found = self.take_in(run)
                if run.delta and found is None:
                    broken.add(run.run_id)
                elif run.body:
                    broken.discard(run.run_id)
        return broken

    def clear(self) -> None:
        self._known.clear()
