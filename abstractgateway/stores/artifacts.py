"""Artifacts: bytes under the hash of their content, in memory or as files.

The identifiers and the file layout are AbstractRuntime's: `artifacts/blobs/<sha256>.bin` holds the bytes, and
`artifacts/refs/<artifact id>.meta` what is known of them.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from ..clock import to_iso
from ..errors import Invalid, Unavailable
from ..ids import check_safe_id
from ..jsonvalue import JsonObject, dumps, loads
from .base import ArtifactMetadata


def compute_artifact_id(content: bytes, *, run_id: str | None = None) -> str:
    """Return the id of bytes that belong to a run, or to none: 32 hexadecimal digits."""
    prefix = run_id.encode() + b"\0" if run_id else b""
    return hashlib.sha256(prefix + content).hexdigest()[:32]


def artifact_ref(artifact_id: str) -> JsonObject:
    """Return the JSON value that stands for an artifact."""
    return {"$artifact": artifact_id}


class InMemoryArtifactStore:
    """Artifacts in memory."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._metadata: dict[str, ArtifactMetadata] = {}

    def store(
        self,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        run_id: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> ArtifactMetadata:
        metadata = _describe(content, content_type, run_id, tags)
        self._blobs[metadata.blob_id] = content
        return self._metadata.setdefault(metadata.artifact_id, metadata)

    def load(self, artifact_id: str) -> bytes | None:
        metadata = self._metadata.get(artifact_id)
        return self._blobs.get(metadata.blob_id) if metadata is not None else None

    def get_metadata(self, artifact_id: str) -> ArtifactMetadata | None:
        return self._metadata.get(artifact_id)

    def list_by_run(self, run_id: str) -> list[ArtifactMetadata]:
        return _newest_first(item for item in self._metadata.values() if item.run_id == run_id)


class FileArtifactStore:
    """Artifacts as files below a directory; each is fsynced, and checked against its hash when it is read."""

    def __init__(self, directory: str | Path) -> None:
        self._blobs = Path(directory) / "artifacts" / "blobs"
        self._refs = Path(directory) / "artifacts" / "refs"

    def store(
        self,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        run_id: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> ArtifactMetadata:
        metadata = _describe(content, content_type, run_id, tags)
        known = self.get_metadata(metadata.artifact_id)
        if known is not None and self.load(metadata.artifact_id) is not None:
            return known
        for directory in (self._blobs, self._refs):
            directory.mkdir(parents=True, exist_ok=True)
        _write_durably(self._blobs / f"{metadata.blob_id}.bin", content)
        _write_durably(self._refs / f"{metadata.artifact_id}.meta", dumps(metadata.to_dict()))
        return metadata

    def load(self, artifact_id: str) -> bytes | None:
        metadata = self.get_metadata(artifact_id)
        if metadata is None:
            return None
        try:
            content = (self._blobs / f"{metadata.blob_id}.bin").read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).hexdigest() != metadata.blob_id:
            raise Unavailable(
                f"artifact {artifact_id!r} is damaged: its bytes do not have the hash they were stored under"
            )
        return content

    def get_metadata(self, artifact_id: str) -> ArtifactMetadata | None:
        path = self._refs / f"{check_safe_id(artifact_id, field='artifact_id')}.meta"
        try:
            return _read_metadata(path)
        except FileNotFoundError:
            return None

    def list_by_run(self, run_id: str) -> list[ArtifactMetadata]:
        found = (_read_metadata(path) for path in self._refs.glob("*.meta"))
        return _newest_first(item for item in found if item.run_id == run_id)


def _describe(content: bytes, content_type: str, run_id: str | None, tags: dict[str, str] | None) -> ArtifactMetadata:
    return ArtifactMetadata(
        artifact_id=compute_artifact_id(content, run_id=run_id),
        content_type=content_type,
        size_bytes=len(content),
        created_at=to_iso(datetime.now(timezone.utc)),
        blob_id=hashlib.sha256(content).hexdigest(),
        run_id=run_id,
        tags=dict(tags or {}),
    )


def _newest_first(found: Iterable[ArtifactMetadata]) -> list[ArtifactMetadata]:
    return sorted(found, key=lambda item: item.created_at, reverse=True)


def _read_metadata(path: Path) -> ArtifactMetadata:
    data = loads(path.read_bytes(), field=path.name)
    try:
        return ArtifactMetadata(**{name: data[name] for name in ArtifactMetadata.__dataclass_fields__})
    except (KeyError, TypeError) as error:
        raise Invalid(path.name, f"is not the description of an artifact: {error}") from error


def _write_durably(path: Path, content: bytes) -> None:
    """Write a file so that after a power loss it is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
