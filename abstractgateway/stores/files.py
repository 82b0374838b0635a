"""Stores in plain files, in AbstractRuntime's layout, made durable by a redo journal.

A batch of commits is one fsynced append to the journal, and is visible from then on: readers get from memory what the
plain files do not have yet. `run_<id>.json`, `ledger_<id>.jsonl` and the rest follow a moment later, without an fsync
of their own: what a crash takes from them is applied again at the next start. Several processes may use one directory;
they take turns by a file lock and read each other's journal entries.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import GatewayError, Invalid, Unavailable
from ..runtime.delta import DELTA_FROM_BYTES, Checkpoint
from .applying import apply_entries, files_of, line_of
from .artifacts import FileArtifactStore
from .base import Changes, Commit, CommitReceipt, Done, Listener, RunQuery, RunRow, RunWrite
from .chains import Chains
from .disk import Disk
from .entries import Entry, RunEntry
from .feed import Feed
from .file_ports import JsonFileRunStore, JsonlCommandStore, JsonlLedgerStore
from .group import GroupWriter, Submission, closed_error
from .journal import JOURNAL_START, MAX_BYTES, Journal, Placed
from .layout import Layout, kept_line, run_of
from .problems import Problems
from .recovery import checkpoints_ahead, read_directory, read_epoch
from .run_index import RunIndex, stamps_of
from .staging import Admitted, Head, Staging, after_write
from .view import DirectoryView
from .wake import Wake

PENDING_BYTES = 4 << 20
"""How much of the journal may not be in the files yet while commits keep coming; readers get it from memory."""
OVERDUE = 4
"""Where the files cannot be written, commits go on until the journal is this many times its usual size."""


class FileStores:
    """The file backend.

    `journal_bytes` is the size at which a journal ends, `pending_bytes` how much of it may wait to be put into the
    files while there is other work.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        disk: Disk | None = None,
        is_durable: bool = True,
        journal_bytes: int = MAX_BYTES,
        pending_bytes: int = PENDING_BYTES,
    ) -> None:
        self.layout = Layout(Path(directory))
        self.layout.directory.mkdir(parents=True, exist_ok=True)
        self.problems = Problems()
        self.is_closed = False
        self._disk = disk or Disk()
        self._journal_bytes = journal_bytes
        self._pending_bytes = pending_bytes
        self._has_gap = False
        self._feed = Feed()
        self._holding = threading.Lock()
        self._lock_fd = os.open(self.layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._index = RunIndex(self.layout, self._disk, self.problems)
        self._journal = Journal(self.layout.directory, self._disk, self.problems, is_durable=is_durable)
        try:
            with self._exclusive():
                self.view = self._settle(self._journal.open())
        except BaseException:
            self._journal.close()
            os.close(self._lock_fd)
            raise
        self.runs = JsonFileRunStore(stores=self)
        self.ledger = JsonlLedgerStore(stores=self)
        self.commands = JsonlCommandStore(self)
        self.artifacts = FileArtifactStore(directory, disk=self._disk, problems=self.problems)
        self._writer = GroupWriter(self._write_batch, name="gateway-file-writer", tidy=self._tidy)
        self.measures = self._writer.measures
        self.measures.syncs = self._journal.syncs
        self._wake = Wake(self.layout.directory, self._on_wake)
        _open_stores.add(self)

    def commit(self, commit: Commit) -> CommitReceipt:
        return self._writer.commit(commit)

    def submit(self, commit: Commit, done: Done) -> None:
        self._writer.submit(commit, done)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        return self._feed.subscribe(listener)

    def claim(self, owner: str) -> int:
        if self.is_closed:
            raise closed_error()
        try:
            with self._exclusive():
                self._catch_up()
                self._make_room()
                self._append([Entry(epoch=self.view.epoch + 1)])
                epoch = self.view.epoch
        finally:
            self._feed.deliver()
        self._wake.ring()
        self._writer.tidy_soon()
        return epoch

    def close(self) -> None:
        """Put everything into the files, durably, and release files and threads."""
        if self.is_closed:
            return
        self.is_closed = True
        _open_stores.discard(self)
        self._writer.close()
        self._wake.close()
        try:
            with self._exclusive():
                self._finish()
        finally:
            self._journal.close()
            os.close(self._lock_fd)

    def look(self) -> None:
        """Take in what other processes have committed, without waiting for this one to commit something."""
        if self.is_closed:
            raise closed_error()
        try:
            with self._exclusive():
                self._catch_up()
        finally:
            self._feed.deliver()

    def look_if_behind(self) -> None:
        """Take in what other processes have committed, if there seems to be something."""
        if self._journal.has_news():
            self.look()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing be committed meanwhile, by any process; what has been is there to be read."""
        try:
            with self._exclusive():
                self._catch_up()
                yield
        finally:
            self._feed.deliver()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the directory against this process's other threads and against other processes."""
        with self._holding:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    # -- opening and closing -------------------------------------------------------------------------------------

    def _settle(self, placed: list[Placed]) -> DirectoryView:
        """Put the journal's entries into the files, and return what the directory then holds."""
        entries = [entry for _, entry in placed]
        chains = Chains()
        broken = chains.take_in_all(entries)
        newer = checkpoints_ahead(self.layout, entries, broken) if self._journal.is_damaged else set()
        for run_id in broken.keys() - newer:
            self.problems.note(self.layout.run(run_id).name, "is behind: the journal lost what it changes")
        if self._journal.is_damaged:
            known = [entry.epoch for entry in entries if entry.epoch is not None]
            entries.append(Entry(epoch=max([read_epoch(self.layout, self.problems), *known])))
        apply_entries(self._disk, self.layout, entries, chains, newer)
        self._journal.mark_applied(self._journal.end)
        view = DirectoryView(self.layout)
        rewritten = {run.run_id for entry in entries for run in entry.runs}
        read_directory(self.layout, self._disk, self.problems, view, rewritten=rewritten)
        view.begin_generation(self._journal.end)
        view.chains = chains
        for entry in entries:
            view.touched.update(files_of(self.layout, entry))
        return view

    def _finish(self) -> None:
        """Leave the files complete and durable and the journal empty: others may read and write them now."""
        with contextlib.suppress(OSError, GatewayError):  # what is left is applied at the next start
            self._catch_up()
            self._apply_pending(None)
            if not self._journal.is_empty and not self._journal.is_refusing:
                self._begin_generation()
                self._index.shrink(self.view)

    # -- committing ----------------------------------------------------------------------------------------------

    def _write_batch(self, batch: list[Submission]) -> None:
        has_written = False
        try:
            with self._exclusive():
                self._catch_up()
                self._make_room()
                entries = self._admit(batch)
                if entries:
                    self._append(entries)
                    has_written = True
        finally:
            self._feed.deliver()
        if has_written:
            self._wake.ring()

    def _append(self, entries: list[Entry]) -> None:
        """Make entries durable and show them."""
        placed = self._journal.append(entries)
        self._feed.post(self.view.take_in(placed))

    def _make_room(self) -> None:
        """Empty a journal that has grown far beyond its size because the files could not be written before."""
        if self._journal.end <= OVERDUE * self._journal_bytes:
            return
        try:
            self._apply_pending(None)
            self._begin_generation()
        except OSError as error:
            where = str(self.layout.directory)
            raise Unavailable(
                f"the files in {where!r} cannot be written and the journal is full: {error}", code="store_failed"
            ) from error

    def _admit(self, batch: list[Submission]) -> list[Entry]:
        """Return the entries of the commits that may be written; the others are told why not."""
        view = self.view
        staging = Staging(
            head_of=view.head,
            seq_of=view.inbox.seq_of,
            waiting_on=view.table.waiting_on,
            last_seq=view.inbox.last_seq,
            epoch=view.epoch,
        )
        places = _Places(view, self.runs.newest)
        entries: list[Entry] = []
        for item in batch:
            try:
                admitted = staging.admit(item.commit)
            except GatewayError as error:
                item.error = error
                continue
            item.receipt = admitted.receipt
            entries.append(places.entry(admitted))
        return [entry for entry in entries if entry != Entry()]

    # -- tidying up ----------------------------------------------------------------------------------------------

    def _tidy(self, is_idle: bool) -> bool:
        """Put into the files what waits for it, as far as it should not wait longer; say whether something is left."""
        excess = self.view.pending_bytes - self._pending_bytes
        is_full = self._journal.end > self._journal_bytes
        if not is_idle and excess < 0 and not is_full:
            return self.view.has_pending
        try:
            with self._exclusive():
                self._catch_up()
                self._apply_pending(None if is_idle or is_full else excess)
                if is_full and not self._journal.is_refusing:
                    self._begin_generation()
        except OSError as error:  # readers get it from memory, and the next look tries again
            self.problems.note(self.layout.directory.name, f"the files cannot be written: {error}")
            return False
        finally:
            self._feed.deliver()
        return self.view.has_pending

    def _apply_pending(self, size: int | None) -> None:
        """Put the oldest entries into the files, about `size` bytes of them, or all."""
        placed = self.view.oldest_pending(size)
        if not placed:
            return
        end = placed[-1][0]
        superseded = self.view.superseded_after(end, placed)
        apply_entries(self._disk, self.layout, [entry for _, entry in placed], self.view.chains, superseded)
        self._journal.mark_applied(end)
        self.view.forget_pending(end)

    def _begin_generation(self) -> None:
        touched = self.view.touched
        self._journal.begin_generation([self.layout.directory / name for name in touched])
        changed = {run_id for name in touched if (run_id := run_of(name)) is not None}
        self._index.add(self.view, stamps_of(self.layout, changed))
        self.view.begin_generation(self._journal.end)

    # -- other processes -----------------------------------------------------------------------------------------

    def _on_wake(self, has_rung: bool) -> None:
        if self._journal.has_news():
            self.look()
        elif not has_rung and self.view.has_pending:
            self._writer.tidy_soon()  # another process died with it, or the files could not be written before

    def _catch_up(self) -> None:
        """Take in what other processes have committed; the caller holds the directory."""
        news = self._journal.read_new()
        self._has_gap = self._has_gap or news.has_gap
        if self._has_gap:
            self._read_anew()
            return
        with self.view.lock:
            if news.has_new_generation:
                self._feed.post(self.view.take_in(news.settled, is_applied=True))
                self.view.begin_generation(JOURNAL_START)
            if news.entries:
                self._feed.post(self.view.take_in(news.entries))
            self.view.forget_pending(news.applied)

    def _read_anew(self) -> None:
        """Read the files again, after whole generations of the journal went by unread."""
        before = self.view.table
        self.view = self._settle(self._journal.read_all())
        self._has_gap = False
        rows = self.view.table.find(RunQuery(limit=None))
        changed = [row for row in reversed(rows) if before.get(row.run_id) != row]
        self._feed.post(Changes(tuple(changed), has_commands=True))


class _Places:
    """The offsets at which the lines of a batch go, each after those of the commits before it.

    The first delta of a run in a generation of the journal becomes a whole checkpoint; `newest` reads what it changes.
    """

    def __init__(self, view: DirectoryView, newest: Callable[[str], Checkpoint]) -> None:
        self._view = view
        self._newest = newest
        self._bodies: dict[str, bytes] = {}  # the whole checkpoints of this batch
        self._based: set[str] = set()  # runs of this batch whose next write may be a delta
        self._ledgers: dict[str, int] = {}
        self._commands = view.commands_size
        self._outcomes = view.outcomes_size
        self._removed = view.removed_size

    def entry(self, admitted: Admitted) -> Entry:
        """Return a commit as a journal entry."""
        command = admitted.command.to_dict() if admitted.command else None
        outcome = admitted.outcome.to_dict() if admitted.outcome else None
        kept = b"".join([kept_line(removal.run_id) for removal in admitted.removed if removal.keeps_id])
        entry = Entry(
            runs=tuple(self._run(write, after_write(write)) for write in admitted.writes),
            command=command,
            command_at=self._commands if command else 0,
            outcome=outcome,
            outcome_at=self._outcomes if outcome else 0,
            removed=tuple(removal.run_id for removal in admitted.removed),
            kept=kept,
            kept_at=self._removed if kept else 0,
        )
        self._commands += len(line_of(command)) if command else 0
        self._outcomes += len(line_of(outcome)) if outcome else 0
        self._removed += len(kept)
        for run_id in entry.removed:
            self._forget(run_id)
        return entry

    def _forget(self, run_id: str) -> None:
        self._ledgers[run_id] = 0
        self._bodies.pop(run_id, None)
        self._based.discard(run_id)

    def _run(self, write: RunWrite, head: Head) -> RunEntry:
        lines = b"".join([record + b"\n" for record in write.records])
        at = self._ledgers.get(write.run_id)
        if at is None:
            at = self._view.head(write.run_id).ledger_bytes
        self._ledgers[write.run_id] = at + len(lines)
        body, delta = self._checkpoint(write)
        return RunEntry(
            run_id=write.run_id,
            revision=head.revision,
            ledger_len=head.ledger_len,
            ledger_hash=head.ledger_hash,
            ledger_at=at,
            body=body,
            delta=delta,
            lines=lines,
            row=RunRow.of(write.state, revision=head.revision, ledger_len=head.ledger_len) if write.state else None,
        )

    def _checkpoint(self, write: RunWrite) -> tuple[bytes, bytes]:
        """Return the whole checkpoint of a write or what it changes, as the journal needs it; or neither."""
        if write.state is None:
            return b"", b""
        run_id, body = write.run_id, write.body
        if write.delta:
            known = self._bodies.get(run_id)
            if run_id in self._based or (known is None and self._view.chains.has(run_id, write.expected)):
                self._based.add(run_id)
                return b"", write.delta
            base = Checkpoint(known) if known is not None else self._newest(run_id)
            body = base.with_delta(write.delta).whole()
        self._bodies[run_id] = body
        (self._based.add if len(body) >= DELTA_FROM_BYTES else self._based.discard)(run_id)
        return body, b""


_open_stores: weakref.WeakSet[FileStores] = weakref.WeakSet()
_shared: dict[Path, FileStores] = {}
_sharing = threading.Lock()


@atexit.register
def _close_at_exit() -> None:
    """Leave the files of stores that were never closed complete: programs read them without this library."""
    for stores in list(_open_stores):
        with contextlib.suppress(OSError, GatewayError):
            stores.close()


def shared_file_stores(directory: str | Path | None) -> FileStores:
    """Return the stores that run and ledger stores of one directory have in common in this process.

    They are open until they are closed or the process ends; after that, asking again opens the directory anew.
    """
    if directory is None:
        raise Invalid("directory", "is missing; name the directory of the store")
    path = Path(directory).resolve()
    with _sharing:
        known = _shared.get(path)
        if known is None or known.is_closed:
            known = _shared[path] = open_file_stores(path)
        return known


def open_file_stores(
    directory: str | Path,
    *,
    disk: Disk | None = None,
    is_durable: bool = True,
    journal_bytes: int = MAX_BYTES,
    pending_bytes: int = PENDING_BYTES,
) -> FileStores:
    """Return stores in the files of a directory, which is made if it is missing.

    Damaged files are put aside and listed in `problems`. Raises `Unavailable` for a directory that cannot be used.
    """
    try:
        return FileStores(
            directory, disk=disk, is_durable=is_durable, journal_bytes=journal_bytes, pending_bytes=pending_bytes
        )
    except OSError as error:
        raise unusable_directory(directory, error) from error


def unusable_directory(directory: str | Path, error: OSError) -> Unavailable:
    """Return the error for a data directory that cannot be read or written."""
    return Unavailable(
        f"the data directory {str(directory)!r} cannot be used: {error}; "
        "set ABSTRACTGATEWAY_DATA_DIR to one that can be written",
        code="data_dir_unusable",
    )
