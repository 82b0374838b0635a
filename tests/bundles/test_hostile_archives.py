"""Zip files made to do harm: refused in bounded memory and time, and nothing is written."""

from __future__ import annotations

import io
import stat
import struct
import time
import tracemalloc
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from abstractgateway.bundles import ArchiveLimits, open_archive
from abstractgateway.bundles.catalogue import open_bundle
from abstractgateway.errors import Invalid

MOST_BYTES = 8_000_000
MOST_S = 5.0


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def local(name: bytes, packed: bytes, size: int, method: int, crc: int) -> bytes:
    fields = struct.pack("<HHHHHIIIHH", 20, 0x800, method, 0, 0, crc, len(packed), size, len(name), 0)
    return b"PK\x03\x04" + fields + name + packed


def listed(name: bytes, packed: int, size: int, method: int, crc: int, offset: int, extra: bytes = b"") -> bytes:
    fields = struct.pack(
        "<HHHHHHIIIHHHHHII", 20, 20, 0x800, method, 0, 0, crc, packed, size, len(name), len(extra), 0, 0, 0, 0, offset
    )
    return b"PK\x01\x02" + fields + name + extra


def ended(files: bytes, entries: list[bytes], *, count: int | None = None, comment: bytes = b"") -> bytes:
    found = b"".join(entries)
    number = len(entries) if count is None else count
    end = struct.pack("<HHHHIIH", 0, 0, number, number, len(found), len(files), len(comment))
    return files + found + b"PK\x05\x06" + end + comment


def stored(name: bytes, content: bytes) -> bytes:
    """Return a zip file of one stored member whose name may be any bytes."""
    crc = zlib.crc32(content)
    file = local(name, content, len(content), 0, crc)
    return ended(file, [listed(name, len(content), len(content), 0, crc, 0)])


def overlapping(count: int) -> bytes:
    """Return a zip file whose members all lie on the same megabytes of zeros."""
    content = bytes(4_000_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    crc = zlib.crc32(content)
    file = local(b"f0", packed, len(content), 8, crc)
    return ended(file, [listed(b"f%d" % i, len(packed), len(content), 8, crc, 0) for i in range(count)])


def nested(depth: int) -> bytes:
    content = zipped(("a", bytes(1_000_000)))
    for _ in range(depth):
        content = zipped(*((f"{number}.zip", content) for number in range(10)))
    return content


def bomb_of_250_kb() -> bytes:
    return zipped(("manifest.json", bytes(250_000_000)))


def hundred_thousand_members() -> bytes:
    entries = [listed(b"f%d" % number, 0, 0, 0, 0, 0) for number in range(100_000)]
    return ended(local(b"f0", b"", 0, 0, 0), entries, count=len(entries) & 0xFFFF)


def a_link() -> bytes:
    info = zipfile.ZipInfo("manifest.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped((info, b"/etc/passwd"))


def wrong_checksum() -> bytes:
    whole = zipped(("manifest.json", b"content"), method=zipfile.ZIP_STORED)
    return whole.replace(b"content", b"c0ntent")


def size_of_zip64() -> bytes:
    extra = struct.pack("<HHQQ", 1, 16, 1 << 60, 1 << 60)
    return ended(local(b"a", b"", 0, 0, 0), [listed(b"a", 0xFFFFFFFF, 0xFFFFFFFF, 0, 0, 0, extra)])


def another_name_in_front() -> bytes:
    crc = zlib.crc32(b"x")
    return ended(local(b"../../evil", b"x", 1, 0, crc), [listed(b"manifest.json", 1, 1, 0, crc, 0)])


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a bomb": bomb_of_250_kb,
    "100,000 members": hundred_thousand_members,
    "a count that is too small": lambda: ended(b"", [listed(b"f%d" % n, 0, 0, 0, 0, 0) for n in range(5)], count=1),
    "the same name twice": lambda: ended(b"", [listed(b"manifest.json", 0, 0, 0, 0, 0)] * 2),
    "an absolute name": lambda: stored(b"/etc/cron.d/x", b"x"),
    "a name of a drive": lambda: stored(b"C:\\x", b"x"),
    "a name that climbs": lambda: stored(b"flows/../../x", b"x"),
    "backslashes": lambda: stored(b"..\\..\\x", b"x"),
    "a zero byte in a name": lambda: stored(b"manifest.json\0.txt", b"x"),
    "a name that is no text": lambda: stored(b"\xff\xfe", b"x"),
    "a line feed in a name": lambda: stored(b"a\nb", b"x"),
    "a long name": lambda: stored(b"a" * 60_000, b"x"),
    "a link": a_link,
    "a wrong checksum": wrong_checksum,
    "a size of zip64": size_of_zip64,
    "overlapping members": lambda: overlapping(16),
    "another name in front of the file": another_name_in_front,
    "much data after the end": lambda: zipped(("manifest.json", b"{}")) + b"x" * 70_000,
    "data after the end": lambda: zipped(("manifest.json", b"{}")) + b"x",
    "data in front": lambda: b"#!/bin/sh\n" + zipped(("manifest.json", b"{}")),
    "composed and decomposed": lambda: zipped(
        *((f"flows/{unicodedata.normalize(form, 'é')}.json", b"{}") for form in ("NFC", "NFD"))
    ),
    "names that differ by case": lambda: zipped(("flows/A.json", b"{}"), ("flows/a.json", b"{}")),
    "names that fold to the same": lambda: zipped(("flows/stra\u00dfe.json", b"{}"), ("flows/STRASSE.json", b"{}")),
}


def read_all(path: Path) -> None:
    archive = open_archive(path)
    for name in archive.names():
        archive.read(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_in_little_memory_and_time(tmp_path: Path, name: str) -> None:
    place = tmp_path / "in"
    place.mkdir()
    path = place / "b.flow"
    path.write_bytes(HOSTILE[name]())

    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(Invalid):
            read_all(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert time.monotonic() - began < MOST_S
    assert peak < MOST_BYTES
    assert [entry.name for entry in tmp_path.rglob("*")] == ["in", "b.flow"]


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(Invalid) as caught:
        read_all(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["composed and decomposed", "names that differ by case", "names that fold to the same"]
)
def test_names_that_a_file_system_may_take_for_one_are_refused(tmp_path: Path, name: str) -> None:
    assert "is in it twice" in refused(tmp_path / "b.flow", HOSTILE[name]())


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.flow"
    path.write_bytes(overlapping(3))

    with pytest.raises(Invalid) as caught:
        open_archive(path, ArchiveLimits(ratio=10_000))

    assert "share bytes" in str(caught.value)


def test_a_member_may_not_be_called_otherwise_in_front_of_its_bytes(tmp_path: Path) -> None:
    assert "not a sound zip file" in refused(tmp_path / "b.flow", another_name_in_front())


def test_a_comment_that_looks_like_an_end_hides_nothing(tmp_path: Path) -> None:
    # Two ends: readers that look from the front and from the back would see different files.
    first = zipped(("a", b"1"))
    both = first + zipped(("b", b"2"))

    assert "bundle: " in refused(tmp_path / "b.flow", first[:-2] + struct.pack("<H", len(both)) + both)


def test_zips_in_zips_are_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "b.flow"
    path.write_bytes(nested(3))

    with pytest.raises(Invalid, match="manifest"):
        open_bundle(path)
