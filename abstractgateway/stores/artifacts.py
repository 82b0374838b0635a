"""Artifacts: bytes under the hash of their content, in memory or as files.

The identifiers and the file layout are AbstractRuntime's: `artifacts/blobs/<sha256>.bin` holds the bytes, and
`artifacts/refs/<artifact id>.meta` what is known of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from ..clock import to_iso
from ..errors import Conflict, Invalid, Unavailable
from ..ids import check_safe_id
from ..jsonvalue import JsonObject, dumps, loads
from ..runtime.artifact_refs import artifact_ref, get_artifact_id, is_artifact_ref
from .artifact_index import SUFFIX, ArtifactIndex
from .artifact_queries import ArtifactQueries, newest_first, resolve_artifact
from .base import ArtifactMetadata, OpenArtifact
from .blob_files import BlobFiles
from .disk import Disk
from .problems import Problems

__all__ = [
    "FileArtifactStore",
    "InMemoryArtifactStore",
    "artifact_ref",
    "compute_artifact_id",
    "get_artifact_id",
    "is_artifact_ref",
    "resolve_artifact",
]

_CHOSEN_ID = re.compile(r"[A-Za-z0-9_-]{1,200}\Z")


def compute_artifact_id(content: bytes, *, run_id: str | None = None) -> str:
    """Return the id of bytes that belong to a run, or to none: 32 hexadecimal digits."""
    hashed = hashlib.sha256(run_id.encode() + b"\0" if run_id else b"")
    hashed.update(content)  # not joined: that would hold the content twice
    return hashed.hexdigest()[:32]


class InMemoryArtifactStore(ArtifactQueries):
    """Artifacts in memory."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._metadata: dict[str, ArtifactMetadata] = {}
        self._lock = threading.Lock()

    def store(
        self,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        run_id: str | None = None,
        tags: dict[str, str] | None = None,
        artifact_id: str | None = None,
    ) -> ArtifactMetadata:
        metadata = describe(content, content_type, run_id, tags, artifact_id)
        with self._lock:
            self._blobs[metadata.blob_id] = content
            known = self._metadata.setdefault(metadata.artifact_id, metadata)
        return same_bytes(known, metadata, known.blob_id)

    def adopt(self, metadata: ArtifactMetadata, read_pieces: Callable[[], Iterable[bytes]]) -> ArtifactMetadata:
        known = self._metadata.get(metadata.artifact_id, metadata)
        same_bytes(known, metadata, known.blob_id)
        content = b"".join(checked(metadata, read_pieces()))
        with self._lock:
            self._blobs.setdefault(metadata.blob_id, content)
            return self._metadata.setdefault(metadata.artifact_id, metadata)

    def load(self, artifact_id: str) -> bytes | None:
        metadata = self._metadata.get(artifact_id)
        return self._blobs.get(metadata.blob_id) if metadata is not None else None

    def read(self, artifact_id: str, start: int = 0, length: int | None = None) -> bytes | None:
        content = self.load(artifact_id)
        start, end = bounds(start, length)
        return content[start:end] if content is not None else None

    def open(self, artifact_id: str) -> OpenArtifact | None:
        metadata, content = self._metadata.get(artifact_id), self.load(artifact_id)
        if metadata is None or content is None:
            return None
        return OpenArtifact(metadata, lambda start, length: content[start : start + length], is_local=True)

    def get_metadata(self, artifact_id: str) -> ArtifactMetadata | None:
        return self._metadata.get(artifact_id)

    def list_by_run(self, run_id: str) -> list[ArtifactMetadata]:
        return [item for item in self._all() if item.run_id == run_id]

    def gc(self, *, dry_run: bool = True) -> JsonObject:
        """Drop the bytes that no artifact refers to; the counts are those of `FileArtifactStore.gc`."""
        with self._lock:
            used = {item.blob_id for item in self._metadata.values()}
            unused = [blob_id for blob_id in self._blobs if blob_id not in used]
            report = gc_report(dry_run, len(self._blobs), len(used), [len(self._blobs[name]) for name in unused], [])
            for blob_id in unused if not dry_run else ():
                del self._blobs[blob_id]
        return report

    def _all(self) -> list[ArtifactMetadata]:
        with self._lock:
            return newest_first(self._metadata.values())

    def _remove(self, artifact_id: str) -> None:
        with self._lock:
            self._metadata.pop(artifact_id, None)


class FileArtifactStore(ArtifactQueries):
    """Artifacts as files below a directory; each is fsynced, and checked against its hash when it is read."""

    def __init__(self, directory: str | Path, *, disk: Disk | None = None, problems: Problems | None = None) -> None:
        self._top = Path(directory) / "artifacts"  # where AbstractRuntime once kept both
        self._refs = self._top / "refs"
        self._disk = disk if disk is not None else Disk()
        self._problems = problems if problems is not None else Problems()
        self._blobs = BlobFiles(self._top / "blobs", self._disk)
        self._index = ArtifactIndex((self._refs, self._top), self._run_of)
        self._writing = threading.Lock()

    def store(
        self,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        run_id: str | None = None,
        tags: dict[str, str] | None = None,
        artifact_id: str | None = None,
    ) -> ArtifactMetadata:
        metadata = describe(content, content_type, run_id, tags, artifact_id)
        with self._taking_part(fcntl.LOCK_SH):
            return self._keep(metadata, lambda: content)

    def adopt(self, metadata: ArtifactMetadata, read_pieces: Callable[[], Iterable[bytes]]) -> ArtifactMetadata:
        check_safe_id(metadata.artifact_id, field="artifact_id")
        with self._taking_part(fcntl.LOCK_SH):
            return self._keep(metadata, lambda: checked(metadata, read_pieces()))

    def load(self, artifact_id: str) -> bytes | None:
        metadata = self.get_metadata(artifact_id)
        if metadata is None:
            return None
        path = self._path_of(metadata)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if metadata.blob_id and hashlib.sha256(content).hexdigest() != metadata.blob_id:
            raise damaged(artifact_id)
        return content

    def read(self, artifact_id: str, start: int = 0, length: int | None = None) -> bytes | None:
        metadata = self.get_metadata(artifact_id)
        if metadata is None:
            return None
        start, end = bounds(start, length)
        try:
            content = self._blobs.read(self._path_of(metadata), metadata.blob_id, start, end)
        except FileNotFoundError:
            return None
        if content is None:
            raise damaged(artifact_id)
        return content

    def open(self, artifact_id: str) -> OpenArtifact | None:
        metadata = self.get_metadata(artifact_id)
        if metadata is None:
            return None
        try:
            file = self._blobs.open(self._path_of(metadata), metadata.blob_id)
        except FileNotFoundError:
            return None
        if file is None:
            raise damaged(artifact_id)

        def read(start: int, length: int) -> bytes:
            part = file.read(start, length)
            if part is None:
                raise damaged(artifact_id)
            return part

        return OpenArtifact(metadata, read, is_local=True)

    def get_metadata(self, artifact_id: str) -> ArtifactMetadata | None:
        name = check_safe_id(artifact_id, field="artifact_id") + SUFFIX
        data = _read_first(self._refs / name, self._top / name)
        if data is None:
            return None
        try:
            return _metadata_of(data, name)
        except Invalid as error:
            raise Unavailable(f"artifact {artifact_id!r} is damaged: {error}", code="artifact_damaged") from error

    def list_by_run(self, run_id: str) -> list[ArtifactMetadata]:
        found = self._readable(self._index.of_run(run_id))
        return newest_first(item for item in found if item.run_id == run_id)

    def gc(self, *, dry_run: bool = True) -> JsonObject:
        """Drop the bytes that no artifact refers to, after `delete`, or after a crash between bytes and description.

        Returns `{dry_run, blobs_total, blobs_referenced, blobs_deleted, bytes_reclaimed, errors}`; a dry run tells what
        would be deleted. While a description cannot be read nothing is deleted, because nobody knows what it refers
        to. Stores of this library wait meanwhile, in other processes too; AbstractRuntime's do not, so none of its
        programs may store artifacts in the directory at the same time.
        """
        with self._taking_part(fcntl.LOCK_EX):
            errors: list[str] = []
            used = {item.blob_id for item in self._readable(self._index.all(), errors)}
            sizes = self._blobs.sizes()
            unused = [] if errors else [blob_id for blob_id in sizes if blob_id not in used]
            for blob_id in unused if not dry_run else ():
                self._disk.remove(self._blobs.path(blob_id))
        return gc_report(dry_run, len(sizes), len(used & sizes.keys()), [sizes[name] for name in unused], errors)

    def _keep(self, metadata: ArtifactMetadata, read: Callable[[], bytes | Iterable[bytes]]) -> ArtifactMetadata:
        """Write what is not there yet, the bytes before the description that refers to them."""
        known = self._known(metadata.artifact_id)
        if known is not None and not known.blob_id:
            return same_bytes(known, metadata, self._blobs.digest(self._path_of(known)))
        if known is not None:
            same_bytes(known, metadata, known.blob_id)
        if not self._blobs.is_intact(metadata.blob_id):
            self._blobs.write(metadata.blob_id, read())
        if known is None:
            self._refs.mkdir(parents=True, exist_ok=True)
            self._disk.replace(
                self._refs / f"{metadata.artifact_id}{SUFFIX}", dumps(metadata.to_dict()), is_durable=True
            )
            self._disk.sync_path(self._refs)
        return known or metadata

    def _known(self, artifact_id: str) -> ArtifactMetadata | None:
        """Return what is known of an artifact; storing one that is damaged or has lost its bytes repairs it."""
        try:
            known = self.get_metadata(artifact_id)
            return known if known is None or known.blob_id or self._path_of(known).exists() else None
        except Unavailable as error:
            self._problems.note(artifact_id, f"{error}; stored again")
            return None

    def _path_of(self, metadata: ArtifactMetadata) -> Path:
        path = self._blobs.path(metadata.blob_id)
        return path if metadata.blob_id and path.exists() else self._top / f"{metadata.artifact_id}.bin"

    def _run_of(self, artifact_id: str) -> str | None:
        return next((item.run_id for item in self._readable([artifact_id])), None)

    def _all(self) -> list[ArtifactMetadata]:
        return newest_first(self._readable(self._index.all()))

    def _readable(self, artifact_ids: list[str], errors: list[str] | None = None) -> Iterator[ArtifactMetadata]:
        """Return what is known of some artifacts; those that cannot be read are noted and hide no other."""
        for artifact_id in artifact_ids:
            try:
                metadata = self.get_metadata(artifact_id)
            except (Unavailable, Invalid) as error:
                self._problems.note(f"{artifact_id}{SUFFIX}", str(error))
                if errors is not None:
                    errors.append(str(error))
                continue
            if metadata is not None:
                yield metadata

    def _remove(self, artifact_id: str) -> None:
        with self._taking_part(fcntl.LOCK_SH):
            for path in (self._refs / f"{artifact_id}{SUFFIX}", self._top / f"{artifact_id}{SUFFIX}"):
                self._disk.remove(path)
            self._disk.remove(self._top / f"{artifact_id}.bin")
            self._disk.sync_path(self._refs)

    @contextmanager
    def _taking_part(self, mode: int) -> Iterator[None]:
        """Keep `gc` away from whoever stores: bytes that were found there must not go before they are referred to."""
        try:
            with self._writing, self._locked(mode):
                yield
        except OSError as error:
            raise Unavailable(f"the artifacts cannot be written: {error}", code="store_failed") from error

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        self._top.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._top / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, mode)
            yield
        finally:
            os.close(fd)


def describe(
    content: bytes,
    content_type: str,
    run_id: str | None,
    tags: Mapping[str, str] | None,
    artifact_id: str | None,
) -> ArtifactMetadata:
    """Return what is known of bytes that are to be stored now. Raises `Invalid` for an id or tags that are none."""
    if artifact_id is not None and not _CHOSEN_ID.match(artifact_id):
        raise Invalid("artifact_id", f"{artifact_id!r} must be 1 to 200 letters, digits, '_' or '-'")
    wrong = [item for pair in (tags or {}).items() for item in pair if not isinstance(item, str)]
    if wrong:
        raise Invalid("tags", f"has {wrong[0]!r}; names and values are texts")
    return ArtifactMetadata(
        artifact_id=compute_artifact_id(content, run_id=run_id) if artifact_id is None else artifact_id,
        content_type=content_type,
        size_bytes=len(content),
        created_at=to_iso(datetime.now(timezone.utc)),
        blob_id=hashlib.sha256(content).hexdigest(),
        run_id=run_id,
        tags=dict(tags or {}),
    )


def same_bytes(known: ArtifactMetadata, metadata: ArtifactMetadata, blob_id: str | None) -> ArtifactMetadata:
    """Return what is known already, or raise `Conflict` when it is about other bytes."""
    if blob_id != metadata.blob_id:
        raise Conflict(f"artifact {known.artifact_id!r} exists with other bytes; delete it first, or choose another id")
    return known


def checked(metadata: ArtifactMetadata, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces as they come. Raises `Unavailable` at the end of bytes that are not the described ones."""
    hashed = hashlib.sha256()
    for piece in pieces:
        hashed.update(piece)
        yield piece
    if hashed.hexdigest() != metadata.blob_id:
        raise damaged(metadata.artifact_id)


def bounds(start: int, length: int | None) -> tuple[int, int | None]:
    """Return where a part begins and ends. Raises `Invalid` for negative numbers."""
    if start < 0 or (length is not None and length < 0):
        raise Invalid("start" if start < 0 else "length", "must not be negative")
    return start, None if length is None else start + length


def gc_report(dry_run: bool, total: int, referenced: int, deleted: list[int], errors: list[str]) -> JsonObject:
    """Return the report of a `gc`, given the sizes of what it deletes."""
    return {
        "dry_run": dry_run,
        "blobs_total": total,
        "blobs_referenced": referenced,
        "blobs_deleted": len(deleted),
        "bytes_reclaimed": sum(deleted),
        "errors": errors,
    }


def damaged(artifact_id: str) -> Unavailable:
    """Return the error of bytes that are not what was stored."""
    return Unavailable(
        f"artifact {artifact_id!r} is damaged: its bytes do not have the hash they were stored under",
        code="artifact_damaged",
    )


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
