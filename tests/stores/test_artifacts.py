from __future__ import annotations

import json
from pathlib import Path

import pytest

from abstractgateway.errors import Invalid, Unavailable
from abstractgateway.stores import open_file_stores
from abstractgateway.stores.artifacts import FileArtifactStore, InMemoryArtifactStore, artifact_ref, compute_artifact_id
from abstractgateway.stores.base import ArtifactStore
from abstractgateway.testing import FaultyDisk


@pytest.fixture(params=["memory", "files"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return InMemoryArtifactStore() if request.param == "memory" else FileArtifactStore(tmp_path)


@pytest.mark.parametrize(
    ("content", "run_id", "artifact_id"),
    [
        (b"hello", None, "2cf24dba5fb0a30e26e83b2ac5b9e29e"),
        (b"hello", "run-1", "17006668178249981c831cfb063b0735"),
        (b"", None, "e3b0c44298fc1c149afbf4c8996fb924"),
    ],
)
def test_ids_are_those_of_abstractruntime(
    artifacts: ArtifactStore, content: bytes, run_id: str | None, artifact_id: str
) -> None:
    stored = artifacts.store(content, run_id=run_id)

    assert stored.artifact_id == artifact_id == compute_artifact_id(content, run_id=run_id)
    assert artifact_ref(artifact_id) == {"$artifact": artifact_id}


def test_bytes_come_back_with_what_is_known_of_them(artifacts: ArtifactStore) -> None:
    stored = artifacts.store(b"\0\xff" * 1000, content_type="image/png", run_id="r1", tags={"kind": "x"})

    assert artifacts.load(stored.artifact_id) == b"\0\xff" * 1000
    assert artifacts.get_metadata(stored.artifact_id) == stored
    assert (stored.content_type, stored.size_bytes, stored.run_id, stored.tags) == (
        "image/png",
        2000,
        "r1",
        {"kind": "x"},
    )


def test_an_unknown_artifact_is_none(artifacts: ArtifactStore) -> None:
    assert artifacts.load("0" * 32) is None
    assert artifacts.get_metadata("0" * 32) is None
    assert artifacts.list_by_run("nobody") == []


def test_the_same_bytes_of_a_run_are_one_artifact_that_keeps_its_description(artifacts: ArtifactStore) -> None:
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
