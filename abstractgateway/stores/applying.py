"""Putting journal entries into the plain files; doing so again changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..jsonvalue import JsonObject, dumps
from ..runtime.delta import Checkpoint
from .chains import Chains
from .disk import Disk
from .entries import Entry, RunEntry
from .layout import FileHead, Layout, encode_run


def line_of(fields: JsonObject) -> bytes:
    """Return an object as one line of a JSONL file."""
    return dumps(fields) + b"\n"


def files_of(layout: Layout, entry: Entry) -> list[str]:
    """Return the names of the files that an entry changes; plain text, because this is asked for every commit."""
    names: list[str] = []
    for run in entry.runs:
        if run.has_checkpoint:
            names.append(f"run_{run.run_id}.json")
        if run.lines:
            names.append(f"ledger_{run.run_id}.jsonl")
    if entry.command is not None:
        names.append(layout.commands.name)
    if entry.outcome is not None:
        names += [layout.outcomes.name, layout.cursor.name]
    if entry.epoch is not None:
        names.append(layout.epoch.name)
    for run_id in entry.removed:
        names += [f"run_{run_id}.json", f"ledger_{run_id}.jsonl"]
    if entry.kept:
        names.append(layout.removed.name)
    return names


@dataclass
class _Extent:
    """Bytes that go into a file one after the other, from an offset on."""

    at: int
    parts: list[bytes] = field(default_factory=list)
    end: int = 0


class _Extents:
    """What is added to files; pieces that follow one another are written at once."""

    def __init__(self) -> None:
        self._by_path: dict[Path, list[_Extent]] = {}

    def add(self, path: Path, at: int, data: bytes) -> None:
        extents = self._by_path.setdefault(path, [])
        if not extents or extents[-1].end != at:
            extents.append(_Extent(at, end=at))
        extents[-1].parts.append(data)
        extents[-1].end += len(data)

    def drop(self, path: Path) -> None:
        """Write nothing of what was added to a file so far."""
        self._by_path.pop(path, None)

    def write(self, disk: Disk) -> None:
        for path, extents in self._by_path.items():
            fd = disk.open(path)
            try:
                for extent in extents:
                    disk.write_at(fd, extent.at, b"".join(extent.parts))
            finally:
                disk.close(fd)


def apply_entries(
    disk: Disk, layout: Layout, entries: Iterable[Entry], chains: Chains, superseded: Collection[str] = ()
) -> None:
    """Put entries into the files. Raises `OSError`; applying them again then puts right what was left half-done.

    `chains` has the newest checkpoints of the runs that have deltas. The checkpoints of `superseded` runs are left: a
    later entry that is still to be applied has newer ones.
    """
    extents = _Extents()
    checkpoints: dict[str, RunEntry] = {}
    removed: dict[str, None] = {}
    objects: dict[Path, JsonObject] = {}
    for entry in entries:
        for run in entry.runs:
            _collect_run(layout, run, extents, checkpoints)
        if entry.command is not None:
            extents.add(layout.commands, entry.command_at, line_of(entry.command))
        if entry.outcome is not None:
            extents.add(layout.outcomes, entry.outcome_at, line_of(entry.outcome))
            objects[layout.cursor] = {"cursor": entry.outcome["seq"], "updated_at": entry.outcome["applied_at"]}
        if entry.epoch is not None:
            objects[layout.epoch] = {"epoch": entry.epoch}
        for run_id in entry.removed:
            extents.drop(layout.ledger(run_id))
            checkpoints.pop(run_id, None)
            removed[run_id] = None
        if entry.kept:
            extents.add(layout.removed, entry.kept_at, entry.kept)
    for run_id in removed:  # before what follows: a run of the same id may have been made since
        disk.remove(layout.run(run_id))
        disk.remove(layout.ledger(run_id))
    extents.write(disk)
    for run in checkpoints.values():
        checkpoint = Checkpoint(run.body) if run.body else chains.get(run.run_id)
        if checkpoint is not None and run.run_id not in superseded:
            head = FileHead(run.revision, run.ledger_len, run.ledger_hash, run.ledger_bytes)
            disk.replace(layout.run(run.run_id), encode_run(checkpoint.whole(), head))
    for path, value in objects.items():
        disk.replace(path, dumps(value))


def _collect_run(layout: Layout, run: RunEntry, extents: _Extents, checkpoints: dict[str, RunEntry]) -> None:
    if run.lines:
        extents.add(layout.ledger(run.run_id), run.ledger_at, run.lines)
    known = checkpoints.get(run.run_id)
    if run.has_checkpoint:
        checkpoints[run.run_id] = run
    elif known is not None:  # records only: the checkpoint stays, its head moves on
        checkpoints[run.run_id] = replace(run, body=known.body, delta=known.delta)
