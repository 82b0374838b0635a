"""The artifacts of a run: what they are, and their bytes."""

from __future__ import annotations

import io
from typing import Any

from ..errors import Invalid, NotFound
from ..ids import is_safe_id
from ..jsonvalue import JsonObject
from ..stores.base import ArtifactMetadata, ArtifactStore, Stores

_LISTED = ("artifact_id", "content_type", "size_bytes", "created_at", "tags")
_SHOWN = ("artifact_id", "content_type", "size_bytes", "created_at", "blob_id", "run_id", "tags")
_SESSION_OWNER = "session_memory_"


class ArtifactReader(io.RawIOBase):
    """The bytes of an artifact as a binary file, open for reading; parts are read when they are asked for.

    `metadata` is what is known of the artifact. Raises `Unavailable` for a damaged one.
    """

    def __init__(self, artifacts: ArtifactStore, metadata: ArtifactMetadata) -> None:
        super().__init__()
        self.metadata = metadata
        self._artifacts = artifacts
        self._at = 0
        self._part(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.metadata.size_bytes}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        part = self._part(len(view))
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _part(self, length: int) -> bytes:
        found = self._artifacts.read(self.metadata.artifact_id, self._at, length)
        if found is None:
            raise _missing(self.metadata.artifact_id)
        return found


class ArtifactService:
    """The use cases around artifacts. A run has those that were stored for it, and the flow that it started with."""

    def __init__(self, *, stores: Stores) -> None:
        self._stores = stores

    def list(self, run_id: str, *, limit: int = 200) -> JsonObject:
        """Return `{"items": [{artifact_id, content_type, size_bytes, created_at, tags}…]}`, the newest first.

        Raises `NotFound` for an unknown run; the owner of a session that has none yet has an empty list.
        """
        snapshot = self._snapshot(run_id)
        found = self._stores.artifacts.list_by_run(run_id)
        if snapshot is not None and all(item.artifact_id != snapshot for item in found):
            flow = self._stores.artifacts.get_metadata(snapshot)
            found = [*found, flow] if flow is not None else found
        newest = sorted(found, key=lambda item: item.created_at, reverse=True)[:limit]
        return {"items": [{name: getattr(item, name) for name in _LISTED} for item in newest]}

    def get(self, run_id: str, artifact_id: str) -> JsonObject:
        """Return what is known of an artifact. Raises `NotFound`, also for one of another run."""
        metadata = self._find(run_id, artifact_id)
        return {name: getattr(metadata, name) for name in _SHOWN}

    def content(self, run_id: str, artifact_id: str) -> tuple[ArtifactMetadata, bytes]:
        """Return an artifact and its bytes. Raises as `get`, and `Unavailable` for a damaged one."""
        metadata = self._find(run_id, artifact_id)
        content = self._stores.artifacts.load(artifact_id)
        if content is None:
            raise _missing(artifact_id)
        return metadata, content

    def open(self, run_id: str, artifact_id: str) -> ArtifactReader:
        """Return an artifact as a file to read from, in parts if it is large. Raises as `content`."""
        return ArtifactReader(self._stores.artifacts, self._find(run_id, artifact_id))

    def _find(self, run_id: str, artifact_id: str) -> ArtifactMetadata:
        snapshot = self._snapshot(run_id)
        if not is_safe_id(artifact_id):
            raise Invalid("", f"Invalid artifact id: {artifact_id!r}")
        metadata = self._stores.artifacts.get_metadata(artifact_id)
        if metadata is None or (metadata.run_id != run_id and artifact_id != snapshot):
            raise _missing(artifact_id)
        return metadata

    def _snapshot(self, run_id: str) -> str | None:
        """Return the id of the flow that a run started with. Raises `NotFound` for an unknown run."""
        stored = self._stores.runs.open(run_id) if is_safe_id(run_id) else None
        if stored is None:
            if run_id.startswith(_SESSION_OWNER):
                return None
            raise NotFound(f"Run '{run_id}' not found", code="run_not_found")
        own = stored.state.vars.get("_runtime")
        ref = own.get("workflow_snapshot") if isinstance(own, dict) else None
        return str(ref["artifact_id"]) if isinstance(ref, dict) and ref.get("artifact_id") else None


def _missing(artifact_id: str) -> NotFound:
    return NotFound(f"Artifact '{artifact_id}' not found", code="artifact_not_found")
