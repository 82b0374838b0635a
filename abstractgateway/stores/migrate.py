"""Moving everything from one store to another, of whatever backends, under the same cursors.

What is copied are the stored bytes of records, checkpoints with their revisions, commands with their places and
outcomes, and artifacts with their descriptions. The hash chain of each ledger is checked on the way. A copy that was
interrupted is gone on with: only what the target lacks is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Protocol

from ..errors import Conflict, Unavailable
from ..runtime.chain import first_fault
from ..runtime.commit import CommandOutcome, CommandRecord
from ..runtime.delta import encode_state
from .base import ArtifactMetadata, Commit, Removal, RunQuery, RunRow, RunWrite, Stores
from .feed import Decision
from .migrate_artifacts import copy_artifacts, verify_artifacts

CHUNK_RECORDS = 2_000
"""About how many records one commit copies: enough to share an fsync."""
CHUNK_BYTES = 8 << 20
"""About how many bytes one commit copies at most: few enough to be held in memory."""
PAGE_RECORDS = 250
"""How many records are read at once; a record is as large as `max_inline_bytes` allows."""
MOST_PASSES = 3


@dataclass
class Progress:
    """What is done of a migration.

    `broken` has the runs whose hash chains do not hold, and the first bad cursor; `lost` has the artifacts that could
    not be copied because they are damaged, and why.
    """

    runs: int = 0
    of_runs: int = 0
    records: int = 0
    commands: int = 0
    artifacts: int = 0
    is_verifying: bool = False
    broken: dict[str, int] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


class HeldStores(Stores, Protocol):
    """Stores whose commits can be made to wait."""

    def held(self) -> AbstractContextManager[None]:
        """Let nothing be committed meanwhile, by any process."""


def migrate(
    source: Stores,
    target: Stores,
    on_progress: OnProgress = lambda progress: None,
    *,
    shares_artifacts: bool = False,
) -> Progress:
    """Copy what the target lacks, check that it has what the source has, and return what was done.

    Stores that keep their artifacts in one place (`shares_artifacts`) have nothing of them to copy. A ledger whose
    chain is broken is copied as it is, and reported. Raises `Conflict` when the target has what the source does not, or
    when the source does not stop changing, `Unavailable` when what was copied reads differently.
    """
    progress = Progress()
    for _ in range(MOST_PASSES):
        # Artifacts are durable before the commit that names them: those of the runs that are copied are all there.
        items = [] if shares_artifacts else _copy_artifacts(source, target, progress, on_progress)
        rows = _copy(source, target, progress, on_progress)
        if _is_unchanged(source, target, rows, None if shares_artifacts else items):
            verify_artifacts(target.artifacts, (item for item in items if item.artifact_id not in progress.lost))
            _verify(source, target, rows, progress, on_progress)
            return progress
    raise Conflict(
        "the store changes while it is copied; stop 'abstractgateway serve' on it, then migrate again",
        code="source_changes",
    )


def picture(source: HeldStores, target: Stores, on_progress: OnProgress = lambda progress: None) -> Progress:
    """Copy what the target lacks, as it is at one moment, while others go on using the source.

    Most of it is copied before that moment: only for what has changed since then, nothing is committed meanwhile. The
    target is read back and its chains are checked. Raises what `migrate` raises.
    """
    progress = Progress()
    _copy(source, target, progress, on_progress)
    with source.held():
        _follow_removals(source, target)
        rows = _copy(source, target, progress, on_progress)
    if rows != _all_rows(target):
        raise Unavailable("the runs of the copy read differently", code="store_damaged")
    progress.is_verifying, progress.runs = True, 0
    for row in rows:
        for _ in _checked_pages(target, row.run_id, row.ledger_len, progress):
            continue
        progress.runs += 1
    on_progress(progress)
    return progress


def _is_unchanged(source: Stores, target: Stores, rows: list[RunRow], items: list[ArtifactMetadata] | None) -> bool:
    """Say whether a source is what was copied; without `items` its artifacts do not matter."""
    return (
        rows == _all_rows(source)
        and source.commands.get_last_seq() == target.commands.get_last_seq()
        and (items is None or len(items) == len(source.artifacts.list_all(None)))
    )


def _copy_artifacts(
    source: Stores, target: Stores, progress: Progress, on_progress: OnProgress
) -> list[ArtifactMetadata]:
    def on_copied() -> None:
        progress.artifacts += 1
        on_progress(progress)

    return copy_artifacts(source.artifacts, target.artifacts, progress.lost, on_copied)


def _copy(source: Stores, target: Stores, progress: Progress, on_progress: OnProgress) -> list[RunRow]:
    rows = _copy_runs(source, target, progress, on_progress)
    _remove(target, [Removal(run_id, _revision(target, run_id), True) for run_id in _kept_only_by(source, target)])
    _copy_commands(source, target, progress)
    return rows


def _follow_removals(source: Stores, target: Stores) -> None:
    """Remove from the target the runs that were removed from the source since they were copied."""
    known = {row.run_id for row in _all_rows(source)}
    gone = (row for row in _all_rows(target) if row.run_id not in known)
    _remove(target, [Removal(row.run_id, row.revision) for row in gone])


def _revision(stores: Stores, run_id: str) -> int:
    row = stores.runs.row(run_id)
    return row.revision if row is not None else 0


def _remove(target: Stores, removals: list[Removal]) -> None:
    if removals:
        target.commit(Commit(removed=tuple(removals)))


def _kept_only_by(source: Stores, target: Stores) -> set[str]:
    """Return the ids of removed runs that a store keeps and another does not."""
    return set(source.runs.removed_ids()) - set(target.runs.removed_ids())


def _all_rows(stores: Stores) -> list[RunRow]:
    """Return the rows of all runs, the latest updated last, so that ties keep their order."""
    return stores.runs.find(RunQuery(limit=None))[::-1]


def _copy_runs(source: Stores, target: Stores, progress: Progress, on_progress: OnProgress) -> list[RunRow]:
    rows = _all_rows(source)
    there = {row.run_id: row for row in _all_rows(target)}
    _check_origin(rows, there)
    if target.commands.get_last_seq() > source.commands.get_last_seq():
        raise _differs("commands that the source has not")
    progress.runs, progress.of_runs = 0, len(rows)
    chunk = _Chunk(target, lambda: on_progress(progress))
    for row in rows:
        known = there.get(row.run_id)
        if known != row:
            for write in _writes_of(source, target, row.run_id, known, progress):
                progress.records += len(write.records)
                chunk.add(write)
        progress.runs += 1
    for run_id in source.ledger.orphans():
        for write in _writes_of_orphan(source, target, run_id, progress):
            progress.records += len(write.records)
            chunk.add(write)
    chunk.send()
    return rows


def _check_origin(rows: list[RunRow], there: dict[str, RunRow]) -> None:
    """Raise `Conflict` for a target that is not an earlier picture of the source."""
    known = {row.run_id: row for row in rows}
    for run_id, row in there.items():
        origin = known.get(run_id)
        if origin is None or (origin != row and origin.revision <= row.revision):
            raise _differs(f"the run {run_id!r} otherwise than the source")


def _differs(what: str) -> Conflict:
    return Conflict(f"the target has {what}; --overwrite begins with an empty target", code="target_differs")


class _Chunk:
    """Writes that go to the target in one commit."""

    def __init__(self, target: Stores, on_sent: Callable[[], None]) -> None:
        self._target = target
        self._on_sent = on_sent
        self._writes: dict[str, RunWrite] = {}
        self._records = self._bytes = 0

    def add(self, write: RunWrite) -> None:
        if write.run_id in self._writes:
            self.send()  # a commit has one write of a run
        self._writes[write.run_id] = write
        self._records += 1 + len(write.records)
        self._bytes += len(write.body) + sum(map(len, write.records))
        if self._records >= CHUNK_RECORDS or self._bytes >= CHUNK_BYTES:
            self.send()

    def send(self) -> None:
        if self._writes:
            self._target.commit(Commit(runs=tuple(self._writes.values())))
        self._writes, self._records, self._bytes = {}, 0, 0
        self._on_sent()


def _writes_of(
    source: Stores, target: Stores, run_id: str, known: RunRow | None, progress: Progress
) -> Iterator[RunWrite]:
    """Yield the writes that bring a run up to date; the last one has its state."""
    stored = source.runs.open(run_id)
    if stored is None and source.runs.row(run_id) is None:
        return  # it was removed meanwhile
    if stored is None:
        raise Unavailable(f"run {run_id!r} cannot be read", code="store_damaged")
    expected = known.revision if known else 0
    last = yield from _appends(source, target, run_id, stored.ledger_len, expected, progress)
    body = encode_state(stored.state)
    yield replace(last, state=stored.state, body=body, ledger_hash=stored.ledger_hash, moved_to=stored.revision)


def _writes_of_orphan(source: Stores, target: Stores, run_id: str, progress: Progress) -> Iterator[RunWrite]:
    """Yield the writes that bring a ledger without a run up to date."""
    last = yield from _appends(source, target, run_id, source.ledger.count(run_id), 0, progress)
    if last.records:
        yield last


def _appends(
    source: Stores, target: Stores, run_id: str, length: int, expected: int, progress: Progress
) -> Generator[RunWrite, None, RunWrite]:
    """Yield the writes of the records that the target lacks, and return the last one, which may have none."""
    has = target.ledger.count(run_id)
    fresh: list[bytes] = []
    fresh_hash: str | None = None
    for at, records, head in _checked_pages(source, run_id, length, progress):
        if fresh and (len(fresh) + len(records) > CHUNK_RECORDS or sum(map(len, fresh)) >= CHUNK_BYTES):
            yield RunWrite(run_id, None, b"", expected, tuple(fresh), has, fresh_hash)
            has += len(fresh)
            fresh = []
        fresh, fresh_hash = fresh + records[max(0, has - at) :], head
    return RunWrite(run_id, None, b"", expected, tuple(fresh), has, fresh_hash)


def _checked_pages(
    source: Stores, run_id: str, length: int, progress: Progress
) -> Iterator[tuple[int, list[bytes], str | None]]:
    """Yield the pages of a ledger: the cursor before it, its records, and the hash of the last of them."""
    at, previous = 0, None
    while at < length:
        records = list(source.ledger.read(run_id, at, min(PAGE_RECORDS, length - at)).records)
        if not records:
            raise Unavailable(f"the ledger of run {run_id!r} ends after {at} of {length} records", code="store_damaged")
        fault, previous = first_fault(records, previous)
        if fault is not None:
            progress.broken.setdefault(run_id, at + fault + 1)
        yield at, records, previous
        at += len(records)


def _copy_commands(source: Stores, target: Stores, progress: Progress) -> None:
    """Copy commands in order, each with what became of it; what is there already is left."""
    cursor = source.commands.get_cursor()
    decisions: list[Decision] = []
    for command in _commands(source):
        if target.commands.get(command.command_id) is None:
            decisions.append(_submit(target, Commit(command=command)))
            progress.commands += 1
        outcome = source.commands.outcome(command.command_id)
        if outcome is None and command.seq == cursor:
            outcome = CommandOutcome.untold(command)  # moves the cursor, which no other outcome would
        if outcome is not None and target.commands.outcome(command.command_id) is None:
            decisions.append(_submit(target, Commit(outcome=outcome)))
        if len(decisions) >= CHUNK_RECORDS:
            _wait_for(decisions)
    _wait_for(decisions)


def _submit(target: Stores, commit: Commit) -> Decision:
    decision = Decision()
    target.submit(commit, decision)
    return decision


def _wait_for(decisions: list[Decision]) -> None:
    for decision in decisions:
        decision.wait()
    decisions.clear()


def _commands(stores: Stores) -> Iterator[CommandRecord]:
    commands, after = stores.commands.list_after(after=0)
    while commands:
        yield from commands
        commands, after = stores.commands.list_after(after=after)


def _verify(source: Stores, target: Stores, rows: list[RunRow], progress: Progress, on_progress: OnProgress) -> None:
    """Raise `Unavailable` unless both stores read alike."""
    progress.is_verifying, progress.runs = True, 0
    for row in rows:
        is_same = target.runs.open(row.run_id) == source.runs.open(row.run_id)
        if not is_same or not _have_same_ledger(source, target, row.run_id, row.ledger_len):
            raise Unavailable(f"run {row.run_id!r} reads differently in the target", code="store_damaged")
        progress.runs += 1
        if progress.runs % 100 == 0:
            on_progress(progress)
    for run_id in source.ledger.orphans():
        length = source.ledger.count(run_id)
        if target.ledger.count(run_id) != length or not _have_same_ledger(source, target, run_id, length):
            raise Unavailable(f"the ledger {run_id!r} reads differently in the target", code="store_damaged")
    if _kept_only_by(source, target):
        raise Unavailable("the ids of removed runs read differently in the target", code="store_damaged")
    for theirs, ours in zip_longest(_commands(source), _commands(target)):
        if ours is None or ours != theirs or not _have_same_outcome(source, target, ours.command_id):
            command_id = (theirs or ours).command_id
            raise Unavailable(f"command {command_id!r} reads differently in the target", code="store_damaged")
    on_progress(progress)


def _have_same_outcome(source: Stores, target: Stores, command_id: str) -> bool:
    told = source.commands.outcome(command_id)
    return told is None or told == target.commands.outcome(command_id)


def _have_same_ledger(source: Stores, target: Stores, run_id: str, length: int) -> bool:
    pages = ((run_id, at, min(PAGE_RECORDS, length - at)) for at in range(0, length, PAGE_RECORDS))
    return all([*source.ledger.read(*page).records] == [*target.ledger.read(*page).records] for page in pages)
