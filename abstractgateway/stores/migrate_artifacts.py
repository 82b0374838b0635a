"""Moving artifacts from one store to another: descriptions as they are, bytes a part at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from ..errors import Unavailable
from .base import ArtifactMetadata, ArtifactStore

PART_BYTES = 1 << 20
_DAMAGED = "artifact_damaged"


def copy_artifacts(
    source: ArtifactStore, target: ArtifactStore, lost: dict[str, str], on_copied: Callable[[], None]
) -> list[ArtifactMetadata]:
    """Copy the artifacts that the target lacks, calling `on_copied` after each, and return those of the source.

    What cannot be read is left out; `lost` is told its id, and why. Raises `Conflict` when the target has other bytes
    under an id.
    """
    there = {item.artifact_id for item in target.list_all(None)}
    found = source.list_all(None)[::-1]  # the oldest first, as they were stored
    for item in found:
        if item.artifact_id not in there and item.artifact_id not in lost:
            try:
                target.adopt(_hashed(source, item), partial(_parts, source, item))
            except Unavailable as error:
                if error.code != _DAMAGED:
                    raise
                lost[item.artifact_id] = str(error)
            else:
                on_copied()
    return found


def verify_artifacts(target: ArtifactStore, items: Iterable[ArtifactMetadata]) -> None:
    """Read artifacts that were copied. Raises `Unavailable` for one that is not what the source describes."""
    for item in items:
        known = target.get_metadata(item.artifact_id)
        if known is None or not _are_alike(item, known) or _digest(target, known) != known.blob_id:
            raise Unavailable(f"artifact {item.artifact_id!r} reads differently in the target", code="store_damaged")


def _are_alike(theirs: ArtifactMetadata, ours: ArtifactMetadata) -> bool:
    return ours == (theirs if theirs.blob_id else replace(theirs, blob_id=ours.blob_id))


def _hashed(source: ArtifactStore, item: ArtifactMetadata) -> ArtifactMetadata:
    """Return the description with the hash of the bytes, which early versions of AbstractRuntime did not write."""
    return item if item.blob_id else replace(item, blob_id=_digest(source, item))


def _digest(store: ArtifactStore, item: ArtifactMetadata) -> str:
    hashed = hashlib.sha256()
    for part in _parts(store, item):
        hashed.update(part)
    return hashed.hexdigest()


def _parts(store: ArtifactStore, item: ArtifactMetadata) -> Iterator[bytes]:
    opened = store.open(item.artifact_id)
    if opened is None:
        raise Unavailable(f"artifact {item.artifact_id!r} has lost its bytes", code=_DAMAGED)
    for start in range(0, item.size_bytes, PART_BYTES):
        yield opened.read(start, PART_BYTES)
