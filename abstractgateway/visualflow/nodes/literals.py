"""Values that are written into the flow itself."""

from __future__ import annotations

from typing import Any

from ..flow import Node
from ..node import Evaluate, Inputs, NodeType, Pure
from ..state import Step
from ..values import as_names, first_text


class _Constant:
    """An evaluation that gives the same value always, so that it is done once, when the flow is compiled."""

    is_constant = True

    def __init__(self, output: Any) -> None:
        self._output = output

    def __call__(self, _inputs: Inputs, _step: Step) -> Any:
        return self._output


def _literal(node: Node) -> Evaluate:
    return _Constant({"value": node.data.get("literalValue")})


def _allowlist(node: Node) -> Evaluate:
    return _Constant({"tools": as_names(node.data.get("literalValue")) or []})


def _tool_parameters(node: Node) -> Evaluate:
    config = node.config("toolParametersConfig")
    name = first_text(config.get("tool"), config.get("name")) or ""

    def collect(inputs: Inputs, _step: Step) -> dict[str, Any]:
        arguments = {pin: value for pin, value in inputs.items() if value is not None}
        return {**inputs, "tool_call": {"name": name, "arguments": arguments}}

    return collect


def _row(name: str, text: str) -> NodeType:
    return NodeType(name, "literals", Pure(_literal), (), ("value",), text)


TYPES = (
    _row("literal_string", "Gives a fixed text."),
    _row("literal_number", "Gives a fixed number."),
    _row("literal_boolean", "Gives true or false."),
    _row("literal_json", "Gives a fixed JSON value."),
    _row("literal_array", "Gives a fixed list."),
    _row("json_schema", "Gives a fixed JSON schema."),
    NodeType("tools_allowlist", "literals", Pure(_allowlist), (), ("tools",), "Gives a fixed list of tool names."),
    NodeType(
        "tool_parameters",
        "literals",
        Pure(_tool_parameters),
        (),
        ("tool_call",),
        "Makes a tool call out of its inputs.",
    ),
)
