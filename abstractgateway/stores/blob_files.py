"""Blobs as files: bytes whose name is their hash, read in parts without having all of them in memory."""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .disk import Disk

SUFFIX = ".bin"
_PART = 1 << 20
_REMEMBERED = 4096
"""Of how many files it is remembered that they were checked."""

_SETTLED_NS = 100_000_000
"""A file that changed less than this ago may change again under the same time stamp."""

_Signature = tuple[int, int, int, int]


@dataclass(frozen=True)
class CheckedFile:
    """A file whose bytes were the right ones; it is opened for each part, so that many readers take no file numbers."""

    path: Path
    signature: _Signature

    def read(self, start: int, length: int) -> bytes | None:
        """Return bytes of the file; None when it is gone or was written to since it was checked."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            is_same = _signature(fd) == self.signature
            return _read_at(fd, start, min(self.signature[1], start + length)) if is_same else None
        finally:
            os.close(fd)


class BlobFiles:
    """The blobs of a directory.

    Whether the bytes of a file are the right ones is found by hashing all of it. That is remembered for as long as its
    inode, size and times stay the same, so that reading a large blob in parts hashes it once.
    """

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self._digests: OrderedDict[Path, tuple[_Signature, str]] = OrderedDict()

    def path(self, blob_id: str) -> Path:
        """Return where a blob is, or would be."""
        return self._directory / f"{blob_id}{SUFFIX}"

    def write(self, blob_id: str, content: bytes | Iterable[bytes]) -> None:
        """Keep a blob durably, given its bytes or pieces of them."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._disk.replace(self.path(blob_id), content, is_durable=True)
        self._disk.sync_path(self._directory)

    def read(self, path: Path, blob_id: str, start: int, end: int | None) -> bytes | None:
        """Return bytes of a file from `start` to before `end`, or to its end; None when its hash is not `blob_id`.

        A blank `blob_id` is not checked. Raises `FileNotFoundError`.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if blob_id and self._digest(path, fd) != blob_id:
                return None
            size = os.fstat(fd).st_size
            return _read_at(fd, start, min(size, end if end is not None else size))
        finally:
            os.close(fd)

    def open(self, path: Path, blob_id: str) -> CheckedFile | None:
        """Return a file to read parts of; None when its hash is not `blob_id`.

        A blank `blob_id` is not checked. Raises `FileNotFoundError`.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            signature = _signature(fd)
            is_right = not blob_id or self._digest(path, fd) == blob_id
            return CheckedFile(path, signature) if is_right else None
        finally:
            os.close(fd)

    def digest(self, path: Path) -> str | None:
        """Return the hash of a file's bytes; None when there is no such file."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return self._digest(path, fd)
        finally:
            os.close(fd)

    def is_intact(self, blob_id: str) -> bool:
        """Say whether a blob is there with the right bytes."""
        return self.digest(self.path(blob_id)) == blob_id

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all blobs in bytes, by blob id."""
        return {path.name.removesuffix(SUFFIX): path.stat().st_size for path in self._directory.glob(f"*{SUFFIX}")}

    def _digest(self, path: Path, fd: int) -> str:
        signature = _signature(fd)
        known = self._digests.get(path)
        if known is not None and known[0] == signature:
            return known[1]
        hashed = hashlib.sha256()
        at = 0
        while part := os.pread(fd, _PART, at):
            hashed.update(part)
            at += len(part)
        if _signature(fd) == signature and time.time_ns() - max(signature[2:]) > _SETTLED_NS:
            self._remember(path, signature, hashed.hexdigest())
        return hashed.hexdigest()

    def _remember(self, path: Path, signature: _Signature, digest: str) -> None:
        self._digests[path] = signature, digest
        while len(self._digests) > _REMEMBERED:
            self._digests.popitem(last=False)


def _signature(fd: int) -> _Signature:
    status = os.fstat(fd)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_at(fd: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := os.pread(fd, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)
