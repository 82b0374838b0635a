"""The registry of kinds of things and relations, as the operator gives it."""

from __future__ import annotations

from pathlib import Path

from ..errors import Invalid, NotFound, Unavailable
from ..jsonvalue import JsonObject, loads

MOST_BYTES = 16_777_216


class SemanticsService:
    """Shows the registry of a JSON file, which is read whenever it is asked for."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def get(self) -> JsonObject:
        """Return the registry. Raises `NotFound` where none is configured, `Unavailable` when it cannot be read."""
        if self._path is None:
            raise NotFound(
                "no semantics registry is configured; set ABSTRACTGATEWAY_SEMANTICS_FILE to a JSON file",
                code="semantics_not_configured",
            )
        try:
            with self._path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise _unusable(f"cannot be read: {error.strerror}") from error
        if len(content) > MOST_BYTES:
            raise _unusable(f"has more than {MOST_BYTES} bytes")
        return _registry(content)


def _registry(content: bytes) -> JsonObject:
    try:
        registry = loads(content, field="registry")
    except Invalid as error:
        raise _unusable(error.why) from error
    if not isinstance(registry, dict):
        raise _unusable("is not a JSON object")
    return registry


def _unusable(why: str) -> Unavailable:
    return Unavailable(f"the file of ABSTRACTGATEWAY_SEMANTICS_FILE {why}", code="semantics_unusable")
