"""What a model call used, which may take several answers: each that was cut off or had the wrong form is paid for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..jsonvalue import JsonObject

BY_ATTEMPT = "_usage_by_attempt"
"""The field of `metadata` with the usage of each attempt, or null; only there where it took more than one."""


def spent(attempts: Sequence[Any]) -> JsonObject:
    """Return `{usage, metadata}` of a call, given the usage of each answer that it took."""
    used = [dict(usage) if isinstance(usage, Mapping) else None for usage in attempts]
    return {"usage": _summed(used), "metadata": {BY_ATTEMPT: used} if len(used) > 1 else {}}


def by_attempt(result: Any) -> list[Any]:
    """Return the usage of each answer that a call took, the last one last."""
    fields = result if isinstance(result, Mapping) else {}
    metadata = fields.get("metadata")
    found = metadata.get(BY_ATTEMPT) if isinstance(metadata, Mapping) else None
    return found if isinstance(found, list) and found else [fields.get("usage")]


def _summed(used: Sequence[JsonObject | None]) -> JsonObject | None:
    """Return the counts added up; what is no count is that of the last answer."""
    known = [usage for usage in used if usage is not None]
    total: JsonObject = {}
    for usage in known:
        for name, value in usage.items():
            before = total.get(name, 0)
            total[name] = before + value if _is_count(before) and _is_count(value) else value
    return total if known else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
