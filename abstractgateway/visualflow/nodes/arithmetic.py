"""Numbers. Results are floating-point numbers unless said, and always finite, because JSON knows no others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...errors import Invalid
from ..flow import Node
from ..node import Evaluate, Inputs, NodeType, Pure
from ..state import Step
from ..values import as_number


def _finite(result: Any) -> float:
    if isinstance(result, complex) or not math.isfinite(result):
        raise Invalid("result", f"{result!r} is not a finite real number")
    return float(result)


def _binary(first: tuple[str, float], second: tuple[str, float], compute: Callable[[float, float], Any]) -> Pure:
    (left, left_default), (right, right_default) = first, second

    def evaluate(inputs: Inputs, _step: Step) -> float:
        a = as_number(inputs.get(left, left_default), left)
        b = as_number(inputs.get(right, right_default), right)
        return _finite(compute(a, b))

    return Pure(lambda _node: evaluate)


def _divide(a: float, b: float) -> float:
    if b == 0:
        raise ZeroDivisionError(f"{a!r} cannot be divided by zero")
    return a / b


def _modulo(a: float, b: float) -> float:
    if b == 0:
        raise ZeroDivisionError(f"{a!r} has no remainder of a division by zero")
    return a % b


def _power(base: float, exponent: float) -> Any:
    return base**exponent


def _abs(_node: Node) -> Evaluate:
    return lambda inputs, _step: abs(as_number(inputs.get("value", 0), "value"))


def _round(_node: Node) -> Evaluate:
    def evaluate(inputs: Inputs, _step: Step) -> float:
        decimals = int(as_number(inputs.get("decimals", 0), "decimals"))
        return _finite(round(as_number(inputs.get("value", 0), "value"), decimals))

    return evaluate


def _bound(inputs: Inputs, pin: str, default: float) -> float:
    try:
        return as_number(inputs.get(pin, default), pin)
    except Invalid:
        return default


def _random_int(_node: Node) -> Evaluate:
    def draw(inputs: Inputs, step: Step) -> int:
        low, high = sorted((int(_bound(inputs, "min", 0)), int(_bound(inputs, "max", 100))))
        drawn: int = step.ctx.random().randint(low, high)
        return drawn

    return draw


def _random_float(_node: Node) -> Evaluate:
    def draw(inputs: Inputs, step: Step) -> float:
        low, high = sorted((_bound(inputs, "min", 0.0), _bound(inputs, "max", 1.0)))
        return _finite(step.ctx.random().uniform(low, high))

    return draw


def _row(name: str, run: Pure, inputs: tuple[str, ...], text: str, defaults: dict[str, Any]) -> NodeType:
    return NodeType(name, "math", run, inputs, ("result",), text, defaults)


_AB = ("a", "b")

TYPES = (
    _row("add", _binary(("a", 0), ("b", 0), lambda a, b: a + b), _AB, "Adds two numbers.", {"a": 0, "b": 0}),
    _row("subtract", _binary(("a", 0), ("b", 0), lambda a, b: a - b), _AB, "Takes b away from a.", {"a": 0, "b": 0}),
    _row("multiply", _binary(("a", 0), ("b", 0), lambda a, b: a * b), _AB, "Multiplies two numbers.", {"a": 0, "b": 0}),
    _row("divide", _binary(("a", 0), ("b", 1), _divide), _AB, "Divides a by b.", {"a": 0, "b": 1}),
    _row(
        "modulo",
        _binary(("a", 0), ("b", 1), _modulo),
        _AB,
        "Gives the remainder of a divided by b, with b's sign.",
        {"a": 0, "b": 1},
    ),
    _row(
        "power",
        _binary(("base", 0), ("exp", 1), _power),
        ("base", "exp"),
        "Raises base to the power exp.",
        {"base": 0, "exp": 1},
    ),
    _row("abs", Pure(_abs), ("value",), "Gives the distance from zero.", {"value": 0}),
    _row(
        "round",
        Pure(_round),
        ("value", "decimals"),
        "Rounds to a number of decimals, halves to the even neighbour.",
        {"value": 0, "decimals": 0},
    ),
    _row(
        "random_int",
        Pure(_random_int),
        ("min", "max"),
        "Draws a whole number, both ends included.",
        {"min": 0, "max": 100},
    ),
    _row(
        "random_float", Pure(_random_float), ("min", "max"), "Draws a number between two others.", {"min": 0, "max": 1}
    ),
)
