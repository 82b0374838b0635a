from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Conflict, Invalid, Unavailable
from abstractgateway.stores import artifact_index, blob_files, open_file_stores
from abstractgateway.stores.artifacts import (
    FileArtifactStore,
    artifact_ref,
    compute_artifact_id,
    get_artifact_id,
    is_artifact_ref,
    resolve_artifact,
)
from abstractgateway.stores.disk import Disk
from abstractgateway.testing import FaultyDisk

AnyArtifacts = Any
ONE_HOUR_AGO_NS = 3_600_000_000_000


@pytest.mark.parametrize(
    ("content", "run_id", "artifact_id"),
    [
        (b"hello", None, "2cf24dba5fb0a30e26e83b2ac5b9e29e"),
        (b"hello", "run-1", "17006668178249981c831cfb063b0735"),
        (b"", None, "e3b0c44298fc1c149afbf4c8996fb924"),
    ],
)
def test_ids_are_those_of_abstractruntime(
    artifacts: AnyArtifacts, content: bytes, run_id: str | None, artifact_id: str
) -> None:
    stored = artifacts.store(content, run_id=run_id)

    assert stored.artifact_id == artifact_id == compute_artifact_id(content, run_id=run_id)
    assert artifact_ref(artifact_id) == {"$artifact": artifact_id}


def test_bytes_come_back_with_what_is_known_of_them(artifacts: AnyArtifacts) -> None:
    stored = artifacts.store(b"\0\xff" * 1000, content_type="image/png", run_id="r1", tags={"kind": "x"})

    assert artifacts.load(stored.artifact_id) == b"\0\xff" * 1000
    assert artifacts.get_metadata(stored.artifact_id) == stored
    assert (stored.content_type, stored.size_bytes, stored.run_id, stored.tags) == (
        "image/png",
        2000,
        "r1",
        {"kind": "x"},
    )


def test_an_unknown_artifact_is_none(artifacts: AnyArtifacts) -> None:
    assert artifacts.load("0" * 32) is None
    assert artifacts.get_metadata("0" * 32) is None
    assert artifacts.list_by_run("nobody") == []


def test_the_same_bytes_of_a_run_are_one_artifact_that_keeps_its_description(artifacts: AnyArtifacts) -> None:
    first = artifacts.store(b"x", run_id="r1", tags={"first": "1"})

    second = artifacts.store(b"x", run_id="r1", tags={"second": "2"})
    other = artifacts.store(b"x", run_id="r2")

    assert second == first
    assert [item.artifact_id for item in artifacts.list_by_run("r1")] == [first.artifact_id]
    assert other.artifact_id != first.artifact_id
    assert other.blob_id == first.blob_id


def test_artifacts_survive_a_restart(tmp_path: Path) -> None:
    stores = open_file_stores(tmp_path)
    stored = stores.artifacts.store(b"x", run_id="r1")
    stores.close()

    again = open_file_stores(tmp_path)

    assert again.artifacts.load(stored.artifact_id) == b"x"
    again.close()


def test_damaged_bytes_are_noticed_and_storing_them_again_repairs_them(tmp_path: Path) -> None:
    artifacts = FileArtifactStore(tmp_path)
    stored = artifacts.store(b"hello", run_id="r1")
    (tmp_path / "artifacts" / "blobs" / f"{stored.blob_id}.bin").write_bytes(b"hellO")

    with pytest.raises(Unavailable, match="damaged"):
        artifacts.load(stored.artifact_id)
    artifacts.store(b"hello", run_id="r1")

    assert artifacts.load(stored.artifact_id) == b"hello"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_a_damaged_description_is_noticed_hides_no_other_and_is_repaired(tmp_path: Path, content: bytes) -> None:
    artifacts = FileArtifactStore(tmp_path)
    bad, good = (artifacts.store(data, run_id="r1") for data in (b"bad", b"good"))
    (tmp_path / "artifacts" / "refs" / f"{bad.artifact_id}.meta").write_bytes(content)

    with pytest.raises(Unavailable, match="damaged"):
        artifacts.get_metadata(bad.artifact_id)
    listed = artifacts.list_by_run("r1")
    artifacts.store(b"bad", run_id="r1")

    assert [item.artifact_id for item in listed] == [good.artifact_id]
    assert artifacts.load(bad.artifact_id) == b"bad"


def test_the_older_layout_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    about = {"artifact_id": "old-1", "content_type": "text/plain", "size_bytes": 3, "created_at": "", "run_id": "r1"}
    (tmp_path / "artifacts" / "old-1.meta").write_text(json.dumps(about))
    (tmp_path / "artifacts" / "old-1.bin").write_bytes(b"old")

    artifacts = FileArtifactStore(tmp_path)

    assert artifacts.load("old-1") == b"old"
    assert [item.artifact_id for item in artifacts.list_by_run("r1")] == ["old-1"]


@pytest.mark.parametrize("artifact_id", ["../x", "", "a/b", ".x"])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, artifact_id: str) -> None:
    with pytest.raises(Invalid):
        FileArtifactStore(tmp_path).load(artifact_id)


@pytest.mark.parametrize("mode", ["short", "enospc", "eio", "eio_sync"])
def test_an_error_while_storing_is_told_and_leaves_no_half_artifact(tmp_path: Path, mode: str) -> None:
    for number in range(1, 16):
        disk = FaultyDisk(number, mode)
        directory = tmp_path / str(number)
        artifacts = FileArtifactStore(directory, disk=disk)
        try:
            artifacts.store(b"content", run_id="r1")
        except Unavailable:
            disk.heal()
        stored = artifacts.store(b"content", run_id="r1")

        assert artifacts.load(stored.artifact_id) == b"content"
        assert not list(directory.rglob("*.tmp"))


# -- ids of one's own ------------------------------------------------------------------------------------------------


def test_an_artifact_may_have_an_id_of_ones_own(artifacts: AnyArtifacts) -> None:
    stored = artifacts.store(b"x", run_id="r1", artifact_id="my-report_1", tags={"first": "1"})

    again = artifacts.store(b"x", artifact_id="my-report_1", tags={"second": "2"})

    assert (stored.artifact_id, again) == ("my-report_1", stored)
    assert artifacts.load("my-report_1") == b"x"


def test_other_bytes_under_an_id_that_is_taken_are_refused(artifacts: AnyArtifacts) -> None:
    artifacts.store(b"x", artifact_id="a")

    with pytest.raises(Conflict, match="delete it first"):
        artifacts.store(b"y", artifact_id="a")

    assert artifacts.load("a") == b"x"
    assert artifacts.delete("a")
    assert artifacts.store(b"y", artifact_id="a").size_bytes == 1
    assert artifacts.load("a") == b"y"


@pytest.mark.parametrize("artifact_id", ["", "../x", "a/b", "a b", ".a", "a.b", "ü", "a\n", "x" * 201])
def test_an_id_that_abstractruntime_would_not_read_is_refused(artifacts: AnyArtifacts, artifact_id: str) -> None:
    with pytest.raises(Invalid, match="artifact_id"):
        artifacts.store(b"x", artifact_id=artifact_id)

    assert artifacts.list_all() == []


@pytest.mark.parametrize("tags", [{"a": 1}, {1: "a"}, {"a": None}])
def test_tags_are_texts(artifacts: AnyArtifacts, tags: Any) -> None:
    with pytest.raises(Invalid, match="tags"):
        artifacts.store(b"x", tags=tags)


# -- texts, JSON, references -----------------------------------------------------------------------------------------


def test_texts_and_json_come_back(artifacts: AnyArtifacts) -> None:
    text = artifacts.store_text("grüße", run_id="r1")
    value = artifacts.store_json({"ü": [1, None]}, tags={"kind": "x"})

    assert (artifacts.load_text(text.artifact_id), text.content_type) == ("grüße", "text/plain")
    assert (artifacts.load_json(value.artifact_id), value.content_type) == ({"ü": [1, None]}, "application/json")
    assert artifacts.load(value.artifact_id) == '{"ü":[1,null]}'.encode()
    assert (artifacts.load_text("unknown"), artifacts.load_json("unknown")) == (None, None)


def test_bytes_that_are_neither_text_nor_json_are_told_from_them(artifacts: AnyArtifacts) -> None:
    stored = artifacts.store(b"\xff").artifact_id

    with pytest.raises(Invalid, match="not text"):
        artifacts.load_text(stored)
    with pytest.raises(Invalid):
        artifacts.load_json(stored)
    with pytest.raises(Invalid):
        artifacts.store_json(float("nan"))


def test_a_reference_leads_to_its_artifact(artifacts: AnyArtifacts) -> None:
    stored = artifacts.store(b"x")
    ref = {**artifact_ref(stored.artifact_id), "filename": "x.bin"}

    assert (is_artifact_ref(ref), get_artifact_id(ref)) == (True, stored.artifact_id)
    assert resolve_artifact(ref, artifacts) == b"x"
    assert (is_artifact_ref({"a": 1}), resolve_artifact({"a": 1}, artifacts)) == (False, None)


# -- listing, searching, deleting ------------------------------------------------------------------------------------


def test_artifacts_are_listed_and_searched(artifacts: AnyArtifacts) -> None:
    a = artifacts.store(b"a", run_id="r1", content_type="image/png", tags={"kind": "x", "n": "1"})
    b = artifacts.store(b"b", run_id="r1", content_type="text/plain", tags={"kind": "x", "n": "2"})
    c = artifacts.store(b"c", run_id="r2", content_type="text/plain", tags={"kind": "x"})

    def ids(found: Any) -> set[str]:
        return {item.artifact_id for item in found}

    assert ids(artifacts.list_all()) == {item.artifact_id for item in (a, b, c)}
    assert [item.artifact_id for item in artifacts.list_all(limit=1)] == [c.artifact_id]
    assert artifacts.list_all(limit=-1) == []
    assert ids(artifacts.search(run_id="r1")) == {a.artifact_id, b.artifact_id}
    assert ids(artifacts.search(content_type="text/plain")) == {b.artifact_id, c.artifact_id}
    assert ids(artifacts.search(tags={"kind": "x"})) == {item.artifact_id for item in (a, b, c)}
    assert ids(artifacts.search(tags={"kind": "x", "n": "2"})) == {b.artifact_id}
    assert ids(artifacts.search(run_id="r2", tags={"n": "1"})) == set()
    assert len(artifacts.search(tags={"kind": "x"}, limit=2)) == 2


def test_a_deleted_artifact_is_gone(artifacts: AnyArtifacts) -> None:
    stored, kept = artifacts.store(b"x", run_id="r1"), artifacts.store(b"y", run_id="r1")

    assert (artifacts.exists(stored.artifact_id), artifacts.delete(stored.artifact_id)) == (True, True)

    assert (artifacts.exists(stored.artifact_id), artifacts.load(stored.artifact_id)) == (False, None)
    assert artifacts.list_by_run("r1") == [kept]
    assert artifacts.delete(stored.artifact_id) is False


def test_the_artifacts_of_a_run_are_deleted_together(artifacts: AnyArtifacts) -> None:
    for content in (b"a", b"b"):
        artifacts.store(content, run_id="r1")
    other = artifacts.store(b"a", run_id="r2")

    assert artifacts.delete_by_run("r1") == 2

    assert artifacts.list_by_run("r1") == []
    assert artifacts.load(other.artifact_id) == b"a"
    assert artifacts.delete_by_run("r1") == 0


def test_what_a_ledger_refers_to_goes_with_its_run_only(artifacts: AnyArtifacts) -> None:
    tags = {"source": "ledger_result_offload", "writer": "abstractgateway"}
    part = artifacts.store(b"x", run_id="r1", tags=tags)

    with pytest.raises(Conflict, match="part of run 'r1'"):
        artifacts.delete(part.artifact_id)

    assert artifacts.load(part.artifact_id) == b"x"
    assert artifacts.delete_by_run("r1") == 1


def test_unused_bytes_are_dropped_and_used_ones_stay(artifacts: AnyArtifacts) -> None:
    gone = artifacts.store(b"gone", run_id="r1")
    shared, other = artifacts.store(b"shared", run_id="r1"), artifacts.store(b"shared", run_id="r2")
    artifacts.delete(gone.artifact_id)
    artifacts.delete(shared.artifact_id)
    expected = {"blobs_total": 2, "blobs_referenced": 1, "blobs_deleted": 1, "bytes_reclaimed": 4, "errors": []}

    told, done, again = artifacts.gc(), artifacts.gc(dry_run=False), artifacts.gc(dry_run=False)

    assert (told, done) == ({"dry_run": True, **expected}, {"dry_run": False, **expected})
    assert again == {**done, "blobs_total": 1, "blobs_deleted": 0, "bytes_reclaimed": 0}
    assert artifacts.load(other.artifact_id) == b"shared"
    assert artifacts.load(artifacts.store(b"gone", run_id="r1").artifact_id) == b"gone"


# -- reading in parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "length", "part"),
    [
        (0, None, b"0123456789"),
        (2, 3, b"234"),
        (7, None, b"789"),
        (8, 99, b"89"),
        (10, 1, b""),
        (99, 1, b""),
        (3, 0, b""),
    ],
)
def test_a_part_can_be_read(artifacts: AnyArtifacts, start: int, length: int | None, part: bytes) -> None:
    stored = artifacts.store(b"0123456789")

    assert artifacts.read(stored.artifact_id, start, length) == part


def test_a_part_of_nothing_and_a_part_that_is_none(artifacts: AnyArtifacts) -> None:
    stored = artifacts.store(b"0123456789")

    assert artifacts.read("unknown", 0, 1) is None
    for start, length in ((-1, 1), (0, -1)):
        with pytest.raises(Invalid, match="negative"):
            artifacts.read(stored.artifact_id, start, length)


@pytest.mark.parametrize(("start", "length", "part"), [(0, 3, b"012"), (8, 99, b"89"), (10, 1, b""), (3, 0, b"")])
def test_an_open_artifact_gives_its_parts(artifacts: AnyArtifacts, start: int, length: int, part: bytes) -> None:
    stored = artifacts.store(b"0123456789")
    opened = artifacts.open(stored.artifact_id)

    assert (opened.metadata, opened.read(start, length)) == (stored, part)
    assert artifacts.open("unknown") is None


def test_an_open_artifact_that_was_dropped_gives_no_more_parts(tmp_path: Path) -> None:
    artifacts = FileArtifactStore(tmp_path)
    stored = artifacts.store(b"0123456789")
    opened = artifacts.open(stored.artifact_id)
    assert opened is not None
    assert opened.read(0, 2) == b"01"
    (tmp_path / "artifacts" / "blobs" / f"{stored.blob_id}.bin").unlink()

    with pytest.raises(Unavailable, match="damaged"):
        opened.read(2, 2)


def test_a_part_of_damaged_bytes_is_not_given(tmp_path: Path) -> None:
    artifacts = FileArtifactStore(tmp_path)
    stored = artifacts.store(b"0123456789")
    assert artifacts.read(stored.artifact_id, 0, 2) == b"01"
    (tmp_path / "artifacts" / "blobs" / f"{stored.blob_id}.bin").write_bytes(b"012345678X")

    with pytest.raises(Unavailable, match="damaged"):
        artifacts.read(stored.artifact_id, 0, 2)


def test_parts_of_one_file_are_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_files, "_SETTLED_NS", -ONE_HOUR_AGO_NS)
    artifacts = FileArtifactStore(tmp_path)
    stored = artifacts.store(b"0123456789")
    hashed: list[bool] = []

    def sha256(*given: bytes) -> Any:
        hashed.append(True)
        return hashlib.new("sha256", *given)

    monkeypatch.setattr(blob_files.hashlib, "sha256", sha256)

    assert b"".join(artifacts.read(stored.artifact_id, at, 1) for at in range(10)) == b"0123456789"
    assert len(hashed) == 1


# -- files that others write too -------------------------------------------------------------------------------------


@pytest.mark.parametrize("settled_ns", [artifact_index.SETTLED_NS, -ONE_HOUR_AGO_NS])
def test_what_another_process_stores_and_deletes_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled_ns: int
) -> None:
    monkeypatch.setattr(artifact_index, "SETTLED_NS", settled_ns)
    ours, theirs = FileArtifactStore(tmp_path), FileArtifactStore(tmp_path)
    first = ours.store(b"first", run_id="r1")
    assert len(ours.list_by_run("r1")) == 1
    refs = tmp_path / "artifacts" / "refs"

    def later(directory: Path) -> None:
        """Let the directory have another time stamp than before, however coarse the clock of the file system is."""
        changed = directory.stat().st_mtime_ns + 10_000_000
        os.utime(directory, ns=(changed, changed))

    second = theirs.store(b"second", run_id="r1")
    later(refs)
    assert {item.artifact_id for item in ours.list_by_run("r1")} == {first.artifact_id, second.artifact_id}
    theirs.delete(first.artifact_id)
    later(refs)
    assert ours.list_by_run("r1") == [second]
    theirs.delete(second.artifact_id)
    moved = theirs.store(b"second", run_id="r2", artifact_id=second.artifact_id)
    later(refs)

    assert (ours.list_by_run("r1"), ours.list_by_run("r2"), ours.list_all()) == ([], [moved], [moved])


def test_what_another_process_stores_within_one_tick_of_the_clock_is_noticed(tmp_path: Path) -> None:
    ours, theirs = FileArtifactStore(tmp_path), FileArtifactStore(tmp_path)
    first = ours.store(b"first", run_id="r1")
    refs = tmp_path / "artifacts" / "refs"
    seen_at = refs.stat().st_mtime_ns
    assert ours.list_by_run("r1") == [first]

    second = theirs.store(b"second", run_id="r1")
    os.utime(refs, ns=(seen_at, seen_at))

    assert len(ours.list_by_run("r1")) == 2
    assert second in ours.list_by_run("r1")


def test_listing_a_run_reads_the_descriptions_of_that_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = FileArtifactStore(tmp_path)
    for number in range(20):
        artifacts.store(str(number).encode(), run_id=f"r{number % 10}")
    artifacts.list_by_run("r1")
    read: list[str] = []
    get_metadata = artifacts.get_metadata

    def noted(artifact_id: str) -> Any:
        read.append(artifact_id)
        return get_metadata(artifact_id)

    monkeypatch.setattr(artifacts, "get_metadata", noted)

    found = artifacts.list_by_run("r3")

    assert sorted(read) == sorted(item.artifact_id for item in found)
    assert len(found) == 2


def test_the_older_layout_can_be_read_in_parts_searched_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    about = {"artifact_id": "old-1", "content_type": "text/plain", "size_bytes": 3, "created_at": "", "run_id": "r1"}
    (tmp_path / "artifacts" / "old-1.meta").write_text(json.dumps({**about, "tags": {"kind": "x"}}))
    (tmp_path / "artifacts" / "old-1.bin").write_bytes(b"old")
    artifacts = FileArtifactStore(tmp_path)

    assert artifacts.read("old-1", 1, 1) == b"l"
    assert [item.artifact_id for item in artifacts.search(tags={"kind": "x"})] == ["old-1"]
    assert artifacts.store(b"old", artifact_id="old-1").content_type == "text/plain"
    with pytest.raises(Conflict):
        artifacts.store(b"new", artifact_id="old-1")
    assert artifacts.gc(dry_run=False)["blobs_deleted"] == 0
    assert artifacts.delete("old-1")

    assert (artifacts.load("old-1"), artifacts.list_all()) == (None, [])
    assert not list((tmp_path / "artifacts").glob("old-1*"))


def test_nothing_is_dropped_while_a_description_cannot_be_read(tmp_path: Path) -> None:
    artifacts = FileArtifactStore(tmp_path)
    bad, gone = artifacts.store(b"bad"), artifacts.store(b"gone")
    (tmp_path / "artifacts" / "refs" / f"{bad.artifact_id}.meta").write_bytes(b"{")
    artifacts.delete(gone.artifact_id)

    report = artifacts.gc(dry_run=False)

    assert (report["blobs_deleted"], len(report["errors"])) == (0, 1)
    assert artifacts.load(artifacts.store(b"bad").artifact_id) == b"bad"
    assert artifacts.gc(dry_run=False)["blobs_deleted"] == 1


def test_bytes_that_are_being_stored_again_are_not_dropped(tmp_path: Path) -> None:
    removing = threading.Event()

    class Collecting(Disk):
        def remove(self, path: Path) -> None:
            removing.set()
            super().remove(path)

    collector = FileArtifactStore(tmp_path, disk=Collecting())
    collecting = threading.Thread(target=collector.gc, kwargs={"dry_run": False})

    class Storing(Disk):
        def replace(self, path: Path, data: bytes, *, is_durable: bool = False) -> None:
            """The bytes were found; before anything refers to them, another process looks for unused ones."""
            collecting.start()
            assert not removing.wait(0.2)
            super().replace(path, data, is_durable=is_durable)

    first = FileArtifactStore(tmp_path)
    first.delete(first.store(b"x").artifact_id)

    stored = FileArtifactStore(tmp_path, disk=Storing()).store(b"x")
    collecting.join(10)

    assert not collecting.is_alive()
    assert first.load(stored.artifact_id) == b"x"


def test_an_artifact_that_has_lost_its_bytes_is_none_until_it_is_stored_again(tmp_path: Path) -> None:
    artifacts = FileArtifactStore(tmp_path)
    stored = artifacts.store(b"hello", run_id="r1")
    (tmp_path / "artifacts" / "blobs" / f"{stored.blob_id}.bin").unlink()

    assert artifacts.load(stored.artifact_id) is None
    assert artifacts.read(stored.artifact_id, 1, 2) is None
    assert artifacts.get_metadata(stored.artifact_id).size_bytes == 5
    artifacts.store(b"hello", run_id="r1")
    assert artifacts.read(stored.artifact_id, 1, 2) == b"el"


def test_a_description_that_goes_while_the_directory_is_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = FileArtifactStore(tmp_path)
    gone, kept = (artifacts.store(content, run_id="r1") for content in (b"gone", b"kept"))
    scandir = os.scandir

    class Losing:
        """A listing of which one file is taken away before it is looked at."""

        def __init__(self, directory: Path) -> None:
            self._entries = scandir(directory)

        def __enter__(self) -> list[os.DirEntry[str]]:
            with self._entries:
                found = list(self._entries)
            artifacts.delete(gone.artifact_id)
            return found

        def __exit__(self, *error: object) -> None:
            pass

    with monkeypatch.context() as patched:
        patched.setattr("abstractgateway.stores.artifact_index.os.scandir", Losing)
        assert [item.artifact_id for item in artifacts.list_by_run("r1")] == [kept.artifact_id]
    assert [item.artifact_id for item in artifacts.list_by_run("r1")] == [kept.artifact_id]


def test_a_description_that_goes_after_the_directory_was_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = FileArtifactStore(tmp_path)
    gone, kept = (artifacts.store(content, run_id="r1") for content in (b"gone", b"kept"))
    assert len(artifacts.list_by_run("r1")) == 2
    monkeypatch.setattr(artifacts._index, "_refresh", lambda: None)  # as when the deletion comes right after it

    FileArtifactStore(tmp_path).delete(gone.artifact_id)

    assert [item.artifact_id for item in artifacts.list_by_run("r1")] == [kept.artifact_id]


def test_damage_is_noticed_however_many_blobs_were_read_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_files, "_REMEMBERED", 2)
    monkeypatch.setattr(blob_files, "_SETTLED_NS", -ONE_HOUR_AGO_NS)
    artifacts = FileArtifactStore(tmp_path)
    stored = [artifacts.store(b"blob %d" % number, run_id="r1") for number in range(5)]

    assert [artifacts.read(item.artifact_id, 5) for item in stored] == [b"%d" % number for number in range(5)]
    assert len(artifacts._blobs._digests) == 2
    for item in stored:
        (tmp_path / "artifacts" / "blobs" / f"{item.blob_id}.bin").write_bytes(b"other bytes")
    for item in stored:
        with pytest.raises(Unavailable, match="damaged"):
            artifacts.read(item.artifact_id, 5)
