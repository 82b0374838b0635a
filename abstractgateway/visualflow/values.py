"""Values as they travel between pins: absent or present, picked by handle, reached by path, never changed in place.

Everything a node gets or gives may be shared with other nodes, with the stored state and with other runs of the same
flow. So all functions here build new containers instead of changing the ones they were given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..errors import Invalid
from ..jsonvalue import check_weight


class _Missing:
    """The type of `MISSING`, the mark of a pin that carries nothing (which is not the same as null)."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final[Any] = _Missing()

_WHOLE_VALUE_HANDLES = frozenset({"result", "output"})
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_BRACKET = re.compile(r"\[(\d+)\]")


def pick(output: Any, handle: str) -> Any:
    """Return what an output pin carries, or `MISSING`.

    A key of that name in an object wins; otherwise `result` and `output` stand for the whole value.
    """
    if isinstance(output, dict) and handle in output:
        return output[handle]
    if handle in _WHOLE_VALUE_HANDLES:
        return output
    return MISSING


def as_object(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return the value if it is a list, nothing for null, and a list of one for anything else."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def as_names(value: Any) -> list[str] | None:
    """Return the texts of a list, trimmed and without repetition, or None when it is not a list."""
    if not isinstance(value, list):
        return None
    return list(dict.fromkeys(item.strip() for item in value if isinstance(item, str) and item.strip()))


def as_number(value: Any, pin: str) -> float:
    """Return the finite number that a value stands for. Raises `Invalid(pin, …)` for null, lists and other text."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise Invalid(pin, f"{value!r} is not a number") from None
    if not math.isfinite(number):
        raise Invalid(pin, f"{value!r} is not a finite number")
    return number


def first_text(*candidates: Any) -> str | None:
    """Return the first candidate that is a text with more than blanks, trimmed, or None."""
    return next((item.strip() for item in candidates if isinstance(item, str) and item.strip()), None)


def first_present(source: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the first value among the names that is present and not null, else None."""
    return next((source[name] for name in names if source.get(name) is not None), None)


def safe_name(text: str) -> str:
    """Return a text whose characters other than letters, digits, `_` and `-` are replaced by `_`."""
    return _UNSAFE.sub("_", text.strip()) or "unknown"


def split_path(path: str, *, brackets: bool = True) -> list[str]:
    """Return the segments of `a.b[0].c`; empty segments are dropped."""
    dotted = _BRACKET.sub(r".\1", path) if brackets else path
    return [segment for segment in dotted.split(".") if segment]


def read_path(value: Any, segments: Iterable[str]) -> Any:
    """Return what lies at a path through objects and lists (by position), or `MISSING`."""
    current = value
    for segment in segments:
        current = _child(current, segment)
        if current is MISSING:
            return MISSING
    return current


def with_path(container: Any, segments: list[str], value: Any) -> dict[str, Any]:
    """Return a copy of the container with the value at a path; what is in the way and no object is replaced."""
    copy = dict(container) if isinstance(container, dict) else {}
    head, rest = segments[0], segments[1:]
    copy[head] = with_path(copy.get(head), rest, value) if rest else value
    return copy


def write_path(variables: dict[str, Any], segments: list[str], value: Any) -> None:
    """Store a value at a path of the run's variables; everything below the first name is copied, not changed.

    Raises `Invalid` for a variable that would be too heavy.
    """
    head, rest = segments[0], segments[1:]
    if rest:
        value = with_path(variables.get(head), rest, value)
        check_weight(value, field=head)
    variables[head] = value


def _child(value: Any, segment: str) -> Any:
    if isinstance(value, dict):
        return value.get(segment, MISSING)
    if isinstance(value, list) and segment.isdecimal() and len(segment) < 10 and int(segment) < len(value):
        return value[int(segment)]
    return MISSING
