"""JSON in and out: one encoder, one strict decoder, one check of what may be stored.

A JSON value here is what any other JSON reader understands as well: text keys, finite numbers, no lone surrogates.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, NoReturn

from .errors import Invalid

JsonObject = dict[str, Any]
MAX_DEPTH = 200
"""Far beyond what people write, far below where encoders give up (Python's recursion limit is 1,000)."""

MOST_WEIGHT = 67_108_864
"""How heavy one value may be that a flow makes of others, see `check_weight`."""

_MOST_OF_KEY = 100
_LEAST_WEIGHT = 8
_FLAT = frozenset({int, float, bool, type(None)})
_CONTAINERS = (dict, list, tuple)

Encode = Callable[[Any], str]


def _encoder(*, sort_keys: bool, is_strict: bool = True) -> Encode:
    """Return an encoder that is set up once; `json.dumps` sets one up for every call, which takes half its time.

    One that is not strict writes ASCII only, and numbers that JSON lacks.
    """
    encoder = json.JSONEncoder(
        ensure_ascii=not is_strict, allow_nan=not is_strict, separators=(",", ":"), sort_keys=sort_keys
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    quote = json.encoder.encode_basestring if is_strict else json.encoder.encode_basestring_ascii
    chunks = make(None, encoder.default, quote, None, ":", ",", sort_keys, False, not is_strict)
    return lambda value: "".join(chunks(value, 0))


_COMPACT = _encoder(sort_keys=False)
_CANONICAL = _encoder(sort_keys=True)
ascii_text = _encoder(sort_keys=True, is_strict=False)
"""The text that AbstractRuntime makes its idempotency keys of: ASCII, keys sorted. Raises what `json.dumps` raises."""


def dumps(value: Any, *, field: str = "value") -> bytes:
    """Return the compact UTF-8 JSON of a value. Raises `Invalid(field, …)` when it has none."""
    return _encode(_COMPACT, value, field)


def dumps_canonical(value: Any, *, field: str = "value") -> bytes:
    """Return the one JSON text of a value that hashes are made of: compact, keys sorted, UTF-8."""
    return _encode(_CANONICAL, value, field)


def canonical_text(value: Any, *, field: str = "value") -> str:
    """Like `dumps_canonical`, as text that may hold lone surrogates."""
    return _text(_CANONICAL, value, field)


def compact_text(value: Any, *, field: str = "value") -> str:
    """Like `dumps`, as text that may hold lone surrogates."""
    return _text(_COMPACT, value, field)


def loads(text: bytes | str, *, field: str = "body") -> Any:
    """Return the value of a JSON text. Raises `Invalid(field, …)` for anything that strict JSON does not allow."""
    return _decoded(_DECODER, text, field)


def loads_foreign(text: bytes | str, *, field: str = "body") -> Any:
    """Like `loads`, for a text that others made: an object may have each key once.

    Of a key that comes twice, one reader takes the first value and another the last, so that what was checked need not
    be what is used.
    """
    return _decoded(_FOREIGN_DECODER, text, field)


def _decoded(decoder: json.JSONDecoder, text: bytes | str, field: str) -> Any:
    try:
        if isinstance(text, str):
            return decoder.decode(text)
        return decoder.decode(text.decode(json.detect_encoding(text), "surrogatepass"))
    except RecursionError as error:
        raise Invalid(field, "is nested too deeply", code="json_invalid") from error
    except ValueError as error:
        raise Invalid(field, f"is not valid JSON: {error}", code="json_invalid") from error


def check_json(value: Any, *, field: str = "value") -> None:
    """Raise `Invalid(field, …)` unless the value survives a round trip through JSON unchanged.

    What comes from outside is checked by this: it may be nested `MAX_DEPTH` deep, so that what the gateway wraps
    around it later still can be written.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        # By identity: a value that contains itself twice would double with every level.
        level = list({id(inner): inner for item in level for inner in _inside(item, field)}.values())
        if not level:
            _encode(_COMPACT, value, field)
            return
    raise Invalid(field, f"is nested more than {MAX_DEPTH} levels deep, or contains itself")


def check_weight(value: Any, *, field: str = "value", most: int = MOST_WEIGHT) -> None:
    """Raise `Invalid(field, …)` for a value that is heavier than `most`: about as many bytes of JSON.

    A value that is part of another many times takes no memory there, but its place in JSON each time: one that is put
    twice into the next, and so on, is without end as JSON after a few dozen steps. Every member counts at least 8.
    """
    try:
        weight = _weight(value, {})
    except RecursionError as error:
        raise _refusal(error, field) from error
    if weight > most:
        raise Invalid(field, f"would have more than {most:,} bytes as JSON: parts of it occur in it many times")


def _weight(value: Any, known: dict[int, float]) -> float:
    """Return the weight of a value; `known` are those of containers by identity, so that each is looked at once."""
    if not isinstance(value, _CONTAINERS):
        return len(value) if isinstance(value, str) else 0
    if id(value) in known:
        return known[id(value)]
    known[id(value)] = inf  # what contains itself
    weight: float = _LEAST_WEIGHT * len(value)
    inside: Iterable[Any] = value
    if isinstance(value, dict):
        weight += sum(map(len, map(str, value)))
        inside = value.values()
    elif _FLAT.issuperset(map(type, value)):
        inside = ()
    for inner in inside:
        kind = type(inner)
        if kind is str:
            weight += len(inner)
        elif kind not in _FLAT:
            weight += _weight(inner, known)
    known[id(value)] = weight
    return weight


def _inside(item: Any, field: str) -> Iterable[Any]:
    if isinstance(item, dict):
        wrong = next((key for key in item if not isinstance(key, str)), None)
        if wrong is not None:
            raise Invalid(field, f"has the key {wrong!r}; JSON keys are text")
        return item.values()
    return item if isinstance(item, (list, tuple)) else ()


def _text(encode: Encode, value: Any, field: str) -> str:
    if value is None:
        return "null"
    try:
        return encode(value)
    except (RecursionError, TypeError, ValueError) as error:
        raise _refusal(error, field) from error


def _encode(encode: Encode, value: Any, field: str) -> bytes:
    try:
        return encode(value).encode()
    except (RecursionError, TypeError, ValueError) as error:
        raise _refusal(error, field) from error


def _refusal(error: Exception, field: str) -> Invalid:
    if isinstance(error, RecursionError):
        return Invalid(field, "is nested too deeply or contains itself")
    return Invalid(field, f"cannot be written as JSON: {error}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _once_each(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0][:_MOST_OF_KEY]!r} comes more than once in an object")
    return found


# Set up once; `json.loads` sets a decoder up for every call, which takes longer than to read a small text.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_FOREIGN_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_once_each)
