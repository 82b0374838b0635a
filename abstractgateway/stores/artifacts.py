"""Artifacts: bytes under the hash of their content, in memory or as files.

The identifiers and the file layout are AbstractRuntime's: `artifacts/blobs/<sha256>.bin` holds the bytes, and
`artifacts/refs/<artifact id>.meta` what is known of them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from ..clock import to_iso
from ..errors import Invalid, Unavailable
from ..ids import check_safe_id
from ..jsonvalue import JsonObject, dumps, loads
from .base import ArtifactMetadata
from .disk import Disk
from .problems import Problems


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

    def __init__(self, directory: str | Path, *, disk: Disk | None = None, problems: Problems | None = None) -> None:
        self._blobs = Path(directory) / "artifacts" / "blobs"
        self._refs = Path(directory) / "artifacts" / "refs"
        self._legacy = Path(directory) / "artifacts"  # where AbstractRuntime once kept both
        self._disk = disk if disk is not None else Disk()
        self._problems = problems if problems is not None else Problems()
        self._storing = threading.Lock()

    def store(
        self,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        run_id: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> ArtifactMetadata:
        metadata = _describe(content, content_type, run_id, tags)
        with self._storing:
            known = self._intact(metadata)
            if known is not None:
                return known
            for directory in (self._blobs, self._refs):
                directory.mkdir(parents=True, exist_ok=True)
            try:
                self._write(self._blobs / f"{metadata.blob_id}.bin", content)
                self._write(self._refs / f"{metadata.artifact_id}.meta", dumps(metadata.to_dict()))
            except OSError as error:
                raise Unavailable(f"the artifact cannot be written: {error}", code="store_failed") from error
        return metadata

    def load(self, artifact_id: str) -> bytes | None:
        metadata = self.get_metadata(artifact_id)
        if metadata is None:
            return None
        content = _read_first(self._blobs / f"{metadata.blob_id}.bin", self._legacy / f"{artifact_id}.bin")
        if content is not None and metadata.blob_id and hashlib.sha256(content).hexdigest() != metadata.blob_id:
            raise Unavailable(
                f"artifact {artifact_id!r} is damaged: its bytes do not have the hash they were stored under",
                code="artifact_damaged",
            )
        return content

    def get_metadata(self, artifact_id: str) -> ArtifactMetadata | None:
        name = f"{check_safe_id(artifact_id, field='artifact_id')}.meta"
        data = _read_first(self._refs / name, self._legacy / name)
        if data is None:
            return None
        try:
            return _metadata_of(data, name)
        except Invalid as error:
            raise Unavailable(f"artifact {artifact_id!r} is damaged: {error}", code="artifact_damaged") from error

    def list_by_run(self, run_id: str) -> list[ArtifactMetadata]:
        names = {path.name for directory in (self._refs, self._legacy) for path in directory.glob("*.meta")}
        found: list[ArtifactMetadata] = []
        for name in names:
            try:
                metadata = self.get_metadata(name.removesuffix(".meta"))
            except (Unavailable, Invalid) as error:
                self._problems.note(name, str(error))
                continue
            if metadata is not None and metadata.run_id == run_id:
                found.append(metadata)
        return _newest_first(found)

    def _intact(self, metadata: ArtifactMetadata) -> ArtifactMetadata | None:
        """Return what is known of an artifact that is stored already and whole; storing a damaged one repairs it."""
        try:
            known = self.get_metadata(metadata.artifact_id)
            return known if known is not None and self.load(metadata.artifact_id) is not None else None
        except Unavailable as error:
            self._problems.note(metadata.artifact_id, f"{error}; stored again")
            return None

    def _write(self, path: Path, content: bytes) -> None:
        self._disk.replace(path, content, is_durable=True)
        self._disk.sync_path(path.parent)


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


def _read_first(*paths: Path) -> bytes | None:
    """Return the bytes of the first of some files that exists."""
    for path in paths:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            continue
    return None


def _metadata_of(data: bytes, name: str) -> ArtifactMetadata:
    fields = loads(data, field=name)
    if not isinstance(fields, dict):
        raise Invalid(name, "is not an object")
    texts = {key: fields.get(key) for key in ("artifact_id", "content_type", "created_at", "blob_id", "run_id")}
    if not isinstance(texts["artifact_id"], str) or not isinstance(fields.get("size_bytes"), int):
        raise Invalid(name, "is not the description of an artifact")
    return ArtifactMetadata(
        artifact_id=texts["artifact_id"],
        content_type=str(texts["content_type"] or "application/octet-stream"),
        size_bytes=fields["size_bytes"],
        created_at=str(texts["created_at"] or ""),
        blob_id=str(texts["blob_id"] or ""),
        run_id=texts["run_id"],
        tags=fields.get("tags") or {},
    )
