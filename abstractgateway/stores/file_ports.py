"""The run, ledger and command stores of a data directory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Invalid, Unavailable
from ..runtime.delta import Checkpoint, encode_state
from ..runtime.models import RunState, RunStatus
from .base import CommandOutcome, CommandRecord, LedgerPage, RunQuery, RunRow, StoredRun
from .layout import FileHead, decode_run
from .queries import CommandQueries, LedgerQueries, RunQueries
from .staging import Head, orphans_of

if TYPE_CHECKING:
    from .files import FileStores


class JsonFileRunStore(RunQueries["FileStores"]):
    """Checkpoints as files `run_<id>.json` in a directory."""

    def __init__(self, directory: str | Path | None = None, *, stores: FileStores | None = None) -> None:
        self.stores = stores if stores is not None else _shared(directory)

    def join_ledger(self, ledger: object) -> FileStores:
        """Return the store that this and its ledger store belong to."""
        if not isinstance(ledger, JsonlLedgerStore) or ledger.stores is not self.stores:
            raise Invalid("ledger_store", "has another directory; one commit must cover runs and ledgers")
        return self.stores

    def open(self, run_id: str) -> StoredRun | None:
        while True:
            found = self.stores.view.stored(run_id)
            if found is None:
                return None
            checkpoint, head = found
            if checkpoint is not None:
                return _stored(checkpoint.state(), head, len(checkpoint.body), checkpoint.delta_bytes)
            try:
                state, written, size = self._read(run_id)
            except FileNotFoundError:
                return None
            if written is None or written.revision <= head.revision:
                return _stored(state, head, size)
            if written.revision > self.stores.view.head(run_id).revision:
                self.stores.look()  # another process is ahead: what else it committed must be seen together with this

    def row(self, run_id: str) -> RunRow | None:
        view = self.stores.view
        with view.lock:
            return view.table.get(run_id)

    def find(self, query: RunQuery) -> list[RunRow]:
        view = self.stores.view
        with view.lock:
            return view.table.find(query)

    def count(self) -> dict[RunStatus, int]:
        view = self.stores.view
        with view.lock:
            return view.table.count()

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        view = self.stores.view
        with view.lock:
            return view.table.waiting_on(wait_keys)

    def children_of(self, run_id: str) -> list[str]:
        view = self.stores.view
        with view.lock:
            return view.table.children_of(run_id)

    def was_removed(self, run_id: str) -> bool:
        return run_id in self.stores.view.removed

    def removed_ids(self) -> list[str]:
        view = self.stores.view
        with view.lock:
            return sorted(view.removed)

    def newest(self, run_id: str) -> Checkpoint:
        """Return a run's newest checkpoint, from memory or its file.

        Raises `OSError` and `Unavailable` when the file cannot be read.
        """
        found = self.stores.view.stored(run_id)
        if found is not None and found[0] is not None:
            return found[0]
        state, _, _ = self._read(run_id)
        return Checkpoint(encode_state(state))

    def _read(self, run_id: str) -> tuple[RunState, FileHead | None, int]:
        """Return a checkpoint, where the run stands, and the size of its file in bytes."""
        path = self.stores.layout.run(run_id)
        try:
            data = path.read_bytes()
            return *decode_run(data), len(data)
        except Invalid as error:
            raise Unavailable(f"the checkpoint {path.name!r} is damaged: {error}", code="run_damaged") from error


class JsonlLedgerStore(LedgerQueries["FileStores"]):
    """Ledgers as files `ledger_<id>.jsonl` in a directory."""

    def __init__(self, directory: str | Path | None = None, *, stores: FileStores | None = None) -> None:
        self.stores = stores if stores is not None else _shared(directory)

    def head(self, run_id: str) -> Head:
        return self.stores.view.head(run_id)

    def orphans(self) -> Sequence[str]:
        return orphans_of(self.stores.view.heads)

    def read(self, run_id: str, after: int, limit: int) -> LedgerPage:
        view = self.stores.view
        first = max(after, 0)
        page = view.page(run_id, first, max(limit, 0))
        try:
            records = view.index.read(run_id, page.first, page.last, page.size) + page.recent
        except Unavailable:
            self.stores.look_if_behind()  # another process may have removed the run
            if self.head(run_id) != FileHead():
                raise
            return LedgerPage([], first)
        return LedgerPage(records, first + len(records))


class JsonlCommandStore(CommandQueries["FileStores"]):
    """The command inbox as the file `commands.jsonl`."""

    def __init__(self, stores: FileStores) -> None:
        self.stores = stores

    def list_after(self, *, after: int, limit: int = 1000) -> tuple[list[CommandRecord], int]:
        view = self.stores.view
        with view.lock:
            return view.inbox.after(after, limit)

    def get_last_seq(self) -> int:
        return self.stores.view.inbox.last_seq

    def get_cursor(self) -> int:
        return self.stores.view.inbox.cursor

    def get(self, command_id: str) -> CommandRecord | None:
        view = self.stores.view
        with view.lock:
            return view.inbox.get(command_id)

    def outcome(self, command_id: str) -> CommandOutcome | None:
        view = self.stores.view
        with view.lock:
            return view.inbox.outcome(command_id)


def _stored(state: RunState, head: Head, body_bytes: int, delta_bytes: int = 0) -> StoredRun:
    return StoredRun(state, head.revision, head.ledger_len, head.ledger_hash, body_bytes, delta_bytes)


def _shared(directory: str | Path | None) -> FileStores:
    from .files import shared_file_stores  # which makes these ports

    return shared_file_stores(directory)
