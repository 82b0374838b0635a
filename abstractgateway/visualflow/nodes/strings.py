"""Texts. Values that are no text become one as the flow's users are used to: null is `None`, true is `True`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from string import Formatter
from typing import Any

from ...errors import Invalid
from ..flow import Node
from ..node import Evaluate, Inputs, NodeType, Pure
from ..state import Step
from ..values import MISSING, as_list, as_number, as_object, read_path, split_path

_MAX_FORMAT_SPEC = re.compile(r"[^{}]*?\d{0,4}[^\d{}]*(?:\.\d{1,3})?[^\d{}]*\Z")
_MOST_FORMAT_SPEC = 64
"""Longer than any that is of use; looking at one takes the cube of its length."""

MAX_TEXT = 67_108_864
"""How many characters a text that is put together may have; a run's state may have about as many bytes."""

_ESCAPES = (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r"))
_FIRST_ONLY = frozenset({"first", "once", "1"})


def _text(inputs: Inputs, pin: str) -> str:
    return str(inputs.get(pin, ""))


def _text_or_empty(inputs: Inputs, pin: str) -> str:
    value = inputs.get(pin)
    return "" if value is None else str(value)


def _together(parts: Iterable[str], separator: str = "") -> str:
    """Return texts as one. Raises `Invalid` before it gets too long, wherever its parts come from."""
    kept, size = [], -len(separator)
    for part in parts:
        size += len(separator) + len(part)
        _check_size(size)
        kept.append(part)
    return separator.join(kept)


def _check_size(size: int) -> None:
    if size > MAX_TEXT:
        raise Invalid("text", f"would have {size:,} characters; one that is put together may have {MAX_TEXT:,}")


def _unescape(text: str) -> str:
    for written, meant in _ESCAPES:
        text = text.replace(written, meant)
    return text


def _of_text(convert: Callable[[str], Any]) -> Pure:
    return Pure(lambda _node: lambda inputs, _step: convert(_text(inputs, "text")))


def _concat(node: Node) -> Evaluate:
    pins = node.data_inputs
    configured = node.config("concatConfig").get("separator", " ")
    separator = _unescape(configured) if isinstance(configured, str) else " "

    def join(inputs: Inputs, _step: Step) -> str:
        names = pins or _letters_first(inputs)
        return _together(("" if inputs[pin] is None else str(inputs[pin]) for pin in names if pin in inputs), separator)

    return join


def _letters_first(inputs: Inputs) -> list[str]:
    return sorted(inputs, key=lambda name: (not (len(name) == 1 and "a" <= name <= "z"), name))


def _split(_node: Node) -> Evaluate:
    def split(inputs: Inputs, _step: Step) -> list[str]:
        text = _text_or_empty(inputs, "text")
        delimiter = inputs.get("delimiter", ",")
        separator = "" if delimiter is None else _unescape(str(delimiter))
        if not separator:
            return [text] if text else []
        parts = text.split(separator, _max_split(inputs.get("maxsplit")))
        if inputs.get("trim", True):
            parts = [part.strip() for part in parts]
        return [part for part in parts if part] if inputs.get("drop_empty", True) else parts

    return split


def _max_split(value: Any) -> int:
    try:
        limit = int(value)
    except (TypeError, ValueError, OverflowError):
        return -1
    return limit if limit >= 0 else -1


def _join(_node: Node) -> Evaluate:
    def join(inputs: Inputs, _step: Step) -> str:
        delimiter = _unescape(str(inputs.get("delimiter", ",")))
        return _together(("" if item is None else str(item) for item in as_list(inputs.get("items"))), delimiter)

    return join


def _format(_node: Node) -> Evaluate:
    def render(inputs: Inputs, _step: Step) -> str:
        template, values = _text(inputs, "template"), inputs.get("values", {})
        if not isinstance(values, dict):
            return template
        return _together(_format_piece(piece, values) for piece in Formatter().parse(template))

    return render


def _format_piece(piece: tuple[str, str | None, str | None, str | None], values: dict[str, Any]) -> str:
    text, name, spec, conversion = piece
    if name is None:
        return text
    value = _format_field(name, values)
    if conversion:
        value = Formatter().convert_field(value, conversion)
    if not spec:
        return text + str(value)
    if len(spec) > _MOST_FORMAT_SPEC or not _MAX_FORMAT_SPEC.match(spec) or re.search(r"\d{5}", spec):
        raise Invalid(
            "template", f"{{{name}:{spec[:_MOST_FORMAT_SPEC]}}} has a format that is not allowed; widths go up to 9999"
        )
    return text + format(value, spec)


def _format_field(name: str, values: dict[str, Any]) -> Any:
    """Plain names and `[index]` only: attributes would reach into the host program."""
    head, bracket, rest = name.partition("[")
    if "." in name or "__" in name:
        raise Invalid("template", f"{{{name}}} reaches for an attribute; use names and [index] only")
    if not head or head.isdecimal():
        raise Invalid("template", f"{{{name}}} has no name; positions are not supported")
    if head not in values:
        raise Invalid("template", f"{{{name}}} is not among the values {sorted(values)}")
    return _format_index(name, values[head], rest.rstrip("]").split("][")) if bracket else values[head]


def _format_index(name: str, value: Any, keys: list[str]) -> Any:
    found = read_path(value, keys)
    if found is MISSING:
        raise Invalid("template", f"{{{name}}} leads to nothing")
    return found


def _string_template(_node: Node) -> Evaluate:
    def render(inputs: Inputs, _step: Step) -> str:
        values = as_object(inputs.get("vars"))
        template = inputs.get("template")
        return _together(_filled(str(template), values)) if template else ""

    return render


def _filled(template: str, values: dict[str, Any]) -> Iterator[str]:
    """Return the pieces of a template with the value of each `{{…}}` in its place; what is not closed stays."""
    at = 0
    while (start := template.find("{{", at)) >= 0 and (end := template.find("}}", start + 2)) >= 0:
        yield template[at:start]
        yield _placeholder(template[start + 2 : end], values)
        at = end + 2
    yield template[at:]


def _placeholder(expression: str, values: dict[str, Any]) -> str:
    path, *filters = (part.strip() for part in expression.split("|"))
    value = read_path(values, split_path(path)) if path else MISSING
    if value is MISSING or value is None:
        return ""
    for item in filters:
        value = _apply_filter(item, value)
    return str(value)


def _apply_filter(expression: str, value: Any) -> Any:
    name, _, argument = expression.partition("(")
    if name == "json":
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    if name == "join" and isinstance(value, list):
        delimiter = argument.rstrip(")").strip().strip("'\"") if argument.rstrip(")").strip() else ", "
        return _together(("" if item is None else str(item) for item in value), delimiter)
    simple: dict[str, Callable[[str], str]] = {"trim": str.strip, "lower": str.lower, "upper": str.upper}
    return simple[name](str(value)) if name in simple else value


def _substring(_node: Node) -> Evaluate:
    def cut(inputs: Inputs, _step: Step) -> str:
        start = int(as_number(inputs.get("start", 0), "start"))
        end = inputs.get("end")
        return _text(inputs, "text")[start : None if end is None else int(as_number(end, "end"))]

    return cut


def _contains(_node: Node) -> Evaluate:
    def contains(inputs: Inputs, _step: Step) -> bool:
        pattern = _text_or_empty(inputs, "pattern")
        return bool(pattern) and pattern in _text_or_empty(inputs, "text")

    return contains


def _replace(_node: Node) -> Evaluate:
    def replace(inputs: Inputs, _step: Step) -> str:
        text, pattern = _text_or_empty(inputs, "text"), _text_or_empty(inputs, "pattern")
        if not pattern:
            return text
        replacement, most = _text_or_empty(inputs, "replacement"), _how_often(inputs.get("mode"))
        count = text.count(pattern)
        times = count if most < 0 else min(count, most)
        _check_size(len(text) + times * (len(replacement) - len(pattern)))
        return text.replace(pattern, replacement, most)

    return replace


def _how_often(mode: Any) -> int:
    if isinstance(mode, bool):
        return int(mode)
    text = "" if mode is None else str(mode).strip().lower()
    if text in _FIRST_ONLY:
        return 1
    try:
        return int(text)
    except ValueError:
        return -1


def _row(name: str, run: Pure, inputs: tuple[str, ...], text: str, defaults: dict[str, Any] | None = None) -> NodeType:
    return NodeType(name, "strings", run, inputs, ("result",), text, defaults or {})


TYPES = (
    _row("concat", Pure(_concat), ("a", "b"), "Puts the texts of its inputs together, with a separator between them."),
    _row(
        "split",
        Pure(_split),
        ("text", "delimiter"),
        "Cuts a text into trimmed, non-empty parts.",
        {"delimiter": ",", "trim": True, "drop_empty": True},
    ),
    _row(
        "join",
        Pure(_join),
        ("items", "delimiter"),
        "Puts the items of a list together as one text.",
        {"delimiter": ","},
    ),
    _row("format", Pure(_format), ("template", "values"), "Fills {name} and {name[index]} in a template."),
    _row("string_template", Pure(_string_template), ("template", "vars"), "Fills {{ path | filter }} in a template."),
    _row("uppercase", _of_text(str.upper), ("text",), "Makes all letters capital."),
    _row("lowercase", _of_text(str.lower), ("text",), "Makes all letters small."),
    _row("trim", _of_text(str.strip), ("text",), "Takes the blanks off both ends."),
    _row(
        "substring",
        Pure(_substring),
        ("text", "start", "end"),
        "Gives the text from start up to, but not including, end.",
        {"start": 0},
    ),
    _row("length", _of_text(len), ("text",), "Counts the characters of a text."),
    _row("contains", Pure(_contains), ("text", "pattern"), "Tells whether a text contains another."),
    _row(
        "replace",
        Pure(_replace),
        ("text", "pattern", "replacement", "mode"),
        "Replaces a text inside another: all of them, the first, or so many.",
        {"mode": "all"},
    ),
)
