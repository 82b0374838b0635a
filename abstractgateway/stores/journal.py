"""The redo journal of the file store: a commit is durable once its entry is here; the files follow later.

`journal.log` has a header (magic, generation, and up to which offset entries have been applied to the files) and
entries. When it has grown large, the files are made durable and a new generation begins; the one before stays as
`journal.old.log`, for processes that have not read its end yet.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import Unavailable
from ..measures import Durations
from .disk import Disk
from .entries import Entry, scan
from .layout import keep_damaged
from .problems import Problems

MAX_BYTES = 16 << 20
"""When a generation ends: replaying 16 MB takes well below a second, and its files are quickly made durable."""
MAGIC = b"AGWJRNL1"
HEADER = struct.Struct("<8sQQ")
JOURNAL_START = HEADER.size
"""The offset of the first entry."""

Placed = tuple[int, Entry]
"""An entry and the offset of its end."""


@dataclass
class News:
    """What other processes did to the journal: entries that are in the files already, and ones that may not be.

    `has_new_generation` says that everything before `entries` is in the files; `has_gap` that entries went unread,
    so that the files must be read anew. `applied` is up to which offset the entries are in the files.
    """

    settled: list[Placed] = field(default_factory=list)
    entries: list[Placed] = field(default_factory=list)
    has_new_generation: bool = False
    has_gap: bool = False
    applied: int = HEADER.size


class Journal:
    """The journal of one directory, as one process sees it: `generation` and `end` say how far it has read.

    Everything but `has_news` is called while holding the lock between processes.
    """

    def __init__(self, directory: Path, disk: Disk, problems: Problems, *, is_durable: bool) -> None:
        self.path = directory / "journal.log"
        self.old_path = directory / "journal.old.log"
        self._new_path = directory / "journal.new.log"
        self._directory = directory
        self._disk = disk
        self._problems = problems
        self._is_durable = is_durable
        self._fd = -1
        self._inode = -1
        self._refusal: str | None = None
        self._has_leftovers = False  # whether bytes of a batch that failed may follow the end
        self.is_damaged = False  # whether entries that are in the files were unreadable when it was opened
        self.syncs = Durations()
        self.generation = 0
        self.end = HEADER.size

    @property
    def is_empty(self) -> bool:
        return self.end == HEADER.size

    @property
    def is_refusing(self) -> bool:
        return self._refusal is not None

    def open(self) -> list[Placed]:
        """Open the journal, made if it is missing, and return its entries; a torn end is cut off.

        A journal with damage is kept beside as it was; what can be read of it is returned.
        """
        if not self.path.exists():
            self._begin(_generation_of(self.old_path) + 1)
        data = self.path.read_bytes()
        head = _header(data)
        found = scan(data[HEADER.size :], HEADER.size)
        self.is_damaged = head is None or found.damaged > 0 or _is_applied_beyond(head, found.end)
        if self.is_damaged:
            aside = keep_damaged(self._disk, self.path, data)
            self._problems.note(self.path.name, f"is damaged; {len(found.entries)} entries were read, kept as {aside}")
        self._attach()
        if head is None:
            self.generation = _generation_of(self.old_path) + 1
            self._disk.write_at(self._fd, 0, HEADER.pack(MAGIC, self.generation, HEADER.size))
        self._cut_torn_end(found.end, found.torn)
        self.end = found.end
        return found.entries

    def read_new(self) -> News:
        """Return what others have done since this process last looked. Raises `OSError`."""
        news = News()
        if not self.path.exists():  # whoever began a generation died between two renames; the files are durable then
            self._begin(_generation_of(self.old_path) + 1)
        status = os.stat(self.path)
        if status.st_ino != self._inode:
            self._change_generation(news)
            status = os.fstat(self._fd)
        if status.st_size > self.end:
            found = scan(os.pread(self._fd, status.st_size - self.end, self.end), self.end)
            news.entries = found.entries
            self._cut_torn_end(found.end, found.torn)
            self.end = found.end
        news.applied = self._applied()
        return news

    def read_all(self) -> list[Placed]:
        """Return the entries of this generation."""
        return scan(os.pread(self._fd, self.end - HEADER.size, HEADER.size), HEADER.size).entries

    def has_news(self) -> bool:
        """Say, without the lock, whether somebody seems to have done something."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return True
        return status.st_size != self.end or status.st_ino != self._inode

    def append(self, entries: Sequence[Entry]) -> list[Placed]:
        """Append entries and return them with their places once they are on stable storage.

        Raises `Unavailable`. When it is not known what reached the disk, the journal refuses everything from then on:
        a failed fsync may have dropped the bytes, and only reading the file anew tells.
        """
        if self._refusal is not None:
            raise Unavailable(self._refusal, code="store_failed")
        encoded = [entry.encode(self.end) for entry in entries]
        try:
            if self._has_leftovers:
                self._disk.truncate(self._fd, self.end)
            self._has_leftovers = True
            self._disk.write_at(self._fd, self.end, b"".join(encoded))
        except OSError as error:
            self._undo()
            raise Unavailable(f"the journal cannot be written: {error}", code="store_failed") from error
        self._sync()
        self._has_leftovers = False
        placed: list[Placed] = []
        for entry, data in zip(entries, encoded, strict=True):
            self.end += len(data)
            placed.append((self.end, entry))
        return placed

    def mark_applied(self, offset: int) -> None:
        """Note that every entry up to an offset is in the files, so that other processes need not put it there."""
        self._disk.write_at(self._fd, 0, HEADER.pack(MAGIC, self.generation, offset))

    def refuse(self, reason: str) -> None:
        """Refuse every further write until the directory is opened again."""
        self._refusal = f"{reason}; restart the gateway once the disk is well"
        self._problems.note(self.path.name, reason)

    def begin_generation(self, touched: Collection[Path]) -> None:
        """Make the touched files durable and begin an empty journal; every entry is in the files.

        Raises `OSError` when that failed. Unless the journal refuses writes from then on, it goes on as it was.
        """
        if self._is_durable:
            try:
                self._disk.sync_files(touched, self._directory)
            except OSError as error:  # what is dirty may be lost now: only applying the entries again brings it back
                self.refuse(f"an fsync of the files failed: {error}")
                raise
        self._begin(self.generation + 1)
        self._attach()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd, self._inode = self._fd, -1, -1
            self._disk.close(fd)

    def _begin(self, generation: int) -> None:
        """Put an empty journal in the place of the one that is there, which becomes the old one."""
        self._disk.replace(self._new_path, HEADER.pack(MAGIC, generation, HEADER.size), is_durable=True)
        try:
            if self.path.exists():
                self._disk.rename(self.path, self.old_path)
            self._disk.rename(self._new_path, self.path)
            self._disk.sync_path(self._directory)
        except OSError as error:
            self.refuse(f"a new journal could not be put in place: {error}")
            raise

    def _attach(self) -> None:
        """Use the file that is the journal now."""
        self.close()
        self._fd = self._disk.open(self.path)
        self._inode = os.fstat(self._fd).st_ino
        head = _header(os.pread(self._fd, HEADER.size, 0))
        self.generation = head[0] if head is not None else self.generation + 1
        self.end = HEADER.size

    def _change_generation(self, news: News) -> None:
        """Read the rest of the generation this process knew, and go over to the one that is there now."""
        size = os.fstat(self._fd).st_size
        known, end = self.generation, self.end
        rest = scan(os.pread(self._fd, max(size - end, 0), end), end)
        self._attach()
        news.has_new_generation = True
        news.settled = rest.entries
        news.has_gap = self.generation != known + 1

    def _applied(self) -> int:
        head = _header(os.pread(self._fd, HEADER.size, 0))
        return head[1] if head is not None else HEADER.size

    def _cut_torn_end(self, end: int, torn: int) -> None:
        if torn:
            self._disk.truncate(self._fd, end)
            self._problems.note(self.path.name, f"ended in {torn} bytes of an unfinished entry; cut off")

    def _sync(self) -> None:
        if not self._is_durable:
            return
        begun = time.perf_counter()
        try:
            self._disk.sync(self._fd)
            self.syncs.add(time.perf_counter() - begun)
        except OSError as error:
            self._undo()
            self.refuse(f"an fsync of the journal failed: {error}")
            raise Unavailable(f"the journal cannot be made durable: {error}", code="store_failed") from error

    def _undo(self) -> None:
        """Cut off what was written of a batch, so that neither a restart nor another process takes it for durable."""
        with contextlib.suppress(OSError):  # then it is cut off before the next batch is written
            self._disk.truncate(self._fd, self.end)
            self._has_leftovers = False


def _generation_of(path: Path) -> int:
    try:
        with open(path, "rb") as file:
            head = _header(file.read(HEADER.size))
    except FileNotFoundError:
        return 0
    return head[0] if head is not None else 0


def _header(data: bytes) -> tuple[int, int] | None:
    """Return generation and applied offset, or None for bytes that do not begin a journal."""
    if len(data) < HEADER.size or data[:8] != MAGIC:
        return None
    _, generation, applied = HEADER.unpack_from(data)
    return generation, applied


def _is_applied_beyond(head: tuple[int, int] | None, end: int) -> bool:
    return head is not None and head[1] > end
