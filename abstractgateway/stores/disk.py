"""The disk as a port: every write of the file store goes through here, so that tests can let any of them fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

MANY_FILES = 64
"""From this many files on, having the system write everything is quicker than an fsync for each (about 0.2 ms)."""


class Disk:
    """The real disk."""

    def open(self, path: Path) -> int:
        """Return a descriptor for reading and writing a file, which is made if it is missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def close(self, fd: int) -> None:
        """Give a descriptor back."""
        os.close(fd)

    def write_at(self, fd: int, offset: int, data: bytes) -> None:
        """Write all of the bytes at an offset. Raises `OSError`; what was written by then is not taken back."""
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written

    def sync(self, fd: int) -> None:
        """Return once the file's bytes are on stable storage."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file to a size."""
        os.ftruncate(fd, size)

    def replace(self, path: Path, data: bytes | Iterable[bytes], *, is_durable: bool = False) -> None:
        """Put new bytes, or pieces of them, in a file's place, whole or not at all for whoever reads it.

        With `is_durable` that also holds for a power loss, before which the bytes may be the old ones or the new ones;
        without, they may then be neither.
        """
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            fd = self.open(temporary)
            try:
                self.truncate(fd, 0)
                self._write_pieces(fd, (data,) if isinstance(data, bytes) else data)
                if is_durable:
                    self.sync(fd)
            finally:
                self.close(fd)
            self.rename(temporary, path)
        except Exception:
            with contextlib.suppress(OSError):
                self.remove(temporary)
            raise

    def _write_pieces(self, fd: int, pieces: Iterable[bytes]) -> None:
        at = 0
        for piece in pieces:
            self.write_at(fd, at, piece)
            at += len(piece)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in place of a file that has it."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Take a file away; a missing one is not an error."""
        path.unlink(missing_ok=True)

    def sync_path(self, path: Path) -> None:
        """Return once a file, or the names in a directory, are on stable storage; a missing file is not an error."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def sync_files(self, paths: Collection[Path], directory: Path) -> None:
        """Return once these files and the names in their directory are on stable storage."""
        if len(paths) < MANY_FILES or not _sync_filesystem(directory):
            for path in paths:
                self.sync_path(path)
        self.sync_path(directory)


def _sync_filesystem(directory: Path) -> bool:
    """Have the system write all of the directory's file system; False where there is no such call.

    Linux reports failed writes here since 5.8; an older one would not, so it is not trusted.
    """
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None or _kernel() < (5, 8):
        return False
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if call(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)
    return True


def _kernel() -> tuple[int, int]:
    parts = os.uname().release.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return 0, 0
