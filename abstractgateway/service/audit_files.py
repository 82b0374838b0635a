"""The files of an audit log: appended to by several processes, put aside when they are large, and read back."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..clock import Clock, to_iso
from ..errors import Invalid
from ..security.audit import MOST_LINE_BYTES, TORN, ChainEnd, Finding, Verification, chained, end_of
from ..stores.disk import Disk

FILE_NAME = "audit_log.jsonl"
END_NAME = "audit_log.end"
LOCK_NAME = "audit_log.lock"
MODE = 0o600

log = logging.getLogger("abstractgateway.audit")

Entry = Mapping[str, Any]


class ChainFile:
    """The files of one log. Several processes may append: each takes the lock and looks where the others stopped."""

    def __init__(self, directory: Path, *, max_bytes: int, rotations: int, clock: Clock, disk: Disk) -> None:
        self.path = directory / FILE_NAME
        self._directory = directory
        self._max_bytes = max_bytes
        self._rotations = rotations
        self._clock = clock
        self._disk = disk
        self._known: tuple[tuple[int, int], ChainEnd] | None = None
        self._torn = 0

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries after the last one. Raises `OSError`, and has then added none."""
        with locked(self._directory):
            end = self._end()
            if self._max_bytes and self._size() >= self._max_bytes:
                end = self._rotate(end)
            if self._known is None:  # so that there is a note, whenever the process dies
                self._tell_end(end)
            lines, end = chained([*self._about_torn(), *entries], end)
            self._write(lines)
            self._torn = 0
            self._known = (self._place(), end)
            self._tell_end(end)

    def _about_torn(self) -> Iterator[Entry]:
        if self._torn:
            yield {"ts": to_iso(self._clock.now()), "event": TORN, "bytes": self._torn}

    def sync(self) -> None:
        """Have the system write what was added."""
        self._disk.sync_path(self.path)

    def _write(self, lines: bytes) -> None:
        fd = _open(self._disk, self.path)
        size = os.fstat(fd).st_size
        try:
            self._disk.write_at(fd, size, lines)
        except OSError:
            self._disk.truncate(fd, size)
            raise
        finally:
            self._disk.close(fd)

    def _end(self) -> ChainEnd:
        """Return where the chain ends, as we left it or as the files have it."""
        if self._known is not None and self._known[0] == self._place():
            return self._known[1]
        told = read_end(self._directory) or ChainEnd()
        last = self._last_line()
        found = end_of(last) if last else self._end_of_rotated()
        if last and found is None:
            return self._rotate(told)
        # Of an end that the file does not reach, entries were taken away: the gap must stay visible.
        return replace(found, oldest=told.oldest) if found is not None and found.seq >= told.seq else told

    def _end_of_rotated(self) -> ChainEnd | None:
        """Return the last entry that was put aside, which is the last of all where the current file has none.

        The note of the end may be older: it could not be written while the disk was full.
        """
        rotated = rotated_files(self._directory)
        return end_of(_last_of(read_tail(rotated[-1], 4 * MOST_LINE_BYTES)[0])[0]) if rotated else None

    def _last_line(self) -> bytes:
        """Return the last whole line; what a crash left after it was no entry yet and is cut off."""
        if not self.path.exists():
            return b""
        fd = _open(self._disk, self.path)
        try:
            size = os.fstat(fd).st_size
            start = max(0, size - 4 * MOST_LINE_BYTES)
            last, torn = _last_of(os.pread(fd, size - start, start))
            if torn:
                log.warning("a crash left %d bytes of an entry in the audit log; they are cut off", torn)
                self._disk.truncate(fd, size - torn)
                self._torn += torn
        finally:
            self._disk.close(fd)
        return last

    def _rotate(self, end: ChainEnd) -> ChainEnd:
        """Put the file aside, drop the oldest ones, and return the end with what is then the oldest entry."""
        stamp = to_iso(self._clock.now()).replace("-", "").replace(":", "")
        taken = set(os.listdir(self._directory))
        names = (f"audit_log.{stamp}{more}.jsonl" for more in ("", *(f"_{number}" for number in range(2, 10_000))))
        self._disk.sync_path(self.path)
        self._disk.rename(self.path, self._directory / next(name for name in names if name not in taken))
        rotated = rotated_files(self._directory)
        most = max(0, len(rotated) - self._rotations)
        kept = (first_entry(path) for path in rotated[most:])
        oldest = next((found.seq for found in kept if found is not None), end.seq + 1)
        end = replace(end, oldest=oldest)
        self._known = None
        # Noted first: a log may begin before its note says, and not after it.
        for path in rotated[:most] if self._tell_end(end) else ():
            self._disk.remove(path)
        return end

    def _tell_end(self, end: ChainEnd) -> bool:
        """A log may go further than its end says; so a failure here is none of the entries."""
        temporary = self._directory / f"{END_NAME}.tmp"
        try:
            fd = _open(self._disk, temporary)
            try:
                self._disk.truncate(fd, 0)
                self._disk.write_at(fd, 0, end.to_line())
            finally:
                self._disk.close(fd)
            self._disk.rename(temporary, self._directory / END_NAME)
        except OSError as error:
            log.warning("the end of the audit log cannot be noted: %s", error.strerror)
            return False
        return True

    def _size(self) -> int:
        return self._place()[1]

    def _place(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size


class Verified(NamedTuple):
    """What was found when a log was read back: the number of sound entries, what is wrong, and what is to be known."""

    entries: int
    files: int
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...] = ()


def verify(directory: Path) -> Verified:
    """Read the log of a data directory back, file after file.

    Files before the first chained entry, such as those that AbstractGateway wrote, are not looked into.
    """
    with locked(directory):
        verification = Verification(read_end(directory))
        files = _chained_files(directory)
        findings = [finding for path in files for finding in _check(verification, path, is_last=path is files[-1])]
        findings += verification.finish(files[-1].name if files else FILE_NAME)
    return Verified(verification.entries, len(files), tuple(findings), tuple(verification.notes))


def _check(verification: Verification, path: Path, *, is_last: bool) -> Iterator[Finding]:
    with path.open("rb") as lines:
        yield from verification.check(path.name, lines, is_last=is_last)


def _chained_files(directory: Path) -> list[Path]:
    current = directory / FILE_NAME
    files = [*rotated_files(directory), *([current] if current.exists() else [])]
    first = next((index for index, path in enumerate(files) if first_entry(path) is not None), len(files))
    return files[first:]


def rotated_files(directory: Path) -> list[Path]:
    """Return the files that were put aside, those of no chain first, then in the order of their entries.

    Their names have times, and clocks can be set back.
    """

    def order(path: Path) -> tuple[int, str]:
        found = first_entry(path)
        return (found.seq if found is not None else 0), path.name

    return sorted((path for path in directory.glob("audit_log.*.jsonl") if path.name != FILE_NAME), key=order)


def first_entry(path: Path) -> ChainEnd | None:
    """Return the place of a file's first line in the chain; None where it is no entry."""
    with path.open("rb") as lines:
        return end_of(lines.readline(4 * MOST_LINE_BYTES).rstrip(b"\n"))


def read_end(directory: Path) -> ChainEnd | None:
    """Return how far the log of a directory should go, None where that was never noted.

    A damaged note counts as none; verifying then says that it is missing.
    """
    try:
        return ChainEnd.of((directory / END_NAME).read_bytes())
    except (FileNotFoundError, Invalid):
        return None


def read_tail(path: Path, max_bytes: int) -> tuple[bytes, bool]:
    """Return the last whole lines of a file, up to so many bytes, and whether there are more before them."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - max_bytes)
            file.seek(max(0, start - 1))
            data = file.read()
    except FileNotFoundError:
        return b"", False
    return (data.partition(b"\n")[2], True) if start else (data, False)


def _last_of(tail: bytes) -> tuple[bytes, int]:
    """Return the last whole line in the last bytes of a file, and how many bytes follow it."""
    whole = tail.rfind(b"\n") + 1
    return tail[:whole].rstrip(b"\n").rpartition(b"\n")[2], len(tail) - whole


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes from changing the log of a directory meanwhile."""
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _open(disk: Disk, path: Path) -> int:
    if not path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, MODE))
    fd = disk.open(path)
    os.fchmod(fd, MODE)
    return fd
