"""The redo journal of the file store: a commit is durable once its entry is here, and only then shown in the files.

`journal.log` has a header (magic, generation, and up to which offset entries have been applied to the files) and
entries, each framed by its length and CRC. An entry says at which offset of which file its bytes go, so applying it
twice does no harm. When the journal has grown large, the files are fsynced and a new generation begins; the one before
stays as `journal.old.log`, for processes that have not read its end yet.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import Invalid, Unavailable
from ..jsonvalue import JsonObject, dumps, loads
from .base import RunRow
from .disk import Disk

MAX_BYTES = 16 << 20
"""When a generation ends: replaying 16 MB takes well below a second, and its files are few enough to be fsynced."""
MAGIC = b"AGWJRNL1"
HEADER = struct.Struct("<8sQQ")
FRAME = struct.Struct("<II")


@dataclass(frozen=True)
class RunEntry:
    """One run's part of an entry; `ledger_at` is the offset in its ledger file at which `lines` begin."""

    run_id: str
    revision: int
    ledger_len: int
    ledger_hash: str | None
    ledger_at: int
    body: bytes
    lines: bytes
    row: RunRow | None = field(default=None, compare=False)  # spares the process that commits from decoding the body

    @property
    def ledger_bytes(self) -> int:
        return self.ledger_at + len(self.lines)


@dataclass(frozen=True)
class Entry:
    """One commit as the journal has it; lines of other files come with the offsets at which they go."""

    runs: tuple[RunEntry, ...] = ()
    command: JsonObject | None = None
    command_at: int = 0
    outcome: JsonObject | None = None
    outcome_at: int = 0
    epoch: int | None = None

    def encode(self) -> bytes:
        """Return the framed bytes: a line of JSON that says what follows, then the bodies and lines as they are."""
        head = {
            "runs": [_run_head(run) for run in self.runs],
            "command": self.command,
            "command_at": self.command_at,
            "outcome": self.outcome,
            "outcome_at": self.outcome_at,
            "epoch": self.epoch,
        }
        blobs = b"".join(run.body + run.lines for run in self.runs)
        payload = b"%b\n%b" % (dumps(head), blobs)
        return FRAME.pack(len(payload), zlib.crc32(payload)) + payload

    @staticmethod
    def decode(payload: bytes) -> Entry:
        line, _, blobs = payload.partition(b"\n")
        head = loads(line, field="journal")
        runs: list[RunEntry] = []
        at = 0
        for run in head.pop("runs"):
            body_size, lines_size = run.pop("body"), run.pop("lines")
            middle, end = at + body_size, at + body_size + lines_size
            runs.append(RunEntry(**run, body=blobs[at:middle], lines=blobs[middle:end]))
            at = end
        return Entry(runs=tuple(runs), **head)


def _run_head(run: RunEntry) -> JsonObject:
    return {
        "run_id": run.run_id,
        "revision": run.revision,
        "ledger_len": run.ledger_len,
        "ledger_hash": run.ledger_hash,
        "ledger_at": run.ledger_at,
        "body": len(run.body),
        "lines": len(run.lines),
    }


@dataclass
class Scan:
    """The entries of a journal from some offset on: `end` is where the good ones end, `torn` how many bytes follow."""

    entries: list[Entry] = field(default_factory=list)
    end: int = HEADER.size
    torn: int = 0


def scan(data: bytes, start: int = HEADER.size) -> Scan:
    """Return the entries after an offset, up to the first one that is not whole."""
    found = Scan(end=start)
    while found.end + FRAME.size <= len(data):
        size, crc = FRAME.unpack_from(data, found.end)
        payload = data[found.end + FRAME.size : found.end + FRAME.size + size]
        if size == 0 or len(payload) < size or zlib.crc32(payload) != crc:
            break
        found.entries.append(Entry.decode(payload))
        found.end += FRAME.size + size
    found.torn = len(data) - found.end
    return found


class Journal:
    """The journal of one directory, as one process sees it: `generation` and `end` say how far it has read."""

    def __init__(self, directory: Path, disk: Disk, *, is_durable: bool) -> None:
        self.path = directory / "journal.log"
        self.old_path = directory / "journal.old.log"
        self._new_path = directory / "journal.new.log"
        self._directory = directory
        self._disk = disk
        self._is_durable = is_durable
        self._fd = -1
        self._poisoned: str | None = None
        self.generation = 0
        self.end = HEADER.size
        self.torn = 0

    def open(self) -> list[Entry]:
        """Open the journal, made if it is missing, and return its entries; a torn end is cut off.

        The caller holds the lock between processes.
        """
        if not self.path.exists():
            self._begin(self._generation_of(self.old_path) + 1)
        self._fd = self._disk.open(self.path)
        data = self.path.read_bytes()
        self.generation = _header(self.path, data)[0]
        found = scan(data)
        self.end, self.torn = found.end, found.torn
        if found.torn:
            self._disk.truncate(self._fd, found.end)
        return found.entries

    def read_new(self) -> tuple[list[Entry], bool]:
        """Return the entries that others have appended since, and whether some were missed for good.

        The caller holds the lock. What was missed is in the files: they must be read anew.
        """
        missed = False
        entries: list[Entry] = []
        current = self._generation_of(self.path)
        if current != self.generation:
            missed = current != self.generation + 1 or self._generation_of(self.old_path) != self.generation
            if not missed:
                entries = scan(self.old_path.read_bytes(), self.end).entries
            self._reopen(current)
        size = self.path.stat().st_size
        if size > self.end:
            found = scan(self.path.read_bytes(), self.end)
            entries += found.entries
            self.end = found.end
            if found.torn:
                self._disk.truncate(self._fd, found.end)
        return entries, missed

    def has_news(self) -> bool:
        """Say, without the lock, whether somebody seems to have appended something."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return True
        return status.st_size != self.end or self._generation_of(self.path) != self.generation

    def append(self, entries: Sequence[Entry]) -> None:
        """Append entries and return once they are on stable storage.

        Raises `Unavailable`. When it is not known what reached the disk, the journal refuses everything from then on:
        a failed fsync may have dropped the bytes, and only reading the file anew tells.
        """
        if self._poisoned is not None:
            raise Unavailable(self._poisoned, code="store_failed")
        data = b"".join(entry.encode() for entry in entries)
        try:
            self._disk.write_at(self._fd, self.end, data)
        except OSError as error:
            self._undo(error)
            raise Unavailable(f"the journal cannot be written: {error}", code="store_failed") from error
        if self._is_durable:
            try:
                self._disk.sync(self._fd)
            except OSError as error:
                self.poison(f"an fsync of the journal failed: {error}")
                raise Unavailable(f"the journal cannot be made durable: {error}", code="store_failed") from error
        self.end += len(data)

    def mark_applied(self) -> None:
        """Note that every entry so far is in the files; read by a process that finds the lock left by a dead one."""
        self._disk.write_at(self._fd, 0, HEADER.pack(MAGIC, self.generation, self.end))

    def unapplied(self) -> list[Entry]:
        """Return the entries that a process appended and died before it had applied them."""
        _, applied = _header(self.path, os.pread(self._fd, HEADER.size, 0))
        if applied >= self.end:
            return []
        return scan(self.path.read_bytes(), applied).entries

    def poison(self, reason: str) -> None:
        """Refuse every further write until the directory is opened again."""
        self._poisoned = f"{reason}; restart the gateway once the disk is well"

    def begin_generation(self, touched: Iterable[Path]) -> None:
        """Make the touched files durable and begin an empty journal; the caller holds the lock."""
        for path in touched:
            self._disk.sync_path(path)
        self._disk.sync_path(self._directory)
        self._begin(self.generation + 1)
        self._reopen(self.generation + 1)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _begin(self, generation: int) -> None:
        self._disk.replace(self._new_path, HEADER.pack(MAGIC, generation, HEADER.size))
        self._disk.sync_path(self._new_path)
        if self.path.exists():
            self._disk.rename(self.path, self.old_path)
        self._disk.rename(self._new_path, self.path)
        self._disk.sync_path(self._directory)

    def _reopen(self, generation: int) -> None:
        self.close()
        self._fd = self._disk.open(self.path)
        self.generation, self.end = generation, HEADER.size

    def _undo(self, error: OSError) -> None:
        try:
            self._disk.truncate(self._fd, self.end)
        except OSError:
            self.poison(f"the journal could not be written ({error}) nor cut back")

    def _generation_of(self, path: Path) -> int:
        try:
            with open(path, "rb") as file:
                return _header(path, file.read(HEADER.size))[0]
        except FileNotFoundError:
            return 0


def _header(path: Path, data: bytes) -> tuple[int, int]:
    if len(data) < HEADER.size or data[:8] != MAGIC:
        raise Invalid(path.name, "is not a journal of this library; move it away to begin with an empty one")
    _, generation, applied = HEADER.unpack_from(data)
    return generation, applied
