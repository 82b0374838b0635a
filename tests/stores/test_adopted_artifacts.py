"""Artifacts that come from another store keep what is known of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Conflict, Invalid, Unavailable
from abstractgateway.stores.artifacts import FileArtifactStore, InMemoryArtifactStore

AnyArtifacts = Any


def described(content: bytes, **fields: Any) -> Any:
    """Return the description of bytes in another store."""
    stored = InMemoryArtifactStore().store(content, content_type="image/png", run_id="r1", tags={"kind": "x"})
    return replace(stored, **{"created_at": "2020-01-01T00:00:00+00:00", **fields})


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (262_144,), (262_143, 2), (100_000,) * 9])
def test_an_artifact_of_another_store_keeps_its_id_and_description(
    artifacts: AnyArtifacts, sizes: tuple[int, ...]
) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    content = b"".join(pieces)
    metadata = described(content, artifact_id="chosen.elsewhere")

    adopted = artifacts.adopt(metadata, lambda: iter(pieces))

    assert adopted == artifacts.get_metadata("chosen.elsewhere") == metadata
    assert artifacts.list_by_run("r1") == artifacts.list_all(None) == [metadata]
    assert artifacts.load("chosen.elsewhere") == content
    assert artifacts.read("chosen.elsewhere", 1, 300_000) == content[1:300_001]


def test_adopting_again_changes_nothing_and_reads_nothing(artifacts: AnyArtifacts, tmp_path: Path) -> None:
    metadata = described(b"x")
    artifacts.adopt(metadata, lambda: [b"x"])

    again = artifacts.adopt(replace(metadata, tags={}), lambda: [b"x"])

    assert again == artifacts.get_metadata(metadata.artifact_id) == metadata


def test_an_adopted_artifact_does_not_take_the_id_of_other_bytes(artifacts: AnyArtifacts) -> None:
    stored = artifacts.store(b"x", artifact_id="a")

    with pytest.raises(Conflict, match="other bytes"):
        artifacts.adopt(described(b"y", artifact_id="a"), lambda: [b"y"])

    assert artifacts.list_all(None) == [stored]
    assert artifacts.load("a") == b"x"


@pytest.mark.parametrize("pieces", [[], [b"hell"], [b"hello", b"o"], [b"hellO"]])
def test_bytes_that_are_not_the_described_ones_are_not_adopted(
    artifacts: AnyArtifacts, tmp_path: Path, pieces: list[bytes]
) -> None:
    metadata = described(b"hello")

    with pytest.raises(Unavailable, match="damaged"):
        artifacts.adopt(metadata, lambda: pieces)

    assert artifacts.list_all(None) == []
    assert artifacts.gc()["blobs_total"] == 0
    assert not list(tmp_path.rglob("*.tmp"))
    assert artifacts.adopt(metadata, lambda: [b"hello"]) == metadata


@pytest.mark.parametrize("artifact_id", ["../x", "", "a/b"])
def test_an_adopted_artifact_has_an_id_that_a_file_may_have(tmp_path: Path, artifact_id: str) -> None:
    with pytest.raises(Invalid):
        FileArtifactStore(tmp_path).adopt(described(b"x", artifact_id=artifact_id), lambda: [b"x"])


def test_an_adopted_artifact_repairs_bytes_that_are_damaged(tmp_path: Path) -> None:
    artifacts = FileArtifactStore(tmp_path)
    metadata = artifacts.adopt(described(b"hello"), lambda: [b"hello"])
    (tmp_path / "artifacts" / "blobs" / f"{metadata.blob_id}.bin").write_bytes(b"hellO")

    artifacts.adopt(metadata, lambda: [b"hel", b"lo"])

    assert artifacts.load(metadata.artifact_id) == b"hello"
