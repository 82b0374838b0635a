"""What a transition changes, as one value that a store makes durable all at once (promise G2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ..jsonvalue import JsonObject, loads
from .models import RunState

ANY_REVISION = -1
"""The expected revision of a write that overrides whatever is stored (an embedding program's `save`)."""


@dataclass(frozen=True)
class StoredRun:
    """A run as the store has it: its state, its revision (1 for the first write) and the head of its ledger.

    `body_bytes` is the size of its JSON as it was last written whole, `delta_bytes` that of what was written since; 0
    where the store does not know.
    """

    state: RunState
    revision: int
    ledger_len: int
    ledger_hash: str | None
    body_bytes: int = field(default=0, compare=False)
    delta_bytes: int = field(default=0, compare=False)


@dataclass(frozen=True)
class RunWrite:
    """One run's part of a commit; without a `state` it only appends records.

    `body` is the JSON of the whole state, or empty where `delta` says what changed since the write before this one.
    `expected` is the revision the run must have (0: it must not exist; `ANY_REVISION`: whatever it is). `records` are
    appended after the `ledger_len` records that are there; `ledger_hash` is the chain's head after them. `moved_to` is
    for a run that comes from another store as it is: the revision that it has there.
    """

    run_id: str
    state: RunState | None
    body: bytes
    expected: int
    records: tuple[bytes, ...]
    ledger_len: int
    ledger_hash: str | None
    delta: bytes = b""
    moved_to: int | None = None

    @property
    def revision(self) -> int:
        """The revision that the run has after this write."""
        if self.moved_to is not None:
            return self.moved_to
        return self.expected + (1 if self.state is not None else 0)

    def to_stored(self) -> StoredRun:
        """Return the run as it is stored once this write of its state is durable; the state is a copy."""
        state = RunState.from_dict(loads(self.body, field="run"))
        return StoredRun(state, self.revision, self.ledger_len + len(self.records), self.ledger_hash)


@dataclass(frozen=True)
class Removal:
    """A run that goes, its checkpoint and its ledger; it must be at `revision` (0: no more than a ledger is there).

    With `keeps_id` the store knows for ever that there was a run of this id.
    """

    run_id: str
    revision: int
    keeps_id: bool = False


@dataclass(frozen=True)
class CommandRecord:
    """A durable command of the inbox; `seq` is its place there, from 1, given by the store.

    In a commit, one that comes from another store keeps its place where that is beyond all others.
    """

    command_id: str
    run_id: str
    type: str
    payload: JsonObject
    ts: str
    client_id: str | None = None
    seq: int = 0

    def to_dict(self) -> JsonObject:
        return {name: getattr(self, name) for name in CommandRecord.__dataclass_fields__}


@dataclass(frozen=True)
class CommandAppendResult:
    """The receipt of a command: a repeated `command_id` is a duplicate with the first one's `seq`."""

    accepted: bool
    duplicate: bool
    seq: int


@dataclass(frozen=True)
class CommandOutcome:
    """What became of a command: `applied`, or `rejected` and why. Storing it moves the inbox cursor to `seq`."""

    seq: int
    command_id: str
    status: str
    reason: str | None
    applied_at: str

    def to_dict(self) -> JsonObject:
        return {name: getattr(self, name) for name in CommandOutcome.__dataclass_fields__}

    @staticmethod
    def untold(command: CommandRecord) -> CommandOutcome:
        """Return the outcome of a command that a program dealt with which keeps no outcomes, as AbstractRuntime's."""
        reason = "it was dealt with by a program that keeps no outcomes"
        return CommandOutcome(command.seq, command.command_id, "applied", reason, command.ts)


@dataclass(frozen=True)
class Premises:
    """What a transition relied on without changing it; a commit whose premises no longer hold is a stale write.

    `revisions` are runs and the revisions they had (0: there was none); `waiters` are wait keys and the ids of the runs
    that waited on one of them.
    """

    revisions: tuple[tuple[str, int], ...] = ()
    waiters: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = ()


NO_PREMISES = Premises()


@dataclass(frozen=True)
class Commit:
    """Everything one or more transitions change; visible together or not at all. No run is both written and removed.

    `epoch` is the writer's lease epoch: the store refuses it with `LeaseLost` once a later epoch has been claimed.
    """

    runs: tuple[RunWrite, ...] = ()
    command: CommandRecord | None = None
    outcome: CommandOutcome | None = None
    epoch: int | None = None
    premises: Premises = NO_PREMISES
    removed: tuple[Removal, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.runs or self.removed) and self.command is None and self.outcome is None


@dataclass(frozen=True)
class CommitReceipt:
    """What the store decided while committing: the receipt of the command, when the commit had one."""

    command: CommandAppendResult | None = None


class KernelRuns(Protocol):
    """What the kernel reads of runs."""

    def open(self, run_id: str) -> StoredRun | None:
        """Return a copy of the run and where it stands, or None for an unknown id."""

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        """Return the ids of the runs that wait on one of these keys, oldest wait first."""

    def children_of(self, run_id: str) -> list[str]:
        """Return the ids of the runs whose parent is this run, oldest first."""


class KernelLedger(Protocol):
    """What the kernel reads of ledgers."""

    def read_record(self, run_id: str, cursor: int) -> JsonObject | None:
        """Return the record at a cursor (from 1), or None when there is none."""


class KernelArtifact(Protocol):
    """What the kernel knows of an artifact."""

    @property
    def artifact_id(self) -> str: ...

    @property
    def created_at(self) -> str: ...

    @property
    def run_id(self) -> str | None: ...

    @property
    def tags(self) -> dict[str, str]: ...


class KernelArtifacts(Protocol):
    """What the kernel needs of artifacts: they are durable before the commit that refers to them."""

    def store(
        self,
        content: bytes,
        *,
        content_type: str = ...,
        run_id: str | None = None,
        tags: dict[str, str] | None = None,
        artifact_id: str | None = None,
    ) -> KernelArtifact:
        """Keep bytes durably; the same bytes of the same run have the same id, so doing it again is harmless.

        With an id of the caller's, that one.
        """

    def load(self, artifact_id: str) -> bytes | None:
        """Return the bytes, or None for an unknown id."""

    def get_metadata(self, artifact_id: str) -> KernelArtifact | None:
        """Return what is known of an artifact, or None for an unknown id."""


class KernelStores(Protocol):
    """The stores as the kernel sees them: three readers, and the one way to change runs and ledgers."""

    @property
    def runs(self) -> KernelRuns: ...

    @property
    def ledger(self) -> KernelLedger: ...

    @property
    def artifacts(self) -> KernelArtifacts | None: ...

    def commit(self, commit: Commit) -> CommitReceipt:
        """Make a commit durable and return.

        Raises `StaleWrite` when a run is not at its expected revision, or when a premise does not hold any more.
        """
