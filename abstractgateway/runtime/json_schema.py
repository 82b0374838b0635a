"""Does a value fit a JSON schema: the arguments of a tool call, an answer to a wait, a model's structured output.

The keywords are those that tools, models and forms use. `pattern` and `patternProperties` are not applied: whoever
writes a schema would otherwise choose a regular expression that never comes to an end. As in every JSON schema,
keywords that are not known say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..jsonvalue import canonical_text

MOST_PROBLEMS = 20
MOST_CHECKS = 50_000
"""How many times schemas are applied to values; some that refer to themselves would go on for ever."""
_MOST_NESTED = 100
_SHOWN_CHARS = 80


def problems(value: Any, schema: Any) -> list[str]:
    """Return why a value does not fit a schema, `path: reason` each, at most `MOST_PROBLEMS`; none when it fits.

    `schema` is a JSON schema, an object or a boolean. A schema that is neither, or cannot be applied, is a problem.
    """
    found: list[str] = []
    try:
        for problem in _Check(schema).of(value, schema, "", 0):
            found.append(problem)
            if len(found) >= MOST_PROBLEMS:
                break
    except _Unusable as error:
        found.append(str(error))
    return found


class _Unusable(Exception):
    """The schema itself is wrong."""


class _Check:
    """One value being compared with one schema, whose references lead to places in `root`."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = MOST_CHECKS

    def of(self, value: Any, schema: Any, path: str, depth: int) -> Iterator[str]:
        self._count(depth)
        if schema is False:
            yield _said(path, "is not allowed")
        if isinstance(schema, bool):
            return
        if not isinstance(schema, Mapping):
            raise _Unusable(f"the schema of {path or 'the value'} is {type(schema).__name__}, not an object")
        if value is None and schema.get("nullable") is True:
            return
        for keyword, argument in schema.items():
            check = _KEYWORDS.get(keyword)
            if check is not None:
                yield from check(self, value, argument, schema, path, depth + 1)

    def fits(self, value: Any, schema: Any, depth: int) -> bool:
        return next(self.of(value, schema, "", depth), None) is None

    def target(self, reference: Any) -> Any:
        """Return the schema that a reference such as `#/$defs/name` leads to."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _Unusable(f"the schema refers to {_shown(reference)}, which is not a part of it")
        found = self._root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise _Unusable(f"the schema refers to {_shown(reference)}, which it does not have")
            found = found[name]
        return found

    def _count(self, depth: int) -> None:
        self._left -= 1
        if self._left < 0 or depth > _MOST_NESTED:
            raise _Unusable("the schema takes too long to apply")


Keyword = Callable[[_Check, Any, Any, Mapping[str, Any], str, int], Iterator[str]]
"""Called with the check, the value, the keyword's argument, the schema it is in, the value's path and the depth."""


def _said(path: str, why: str) -> str:
    return f"{path}: {why}" if path else why


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, (list, tuple)),
    "object": lambda value: isinstance(value, Mapping),
}


def _type_name(value: Any) -> str:
    return next((name for name, is_of in _TYPES.items() if is_of(value)), type(value).__name__)


def _type(
    _check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, _depth: int
) -> Iterator[str]:
    names = argument if isinstance(argument, list) else [argument]
    unknown = next((name for name in names if not isinstance(name, str) or name not in _TYPES), None)
    if unknown is not None:
        raise _Unusable(f"the schema has the type {_shown(unknown)}; known: {', '.join(_TYPES)}")
    if not any(_TYPES[name](value) for name in names):
        yield _said(path, f"is {_type_name(value)}, not {' or '.join(names)}")


def _same(one: Any, other: Any) -> bool:
    """Say whether two values are the same JSON; true is not 1, and 1.0 is 1."""
    if _is_number(one) and _is_number(other):
        return bool(one == other)
    try:
        return canonical_text(one) == canonical_text(other)
    except ValueError:
        return False


def _enum(
    _check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, _depth: int
) -> Iterator[str]:
    choices = _list_of("enum", argument)
    if not any(_same(value, choice) for choice in choices):
        yield _said(path, f"{_shown(value)} is not one of {', '.join(_shown(choice) for choice in choices[:20])}")


def _const(_check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, _d: int) -> Iterator[str]:
    if not _same(value, argument):
        yield _said(path, f"{_shown(value)} is not {_shown(argument)}")


def _properties(
    check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, depth: int
) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, schema in _object_of("properties", argument).items():
            if name in value:
                yield from check.of(value[name], schema, _at(path, name), depth)


def _required(
    _check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, _depth: int
) -> Iterator[str]:
    if isinstance(value, Mapping):
        names = _list_of("required", argument)
        odd = next((name for name in names if not isinstance(name, str)), None)
        if odd is not None:
            raise _Unusable(f"the schema requires {_shown(odd)}, which is no name")
        yield from (_said(_at(path, name), "is missing") for name in names if name not in value)


def _additional(
    check: _Check, value: Any, argument: Any, schema: Mapping[str, Any], path: str, depth: int
) -> Iterator[str]:
    if not isinstance(value, Mapping) or argument is True or schema.get("patternProperties"):
        return
    known = _object_of("properties", schema.get("properties") or {})
    for name in (name for name in value if name not in known):
        if argument is False:
            listed = ", ".join(sorted(known)) or "none"
            yield _said(_at(path, str(name)), f"is not known; known: {listed}")
        else:
            yield from check.of(value[name], argument, _at(path, str(name)), depth)


def _items(check: _Check, value: Any, argument: Any, schema: Mapping[str, Any], path: str, depth: int) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        first = 0 if isinstance(argument, list) else len(_list_of("prefixItems", schema.get("prefixItems") or []))
        rules = argument if isinstance(argument, list) else [argument] * (len(value) - first)
        for number, (item, rule) in enumerate(zip(value[first:], rules, strict=False), start=first):
            yield from check.of(item, rule, f"{path}[{number}]", depth)


def _prefix_items(
    check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, depth: int
) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        for number, (item, rule) in enumerate(zip(value, _list_of("prefixItems", argument), strict=False)):
            yield from check.of(item, rule, f"{path}[{number}]", depth)


def _unique(_check: _Check, value: Any, argument: Any, _s: Mapping[str, Any], path: str, _depth: int) -> Iterator[str]:
    if argument is True and isinstance(value, (list, tuple)):
        texts = [canonical_text(item) for item in value]
        if len(set(texts)) < len(texts):
            yield _said(path, "has an item twice")


def _any_of(
    check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, depth: int
) -> Iterator[str]:
    if not any(check.fits(value, schema, depth) for schema in _list_of("anyOf", argument)):
        yield _said(path, "fits none of the forms it may have")


def _one_of(
    check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, depth: int
) -> Iterator[str]:
    fitting = sum(check.fits(value, schema, depth) for schema in _list_of("oneOf", argument))
    if fitting != 1:
        yield _said(path, f"fits {fitting or 'none'} of the forms of which it must have one")


def _all_of(
    check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, depth: int
) -> Iterator[str]:
    for schema in _list_of("allOf", argument):
        yield from check.of(value, schema, path, depth)


def _not(check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, depth: int) -> Iterator[str]:
    if check.fits(value, argument, depth):
        yield _said(path, "has the form that it must not have")


def _ref(check: _Check, value: Any, argument: Any, _schema: Mapping[str, Any], path: str, depth: int) -> Iterator[str]:
    yield from check.of(value, check.target(argument), path, depth)


def _bound(
    measure: Callable[[Any], Any], is_kept: Callable[[Any, Any], bool], why: str, name: str
) -> Callable[..., Iterator[str]]:
    """Return the check of a limit; `measure` gives None for values that the limit does not concern."""

    def check(_c: _Check, value: Any, argument: Any, _s: Mapping[str, Any], path: str, _depth: int) -> Iterator[str]:
        if isinstance(argument, bool) and name.startswith("exclusive"):
            return  # the form of draft 4, in which it only says how `minimum` is meant
        if not _is_number(argument):
            raise _Unusable(f"{name} in the schema is {_shown(argument)}, not a number")
        size = measure(value)
        if size is not None and not is_kept(size, argument):
            yield _said(path, why.format(size=_shown(size), limit=argument))

    return check


def _number(value: Any) -> Any:
    return value if _is_number(value) else None


def _chars(value: Any) -> int | None:
    return len(value) if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return len(value) if isinstance(value, (list, tuple)) else None


def _names(value: Any) -> int | None:
    return len(value) if isinstance(value, Mapping) else None


def _is_multiple(value: Any, unit: Any) -> bool:
    if unit <= 0:
        raise _Unusable(f"multipleOf in the schema is {_shown(unit)}, which is not above 0")
    try:
        return bool(abs(value / unit - round(value / unit)) < 1e-9)
    except OverflowError:
        return bool(value % unit == 0)


def _list_of(name: str, argument: Any) -> list[Any]:
    if not isinstance(argument, list):
        raise _Unusable(f"{name} in the schema is {_shown(argument)}, not a list")
    return argument


def _object_of(name: str, argument: Any) -> Mapping[str, Any]:
    if not isinstance(argument, Mapping):
        raise _Unusable(f"{name} in the schema is {_shown(argument)}, not an object")
    return argument


_KEYWORDS: Mapping[str, Keyword] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "properties": _properties,
    "required": _required,
    "additionalProperties": _additional,
    "prefixItems": _prefix_items,
    "items": _items,
    "uniqueItems": _unique,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "allOf": _all_of,
    "not": _not,
    "$ref": _ref,
    "minimum": _bound(_number, lambda a, b: a >= b, "{size} is less than {limit}", "minimum"),
    "maximum": _bound(_number, lambda a, b: a <= b, "{size} is more than {limit}", "maximum"),
    "exclusiveMinimum": _bound(_number, lambda a, b: a > b, "{size} is not above {limit}", "exclusiveMinimum"),
    "exclusiveMaximum": _bound(_number, lambda a, b: a < b, "{size} is not below {limit}", "exclusiveMaximum"),
    "multipleOf": _bound(_number, _is_multiple, "{size} is no multiple of {limit}", "multipleOf"),
    "minLength": _bound(_chars, lambda a, b: a >= b, "has {size} characters, at least {limit} are needed", "minLength"),
    "maxLength": _bound(_chars, lambda a, b: a <= b, "has {size} characters, at most {limit} may be", "maxLength"),
    "minItems": _bound(_count, lambda a, b: a >= b, "has {size} items, at least {limit} are needed", "minItems"),
    "maxItems": _bound(_count, lambda a, b: a <= b, "has {size} items, at most {limit} may be", "maxItems"),
    "minProperties": _bound(_names, lambda a, b: a >= b, "has {size} names, {limit} are needed", "minProperties"),
    "maxProperties": _bound(_names, lambda a, b: a <= b, "has {size} names, at most {limit} may be", "maxProperties"),
}
