"""A disk that fails when and how a test wants it to, for the file stores."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ..stores.disk import Disk

CRASHES = ("crash", "torn", "lose", "empty")
ERRORS = ("short", "enospc", "eio", "eio_sync")


class PowerLoss(BaseException):
    """The process is gone, as far as the disk is concerned; no code may handle it."""


@dataclass
class _Stable:
    """What is on stable storage: the number of the file that each name leads to, and each file's bytes."""

    names: dict[Path, int] = field(default_factory=dict)
    bytes: dict[int, bytes] = field(default_factory=dict)


class FaultyDisk(Disk):
    """A disk whose operation number `fail_at` (from 1) fails; with 0 none does, and `operations` counts them.

    Modes: `crash` ends the process after the operation, `torn` in the middle of it; `lose` ends it before the operation
    and with it everything that was not synced, `empty` likewise but with the new names kept; `short` writes half of the
    bytes and then has no space, `enospc` and `eio` fail at once, `eio_sync` fails the next sync. With `is_persistent`
    every later operation fails like it. `heal()` ends an error. After `PowerLoss`, call `cut_power()` before the
    directory is opened again. Syncing costs no time: what would be lost is kept account of instead.
    """

    def __init__(self, fail_at: int = 0, mode: str = "crash", *, is_persistent: bool = False) -> None:
        if mode not in CRASHES + ERRORS:
            raise ValueError(f"unknown mode {mode!r}; known: {', '.join(CRASHES + ERRORS)}")
        self.operations = 0
        self.has_failed = False
        self.is_off = False
        self._fail_at = fail_at
        self._mode = mode
        self._is_persistent = is_persistent
        self._only = ""
        self._lock = threading.Lock()
        self._paths: dict[int, Path] = {}
        self._seen: set[Path] = set()
        self._files: dict[Path, int] = {}
        self._stable = _Stable()

    def fail(self, mode: str, *, only: str = "") -> None:
        """Let every operation fail from now on; with `only`, those on files whose name begins so."""
        self._fail_at, self._mode, self._is_persistent, self._only = self.operations + 1, mode, True, only

    def heal(self) -> None:
        """Let every operation succeed from now on."""
        self._fail_at = 0

    def open(self, path: Path) -> int:
        self._step(path)
        self._remember(path)
        fd = super().open(path)
        self._paths[fd] = path
        self._files.setdefault(path, self.operations)  # a number that no other file has
        return fd

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        super().close(fd)

    def write_at(self, fd: int, offset: int, data: bytes) -> None:
        fault = self._step(self._paths[fd], writes=True)
        if fault in ("torn", "short"):
            super().write_at(fd, offset, data[: len(data) // 2])
            self._fail(fault)
        super().write_at(fd, offset, data)
        self._crash_after(fault)

    def sync(self, fd: int) -> None:
        fault = self._step(self._paths[fd], syncs=True)
        self._keep_bytes(self._paths[fd])
        self._crash_after(fault)

    def truncate(self, fd: int, size: int) -> None:
        is_spared = self._mode in ("short", "enospc")  # cutting a file needs no space
        fault = self._step(self._paths[fd], writes=not is_spared)
        self._fail(fault, "torn")
        super().truncate(fd, size)
        self._crash_after(fault)

    def rename(self, source: Path, target: Path) -> None:
        fault = self._step(target, writes=True)
        self._fail(fault, "torn", "short")
        self._remember(source)
        self._remember(target)
        super().rename(source, target)
        self._files[target] = self._files.pop(source)
        self._crash_after(fault)

    def remove(self, path: Path) -> None:
        self._step(path)
        super().remove(path)
        self._files.pop(path, None)

    def sync_path(self, path: Path) -> None:
        fault = self._step(path, syncs=True)
        if path.is_dir():
            self._keep_names(path)
        elif path.exists():
            self._keep_bytes(path)
        self._crash_after(fault)

    def sync_files(self, paths: Collection[Path], directory: Path) -> None:
        for path in sorted(paths):
            self.sync_path(path)
        self.sync_path(directory)

    def cut_power(self) -> None:
        """Leave on the disk what a power loss leaves; after `crash` and `torn`, which end only the process, all."""
        if self._mode not in ("lose", "empty"):
            return
        for path in sorted(self._seen):
            number = self._stable.names.get(path)
            if self._mode == "empty" and path in self._files:
                number = self._files[path]
            if number is None:
                path.unlink(missing_ok=True)
            else:
                _put(path, self._stable.bytes.get(number, b""))

    def _step(self, path: Path, *, writes: bool = False, syncs: bool = False) -> str | None:
        """Count an operation and return the mode in which it is to fail, if it has not failed already."""
        with self._lock:
            if self.is_off:
                raise PowerLoss
            self.operations += 1
            is_due = self.operations == self._fail_at or (
                self.operations > self._fail_at > 0 and (self._is_persistent or not self.has_failed)
            )
            if not is_due or not path.name.startswith(self._only) or not self._applies(writes, syncs):
                return None
            self.has_failed = True
        self._fail(self._mode, "lose", "empty", "enospc", "eio", "eio_sync")
        return self._mode

    def _applies(self, writes: bool, syncs: bool) -> bool:
        if self._mode == "eio_sync":
            return syncs
        if self._mode in ("short", "enospc", "eio"):
            return writes
        return True

    def _fail(self, fault: str | None, *kinds: str) -> None:
        if fault is None or (kinds and fault not in kinds):
            return
        if fault in ("short", "enospc"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if fault in ("eio", "eio_sync"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.is_off = True
        raise PowerLoss

    def _crash_after(self, fault: str | None) -> None:
        if fault in ("crash", "torn"):
            self.is_off = True
            raise PowerLoss

    def _remember(self, path: Path) -> None:
        """Take a file for stable as it is when it is first met: it was there before this disk failed."""
        if path in self._seen:
            return
        self._seen.add(path)
        if path.exists():
            self._files[path] = self._stable.names[path] = -len(self._seen)
            self._stable.bytes[-len(self._seen)] = path.read_bytes()

    def _keep_bytes(self, path: Path) -> None:
        if path in self._files:
            self._stable.bytes[self._files[path]] = path.read_bytes()

    def _keep_names(self, directory: Path) -> None:
        for path in self._seen:
            if path.parent == directory and path in self._files:
                self._stable.names[path] = self._files[path]
            elif path.parent == directory:
                self._stable.names.pop(path, None)


def _put(path: Path, data: bytes) -> None:
    """Give a name a file of its own with these bytes."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
