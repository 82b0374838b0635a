"""The disk as a port: every write of the file store goes through here, so that tests can let any of them fail."""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """The real disk."""

    def open(self, path: Path) -> int:
        """Return a descriptor for reading and writing a file, which is made if it is missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

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

    def replace(self, path: Path, data: bytes) -> None:
        """Put new bytes in a file's place, whole or not at all for whoever reads it; not yet on stable storage."""
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            self.write_at(fd, 0, data)
        finally:
            os.close(fd)
        os.replace(temporary, path)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in place of a file that has it."""
        os.replace(source, target)

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
