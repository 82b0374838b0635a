"""Reading the plain files of a data directory into a view; one that is damaged never hides the others."""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ..errors import Invalid
from ..jsonvalue import loads
from .base import CommandRecord, RunRow, instant_or_none
from .disk import Disk
from .entries import Entry
from .file_inbox import FileInbox, NotWhole, command_of, count_of, objects_in, outcome_of
from .layout import (
    NO_FILE,
    FileHead,
    Layout,
    Listing,
    decode_run,
    kept_ids,
    quarantine,
    read_object,
    repaired_lines,
    size_of,
)
from .problems import Problems
from .run_index import IndexedRun, RunIndex
from .tables import TimedRow
from .view import DirectoryView


def read_directory(
    layout: Layout, disk: Disk, problems: Problems, view: DirectoryView, *, rewritten: Collection[str] = ()
) -> None:
    """Fill an empty view from the files, which are not behind the journal, and from the index where it holds for them.

    The files of `rewritten` runs are read in any case. What is damaged is put right or aside, and reported. Raises
    `OSError` when the directory cannot be read, or what is damaged cannot be put right.
    """
    index = RunIndex(layout, disk, problems)
    reader = _Reader(layout, disk, problems, view)
    with _no_collection():
        known = index.load()
        listing = Listing.of(layout.directory)
        reader.take_known(known, listing, rewritten)
        unknown = reader.read_runs(listing)
        reader.read_inbox()
        reader.read_removed()
    view.epoch = read_epoch(layout, problems)
    if index.is_whole:
        index.add(view, {run_id: listing.stamps(run_id) for run_id in unknown})
    else:
        index.write(view, {run_id: listing.stamps(run_id) for run_id in view.heads})


@contextmanager
def _no_collection() -> Iterator[None]:
    """Make many objects that stay; looking for garbage among them meanwhile takes a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_epoch(layout: Layout, problems: Problems) -> int:
    """Return the newest lease epoch.

    Where it was lost, seconds since 1970 take its place: they are beyond every epoch that was counted from 1.
    """
    epoch = count_of(read_object(problems, layout.epoch).get("epoch"))
    if epoch is None:
        return int(time.time()) if layout.epoch.exists() else 0
    return epoch


def checkpoints_ahead(layout: Layout, entries: Iterable[Entry], known: Mapping[str, int]) -> set[str]:
    """Return the runs whose checkpoint files are newer than what some entries make of them.

    That is so when the journal is damaged and has lost entries that were in the files already. `known` has the
    revisions of runs of which some entries cannot be used.
    """
    revisions = {run.run_id: run.revision for entry in entries for run in entry.runs} | dict(known)
    ahead: set[str] = set()
    for run_id, revision in revisions.items():
        try:
            _, head = decode_run(layout.run(run_id).read_bytes())
        except (Invalid, OSError):
            continue
        if head is not None and head.revision > revision:
            ahead.add(run_id)
    return ahead


class _Reader:
    def __init__(self, layout: Layout, disk: Disk, problems: Problems, view: DirectoryView) -> None:
        self._layout = layout
        self._disk = disk
        self._problems = problems
        self._view = view
        self._rows: dict[str, TimedRow | None] = {}

    def take_known(self, known: Mapping[str, IndexedRun], listing: Listing, rewritten: Collection[str]) -> None:
        """Take from the index what still holds; the others keep their place in the order."""
        for run_id, run in known.items():
            holds = run.stamps == listing.stamps(run_id) and run_id not in rewritten
            self._rows[run_id] = run.row if holds else None
            if holds:
                self._view.heads[run_id] = run.head

    def read_runs(self, listing: Listing) -> list[str]:
        """Read the files of all other runs, and return their ids."""
        known = len(self._rows)
        unknown = sorted((listing.runs.keys() | listing.ledgers.keys()) - self._view.heads.keys())
        for run_id in unknown:
            if run_id in listing.runs:
                self._read_run(run_id, size_of(listing.ledgers.get(run_id, NO_FILE)))
            if run_id in listing.ledgers and run_id not in self._view.heads:
                self._view.heads[run_id] = self.measure(run_id)
        rows = [row for row in islice(self._rows.values(), known) if row is not None]
        new = [row for row in islice(self._rows.values(), known, None) if row is not None]
        self._view.table.fill(rows + sorted(new, key=lambda timed: timed[2]))
        return unknown

    def _read_run(self, run_id: str, ledger_size: int) -> None:
        path = self._layout.run(run_id)
        try:
            state, head = decode_run(path.read_bytes())
            if state.run_id != run_id:
                raise Invalid("run", f"holds run {state.run_id!r}")
        except Invalid as error:
            quarantine(self._disk, self._problems, path, f"is no checkpoint of run {run_id!r} ({error})")
            return
        except OSError as error:
            self._problems.note(path.name, f"cannot be read: {error}")
            return
        if head is None or head.ledger_bytes != ledger_size:
            head = self._measured(run_id, head)
        self._view.heads[run_id] = head
        row = RunRow.of(state, revision=head.revision, ledger_len=head.ledger_len)
        times = (instant_or_none(row.updated_at), instant_or_none(row.created_at))
        self._rows[run_id] = (row, times[0] or 0.0, times[1] or 0.0)

    def _measured(self, run_id: str, head: FileHead | None) -> FileHead:
        found = self.measure(run_id)
        if head is not None and found.ledger_len < head.ledger_len:
            name = self._layout.ledger(run_id).name
            self._problems.note(name, f"has {found.ledger_len} records where there were {head.ledger_len}")
        return replace(found, revision=head.revision if head is not None else 1)

    def measure(self, run_id: str) -> FileHead:
        """Return what a ledger file holds, having put it right if it was damaged."""
        path = self._layout.ledger(run_id)
        try:
            lines = repaired_lines(self._disk, self._problems, path)
        except IsADirectoryError as error:
            self._problems.note(path.name, f"cannot be read: {error}")
            return FileHead()
        digest = loads(lines[-1]).get("record_hash") if lines else None
        known = digest if isinstance(digest, str) else None
        return FileHead(0, len(lines), known, sum(map(len, lines)) + len(lines))

    def read_inbox(self) -> None:
        try:
            self._fill_inbox()
        except NotWhole:
            for path in (self._layout.outcomes, self._layout.commands):
                repaired_lines(self._disk, self._problems, path)
            self._view.inbox = FileInbox(self._layout.commands, self._layout.outcomes)
            self._fill_inbox()
        self._view.outcomes_size = _size(self._layout.outcomes)
        self._view.commands_size = _size(self._layout.commands)

    def read_removed(self) -> None:
        self._view.removed.update(kept_ids(repaired_lines(self._disk, self._problems, self._layout.removed)))
        self._view.removed_size = _size(self._layout.removed)

    def _fill_inbox(self) -> None:
        inbox = self._view.inbox
        for number, (at, fields) in enumerate(objects_in(self._layout.outcomes), 1):
            outcome = outcome_of(fields)
            if outcome is None:
                self._problems.note(self._layout.outcomes.name, f"line {number} is no outcome; left alone")
            else:
                inbox.settle(outcome, at, is_in_file=True)
        cursor = read_object(self._problems, self._layout.cursor).get("cursor", 0)
        if count_of(cursor) is None:
            self._problems.note(self._layout.cursor.name, f"has no number in 'cursor' but {cursor!r}")
        inbox.move_cursor(count_of(cursor) or 0)
        self._read_commands(inbox)

    def _read_commands(self, inbox: FileInbox) -> None:
        late: list[tuple[CommandRecord, int]] = []
        for number, (at, fields) in enumerate(objects_in(self._layout.commands), 1):
            command = command_of(fields, number)
            if command is None:
                self._problems.note(self._layout.commands.name, f"line {number} is no command; left alone")
            elif inbox.seq_of(command.command_id) is not None:
                continue
            elif inbox.has_place(command.seq) and command.seq > inbox.cursor:
                late.append((command, at))
            else:
                inbox.put(command, at, is_in_file=True)
        for command, at in late:  # two writers of AbstractRuntime gave one place twice; neither command may be lost
            inbox.put(replace(command, seq=inbox.last_seq + 1), at, is_in_file=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
