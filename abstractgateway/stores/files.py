"""Stores in plain files, in AbstractRuntime's layout, made durable by a redo journal.

A batch of commits is one fsynced append to the journal, then applied to `run_<id>.json`, `ledger_<id>.jsonl` and the
rest, which need no fsync of their own: what a crash takes from them is applied again at the next start. Several
processes may use one directory; they take turns by a file lock and read each other's journal entries.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import GatewayError, Invalid, Unavailable
from ..ids import check_safe_id
from ..jsonvalue import dumps, loads
from ..runtime.models import RunState
from .artifacts import FileArtifactStore
from .base import (
    Changes,
    CommandOutcome,
    CommandRecord,
    Commit,
    CommitReceipt,
    Done,
    LedgerPage,
    Listener,
    RunQuery,
    RunRow,
    RunWrite,
    StoredRun,
)
from .disk import Disk
from .feed import Feed
from .group import GroupWriter, Submission
from .journal import MAX_BYTES, Entry, Journal, RunEntry
from .layout import FileHead, Layout, decode_run, encode_run, quarantine, read_object, repaired_lines
from .ledger_index import LedgerIndex
from .queries import CommandQueries, LedgerQueries, RunQueries
from .staging import Admitted, Head, Staging, after_write
from .tables import Inbox, RunTable
from .wake import Wake

_log = logging.getLogger(__name__)

OPEN_LEDGERS = 256
"""How many ledger files are kept open for writing: enough for the runs that are busy at one time."""


class FileStores:
    """The file backend."""

    def __init__(self, directory: str | Path, *, disk: Disk | None = None, is_durable: bool = True) -> None:
        self.layout = Layout(Path(directory))
        self.layout.directory.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self.table = RunTable()
        self.inbox = Inbox()
        self.index = LedgerIndex(self.layout)
        self._disk = disk or Disk()
        self._heads: dict[str, FileHead] = {}
        self._epoch = 0
        self._sizes: dict[Path, int] = {}
        self._touched: set[Path] = set()
        self._ledger_fds: OrderedDict[str, int] = OrderedDict()
        self._feed = Feed()
        self._lock_fd = os.open(self.layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._journal = Journal(self.layout.directory, self._disk, is_durable=is_durable)
        with self._exclusive():
            self._recover()
        self.runs = JsonFileRunStore(stores=self)
        self.ledger = JsonlLedgerStore(stores=self)
        self.commands = JsonlCommandStore(self)
        self.artifacts = FileArtifactStore(directory)
        self._writer = GroupWriter(self._write_batch, name="gateway-file-writer")
        self._wake = Wake(self.layout.directory, self._look)

    def commit(self, commit: Commit) -> CommitReceipt:
        return self._writer.commit(commit)

    def submit(self, commit: Commit, done: Done) -> None:
        self._writer.submit(commit, done)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        return self._feed.subscribe(listener)

    def claim(self, owner: str) -> int:
        with self._exclusive():
            self._tell(self._catch_up())
            entry = Entry(epoch=self._epoch + 1)
            self._journal.append([entry])
            self._apply([entry])
            self._journal.mark_applied()
            return self._epoch

    def close(self) -> None:
        self._wake.close()
        self._writer.close()
        for fd in self._ledger_fds.values():
            os.close(fd)
        self._journal.close()
        os.close(self._lock_fd)

    def head(self, run_id: str) -> FileHead:
        return self._heads.get(run_id) or FileHead()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the directory against this process's other threads and against other processes."""
        with self.lock:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    # -- starting ------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Apply what the journal has to the files, then read them."""
        entries = self._journal.open()
        if self._journal.torn:
            _log.warning("journal.log ended in %d bytes of an unfinished entry; cut off", self._journal.torn)
        self._read_epoch()
        self._redo(entries)
        self._read_files()

    def _read_files(self) -> None:
        self.table, self.inbox, self._heads = RunTable(), Inbox(), {}
        self._read_epoch()
        for run_id in self.layout.run_ids():
            self._read_run(run_id)
        for run_id in self.layout.ledger_ids():
            if run_id not in self._heads:
                self._heads[run_id] = self._measure(run_id)
        self._read_inbox()

    def _read_epoch(self) -> None:
        self._epoch = int(read_object(self.layout.epoch).get("epoch") or 0)

    def _read_run(self, run_id: str) -> None:
        path = self.layout.run(run_id)
        try:
            state, head = decode_run(path.read_bytes())
            if state.run_id != run_id:
                raise Invalid("run", f"holds run {state.run_id!r}")
        except (Invalid, TypeError) as error:
            quarantine(self._disk, path, str(error))
            return
        if head is None or _size(self.layout.ledger(run_id)) != head.ledger_bytes:
            measured = self._measure(run_id)
            revision = head.revision if head is not None else 1
            head = FileHead(revision, measured.ledger_len, measured.ledger_hash, measured.ledger_bytes)
        self._heads[run_id] = head
        self.table.put(RunRow.of(state, revision=head.revision, ledger_len=head.ledger_len))

    def _measure(self, run_id: str) -> FileHead:
        """Return what a ledger file holds, having put it right if it was damaged."""
        lines = repaired_lines(self._disk, self.layout.ledger(run_id))
        digest = loads(lines[-1]).get("record_hash") if lines else None
        return FileHead(0, len(lines), digest, sum(map(len, lines)) + len(lines))

    def _read_inbox(self) -> None:
        for number, line in enumerate(repaired_lines(self._disk, self.layout.commands), 1):
            fields = loads(line)
            known = {name: fields[name] for name in CommandRecord.__dataclass_fields__ if name in fields}
            try:
                self.inbox.put(CommandRecord(**{"client_id": None, **known, "seq": int(known.get("seq") or number)}))
            except (TypeError, ValueError):
                _log.warning("line %d of commands.jsonl is not a command; left alone", number)
        for line in repaired_lines(self._disk, self.layout.outcomes):
            self.inbox.settle(CommandOutcome(**loads(line)))
        self.inbox.cursor = max(self.inbox.cursor, int(read_object(self.layout.cursor).get("cursor") or 0))

    # -- committing ----------------------------------------------------------------------------------------------

    def _write_batch(self, batch: list[Submission]) -> None:
        with self._exclusive():
            told = [self._catch_up()]
            entries = self._admit(batch)
            if entries:
                self._journal.append(entries)
                try:
                    told.append(self._apply(entries))
                    self._journal.mark_applied()
                except OSError as error:
                    self._journal.poison(f"the files could not be written: {error}")
                    raise Unavailable(f"the files cannot be written: {error}", code="store_failed") from error
                if self._journal.end > MAX_BYTES:
                    self._journal.begin_generation(self._touched)
                    self._touched.clear()
        for changes in told:
            self._tell(changes)
        if entries:
            self._wake.ring()

    def _admit(self, batch: list[Submission]) -> list[Entry]:
        """Return the entries of the commits that may be written; the others are told why not."""
        staging = Staging(head_of=self.head, seq_of=self.inbox.seq_of, last_seq=self.inbox.last_seq, epoch=self._epoch)
        sizes: dict[Path, int] = {}
        entries: list[Entry] = []
        for item in batch:
            try:
                for write in item.commit.runs:
                    check_safe_id(write.run_id, field="run_id")
                admitted = staging.admit(item.commit)
            except GatewayError as error:
                item.error = error
                continue
            item.receipt = admitted.receipt
            entries.append(self._entry(admitted, sizes))
        return [entry for entry in entries if entry != Entry()]

    def _entry(self, admitted: Admitted, sizes: dict[Path, int]) -> Entry:
        """Return a commit as a journal entry; `sizes` are those of the files after the earlier entries."""
        runs = tuple(self._run_entry(write, after_write(write), sizes) for write in admitted.writes)
        command = admitted.command.to_dict() if admitted.command else None
        outcome = admitted.outcome.to_dict() if admitted.outcome else None
        return Entry(
            runs=runs,
            command=command,
            command_at=self._place(self.layout.commands, _line(command) if command else b"", sizes),
            outcome=outcome,
            outcome_at=self._place(self.layout.outcomes, _line(outcome) if outcome else b"", sizes),
        )

    def _run_entry(self, write: RunWrite, head: Head, sizes: dict[Path, int]) -> RunEntry:
        lines = b"".join([record + b"\n" for record in write.records])
        path = self.layout.ledger(write.run_id)
        sizes.setdefault(path, self.head(write.run_id).ledger_bytes)
        return RunEntry(
            run_id=write.run_id,
            revision=head.revision,
            ledger_len=head.ledger_len,
            ledger_hash=head.ledger_hash,
            ledger_at=self._place(path, lines, sizes),
            body=write.body,
            lines=lines,
            row=RunRow.of(write.state, revision=head.revision, ledger_len=head.ledger_len) if write.state else None,
        )

    def _place(self, path: Path, lines: bytes, sizes: dict[Path, int]) -> int:
        """Return the offset at which bytes go that are added to a file."""
        at = sizes.get(path)
        if at is None:
            at = self._sizes.get(path)
        if at is None:
            at = self._sizes[path] = _size(path)
        sizes[path] = at + len(lines)
        return at

    # -- applying ------------------------------------------------------------------------------------------------

    def _apply(self, entries: Iterable[Entry]) -> Changes:
        """Put entries into the files and into the indices of this process."""
        entries = list(entries)
        self._redo(entries)
        return self._take_in(entries)

    def _redo(self, entries: Iterable[Entry]) -> None:
        """Put entries into the files; doing so again changes nothing."""
        bodies: dict[str, RunEntry] = {}
        cursor: CommandOutcome | None = None
        for entry in entries:
            for run in entry.runs:
                if run.lines:
                    self._disk.write_at(self._ledger_fd(run.run_id), run.ledger_at, run.lines)
                    self._touched.add(self.layout.ledger(run.run_id))
                if run.body:
                    bodies[run.run_id] = run
                elif run.run_id in bodies:
                    bodies[run.run_id] = _with_body(run, bodies[run.run_id].body)
            if entry.command is not None:
                self._write_line(self.layout.commands, entry.command_at, _line(entry.command))
            if entry.outcome is not None:
                self._write_line(self.layout.outcomes, entry.outcome_at, _line(entry.outcome))
                cursor = CommandOutcome(**entry.outcome)
            if entry.epoch is not None:
                self._replace(self.layout.epoch, dumps({"epoch": entry.epoch}))
        for run in bodies.values():
            head = FileHead(run.revision, run.ledger_len, run.ledger_hash, run.ledger_bytes)
            self._replace(self.layout.run(run.run_id), encode_run(run.body, head))
        if cursor is not None:
            self._replace(self.layout.cursor, dumps({"cursor": cursor.seq, "updated_at": cursor.applied_at}))

    def _take_in(self, entries: Iterable[Entry]) -> Changes:
        """Put entries into the indices of this process, and return what they change."""
        rows: dict[str, RunRow] = {}
        has_commands = False
        for entry in entries:
            for run in entry.runs:
                self._heads[run.run_id] = FileHead(run.revision, run.ledger_len, run.ledger_hash, run.ledger_bytes)
                self.index.extend(run.run_id, run.ledger_at, run.lines)
                row = self._row(run)
                if row is not None:
                    self.table.put(row)
                    rows[run.run_id] = row
            if entry.command is not None:
                has_commands = True
                self.inbox.put(CommandRecord(**entry.command))
                self._sizes[self.layout.commands] = entry.command_at + len(_line(entry.command))
            if entry.outcome is not None:
                self.inbox.settle(CommandOutcome(**entry.outcome))
                self._sizes[self.layout.outcomes] = entry.outcome_at + len(_line(entry.outcome))
            if entry.epoch is not None:
                self._epoch = entry.epoch
        return Changes(tuple(rows.values()), has_commands)

    def _row(self, run: RunEntry) -> RunRow | None:
        if run.row is not None:
            return run.row
        if run.body:
            state = RunState.from_dict(loads(run.body))
            return RunRow.of(state, revision=run.revision, ledger_len=run.ledger_len)
        known = self.table.get(run.run_id)
        if known is None:
            return None
        return RunRow(**{**known.__dict__, "ledger_len": run.ledger_len})

    # -- other processes -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Take in what other processes have committed, without waiting for this one to commit something."""
        if not self._journal.has_news():
            return
        with self._exclusive():
            changes = self._catch_up()
        self._tell(changes)

    def _catch_up(self) -> Changes:
        """Take in what other processes have committed; the caller holds the directory."""
        entries, missed = self._journal.read_new()
        unapplied = self._journal.unapplied()
        if unapplied:
            self._redo(unapplied)
            self._journal.mark_applied()
        if missed:
            before = {run_id: head.revision for run_id, head in self._heads.items()}
            self._sizes.clear()
            self._read_files()
            rows = self.table.find(RunQuery(limit=None))
            changed = tuple(row for row in rows if row.revision != before.get(row.run_id))
            return Changes(changed, has_commands=True)
        return self._take_in(entries)

    def _tell(self, changes: Changes) -> None:
        self._feed.notify(changes)

    # -- files ---------------------------------------------------------------------------------------------------

    def _ledger_fd(self, run_id: str) -> int:
        fd = self._ledger_fds.get(run_id)
        if fd is None:
            fd = self._ledger_fds[run_id] = self._disk.open(self.layout.ledger(run_id))
            if len(self._ledger_fds) > OPEN_LEDGERS:
                os.close(self._ledger_fds.popitem(last=False)[1])
        else:
            self._ledger_fds.move_to_end(run_id)
        return fd

    def _write_line(self, path: Path, at: int, line: bytes) -> None:
        fd = self._disk.open(path)
        try:
            self._disk.write_at(fd, at, line)
        finally:
            os.close(fd)
        self._touched.add(path)

    def _replace(self, path: Path, data: bytes) -> None:
        self._disk.replace(path, data)
        self._touched.add(path)


class JsonFileRunStore(RunQueries["FileStores"]):
    """Checkpoints as files `run_<id>.json` in a directory."""

    def __init__(self, directory: str | Path | None = None, *, stores: FileStores | None = None) -> None:
        self.stores = stores if stores is not None else shared_file_stores(directory)

    def join_ledger(self, ledger: object) -> FileStores:
        """Return the store that this and its ledger store belong to."""
        if not isinstance(ledger, JsonlLedgerStore) or ledger.stores is not self.stores:
            raise Invalid("ledger_store", "has another directory; one commit must cover runs and ledgers")
        return self.stores

    def open(self, run_id: str) -> StoredRun | None:
        if run_id not in self.stores.table:
            return None
        try:
            state, head = decode_run(self.stores.layout.run(run_id).read_bytes())
        except FileNotFoundError:
            return None
        head = head or self.stores.head(run_id)
        return StoredRun(state, head.revision, head.ledger_len, head.ledger_hash)

    def row(self, run_id: str) -> RunRow | None:
        return self.stores.table.get(run_id)

    def find(self, query: RunQuery) -> list[RunRow]:
        with self.stores.lock:
            return self.stores.table.find(query)

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        with self.stores.lock:
            return self.stores.table.waiting_on(wait_keys)

    def children_of(self, run_id: str) -> list[str]:
        with self.stores.lock:
            return self.stores.table.children_of(run_id)


class JsonlLedgerStore(LedgerQueries["FileStores"]):
    """Ledgers as files `ledger_<id>.jsonl` in a directory."""

    def __init__(self, directory: str | Path | None = None, *, stores: FileStores | None = None) -> None:
        self.stores = stores if stores is not None else shared_file_stores(directory)

    def head(self, run_id: str) -> Head:
        return self.stores.head(run_id)

    def read(self, run_id: str, after: int, limit: int) -> LedgerPage:
        head = self.stores.head(run_id)
        last = min(max(after, 0) + max(limit, 0), head.ledger_len)
        records = self.stores.index.read(run_id, max(after, 0), last, head.ledger_bytes)
        return LedgerPage(records, after + len(records))


class JsonlCommandStore(CommandQueries["FileStores"]):
    """The command inbox as the file `commands.jsonl`."""

    def __init__(self, stores: FileStores) -> None:
        self.stores = stores

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


_shared: dict[Path, FileStores] = {}
_sharing = threading.Lock()


def shared_file_stores(directory: str | Path | None) -> FileStores:
    """Return the stores that run and ledger stores of one directory have in common in this process."""
    if directory is None:
        raise Invalid("directory", "is missing; name the directory of the store")
    path = Path(directory).resolve()
    with _sharing:
        if path not in _shared:
            _shared[path] = FileStores(path)
        return _shared[path]


def open_file_stores(directory: str | Path, *, disk: Disk | None = None, is_durable: bool = True) -> FileStores:
    """Return stores in the files of a directory, which is made if it is missing.

    Raises `Invalid` for a directory whose journal is not this library's; damaged files are put aside and reported.
    """
    return FileStores(directory, disk=disk, is_durable=is_durable)


def _line(fields: dict[str, object]) -> bytes:
    return dumps(fields) + b"\n"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _with_body(run: RunEntry, body: bytes) -> RunEntry:
    return RunEntry(**{**run.__dict__, "body": body})
