"""Reading a bundle from a zip file or a directory that may have been made to do harm.

Nothing is extracted to disk. Before a member is read, the whole list of members is checked, and reading stops at a
budget whatever the list said about sizes.
"""

from __future__ import annotations

import io
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from ..errors import Invalid
from .manifest import is_safe_path

_END_RECORD = b"PK\x05\x06"
_END_SIZE = 22
_HEADER_SIZE = 30
_LONGEST_NAME = 1_024
_ZIP64_LOCATOR = b"PK\x06\x07"
_ZIP64_LOCATOR_SIZE = 20
_LONGEST_COMMENT = 65_535
_CHUNK = 65_536
_SMALL_MEMBER = 1_048_576
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
)


@dataclass(frozen=True)
class ArchiveLimits:
    """How much a bundle may hold; files as for uploads, a ratio well above what JSON compresses to.

    `json_values` counts the commas and brackets of all JSON files: decoded, two bytes of text may take two hundred.
    """

    file_bytes: int = 78_643_200
    members: int = 2_000
    list_bytes: int = 1_048_576
    total_bytes: int = 67_108_864
    ratio: int = 200
    json_values: int = 1_000_000


class Archive(Protocol):
    """The files of a bundle."""

    def names(self) -> list[str]:
        """Return the paths of all files, sorted."""

    def read(self, name: str) -> bytes:
        """Return a file. Raises `Invalid("bundle", …)` when it is missing, broken or too big."""


def open_archive(path: str | Path, limits: ArchiveLimits | None = None) -> Archive:
    """Return the files of a bundle: of a zip file, or of a directory with the same tree.

    Raises `Invalid("bundle", …)` for anything that is not a well-formed, harmless bundle.
    """
    source, bounds = Path(path), limits or ArchiveLimits()
    try:
        if source.is_dir():
            return DirectoryArchive(source, bounds)
        return ZipArchive(source.name, source.stat().st_size, lambda: source.open("rb"), bounds)
    except OSError as error:
        raise Invalid("bundle", f"{source.name!r} cannot be read: {error.strerror or error}") from error


def archive_of(name: str, content: bytes, limits: ArchiveLimits | None = None) -> Archive:
    """Return the files of a bundle of which the bytes are known. Raises `Invalid` as `open_archive` does."""
    return ZipArchive(name, len(content), lambda: io.BytesIO(content), limits or ArchiveLimits())


class ZipArchive:
    """A zip file of a size, opened for each read so that no handle stays behind."""

    def __init__(self, name: str, size: int, open_file: Callable[[], BinaryIO], limits: ArchiveLimits) -> None:
        self._name = name
        self._open_file = open_file
        self._left = limits.total_bytes
        if size > limits.file_bytes:
            raise Invalid("bundle", f"{name!r} has {size} bytes; at most {limits.file_bytes} are read")
        with open_file() as file:
            _check_list_size(name, file, size, limits)
        try:
            with open_file() as file, zipfile.ZipFile(file) as archive:
                self._members = _checked_members(archive.infolist(), limits)
        except _BROKEN as error:
            raise _as_invalid(name, error) from error

    def names(self) -> list[str]:
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        if name not in self._members:
            raise Invalid("bundle", f"{self._name!r} has no file {name!r}")
        try:
            with (
                self._open_file() as file,
                zipfile.ZipFile(file) as archive,
                archive.open(self._members[name]) as member,
            ):
                data = _read_at_most(member.read, self._left, self._name)
        except _BROKEN as error:
            raise _as_invalid(self._name, error) from error
        self._left -= len(data)
        return data


class DirectoryArchive:
    """A directory with the tree of a bundle; links that lead out of it are refused."""

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        self._root = path.resolve()
        self._left = limits.total_bytes
        found = sorted(item.relative_to(path).as_posix() for item in path.rglob("*") if item.is_file())
        if len(found) > limits.members:
            raise Invalid("bundle", f"{path.name!r} has {len(found)} files; at most {limits.members} are read")
        self._names = found

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str) -> bytes:
        path = (self._root / name).resolve()
        if not is_safe_path(name) or not path.is_relative_to(self._root):
            raise Invalid("bundle", f"{name!r} leads out of the bundle")
        if not path.is_file():
            raise Invalid("bundle", f"{self._root.name!r} has no file {name!r}")
        with path.open("rb") as file:
            data = _read_at_most(file.read, self._left, self._root.name)
        self._left -= len(data)
        return data


def _read_at_most(read: object, budget: int, label: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := read(_CHUNK):  # type: ignore[operator]
        size += len(chunk)
        if size > budget:
            raise Invalid("bundle", f"{label!r} holds more than the allowed number of bytes when unpacked")
        chunks.append(chunk)
    return b"".join(chunks)


def _check_list_size(name: str, file: BinaryIO, size: int, limits: ArchiveLimits) -> None:
    """Refuse a huge list of members before the zip reader builds an object for each of them."""
    file.seek(max(0, size - _END_SIZE - _LONGEST_COMMENT))
    tail = file.read()
    at = tail.rfind(_END_RECORD)
    if at < 0 or len(tail) - at < _END_SIZE:
        raise Invalid("bundle", f"{name!r} is not a zip file")
    if tail[max(0, at - _ZIP64_LOCATOR_SIZE) :].startswith(_ZIP64_LOCATOR):  # its list may be of any size
        raise Invalid("bundle", f"{name!r} is a zip64 file; pack it without")
    entries, list_bytes, list_offset, comment_bytes = struct.unpack_from("<HLLH", tail, at + 10)
    if entries > limits.members or list_bytes > limits.list_bytes:
        raise Invalid("bundle", f"{name!r} lists too many files; at most {limits.members} are read")
    is_whole = list_offset + list_bytes == size - len(tail) + at and at + _END_SIZE + comment_bytes == len(tail)
    if not is_whole:  # other readers could find other files in it
        raise Invalid("bundle", f"{name!r} has bytes in front of the zip file or after it")


def _checked_members(infos: list[zipfile.ZipInfo], limits: ArchiveLimits) -> dict[str, zipfile.ZipInfo]:
    if len(infos) > limits.members:
        raise Invalid("bundle", f"has {len(infos)} files; at most {limits.members} are read")
    members: dict[str, zipfile.ZipInfo] = {}
    taken: set[str] = set()
    for info in infos:
        problem = _member_problem(info, limits)
        if problem:
            raise Invalid("bundle", f"the file {info.orig_filename!r} {problem}")
        if info.is_dir():
            continue
        if _folded(info.filename) in taken:
            raise Invalid("bundle", f"the file {info.filename!r} is in it twice, as file systems compare names")
        taken.add(_folded(info.filename))
        members[info.filename] = info
    _check_places(infos)
    total = sum(info.file_size for info in members.values())
    if total > limits.total_bytes:
        raise Invalid("bundle", f"unpacks to {total} bytes; at most {limits.total_bytes} are read")
    return members


def _folded(name: str) -> str:
    """Return what names are compared by where neither case nor the way to write an accent tells them apart."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _check_places(infos: list[zipfile.ZipInfo]) -> None:
    """Refuse members that lie on each other: a few bytes could unpack to any number of them."""
    free = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < free:
            raise Invalid("bundle", f"the file {info.orig_filename!r} and another one share bytes")
        free = info.header_offset + _HEADER_SIZE + info.compress_size
    if infos and min(info.header_offset for info in infos) != 0:
        raise Invalid("bundle", "does not begin with a file")


def _member_problem(info: zipfile.ZipInfo, limits: ArchiveLimits) -> str | None:
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if "\\" in name or not is_safe_path(name):
        return "has a name that leads out of the bundle"
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        return f"has a name with characters that cannot be seen, or more than {_LONGEST_NAME} of them"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in _METHODS:
        return "is compressed in a way that is not supported; use deflate"
    if info.file_size > max(_SMALL_MEMBER, limits.ratio * max(1, info.compress_size)):
        return "unpacks to suspiciously many bytes"
    return None


def _as_invalid(name: str, error: Exception) -> Invalid:
    if isinstance(error, Invalid):
        return error
    return Invalid("bundle", f"{name!r} is not a sound zip file: {error}", code="bundle_broken")
