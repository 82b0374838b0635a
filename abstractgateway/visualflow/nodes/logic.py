"""Comparisons and truth values."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from ...errors import Invalid
from ..flow import Node
from ..node import Evaluate, Inputs, NodeType, Pure
from ..state import Step

_EQUALITY: dict[str, Callable[[Any, Any], bool]] = {"==": operator.eq, "!=": operator.ne}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _compare(_node: Node) -> Evaluate:
    def compare(inputs: Inputs, _step: Step) -> bool:
        symbol = str(inputs.get("op", "==")).strip()
        left, right = inputs.get("a"), inputs.get("b")
        if symbol in _EQUALITY:
            return bool(_EQUALITY[symbol](left, right))
        if symbol not in _ORDER:
            raise Invalid("op", f"{symbol!r} is not one of == != < <= > >=")
        try:
            return bool(_ORDER[symbol](left, right))
        except TypeError:
            return False

    return compare


def _not(_node: Node) -> Evaluate:
    return lambda inputs, _step: not inputs.get("value")


def _and(_node: Node) -> Evaluate:
    return lambda inputs, _step: bool(inputs.get("a")) and bool(inputs.get("b"))


def _or(_node: Node) -> Evaluate:
    return lambda inputs, _step: bool(inputs.get("a")) or bool(inputs.get("b"))


def _coalesce(node: Node) -> Evaluate:
    pins = node.data_inputs or ("a", "b")
    return lambda inputs, _step: next((inputs[pin] for pin in pins if inputs.get(pin) is not None), None)


def _is_empty(_node: Node) -> Evaluate:
    def look(inputs: Inputs, _step: Step) -> bool:
        text = inputs.get("text")
        return text is None or not str(text).strip()

    return look


TYPES = (
    NodeType(
        "compare",
        "logic",
        Pure(_compare),
        ("a", "op", "b"),
        ("result",),
        "Compares two values; values that have no order are never less or greater.",
        {"op": "=="},
    ),
    NodeType("not", "logic", Pure(_not), ("value",), ("result",), "True for what counts as false."),
    NodeType("and", "logic", Pure(_and), ("a", "b"), ("result",), "True when both inputs count as true."),
    NodeType("or", "logic", Pure(_or), ("a", "b"), ("result",), "True when an input counts as true."),
    NodeType(
        "is_empty_string",
        "logic",
        Pure(_is_empty, without_pins=False),
        ("text",),
        ("result",),
        "True for null and for a text that holds nothing but blanks.",
    ),
    NodeType("coalesce", "logic", Pure(_coalesce), ("a", "b"), ("result",), "Gives the first input that is not null."),
)
