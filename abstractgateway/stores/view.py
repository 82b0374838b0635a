"""What one process knows of a data directory: indices of everything, and what is not in the plain files yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..errors import Invalid
from ..jsonvalue import loads
from ..runtime.delta import Checkpoint
from ..runtime.models import RunState
from .applying import files_of, line_of
from .base import Changes, CommandOutcome, CommandRecord, RunRow
from .chains import Chains
from .entries import Entry, RunEntry
from .file_inbox import FileInbox
from .journal import Placed
from .layout import FileHead, Layout, kept_ids
from .ledger_index import LedgerIndex
from .tables import RunTable


@dataclass
class Recent:
    """What a run has in the journal only: its newest checkpoint if that changed, and records from a number on.

    `first` counts the records before them and `at` is the offset in the ledger file at which they go; `end` and
    `body_end` are the offsets in the journal of the newest entry and of the one that has the checkpoint, `begun` that
    of the first one: what comes before it is of a run of the same id that was removed.
    """

    checkpoint: Checkpoint | None
    first: int
    at: int
    records: list[bytes]
    end: int
    body_end: int
    begun: int


@dataclass(frozen=True)
class Page:
    """A stretch of a ledger: the records from number `first` to before `last` are in the file, the others are here.

    `size` is how many bytes of the file are good.
    """

    first: int
    last: int
    size: int
    recent: list[bytes]


class DirectoryView:
    """The indices of a directory. Changes are made by whoever holds the directory, reads by anybody."""

    def __init__(self, layout: Layout) -> None:
        self.lock = threading.RLock()
        self.layout = layout
        self.table = RunTable()
        self.inbox = FileInbox(layout.commands, layout.outcomes)
        self.index = LedgerIndex(layout)
        self.heads: dict[str, FileHead] = {}
        self.epoch = 0
        self.commands_size = 0
        self.outcomes_size = 0
        self.removed: set[str] = set()
        self.removed_size = 0
        self.chains = Chains()
        self.touched: set[str] = set()  # files that the journal's generation has entries for
        self._recents: dict[str, Recent] = {}
        self._pending: deque[Placed] = deque()
        self._pending_from = 0

    # -- reading -------------------------------------------------------------------------------------------------

    def head(self, run_id: str) -> FileHead:
        return self.heads.get(run_id) or FileHead()

    def stored(self, run_id: str) -> tuple[Checkpoint | None, FileHead] | None:
        """Return a run's newest checkpoint and head, or None; the checkpoint is None when the file has it."""
        with self.lock:
            if run_id not in self.table:
                return None
            recent = self._recents.get(run_id)
            return (recent.checkpoint if recent is not None else None), self.head(run_id)

    def page(self, run_id: str, first: int, limit: int) -> Page:
        """Return where the records from number `first` (from 0) on are, at most `limit` of them."""
        with self.lock:
            head = self.head(run_id)
            last = max(min(first + limit, head.ledger_len), first)
            recent = self._recents.get(run_id)
            if recent is None:
                return Page(first, last, head.ledger_bytes, [])
            records = recent.records[max(first - recent.first, 0) : max(last - recent.first, 0)]
            return Page(first, min(last, recent.first), recent.at, records)

    # -- taking in what is durable -------------------------------------------------------------------------------

    def take_in(self, entries: Iterable[Placed], *, is_applied: bool = False) -> Changes:
        """Show entries to readers, all at once, and return what they change."""
        rows: dict[str, RunRow] = {}
        has_commands = False
        with self.lock:
            for end, entry in entries:
                for run in entry.runs:
                    self._take_in_run(run, end, rows, is_applied=is_applied)
                self._take_out(entry, rows)
                has_commands = has_commands or entry.command is not None
                self._take_in_rest(entry, is_applied=is_applied)
                if not is_applied:
                    self._pending.append((end, entry))
                    self.touched.update(files_of(self.layout, entry))
        return Changes(tuple(rows.values()), has_commands)

    def _take_in_run(self, run: RunEntry, end: int, rows: dict[str, RunRow], *, is_applied: bool) -> None:
        self.heads[run.run_id] = FileHead(run.revision, run.ledger_len, run.ledger_hash, run.ledger_bytes)
        self.index.extend(run.run_id, run.ledger_at, run.lines)
        checkpoint = self.chains.take_in(run)
        if not is_applied:
            self._keep(run, checkpoint, end)
        row = self._row(run)
        if row is not None:
            self.table.put(row)
            rows.pop(run.run_id, None)
            rows[run.run_id] = row

    def _take_out(self, entry: Entry, rows: dict[str, RunRow]) -> None:
        for run_id in entry.removed:
            self.table.remove(run_id)
            self.index.forget(run_id)
            self.chains.forget(run_id)
            for known in (self.heads, self._recents, rows):
                known.pop(run_id, None)
        if entry.kept:
            self.removed.update(kept_ids(entry.kept.splitlines()))
            self.removed_size = entry.kept_at + len(entry.kept)

    def _keep(self, run: RunEntry, checkpoint: Checkpoint | None, end: int) -> None:
        records = run.lines.split(b"\n")[:-1]
        recent = self._recents.get(run.run_id)
        if recent is None:
            first = run.ledger_len - len(records)
            body_end = end if checkpoint is not None else 0
            self._recents[run.run_id] = Recent(checkpoint, first, run.ledger_at, records, end, body_end, end)
            return
        if checkpoint is not None:
            recent.checkpoint, recent.body_end = checkpoint, end
        recent.records += records
        recent.end = end

    def _take_in_rest(self, entry: Entry, *, is_applied: bool) -> None:
        if entry.command is not None:
            self.inbox.put(CommandRecord(**entry.command), entry.command_at, is_in_file=is_applied)
            self.commands_size = entry.command_at + len(line_of(entry.command))
        if entry.outcome is not None:
            self.inbox.settle(CommandOutcome(**entry.outcome), entry.outcome_at, is_in_file=is_applied)
            self.outcomes_size = entry.outcome_at + len(line_of(entry.outcome))
        if entry.epoch is not None:
            self.epoch = entry.epoch

    def _row(self, run: RunEntry) -> RunRow | None:
        if run.row is not None:
            return run.row
        if run.has_checkpoint:
            try:
                state = RunState.from_dict(loads(run.body) if run.body else {**loads(run.delta)["fields"], "vars": {}})
            except (Invalid, TypeError, KeyError):
                return None
            return RunRow.of(state, revision=run.revision, ledger_len=run.ledger_len)
        known = self.table.get(run.run_id)
        return replace(known, ledger_len=run.ledger_len) if known is not None else None

    # -- what is not in the files yet ----------------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        return bool(self._pending)

    @property
    def pending_bytes(self) -> int:
        """Return about how many bytes of the journal are not in the files."""
        return self._pending[-1][0] - self._pending_from if self._pending else 0

    def oldest_pending(self, size: int | None) -> list[Placed]:
        """Return the oldest entries to be applied, up to about that many bytes; None for all."""
        if size is None:
            return list(self._pending)
        chosen: list[Placed] = []
        for end, entry in self._pending:
            chosen.append((end, entry))
            if end - self._pending_from >= size:
                break
        return chosen

    def superseded_after(self, end: int, entries: Iterable[Placed]) -> set[str]:
        """Return those runs of some entries that have a newer checkpoint in the journal after an offset."""
        runs = {run.run_id for _, entry in entries for run in entry.runs}
        return {run_id for run_id in runs if run_id in self._recents and self._recents[run_id].body_end > end}

    def forget_pending(self, offset: int) -> None:
        """Take note that the entries up to an offset are in the files."""
        with self.lock:
            while self._pending and self._pending[0][0] <= offset:
                end, entry = self._pending.popleft()
                self._pending_from = end
                for run in entry.runs:
                    self._forget_run(run, end, offset)
                if entry.command is not None:
                    self.inbox.note_command_in_file(entry.command["seq"])
                if entry.outcome is not None:
                    self.inbox.note_outcome_in_file(entry.outcome["seq"])

    def begin_generation(self, start: int) -> None:
        """Take note that everything is in the files, durably, and the journal goes on from an offset."""
        with self.lock:
            self._pending.clear()
            self._recents.clear()
            self.chains.clear()
            self.inbox.note_all_in_files()
            self._pending_from = start
            self.touched.clear()

    def _forget_run(self, run: RunEntry, end: int, offset: int) -> None:
        recent = self._recents.get(run.run_id)
        if recent is None or end < recent.begun:
            return
        if recent.end <= offset:
            del self._recents[run.run_id]
            return
        number = run.ledger_len - recent.first
        recent.first, recent.at = run.ledger_len, run.ledger_bytes
        del recent.records[:number]
