"""The ports of a store, and the values that cross them.

A backend implements `RunStore`, `LedgerStore`, `CommandStore` and `ArtifactStore`, and one `commit` that changes the
first three together. Every backend passes tests/stores/contract.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from zlib import crc32

from ..clock import parse_iso
from ..errors import Invalid
from ..jsonvalue import JsonObject
from ..measures import CommitMeasures
from ..runtime.commit import (
    ANY_REVISION,
    CommandAppendResult,
    CommandOutcome,
    CommandRecord,
    Commit,
    CommitReceipt,
    Removal,
    RunWrite,
    StoredRun,
)
from ..runtime.models import RunState, RunStatus, StepRecord, WaitReason
from .problems import Problem

__all__ = [
    "ANY_REVISION",
    "ArtifactMetadata",
    "ArtifactStore",
    "Changes",
    "CommandAppendResult",
    "CommandOutcome",
    "CommandRecord",
    "CommandStore",
    "Commit",
    "CommitReceipt",
    "LedgerPage",
    "LedgerStore",
    "PageKey",
    "Problem",
    "Removal",
    "RunQuery",
    "RunRow",
    "RunStore",
    "RunWrite",
    "StoredRun",
    "Stores",
]


RUN_SLOTS = 128
"""What runners that share a store divide the runs into; more runners than this have nothing to do."""


def slot_of(run_id: str) -> int:
    """Return the slot of a run that has no parent; the others are in their parent's."""
    return crc32(run_id.encode(errors="surrogatepass")) % RUN_SLOTS


@dataclass(frozen=True, slots=True)
class RunRow:
    """What listings and wake-ups need of a run, without its variables; `wait_due` is seconds since the epoch.

    `slot` is what runners that share a store divide the runs by; a run is in its parent's.
    """

    run_id: str
    workflow_id: str
    status: RunStatus
    wait_reason: WaitReason | None
    wait_key: str | None
    wait_due: float | None
    parent_run_id: str | None
    actor_id: str | None
    session_id: str | None
    created_at: str
    updated_at: str
    revision: int
    ledger_len: int
    slot: int = field(default=0, compare=False)

    @staticmethod
    def of(state: RunState, *, revision: int, ledger_len: int, slot: int = 0) -> RunRow:
        """Return the row of a run's state."""
        waiting = state.waiting if state.status is RunStatus.WAITING else None
        return RunRow(
            run_id=state.run_id,
            workflow_id=state.workflow_id,
            status=state.status,
            wait_reason=waiting.reason if waiting else None,
            wait_key=waiting.wait_key if waiting else None,
            wait_due=instant_or_none(waiting.until) if waiting and waiting.reason is WaitReason.UNTIL else None,
            parent_run_id=state.parent_run_id,
            actor_id=state.actor_id,
            session_id=state.session_id,
            created_at=state.created_at,
            updated_at=state.updated_at,
            revision=revision,
            ledger_len=ledger_len,
            slot=slot,
        )

    @property
    def is_timer(self) -> bool:
        return self.wait_due is not None


def instant_or_none(text: str | None) -> float | None:
    """Return the seconds since the epoch that a stored time names; None for one that names none."""
    if not text:
        return None
    try:
        return parse_iso(text).timestamp()
    except Invalid:
        return None


@dataclass(frozen=True)
class PageKey:
    """Where a page of a listing ends: the run that comes last on it, and when that was updated, as seconds.

    The next page begins behind it, whatever has been updated or added meanwhile. A time that is none counts as 0.
    """

    updated: float
    run_id: str

    @staticmethod
    def of(row: RunRow) -> PageKey:
        """Return the key of the page that ends with a row."""
        return PageKey(instant_or_none(row.updated_at) or 0.0, row.run_id)

    @staticmethod
    def parse(text: str) -> PageKey:
        """Return the key that `str` wrote. Raises `Invalid`."""
        seconds, comma, run_id = text.partition(",")
        try:
            updated = float(seconds)
        except ValueError:
            updated = math.nan
        if not comma or not math.isfinite(updated):
            raise Invalid("cursor", f"{text!r} is not the 'next_cursor' of a listing")
        return PageKey(updated, run_id)

    def __str__(self) -> str:
        return f"{self.updated!r},{self.run_id}"


@dataclass(frozen=True)
class RunQuery:
    """Which runs to list: every field that is set must hold. The latest updated come first.

    Of runs updated at one instant, the one that was stored first comes last. `before` asks for what follows a page;
    `updated_from` (inclusive) and `updated_to` (exclusive) are seconds since the epoch.
    """

    statuses: tuple[RunStatus, ...] = ()
    wait_reason: WaitReason | None = None
    workflow_id: str | None = None
    session_id: str | None = None
    parent_run_id: str | None = None
    root_only: bool = False
    hide_internal: bool = False
    updated_from: float | None = None
    updated_to: float | None = None
    before: PageKey | None = None
    limit: int | None = 100

    def matches(self, row: RunRow) -> bool:
        """Say whether a row is wanted, but for its time; internal workflows have ids that start with `__`."""
        return (
            (not self.statuses or row.status in self.statuses)
            and (self.wait_reason is None or row.wait_reason is self.wait_reason)
            and (self.workflow_id is None or row.workflow_id == self.workflow_id)
            and (self.session_id is None or row.session_id == self.session_id)
            and (self.parent_run_id is None or row.parent_run_id == self.parent_run_id)
            and not (self.root_only and row.parent_run_id)
            and not (self.hide_internal and row.workflow_id.startswith("__"))
        )


@dataclass(frozen=True)
class LedgerPage:
    """Records as the JSON bytes they are stored as, oldest first; `next_after` is the cursor of the last one."""

    records: Sequence[bytes]
    next_after: int


@dataclass(frozen=True)
class Changes:
    """What became durable: the rows of the runs that changed, and whether commands arrived.

    `born` may have the first writes of runs that were made here, so that whoever drives them need not read them.
    """

    runs: tuple[RunRow, ...]
    has_commands: bool = False
    born: Mapping[str, RunWrite] = field(default_factory=dict)


Listener = Callable[[Changes], None]
Done = Callable[[CommitReceipt | None, Exception | None], None]


class CountsRuns(Protocol):
    """How many runs there are."""

    def count(self) -> dict[RunStatus, int]:
        """Return how many runs have each status; 0 for one that none has."""


class KeepsIds(Protocol):
    """Which runs there once were."""

    def was_removed(self, run_id: str) -> bool:
        """Say whether a run of this id was removed by a commit that keeps the id."""

    def removed_ids(self) -> list[str]:
        """Return the ids of removed runs that were kept, in any order."""


class RunStore(CountsRuns, KeepsIds, Protocol):
    """The checkpoints of runs; `stores.queries` adds the queries of AbstractRuntime's stores on top."""

    def save(self, run: RunState) -> None:
        """Store a state whatever revision is there; for embedding programs, not for runs that are being driven."""

    def open(self, run_id: str) -> StoredRun | None:
        """Return a copy of a run and where it stands, or None for an unknown id."""

    def row(self, run_id: str) -> RunRow | None:
        """Return a run's row, or None for an unknown id."""

    def find(self, query: RunQuery) -> list[RunRow]:
        """Return the rows that a query wants."""

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        """Return the ids of the runs that wait on one of these keys, oldest wait first."""

    def children_of(self, run_id: str) -> list[str]:
        """Return the ids of the runs whose parent is this run, oldest first."""


class LedgerStore(Protocol):
    """The append-only history of each run."""

    def append(self, record: StepRecord) -> None:
        """Add a record to its run's ledger, chained to the one before; for embedding programs."""

    def list(self, run_id: str) -> list[JsonObject]:
        """Return all records, decoded, oldest first; an unknown run has none."""

    def read(self, run_id: str, after: int, limit: int) -> LedgerPage:
        """Return up to `limit` records with cursors greater than `after`, oldest first.

        An unknown run has an empty ledger. The records are the stored JSON bytes, unparsed.
        """

    def read_record(self, run_id: str, cursor: int) -> JsonObject | None:
        """Return the record at a cursor (from 1), or None when there is none."""

    def count(self, run_id: str) -> int:
        """Return how many records a run has."""

    def orphans(self) -> Sequence[str]:
        """Return the ids under which there are records and no run, in any order."""


class CommandStore(Protocol):
    """The durable inbox of commands, and what became of each."""

    def append(self, command: CommandRecord) -> CommandAppendResult:
        """Store a command durably; a repeated `command_id` changes nothing and returns the first one's `seq`."""

    def list_after(self, *, after: int, limit: int = 1000) -> tuple[list[CommandRecord], int]:
        """Return the commands with `seq` greater than `after`, in order, and the last one's `seq` (or `after`)."""

    def get_last_seq(self) -> int:
        """Return the `seq` of the newest command, 0 when there is none."""

    def get_cursor(self) -> int:
        """Return the `seq` up to which commands have been dealt with."""

    def get(self, command_id: str) -> CommandRecord | None:
        """Return a command, or None for an unknown id."""

    def outcome(self, command_id: str) -> CommandOutcome | None:
        """Return what became of a command; None while nothing has."""


@dataclass(frozen=True)
class ArtifactMetadata:
    """What is known of an artifact besides its bytes."""

    artifact_id: str
    content_type: str
    size_bytes: int
    created_at: str
    blob_id: str
    run_id: str | None
    tags: dict[str, str]

    def to_dict(self) -> JsonObject:
        return {name: getattr(self, name) for name in ArtifactMetadata.__dataclass_fields__}


@dataclass(frozen=True)
class OpenArtifact:
    """The bytes of an artifact, checked against their hash when it was opened.

    `read` takes where a part begins and how many bytes it has at most. It raises `Unavailable` when they were written
    to since. Where the bytes are `is_local`, it waits for this machine's memory or disk only, so that a thread on which
    many depend may call it.
    """

    metadata: ArtifactMetadata
    read: Callable[[int, int], bytes]
    is_local: bool


class ForgetsArtifacts(Protocol):
    """Taking artifacts away."""

    def delete(self, artifact_id: str) -> bool:
        """Forget an artifact; False for an unknown id. Raises `Conflict` when it is a part of a run's ledger."""

    def delete_by_run(self, run_id: str, *, keep: Collection[str] = ()) -> int:
        """Forget all artifacts of a run but those to `keep`, and return how many there were; for runs that are gone."""

    def gc(self, *, dry_run: bool = True) -> JsonObject:
        """Drop the bytes that no artifact refers to, and return what was, or would be, dropped."""


class MovesArtifacts(Protocol):
    """Taking artifacts from one store to another."""

    def list_all(self, limit: int | None = 1000) -> list[ArtifactMetadata]:
        """Return up to `limit` artifacts (None: all of them), the newest first."""

    def adopt(self, metadata: ArtifactMetadata, read_pieces: Callable[[], Iterable[bytes]]) -> ArtifactMetadata:
        """Keep an artifact of another store durably, under its id and with its description and time; return that.

        `read_pieces` returns the bytes in order, in pieces that are held one at a time; it is not called where they are
        there already, and may be called twice. What is stored already keeps its description. Raises `Conflict` when
        the id is that of other bytes, `Unavailable` when the pieces do not have the hash that the description names;
        nothing is kept then.
        """


class ArtifactStore(ForgetsArtifacts, MovesArtifacts, Protocol):
    """Blobs, addressed by their content."""

    def store(
        self,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        run_id: str | None = None,
        tags: dict[str, str] | None = None,
        artifact_id: str | None = None,
    ) -> ArtifactMetadata:
        """Keep bytes durably and return what is known of them; the same bytes of the same run have the same id.

        What is stored already keeps its description. Raises `Conflict` when `artifact_id` names other bytes.
        """

    def load(self, artifact_id: str) -> bytes | None:
        """Return the bytes, checked against their hash, or None for an unknown id."""

    def read(self, artifact_id: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return some of the bytes, without having all of them in memory, or None for an unknown id.

        All of them are checked against their hash before the first read, and again once the file has changed.
        """

    def open(self, artifact_id: str) -> OpenArtifact | None:
        """Return what reads parts of the bytes without looking the artifact up again, or None for an unknown id."""

    def get_metadata(self, artifact_id: str) -> ArtifactMetadata | None:
        """Return what is known of an artifact, or None for an unknown id."""

    def list_by_run(self, run_id: str) -> list[ArtifactMetadata]:
        """Return the artifacts stored for a run, the newest first."""


class StorePorts(Protocol):
    """The four ports of a backend."""

    @property
    def runs(self) -> RunStore: ...

    @property
    def ledger(self) -> LedgerStore: ...

    @property
    def commands(self) -> CommandStore: ...

    @property
    def artifacts(self) -> ArtifactStore: ...


class Watched(Protocol):
    """What an operator wants to know of a backend.

    `problems` is what it found broken and went on without, oldest first; `measures` is what this process wrote to it.
    """

    @property
    def problems(self) -> Sequence[Problem]: ...

    @property
    def measures(self) -> CommitMeasures: ...


class Stores(StorePorts, Watched, Protocol):
    """A backend: its ports, and the one way to change runs, ledgers and commands together."""

    def commit(self, commit: Commit) -> CommitReceipt:
        """Make a commit durable and return.

        Raises `StaleWrite` when a run is not at its expected revision, `LeaseLost` when its epoch is over, `Invalid`
        when no store could take it, and `Unavailable` when it could not be made durable; nothing of it is visible
        then.
        """

    def submit(self, commit: Commit, done: Done) -> None:
        """Like `commit`, but return at once; `done(receipt, error)` is called once it is decided."""

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call the listener after every commit that became durable, in order; return how to stop that.

        The listener is called in a thread of the store and must be quick; changes of other processes arrive as well.
        Several commits may arrive as one, then with the latest row of each run.
        """

    def claim(self, owner: str) -> int:
        """Begin a new lease epoch, durably, and return it; commits that carry an earlier one are refused from now."""

    def close(self) -> None:
        """Finish what was submitted and release files and threads; the stores are of no use afterwards."""
