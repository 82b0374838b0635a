"""Removing ended runs that are old: each tree is archived and read back first, and then removed in one commit.

It works beside gateways and runners that use the stores. Artifacts go last, those that nothing refers to that is left;
whose they are is written down before the runs are removed, so that a retention that was interrupted is gone on with by
the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import Conflict, GatewayError, StaleWrite
from ..jsonvalue import JsonObject
from ..runner.lock import RunnerLock
from ..runtime.commit import Commit, Removal
from ..runtime.delta import encode_state
from ..runtime.models import RunState, RunStatus
from ..stores.base import RunQuery, RunRow, Stores, instant_or_none
from .retention_archive import archive_tree
from .retention_pending import PendingRuns
from .start_once import was_started_once

LOCK_FILE = "retention.lock"
ENDED = tuple(status for status in RunStatus if status.is_terminal)

_WORD = re.compile(rb"[A-Za-z0-9_-]{8,200}")
_PAGE = 2_000
_MOST_PASSES = 5

OnProgress = Callable[[int, int], None]
"""Called with how many trees are done, and of how many."""


@dataclass(frozen=True)
class Tree:
    """A run without a parent and everything below it, the root first."""

    rows: tuple[RunRow, ...]

    @property
    def root(self) -> RunRow:
        return self.rows[0]

    @property
    def records(self) -> int:
        return sum(row.ledger_len for row in self.rows)

    def to_dict(self) -> JsonObject:
        """Return `{run_id, workflow_id, status, updated_at, runs, records}`."""
        return {
            "run_id": self.root.run_id,
            "workflow_id": self.root.workflow_id,
            "status": self.root.status.value,
            "updated_at": self.root.updated_at,
            "runs": len(self.rows),
            "records": self.records,
        }


@dataclass
class Removed:
    """What a retention did: the trees that are gone, how many artifacts went with them, and why others were left."""

    trees: list[Tree] = field(default_factory=list)
    artifacts: int = 0
    left: dict[str, str] = field(default_factory=dict)


def old_trees(stores: Stores, *, before: float, statuses: Iterable[RunStatus] = ENDED) -> Iterator[Tree]:
    """Yield the trees whose runs all ended before a time (seconds since the epoch), and whose root did in such a way.

    Runs of internal workflows, which hold the memory of sessions, are no such roots.
    """
    query = RunQuery(statuses=tuple(statuses), root_only=True, hide_internal=True, updated_to=before, limit=None)
    for root in stores.runs.find(query):
        tree = _tree(stores, root)
        if all(_ended_before(row, before) for row in tree.rows):
            yield tree


def remove_trees(
    stores: Stores,
    trees: Iterable[Tree],
    archive: Path,
    *,
    on_progress: OnProgress = lambda done, of: None,
) -> Removed:
    """Archive trees into a directory, made if it is missing, remove them, and return what was done.

    A tree that has changed meanwhile, or whose archive does not read back as what was written, is left, and said so.
    Raises `Conflict` while another retention uses the directory, `OSError` when nothing can be written there.
    """
    archive.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = RunnerLock(archive / LOCK_FILE)
    if not lock.try_acquire():
        raise Conflict(f"another retention archives into {str(archive)!r}; wait for its end", code="retention_active")
    try:
        return _remove_all(stores, list(trees), archive, on_progress)
    finally:
        lock.release()


def _remove_all(stores: Stores, trees: list[Tree], archive: Path, on_progress: OnProgress) -> Removed:
    removed = Removed()
    pending = PendingRuns(archive)
    for number, tree in enumerate(trees, 1):
        try:
            _remove(stores, tree, archive, pending)
            removed.trees.append(tree)
        except GatewayError as error:
            removed.left[tree.root.run_id] = str(error)
        on_progress(number, len(trees))
    removed.artifacts = _remove_artifacts(stores, pending)
    return removed


def _remove(stores: Stores, tree: Tree, archive: Path, pending: PendingRuns) -> None:
    states = [_state(stores, row) for row in tree.rows]
    artifacts = [item for row in tree.rows for item in stores.artifacts.list_by_run(row.run_id)]
    archive_tree(stores, tree.rows, states, artifacts, archive)
    pending.add(row.run_id for row in tree.rows)
    removals = (
        Removal(row.run_id, row.revision, keeps_id=was_started_once(state))
        for row, state in zip(tree.rows, states, strict=True)
    )
    stores.commit(Commit(removed=tuple(removals)))


def _state(stores: Stores, row: RunRow) -> RunState:
    stored = stores.runs.open(row.run_id)
    if stored is None or (stored.revision, stored.ledger_len) != (row.revision, row.ledger_len):
        raise StaleWrite(f"run {row.run_id!r} has changed meanwhile")
    return stored.state


def _tree(stores: Stores, root: RunRow) -> Tree:
    rows = {root.run_id: root}
    queue = [root.run_id]
    for parent in queue:
        for child in stores.runs.children_of(parent):
            row = stores.runs.row(child)
            if row is not None and child not in rows:
                rows[child] = row
                queue.append(child)
    return Tree(tuple(rows.values()))


def _ended_before(row: RunRow, before: float) -> bool:
    ended = instant_or_none(row.updated_at)
    return row.status.is_terminal and ended is not None and ended < before


def _remove_artifacts(stores: Stores, pending: PendingRuns) -> int:
    """Remove the artifacts of runs that are gone, those that nothing refers to; return how many there were."""
    gone = [run_id for run_id in pending.run_ids() if stores.runs.row(run_id) is None]
    artifact_ids = {item.artifact_id for run_id in gone for item in stores.artifacts.list_by_run(run_id)}
    used = _used(stores, artifact_ids)
    count = sum(stores.artifacts.delete_by_run(run_id, keep=used) for run_id in gone)
    if count:
        stores.artifacts.gc(dry_run=False)
    pending.clear()
    return count


def _used(stores: Stores, artifact_ids: set[str]) -> set[str]:
    """Return which of the artifacts are named in a run or a ledger that is left."""
    used: set[str] = set()
    if not artifact_ids:
        return used
    wanted = {artifact_id.encode() for artifact_id in artifact_ids}
    seen: dict[str, tuple[int, int]] = {}
    for _ in range(_MOST_PASSES):  # runs go on meanwhile; what has changed since is looked at again
        changed = [
            row
            for row in stores.runs.find(RunQuery(limit=None))
            if seen.get(row.run_id) != (row.revision, row.ledger_len)
        ]
        for row in changed:
            seen[row.run_id] = (row.revision, row.ledger_len)
            for text in _texts(stores, row):
                used |= {word.decode() for word in wanted.intersection(_WORD.findall(text))}
        if not changed:
            return used
    return set(artifact_ids)


def _texts(stores: Stores, row: RunRow) -> Iterator[bytes]:
    stored = stores.runs.open(row.run_id)
    if stored is not None:
        yield encode_state(stored.state)
    for after in range(0, row.ledger_len, _PAGE):
        yield b"\n".join(stores.ledger.read(row.run_id, after, _PAGE).records)
