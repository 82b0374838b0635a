"""Large values leave a document for the artifact store, and a reference stays in their place."""

from __future__ import annotations

from typing import Any

from ..jsonvalue import dumps
from ..stores.artifacts import artifact_ref
from ..stores.base import ArtifactStore

MAX_INLINE_BYTES = 262_144
"""AbstractRuntime's bound: an encoded value of more bytes is not kept inline."""


def without_large_values(value: Any, artifacts: ArtifactStore, *, run_id: str, path: str, tags: dict[str, str]) -> Any:
    """Return a JSON value whose large parts are references to artifacts of the run; the value itself stays inline.

    Parts are looked at from the inside out, so what is left of a container may be small enough. References that are
    there already stay as they are.
    """
    if len(dumps(value)) <= MAX_INLINE_BYTES:
        return value
    if isinstance(value, dict):
        return {
            name: _replaced(item, artifacts, run_id=run_id, path=f"{path}.{name}", tags=tags)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [
            _replaced(item, artifacts, run_id=run_id, path=f"{path}[{number}]", tags=tags)
            for number, item in enumerate(value)
        ]
    return value


def _replaced(value: Any, artifacts: ArtifactStore, *, run_id: str, path: str, tags: dict[str, str]) -> Any:
    if isinstance(value, dict) and "$artifact" in value:
        return value
    left = without_large_values(value, artifacts, run_id=run_id, path=path, tags=tags)
    encoded = dumps(left)
    if len(encoded) <= MAX_INLINE_BYTES:
        return left
    is_text = isinstance(left, str)
    stored = artifacts.store(
        left.encode() if is_text else encoded,
        content_type="text/plain" if is_text else "application/json",
        run_id=run_id,
        tags={**tags, "path": path},
    )
    return artifact_ref(stored.artifact_id)
