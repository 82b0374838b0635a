"""What a route takes from its query and its body: declared as fields, read and checked in one place.

A failure lists every wrong field at once, in the form `{type, loc, msg, input[, ctx]}` that clients know.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, cast

from werkzeug.datastructures import FileStorage

from abstractgateway import jsonvalue
from abstractgateway.errors import Invalid

Problem = dict[str, Any]

# The largest integer that SQLite and every JSON reader in 64 bits can hold.
LARGEST = 2**63 - 1

_DEEPEST_QUOTE = 100
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_EVENT_ID = re.compile(r"[0-9]{1,19}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)


class ValidationFailed(Exception):
    """The request does not have the shape its route declares; `problems` says where and why."""

    def __init__(self, problems: list[Problem], *, code: str = "validation_failed") -> None:
        super().__init__(f"{len(problems)} problems with the request")
        self.problems = problems
        self.code = code


class Mismatch(Exception):
    """One value is not what its field wants; `path` leads from the field to the value."""

    def __init__(self, kind: str, msg: str, **ctx: Any) -> None:
        super().__init__(msg)
        self.kind = kind
        self.msg = msg
        self.ctx = ctx
        self.path: tuple[str | int, ...] = ()
        self.found: Any = None

    def inside(self, found: Any, *path: str | int) -> Mismatch:
        """Return this as being about a value found there, unless it is about a value further inside."""
        self.found = self.found if self.path else found
        self.path = (*path, *self.path)
        return self


@dataclass(frozen=True, eq=False)
class Reader:
    """How one value is read, and the JSON schema of what is accepted. `read` raises `Mismatch`."""

    read: Callable[[Any], Any]
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """One input of a route: how its value is read, and what it is when the client does not give it."""

    name: str
    reader: Reader
    default: Callable[[], Any] = lambda: None
    required: bool = False
    nullable: bool = False
    about: str = ""


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch("string_type", "Input should be a valid string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        msg = "Input should be a valid string, unable to parse raw data as a unicode string"
        raise Mismatch("string_unicode", msg) from error
    return value


def _read_query_text(value: str) -> str | None:
    return value.strip() or None


def _read_object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise Mismatch("dict_type", "Input should be a valid dictionary")


def _read_flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    lowered = value.strip().lower() if isinstance(value, str) else ""
    if lowered in _TRUE or lowered in _FALSE:
        return lowered in _TRUE
    raise Mismatch("bool_parsing", "Input should be a valid boolean, unable to interpret input")


text = Reader(_read_text, {"type": "string"})
"""A text; half a surrogate pair, which JSON can spell, is none."""

query_text = Reader(_read_query_text, {"type": "string"})
"""A text of the query; a blank one counts as not given."""

json_object = Reader(_read_object, {"type": "object"})
"""A JSON object."""

flag = Reader(_read_flag, {"type": "boolean"})
"""A boolean; in queries and forms `true false 1 0 yes no on off`, in any case."""


def _read_upload(value: Any) -> BinaryIO:
    if isinstance(value, FileStorage):
        return cast(BinaryIO, value.stream)
    raise Mismatch("value_error", "Value error, Expected a file part of multipart/form-data")


def cursor_of(event_id: str) -> int:
    """Return the cursor that an event id stands for; what is not a cursor of ours counts as 0."""
    return min(int(event_id), LARGEST) if _EVENT_ID.fullmatch(event_id) else 0


upload = Reader(_read_upload, {"type": "string", "format": "binary"})
"""A file of a form, as a stream of bytes."""

event_id = Reader(str.strip, {"type": "string"})
"""What a client has seen last."""


def read_part(reader: Reader, value: Any, *path: str | int) -> Any:
    """Read a part of a value; `path` leads to it. Raises `Mismatch`."""
    try:
        return reader.read(value)
    except Mismatch as mismatch:
        raise mismatch.inside(value, *path) from None


def read_member(item: Any, reader: Reader, place: int, name: str) -> Any:
    """Read a member that the object at a place of a list must have. Raises `Mismatch`."""
    if not isinstance(item, dict):
        about = "Input should be a valid dictionary or object to extract fields from"
        raise Mismatch("model_attributes_type", about).inside(item, place)
    if name not in item:
        raise Mismatch("missing", "Field required").inside(item, place, name)
    return read_part(reader, item[name], place, name)


def cursors(most: int) -> Reader:
    """Return a reader of a list of up to `most` objects with `run_id` and `after`; it gives cursors by run id."""
    after = whole(0)

    def read_one(item: Any, place: int) -> tuple[str, int]:
        run_id = read_member(item, text, place, "run_id").strip()
        return run_id, read_part(after, item.get("after", 0), place, "after")

    def read(value: Any) -> dict[str, int]:
        if not isinstance(value, list):
            raise Mismatch("list_type", "Input should be a valid list")
        if len(value) > most:
            raise Mismatch("too_long", f"List should have at most {most} items", max_length=most)
        found = dict(read_one(item, place) for place, item in enumerate(value))
        return {run_id: cursor for run_id, cursor in found.items() if run_id}

    item = {
        "type": "object",
        "properties": {"run_id": {"type": "string"}, "after": {**after.schema, "default": 0}},
        "required": ["run_id"],
    }
    return Reader(read, {"type": "array", "items": item, "maxItems": most})


def key_text(most: int) -> Reader:
    """Return a reader of texts of 1 to `most` visible ASCII characters."""
    pattern = re.compile(rf"[!-~]{{1,{most}}}", re.ASCII)

    def read(value: str) -> str:
        if not pattern.fullmatch(value):
            raise Mismatch("string_pattern_mismatch", f"Input should be 1 to {most} visible ASCII characters")
        return value

    return Reader(read, {"type": "string", "minLength": 1, "maxLength": most, "pattern": "^[!-~]+$"})


def choice(*names: str) -> Reader:
    """Return a reader of texts whose schema tells the known ones; the service refuses others, and says why."""
    return Reader(_read_text, {"type": "string", "enum": list(names)})


def one_of(*names: str) -> Reader:
    """Return a reader of one of these texts."""

    def read(value: str) -> str:
        if value not in names:
            expected = " or ".join(repr(name) for name in names)
            raise Mismatch("enum", f"Input should be {expected}", expected=expected)
        return value

    return Reader(read, {"type": "string", "enum": list(names)})


def whole(least: int, most: int = LARGEST) -> Reader:
    """Return a reader of whole numbers between two bounds, both allowed."""

    def read(value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON does not tell 1.0 from 1
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise Mismatch("int_type", "Input should be a valid integer")
        if isinstance(value, str) and not _WHOLE.fullmatch(value.strip()):
            raise Mismatch("int_parsing", "Input should be a valid integer, unable to parse string as an integer")
        number = int(value.strip() if isinstance(value, str) else value)
        if number < least:
            raise Mismatch("greater_than_equal", f"Input should be greater than or equal to {least}", ge=least)
        if number > most:
            raise Mismatch("less_than_equal", f"Input should be less than or equal to {most}", le=most)
        return number

    return Reader(read, {"type": "integer", "minimum": least, "maximum": most})


def seconds(above: float, most: float) -> Reader:
    """Return a reader of numbers that are greater than one bound and at most the other."""

    def read(value: str) -> float:
        if not _DECIMAL.fullmatch(value.strip()):
            raise Mismatch("float_parsing", "Input should be a valid number, unable to parse string as a number")
        number = float(value.strip())
        if not number > above:
            raise Mismatch("greater_than", f"Input should be greater than {above:g}", gt=above)
        if number > most:
            raise Mismatch("less_than_equal", f"Input should be less than or equal to {most:g}", le=most)
        return number

    return Reader(read, {"type": "number", "exclusiveMinimum": above, "maximum": most})


def read_query(fields: Sequence[Field], values: Mapping[str, str]) -> dict[str, Any]:
    """Return the value of every field; names that no field has are ignored. Raises `ValidationFailed`."""
    return _read(fields, values, "query")


def read_headers(fields: Sequence[Field], values: Mapping[str, str]) -> dict[str, Any]:
    """Return the value of every field of the request's head. Raises `ValidationFailed`."""
    return _read(fields, values, "header")


def read_form(fields: Sequence[Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of every field of a form, its files included. Raises `ValidationFailed`."""
    return _read(fields, values, "body")


def read_body(fields: Sequence[Field], raw: bytes) -> dict[str, Any]:
    """Return the value of every field of a JSON body; further keys are ignored. Raises `ValidationFailed`."""
    if not raw.strip():
        _fail({"type": "missing", "loc": ["body"], "msg": "Field required", "input": None})
    body = _parse(raw)
    if not isinstance(body, dict):
        msg = "Input should be a valid dictionary or object to extract fields from"
        _fail({"type": "model_attributes_type", "loc": ["body"], "msg": msg, "input": _quotable(body)})
    return _read(fields, body, "body")


def _read(fields: Sequence[Field], values: Mapping[str, Any], place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for field in fields:
        try:
            found[field.name] = _value(field, values)
        except Mismatch as mismatch:
            given = values.get(field.name) if field.name in values else dict(values)
            about = mismatch.found if mismatch.path else given
            problems.append(_problem(mismatch, [place, field.name, *mismatch.path], _quotable(about)))
    if problems:
        raise ValidationFailed(problems)
    return found


def _value(field: Field, values: Mapping[str, Any]) -> Any:
    if field.name not in values:
        if field.required:
            raise Mismatch("missing", "Field required")
        return field.default()
    value = values[field.name]
    return None if value is None and field.nullable else field.reader.read(value)


def _quotable(given: Any, depth: int = 0) -> Any:
    """Return what a refusal may quote: valid JSON, nested no deeper than it can be written; a file is named."""
    if isinstance(given, (dict, list)) and depth == _DEEPEST_QUOTE:
        return "…"
    if isinstance(given, dict):
        return {name: _quotable(value, depth + 1) for name, value in given.items()}
    if isinstance(given, list):
        return [_quotable(value, depth + 1) for value in given]
    if isinstance(given, float) and not math.isfinite(given):
        return str(given)  # JSON can spell 1e999, which we read as a number that it cannot spell
    return given.filename if isinstance(given, FileStorage) else given


def _problem(mismatch: Mismatch, loc: list[str | int], given: Any) -> Problem:
    problem: Problem = {"type": mismatch.kind, "loc": loc, "msg": mismatch.msg, "input": given}
    return {**problem, "ctx": mismatch.ctx} if mismatch.ctx else problem


def _parse(raw: bytes) -> Any:
    try:
        return jsonvalue.loads_foreign(raw)
    except Invalid as error:
        cause = error.__cause__
        at_fault = cause if isinstance(cause, json.JSONDecodeError) else None
        loc: list[Any] = ["body", at_fault.pos] if at_fault else ["body"]
        reason = {"error": at_fault.msg if at_fault else error.why}
        problem = {"type": "json_invalid", "loc": loc, "msg": "JSON decode error", "input": {}, "ctx": reason}
        raise ValidationFailed([problem], code="json_invalid") from error


def _fail(problem: Problem) -> NoReturn:
    raise ValidationFailed([problem])
