"""Artifacts in the database: their bytes in pieces, so that a part can be read without the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from abstractgateway.errors import Invalid, Unavailable
from abstractgateway.ids import check_safe_id
from abstractgateway.jsonvalue import JsonObject, dumps, loads
from abstractgateway.stores.artifact_queries import ArtifactQueries, newest_first
from abstractgateway.stores.artifacts import bounds, checked, damaged, describe, gc_report, same_bytes
from abstractgateway.stores.base import ArtifactMetadata

from . import sql
from .batch import check_text
from .database import Connection, Database
from .locks import ARTIFACTS_BUCKET

PIECE_BYTES = 262_144
"""A range of some bytes reads and checks one piece."""

T = TypeVar("T")


class PostgresArtifactStore(ArtifactQueries):
    """Artifacts in PostgreSQL; each piece is checked against its hash when it is read."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        check_text("artifact", (content_type, run_id))
        return self._write(lambda connection: _keep(connection, metadata, lambda: (content,)), is_alone=False)

    def adopt(self, metadata: ArtifactMetadata, read_pieces: Callable[[], Iterable[bytes]]) -> ArtifactMetadata:
        texts = (metadata.content_type, metadata.created_at, metadata.run_id)
        check_text("artifact", (check_safe_id(metadata.artifact_id, field="artifact_id"), *texts))
        keep = partial(_keep, metadata=metadata, read_pieces=lambda: checked(metadata, read_pieces()))
        return self._write(keep, is_alone=False)

    def load(self, artifact_id: str) -> bytes | None:
        metadata = self.get_metadata(artifact_id)
        if metadata is None:
            return None
        content = self._pieces(metadata, 0, metadata.size_bytes)
        if hashlib.sha256(content).hexdigest() != metadata.blob_id:
            raise damaged(artifact_id)
        return content

    def read(self, artifact_id: str, start: int = 0, length: int | None = None) -> bytes | None:
        metadata = self.get_metadata(artifact_id)
        if metadata is None:
            return None
        start, end = bounds(start, length)
        last = metadata.size_bytes if end is None else min(end, metadata.size_bytes)
        if start >= last:
            return b""
        content = self._pieces(metadata, start, last)
        skipped = start % PIECE_BYTES
        return content[skipped : skipped + last - start]

    def get_metadata(self, artifact_id: str) -> ArtifactMetadata | None:
        found = self._found(sql.ARTIFACT_BY_ID, (check_safe_id(artifact_id, field="artifact_id"),))
        return found[0] if found else None

    def list_by_run(self, run_id: str) -> list[ArtifactMetadata]:
        check_text("run_id", (run_id,))
        return newest_first(self._found(sql.ARTIFACTS_OF_RUN, (run_id,)))

    def gc(self, *, dry_run: bool = True) -> JsonObject:
        """Drop the bytes that no artifact refers to; the counts are those of `FileArtifactStore.gc`.

        Whoever stores artifacts waits meanwhile, in all processes.
        """
        return self._write(lambda connection: _collect(connection, dry_run), is_alone=True)

    def _all(self) -> list[ArtifactMetadata]:
        return newest_first(self._found(sql.ALL_ARTIFACTS, ()))

    def _remove(self, artifact_id: str) -> None:
        self._write(lambda connection: connection.execute(sql.DROP_ARTIFACT, (artifact_id,)), is_alone=False)

    def _found(self, statement: str, values: Sequence[Any]) -> list[ArtifactMetadata]:
        return [_metadata_of(row) for row in self._database.rows(statement, values)]

    def _pieces(self, metadata: ArtifactMetadata, start: int, end: int) -> bytes:
        """Return the pieces that have the bytes from `start` to `end`, checked. Raises `Unavailable` for damage."""
        first, last = start // PIECE_BYTES, max(end - 1, 0) // PIECE_BYTES
        found = self._database.rows(sql.PIECES, (metadata.blob_id, first, last), raw=True)
        if [number for number, _, _ in found] != list(range(first, last + 1)):
            raise damaged(metadata.artifact_id)
        if any(hashlib.sha256(content).digest() != digest for _, digest, content in found):
            raise damaged(metadata.artifact_id)
        return b"".join(content for _, _, content in found)

    def _write(self, action: Callable[[Connection], T], *, is_alone: bool) -> T:
        """Do something in a transaction, a second time if the connection was lost: it is the same thing twice."""
        return self._database.repeatable(lambda connection: _locked(connection, action, is_alone))


def _locked(connection: Connection, action: Callable[[Connection], T], is_alone: bool) -> T:
    connection.execute(sql.LOCK_BUCKETS, ([ARTIFACTS_BUCKET], [is_alone]))
    return action(connection)


def _keep(
    connection: Connection, metadata: ArtifactMetadata, read_pieces: Callable[[], Iterable[bytes]]
) -> ArtifactMetadata:
    known = _known(connection, metadata)
    if known is not None:
        same_bytes(known, metadata, known.blob_id)
    ((is_intact,),) = connection.execute(sql.IS_INTACT, {"blob_id": metadata.blob_id}).fetchall()
    if not is_intact:
        _keep_bytes(connection, metadata, read_pieces())
    if known is not None:
        return known
    columns = (metadata.artifact_id, metadata.blob_id, metadata.content_type, metadata.size_bytes)
    tags = dumps(metadata.tags, field="tags").decode()
    connection.execute(sql.ADD_ARTIFACT, (*columns, metadata.created_at, metadata.run_id, tags))
    stored = _known(connection, metadata)
    assert stored is not None  # added here, or by whoever was quicker
    return same_bytes(stored, metadata, stored.blob_id)


def _keep_bytes(connection: Connection, metadata: ArtifactMetadata, content: Iterable[bytes]) -> None:
    connection.execute(sql.ADD_BLOB, (metadata.blob_id, metadata.size_bytes))
    connection.execute(sql.DROP_PIECES, (metadata.blob_id,))
    with connection.cursor() as cursor:
        for number, piece in enumerate(_recut(content)):
            cursor.execute(sql.ADD_PIECE, (metadata.blob_id, number, hashlib.sha256(piece).digest(), piece))


def _recut(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of some parts as pieces of `PIECE_BYTES`; the last one may be shorter, the only one empty."""
    rest, has_begun = b"", False
    for part in parts:
        rest = rest + part if rest else part
        whole = len(rest) - len(rest) % PIECE_BYTES
        for start in range(0, whole, PIECE_BYTES):
            has_begun = True
            yield rest[start : start + PIECE_BYTES]
        rest = rest[whole:]
    if rest or not has_begun:
        yield rest


def _known(connection: Connection, metadata: ArtifactMetadata) -> ArtifactMetadata | None:
    found = connection.execute(sql.ARTIFACT_BY_ID, (metadata.artifact_id,)).fetchone()
    return _metadata_of(found) if found is not None else None


def _collect(connection: Connection, dry_run: bool) -> JsonObject:
    ((total, used),) = connection.execute(sql.COUNT_BLOBS).fetchall()
    unused = [size for (size,) in connection.execute(sql.UNUSED_BLOBS).fetchall()]
    if not dry_run:
        connection.execute(sql.DROP_UNUSED)
    return gc_report(dry_run, total, used, unused, [])


def _metadata_of(found: Sequence[Any]) -> ArtifactMetadata:
    artifact_id, content_type, size_bytes, created_at, blob_id, run_id, tags = found
    try:
        labels = loads(tags, field="tags")
    except Invalid as error:
        raise Unavailable(f"artifact {artifact_id!r} is damaged: {error}", code="artifact_damaged") from error
    return ArtifactMetadata(artifact_id, content_type, size_bytes, created_at, blob_id, run_id, labels)
