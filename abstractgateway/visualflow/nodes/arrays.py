"""Lists."""

from __future__ import annotations

import json
from typing import Any

from ...errors import Invalid
from ..flow import Node
from ..node import Evaluate, Inputs, NodeType, Pure
from ..state import Step
from ..values import MISSING, as_list, read_path, split_path


def _make_array(node: Node) -> Evaluate:
    pins = node.data_inputs or ("a", "b")
    return lambda inputs, _step: [inputs[pin] for pin in pins if inputs.get(pin) is not None]


def _array_concat(node: Node) -> Evaluate:
    pins = node.data_inputs or ("a", "b")

    def concat(inputs: Inputs, _step: Step) -> list[Any]:
        return [item for pin in pins for item in as_list(inputs.get(pin))]

    return concat


def _items(inputs: Inputs) -> list[Any]:
    """A text gives its characters and an object its keys, as everywhere in flows; null and numbers give nothing."""
    value = inputs.get("items", [])
    if isinstance(value, (list, str, dict)):
        return list(value)
    raise Invalid("items", f"{value!r} is not a list")


def _array_map(_node: Node) -> Evaluate:
    def project(inputs: Inputs, _step: Step) -> list[Any]:
        key = str(inputs.get("key", ""))
        return [item.get(key) if isinstance(item, dict) else item for item in _items(inputs)]

    return project


def _array_filter(_node: Node) -> Evaluate:
    def keep(inputs: Inputs, _step: Step) -> list[Any]:
        key, wanted = str(inputs.get("key", "")), inputs.get("value")
        return [item for item in _items(inputs) if (item.get(key) if isinstance(item, dict) else item) == wanted]

    return keep


def _array_length(_node: Node) -> Evaluate:
    def count(inputs: Inputs, _step: Step) -> int:
        value = inputs.get("array")
        return len(value) if isinstance(value, list) else 0

    return count


def _has_tools(_node: Node) -> Evaluate:
    def has(inputs: Inputs, _step: Step) -> bool:
        value = inputs.get("array")
        return isinstance(value, list) and bool(value)

    return has


def _array_append(_node: Node) -> Evaluate:
    return lambda inputs, _step: [*as_list(inputs.get("array")), inputs.get("item")]


def _array_dedup(_node: Node) -> Evaluate:
    def dedup(inputs: Inputs, _step: Step) -> list[Any]:
        value, key = inputs.get("array"), inputs.get("key")
        segments = split_path(key) if isinstance(key, str) else []
        seen: dict[Any, Any] = {}
        for item in value if isinstance(value, list) else []:
            seen.setdefault(_dedup_identity(item, segments), item)
        return list(seen.values())

    return dedup


def _dedup_identity(item: Any, segments: list[str]) -> tuple[str, str]:
    found = read_path(item, segments) if segments else MISSING
    value = item if found is MISSING else found
    return type(value).__name__, json.dumps(value, sort_keys=True, ensure_ascii=False)


def _get_element(_node: Node) -> Evaluate:
    def get(inputs: Inputs, _step: Step) -> dict[str, Any]:
        array, index = inputs.get("array"), _index(inputs.get("index"))
        if isinstance(array, list) and -len(array) <= index < len(array):
            return {"result": array[index], "found": True}
        return {"result": inputs.get("default"), "found": False}

    return get


def _index(value: Any) -> int:
    if isinstance(value, bool):
        return 0
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return 0


def _get_random_element(_node: Node) -> Evaluate:
    def draw(inputs: Inputs, step: Step) -> dict[str, Any]:
        array = inputs.get("array")
        if isinstance(array, list) and array:
            return {"result": array[step.ctx.random().randrange(len(array))], "found": True}
        return {"result": inputs.get("default"), "found": False}

    return draw


def _row(name: str, run: Pure, inputs: tuple[str, ...], text: str, outputs: tuple[str, ...] = ("result",)) -> NodeType:
    return NodeType(name, "arrays", run, inputs, outputs, text)


_FOUND = ("result", "found")

TYPES = (
    _row(
        "make_array", Pure(_make_array, without_pins=False), ("a", "b"), "Makes a list of its inputs, leaving out null."
    ),
    _row("array_concat", Pure(_array_concat, without_pins=False), ("a", "b"), "Puts lists one after the other."),
    _row("array_map", Pure(_array_map), ("items", "key"), "Gives one field of each object of a list."),
    _row("array_filter", Pure(_array_filter), ("items", "key", "value"), "Keeps the objects whose field has a value."),
    _row("array_length", Pure(_array_length), ("array",), "Counts the items of a list."),
    _row("array_append", Pure(_array_append), ("array", "item"), "Gives the list with one more item."),
    _row("array_dedup", Pure(_array_dedup), ("array", "key"), "Keeps the first of items that are the same."),
    _row(
        "get_element",
        Pure(_get_element),
        ("array", "index", "default"),
        "Gives the item at a position, counted from 0.",
        _FOUND,
    ),
    _row(
        "get_random_element",
        Pure(_get_random_element),
        ("array", "default"),
        "Gives an item at a random position.",
        _FOUND,
    ),
    _row("has_tools", Pure(_has_tools), ("array",), "Tells whether a list has items."),
)
