"""The artifacts of a run: what they are, and their bytes."""

from __future__ import annotations

import io
import shutil
import tempfile
from typing import IO, Any, cast

from ..errors import Invalid, NotFound, Unavailable
from ..ids import is_safe_id
from ..jsonvalue import JsonObject
from ..stores.base import ArtifactMetadata, ArtifactStore, OpenArtifact, Stores

_LISTED = ("artifact_id", "content_type", "size_bytes", "created_at", "tags")
_SHOWN = ("artifact_id", "content_type", "size_bytes", "created_at", "blob_id", "run_id", "tags")
_SESSION_OWNER = "session_memory_"
_PART_BYTES = 262_144


class ArtifactPart(io.RawIOBase):
    """`length` bytes of an artifact from `start`, as a binary file that is open for reading.

    They are read when they are asked for, at most 256 KiB at once. Raises `Unavailable` when they turn out damaged.
    """

    def __init__(self, opened: OpenArtifact, start: int, length: int) -> None:
        super().__init__()
        self._opened = opened
        self._start = start
        self._length = length
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        part = self._next(len(view))
        view[: len(part)] = part
        return len(part)

    def read(self, size: int | None = -1) -> bytes:
        # The one of the base class makes room for all that is asked for, however little is read at once.
        return self.readall() if size is None or size < 0 else self._next(size)

    def _next(self, size: int) -> bytes:
        wanted = min(size, _PART_BYTES, max(0, self._length - self._at))
        part = self._opened.read(self._start + self._at, wanted)
        if wanted and not part:
            metadata = self._opened.metadata
            detail = f"artifact {metadata.artifact_id!r} is damaged: it ends before its {metadata.size_bytes} bytes"
            raise Unavailable(detail, code="artifact_damaged")
        self._at += len(part)
        return part


class ArtifactReader(ArtifactPart):
    """All bytes of an artifact as a binary file; `metadata` is what is known of it.

    Raises `NotFound` when they are gone, and `Unavailable` for damaged ones.
    """

    def __init__(self, artifacts: ArtifactStore, metadata: ArtifactMetadata) -> None:
        opened = artifacts.open(metadata.artifact_id)
        if opened is None:
            raise _missing(metadata.artifact_id)
        super().__init__(opened, 0, metadata.size_bytes)
        self.metadata = metadata

    def part(self, start: int, length: int) -> IO[bytes]:
        """Return `length` bytes from `start` as a file that a thread on which many depend may read.

        Bytes that are elsewhere, as in a database, are copied to a temporary file first.
        """
        part = cast("IO[bytes]", ArtifactPart(self._opened, start, length))
        return part if self._opened.is_local else _copied(part)


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

    def owner(self, artifact_id: str) -> str | None:
        """Return the run that an artifact belongs to; None for one of no run, and for an unknown one."""
        metadata = self._stores.artifacts.get_metadata(artifact_id) if is_safe_id(artifact_id) else None
        return metadata.run_id if metadata is not None else None

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


def _copied(part: IO[bytes]) -> IO[bytes]:
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - whoever sends it closes it
    try:
        shutil.copyfileobj(part, copy, _PART_BYTES)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy


def _missing(artifact_id: str) -> NotFound:
    return NotFound(f"Artifact '{artifact_id}' not found", code="artifact_not_found")
