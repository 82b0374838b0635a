from __future__ import annotations

import io
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.bundles import ArchiveLimits, open_archive
from abstractgateway.errors import Invalid


def _zip(path: Path, *members: tuple[Any, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def _refusal(path: Path, name: str = "a", limits: ArchiveLimits | None = None) -> str:
    with pytest.raises(Invalid) as caught:
        open_archive(path, limits).read(name)
    return str(caught.value)


def test_a_zip_file_and_a_directory_give_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "tree" / "flows").mkdir(parents=True)
    (tmp_path / "tree" / "flows" / "f.json").write_bytes(b"{}")
    packed = _zip(tmp_path / "b.flow", ("flows/", b""), ("flows/f.json", b"{}"))

    archives = [open_archive(packed), open_archive(tmp_path / "tree")]

    assert [archive.names() for archive in archives] == [["flows/f.json"]] * 2
    assert [archive.read("flows/f.json") for archive in archives] == [b"{}"] * 2


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "c:/a", "a\\b", "..", "./a"])
def test_names_that_lead_out_of_the_bundle_are_refused(tmp_path: Path, name: str) -> None:
    path = _zip(tmp_path / "b.flow", (name, b"x"))

    assert "has a name that leads out of the bundle" in _refusal(path)


def test_links_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16

    assert "is a link or a device" in _refusal(_zip(tmp_path / "b.flow", (info, b"/etc/passwd")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    assert "is in it twice" in _refusal(_zip(tmp_path / "b.flow", ("a", b"1"), ("a", b"2")))


def test_encrypted_files_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "b.flow", ("a", b"1"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)

    assert "is encrypted" in _refusal(path)


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    assert "use deflate" in _refusal(_zip(tmp_path / "b.flow", ("a", b"1"), method=zipfile.ZIP_LZMA))


def test_a_wrong_checksum_is_noticed(tmp_path: Path) -> None:
    path = _zip(tmp_path / "b.flow", ("a", b"content"), method=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"content", b"c0ntent"))

    assert "is not a sound zip file" in _refusal(path)


def test_a_bomb_is_refused_by_its_ratio_and_costs_no_memory(tmp_path: Path) -> None:
    path = _zip(tmp_path / "b.flow", ("a", bytes(50_000_000)))
    tracemalloc.start()
    try:
        why = _refusal(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert "suspiciously many bytes" in why
    assert peak < 2_000_000


def test_a_bomb_that_lies_about_its_size_stops_at_the_budget(tmp_path: Path) -> None:
    path = _zip(tmp_path / "b.flow", ("a", bytes(20_000_000)))
    raw = bytearray(path.read_bytes())
    struct.pack_into("<L", raw, raw.index(b"PK\x01\x02") + 24, 100)
    path.write_bytes(raw)

    assert "bundle: " in _refusal(path, limits=ArchiveLimits(total_bytes=1000))


def test_all_files_together_share_one_budget(tmp_path: Path) -> None:
    path = _zip(tmp_path / "b.flow", ("a", b"x" * 60), ("b", b"y" * 30))
    archive = open_archive(path, ArchiveLimits(total_bytes=100))
    archive.read("a")

    with pytest.raises(Invalid, match="more than the allowed number of bytes"):
        archive.read("a")


def test_sizes_that_add_up_to_too_much_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "b.flow", ("a", b"x" * 60), ("b", b"y" * 60))

    assert "unpacks to 120 bytes" in _refusal(path, limits=ArchiveLimits(total_bytes=100))


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "b.flow", *((f"f{i}", b"") for i in range(11)))

    assert "at most 10" in _refusal(path, limits=ArchiveLimits(members=10))


def test_a_huge_list_of_files_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = _zip(tmp_path / "b.flow", *((f"f{i}", b"") for i in range(11)))

    assert "lists too many files" in _refusal(path, limits=ArchiveLimits(members=10**6, list_bytes=100))


def test_a_list_of_files_cannot_hide_behind_the_zip64_format(tmp_path: Path) -> None:
    path = tmp_path / "b.flow"
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    listed = entry * 5_000
    end64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 5_000, 5_000, len(listed), 0)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(listed), 1)
    path.write_bytes(listed + end64 + locator + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 46, 0, 0))

    assert "is a zip64 file" in _refusal(path)


def test_a_file_that_is_too_big_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "b.flow", ("a", b"x"))

    assert "at most 10 are read" in _refusal(path, limits=ArchiveLimits(file_bytes=10))


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip", b"PK\x05\x06" + b"\xff" * 18, b"PK\x05\x06" + bytes(17)])
def test_what_is_no_zip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.flow"
    path.write_bytes(content)

    assert "bundle: " in _refusal(path)


def test_a_truncated_zip_file_is_refused(tmp_path: Path) -> None:
    whole = _zip(tmp_path / "b.flow", ("a", b"x" * 500), ("b", b"y" * 500)).read_bytes()
    path = tmp_path / "cut.flow"

    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        assert "bundle: " in _refusal(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    packed = _zip(tmp_path / "b.flow", ("a", b"x"))
    (tmp_path / "tree").mkdir()

    assert "has no file 'z'" in _refusal(packed, "z")
    assert "has no file 'z'" in _refusal(tmp_path / "tree", "z")
    assert "cannot be read" in _refusal(tmp_path / "gone.flow")


def test_links_out_of_a_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "secret").write_text("s")
    (tmp_path / "tree" / "a").symlink_to(tmp_path / "secret")

    assert "leads out of the bundle" in _refusal(tmp_path / "tree", "a")
    assert "leads out of the bundle" in _refusal(tmp_path / "tree", "../secret")


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    whole = _zip(
        tmp_path / "b.flow", ("manifest.json", b'{"a": 1}' * 30), ("flows/f.json", io.BytesIO(b"x" * 90).read())
    ).read_bytes()
    path = tmp_path / "damaged.flow"

    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            archive = open_archive(path)
            contents = [archive.read(name) for name in archive.names()]
        except Invalid:
            contents = []
        assert sum(map(len, contents)) < 1_000_000
