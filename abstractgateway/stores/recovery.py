"""Reading the plain files of a data directory into a view; one that is damaged never hides the others."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..errors import Invalid
from ..jsonvalue import JsonObject, loads
from .base import CommandOutcome, CommandRecord, RunRow
from .disk import Disk
from .entries import Entry
from .layout import FileHead, Layout, Listing, decode_run, quarantine, read_object, repaired_lines
from .problems import Problems
from .view import DirectoryView


def read_directory(layout: Layout, disk: Disk, problems: Problems, view: DirectoryView) -> None:
    """Fill an empty view from the files, which are not behind the journal.

    What is damaged is put right or aside, and reported. Raises `OSError` when the directory cannot be read, or what is
    damaged cannot be put right.
    """
    reader = _Reader(layout, disk, problems, view)
    listing = Listing.of(layout.directory)
    for run_id in listing.run_ids:
        reader.read_run(run_id, listing.ledger_sizes.get(run_id, 0))
    for run_id in listing.ledger_sizes.keys() - view.heads.keys():
        view.heads[run_id] = reader.measure(run_id)
    reader.read_inbox()
    view.epoch = read_epoch(layout, problems)


def read_epoch(layout: Layout, problems: Problems) -> int:
    """Return the newest lease epoch.

    Where it was lost, seconds since 1970 take its place: they are beyond every epoch that was counted from 1.
    """
    epoch = _count(read_object(problems, layout.epoch).get("epoch"))
    if epoch is None:
        return int(time.time()) if layout.epoch.exists() else 0
    return epoch


def checkpoints_ahead(layout: Layout, entries: Iterable[Entry]) -> set[str]:
    """Return the runs whose checkpoint files are newer than the newest of some entries.

    That is so when the journal is damaged and has lost entries that were in the files already.
    """
    revisions = {run.run_id: run.revision for entry in entries for run in entry.runs}
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

    def read_run(self, run_id: str, ledger_size: int) -> None:
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
        self._view.table.put(RunRow.of(state, revision=head.revision, ledger_len=head.ledger_len))

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
        view = self._view
        for number, line in enumerate(self._lines(self._layout.outcomes), 1):
            outcome = _outcome(loads(line))
            if outcome is None:
                self._problems.note(self._layout.outcomes.name, f"line {number} is no outcome; left alone")
            else:
                view.inbox.settle(outcome)
        cursor = read_object(self._problems, self._layout.cursor).get("cursor", 0)
        if _count(cursor) is None:
            self._problems.note(self._layout.cursor.name, f"has no number in 'cursor' but {cursor!r}")
        view.inbox.move_cursor(_count(cursor) or 0)
        self._read_commands()
        view.outcomes_size = _size(self._layout.outcomes)
        view.commands_size = _size(self._layout.commands)

    def _read_commands(self) -> None:
        inbox = self._view.inbox
        late: list[CommandRecord] = []
        for number, line in enumerate(self._lines(self._layout.commands), 1):
            command = _command(loads(line), number)
            if command is None:
                self._problems.note(self._layout.commands.name, f"line {number} is no command; left alone")
            elif inbox.seq_of(command.command_id) is not None:
                continue
            elif inbox.has_place(command.seq) and command.seq > inbox.cursor:
                late.append(command)
            else:
                inbox.put(command)
        for command in late:  # two writers of AbstractRuntime gave one place twice; neither command may be lost
            inbox.put(replace(command, seq=inbox.last_seq + 1))

    def _lines(self, path: Path) -> list[bytes]:
        return repaired_lines(self._disk, self._problems, path)


def _command(fields: JsonObject, number: int) -> CommandRecord | None:
    texts = [fields.get(name) for name in ("command_id", "run_id", "type", "ts")]
    client_id, payload, seq = fields.get("client_id"), fields.get("payload"), _count(fields.get("seq", number))
    if not all(isinstance(text, str) and text for text in texts[:3]) or not isinstance(payload, dict) or not seq:
        return None
    return CommandRecord(
        command_id=fields["command_id"],
        run_id=fields["run_id"],
        type=fields["type"],
        payload=payload,
        ts=str(fields.get("ts") or ""),
        client_id=client_id if isinstance(client_id, str) else None,
        seq=seq,
    )


def _outcome(fields: JsonObject) -> CommandOutcome | None:
    seq, reason = _count(fields.get("seq")), fields.get("reason")
    texts = [fields.get(name) for name in ("command_id", "status", "applied_at")]
    if seq is None or not all(isinstance(text, str) for text in texts):
        return None
    known = reason if isinstance(reason, str) else None
    return CommandOutcome(seq, fields["command_id"], fields["status"], known, fields["applied_at"])


def _count(value: object) -> int | None:
    """Return a number that counts something, or None for anything else."""
    return value if type(value) is int and value >= 0 else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
