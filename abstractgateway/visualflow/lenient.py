"""Reading JSON out of what people and models write: fenced, wrapped in prose, or in Python's spelling."""

from __future__ import annotations

import ast
import itertools
import json
import re
from typing import Any, NoReturn

from ..errors import Invalid
from .values import MISSING

_FENCE = re.compile(r"\A```[A-Za-z0-9_-]*[ \t]*\r?\n(.*?)\r?\n?```\s*\Z", re.DOTALL)
_MAX_STARTS = 64
_MAX_LITERAL = 100_000
"""Python literals longer than this are not tried: parsing them costs many times their size."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def read_json(text: str) -> Any:
    """Return the value written in a text, or `MISSING` when there is none.

    Tried in turn: the text without its code fence as JSON, the first object or list inside it, a Python literal.
    """
    cleaned = text.strip()
    fenced = _FENCE.match(cleaned)
    if fenced:
        cleaned = fenced.group(1).strip()
    for attempt in (_strict, _embedded, _literal):
        value = attempt(cleaned)
        if value is not MISSING:
            return value
    return MISSING


def parse_json(value: Any, *, wrap_scalar: bool = True) -> Any:
    """Return the object or list that a value is or says; scalars become `{"value": …}` if `wrap_scalar`.

    Raises `Invalid("text", …)` for null, empty text, the text `null` and text without any value in it.
    """
    if isinstance(value, (dict, list)):
        return value
    found = read_json(value) if isinstance(value, str) else value
    if found is MISSING or found is None:
        raise Invalid("text", f"{_shown(value)} holds no JSON value")
    if isinstance(found, (dict, list)) or not wrap_scalar:
        return found
    return {"value": found}


def _strict(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return MISSING


def _embedded(text: str) -> Any:
    starts = [match.start() for match in itertools.islice(re.finditer(r"[{\[]", text), _MAX_STARTS)]
    for start in starts:
        try:
            return _DECODER.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
    return MISSING


def _literal(text: str) -> Any:
    if len(text) > _MAX_LITERAL:
        return MISSING
    try:
        return _as_json(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return MISSING


def _as_json(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, int, bool)) or (isinstance(value, float) and value - value == 0):
        return value
    raise ValueError(f"{value!r} has no JSON form")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
