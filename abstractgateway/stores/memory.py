"""Stores in memory: dictionaries and a lock. Nothing survives the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ..errors import GatewayError, Invalid
from ..measures import CommitMeasures
from ..runtime.delta import Checkpoint
from ..runtime.models import RunStatus
from .artifacts import InMemoryArtifactStore
from .base import (
    Changes,
    CommandOutcome,
    CommandRecord,
    Commit,
    CommitReceipt,
    Done,
    LedgerPage,
    Listener,
    Removal,
    RunQuery,
    RunRow,
    RunWrite,
    StoredRun,
)
from .checks import check_commit
from .feed import Feed
from .problems import Problems
from .queries import CommandQueries, LedgerQueries, RunQueries
from .staging import Admitted, Head, Staging, after_write, orphans_of
from .tables import Inbox, RunTable


class MemoryStores:
    """The memory backend; states are kept as JSON, so what is read is a copy."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.table = RunTable()
        self.inbox = Inbox()
        self.checkpoints: dict[str, Checkpoint] = {}
        self.records: dict[str, list[bytes]] = {}
        self.heads: dict[str, Head] = {}
        self.removed: set[str] = set()
        self.problems = Problems()
        self.measures = CommitMeasures()
        self._epoch = 0
        self._feed = Feed()
        self.runs = InMemoryRunStore(self)
        self.ledger = InMemoryLedgerStore(self)
        self.commands = InMemoryCommandStore(self)
        self.artifacts = InMemoryArtifactStore()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing be committed meanwhile."""
        with self.lock:
            yield

    def commit(self, commit: Commit) -> CommitReceipt:
        check_commit(commit)
        with self.lock:
            staging = Staging(
                head_of=self.head,
                seq_of=self.inbox.seq_of,
                waiting_on=self.table.waiting_on,
                last_seq=self.inbox.last_seq,
                epoch=self._epoch,
            )
            admitted = staging.admit(commit)
            self._feed.post(self._apply(admitted))
            self.measures.commits += 1
        self._feed.deliver()
        return admitted.receipt

    def submit(self, commit: Commit, done: Done) -> None:
        try:
            receipt = self.commit(commit)
        except GatewayError as error:
            done(None, error)
        else:
            done(receipt, None)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        return self._feed.subscribe(listener)

    def claim(self, owner: str) -> int:
        with self.lock:
            self._epoch += 1
            return self._epoch

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def head(self, run_id: str) -> Head:
        return self.heads.get(run_id) or Head()

    def _apply(self, admitted: Admitted) -> Changes:
        rows: list[RunRow] = []
        for write in admitted.writes:
            head = self.heads[write.run_id] = after_write(write)
            self.records.setdefault(write.run_id, []).extend(write.records)
            if write.state is not None:
                self.checkpoints[write.run_id] = self._checkpoint(write)
                row: RunRow | None = RunRow.of(write.state, revision=head.revision, ledger_len=head.ledger_len)
            else:
                row = self.table.get(write.run_id)
                row = replace(row, ledger_len=head.ledger_len) if row is not None else None
            if row is not None:
                self.table.put(row)
                rows.append(row)
        for removal in admitted.removed:
            self._remove(removal)
        if admitted.command is not None:
            self.inbox.put(admitted.command)
        if admitted.outcome is not None:
            self.inbox.settle(admitted.outcome)
        return Changes(tuple(rows), has_commands=admitted.command is not None)

    def _remove(self, removal: Removal) -> None:
        self.table.remove(removal.run_id)
        for kept in (self.heads, self.records, self.checkpoints):
            kept.pop(removal.run_id, None)
        if removal.keeps_id:
            self.removed.add(removal.run_id)

    def _checkpoint(self, write: RunWrite) -> Checkpoint:
        if not write.delta:
            return Checkpoint(write.body)
        return self.checkpoints[write.run_id].with_delta(write.delta)  # a delta's revision was admitted, so it is there


class InMemoryRunStore(RunQueries["MemoryStores"]):
    """Checkpoints in memory."""

    def __init__(self, stores: MemoryStores | None = None) -> None:
        self.stores = stores or MemoryStores()

    def join_ledger(self, ledger: object) -> MemoryStores:
        """Return one store made of this and a ledger store that was made apart from it."""
        if not isinstance(ledger, InMemoryLedgerStore):
            raise Invalid("ledger_store", f"{type(ledger).__name__} does not go with InMemoryRunStore")
        ledger.move_to(self.stores)
        return self.stores

    def open(self, run_id: str) -> StoredRun | None:
        with self.stores.lock:
            checkpoint, head = self.stores.checkpoints.get(run_id), self.stores.head(run_id)
        if checkpoint is None:
            return None
        sizes = len(checkpoint.body), checkpoint.delta_bytes
        return StoredRun(checkpoint.state(), head.revision, head.ledger_len, head.ledger_hash, *sizes)

    def row(self, run_id: str) -> RunRow | None:
        return self.stores.table.get(run_id)

    def find(self, query: RunQuery) -> list[RunRow]:
        with self.stores.lock:
            return self.stores.table.find(query)

    def count(self) -> dict[RunStatus, int]:
        with self.stores.lock:
            return self.stores.table.count()

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        with self.stores.lock:
            return self.stores.table.waiting_on(wait_keys)

    def children_of(self, run_id: str) -> list[str]:
        with self.stores.lock:
            return self.stores.table.children_of(run_id)

    def was_removed(self, run_id: str) -> bool:
        return run_id in self.stores.removed

    def removed_ids(self) -> list[str]:
        with self.stores.lock:
            return sorted(self.stores.removed)


class InMemoryLedgerStore(LedgerQueries["MemoryStores"]):
    """Ledgers in memory."""

    def __init__(self, stores: MemoryStores | None = None) -> None:
        self.stores = stores or MemoryStores()

    def move_to(self, stores: MemoryStores) -> None:
        """Take this ledger's records to another backend and stay there."""
        if stores is self.stores:
            return
        with self.stores.lock, stores.lock:
            for run_id, records in self.stores.records.items():
                stores.records.setdefault(run_id, []).extend(records)
                stores.heads[run_id] = replace(self.stores.head(run_id), revision=stores.head(run_id).revision)
        self.stores = stores

    def head(self, run_id: str) -> Head:
        return self.stores.head(run_id)

    def orphans(self) -> Sequence[str]:
        return orphans_of(self.stores.heads)

    def read(self, run_id: str, after: int, limit: int) -> LedgerPage:
        start = max(after, 0)
        with self.stores.lock:
            records = self.stores.records.get(run_id, [])[start : start + max(limit, 0)]
        return LedgerPage(records, start + len(records))


class InMemoryCommandStore(CommandQueries["MemoryStores"]):
    """The command inbox in memory."""

    def __init__(self, stores: MemoryStores | None = None) -> None:
        self.stores = stores or MemoryStores()

    def list_after(self, *, after: int, limit: int = 1000) -> tuple[list[CommandRecord], int]:
        with self.stores.lock:
            return self.stores.inbox.after(after, limit)

    def get_last_seq(self) -> int:
        return self.stores.inbox.last_seq

    def get_cursor(self) -> int:
        return self.stores.inbox.cursor

    def get(self, command_id: str) -> CommandRecord | None:
        return self.stores.inbox.get(command_id)

    def outcome(self, command_id: str) -> CommandOutcome | None:
        return self.stores.inbox.outcome(command_id)


def open_memory_stores() -> MemoryStores:
    """Return fresh stores in memory."""
    return MemoryStores()
