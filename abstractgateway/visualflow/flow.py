"""A VisualFlow document, parsed into values that never change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject, dumps, loads

EXECUTION = "execution"
EXEC_IN = "exec-in"
EXEC_OUT = "exec-out"
MAX_NODES = 5_000
MAX_READS = 50_000
"""Nobody draws more; each step has a list of the values that it reads, so compiling costs what these add up to."""

_MAX_TOLD = 200


@dataclass(frozen=True)
class Pin:
    """A place on a node where an edge may end."""

    id: str
    type: str


@dataclass(frozen=True)
class Node:
    """One box of the drawing; `data` is what the editor stored for it and is never changed."""

    id: str
    type: str
    inputs: tuple[Pin, ...] = ()
    outputs: tuple[Pin, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data_inputs(self) -> tuple[str, ...]:
        """The names of the input pins that carry values, in drawn order."""
        return tuple(pin.id for pin in self.inputs if pin.type != EXECUTION)

    @property
    def data_outputs(self) -> tuple[str, ...]:
        """The names of the output pins that carry values, in drawn order."""
        return tuple(pin.id for pin in self.outputs if pin.type != EXECUTION)

    @property
    def pin_defaults(self) -> JsonObject:
        """The values of pins to which no edge leads."""
        return self.config("pinDefaults")

    def config(self, name: str) -> JsonObject:
        """Return an object of `data`, such as `effectConfig`; empty when it is missing or no object."""
        value = self.data.get(name)
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Edge:
    """An arrow from an output pin to an input pin."""

    source: str
    source_handle: str
    target: str
    target_handle: str

    @property
    def is_execution(self) -> bool:
        return self.target_handle == EXEC_IN

    @property
    def is_data(self) -> bool:
        return self.target_handle != EXEC_IN and self.source_handle != EXEC_OUT


@dataclass(frozen=True)
class Flow:
    """A drawing: its nodes by id in document order, its edges, and what was wrong or odd but harmless about it.

    `problems` keep it from being run, but not from being looked at: they are to be reported with all others.
    """

    id: str
    name: str
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    entry_node: str | None
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class _Findings:
    """What the parser met on its way; what is `fatal` leaves nothing to look at."""

    def __init__(self) -> None:
        self.fatal: list[str] = []
        self.problems: list[str] = []
        self.warnings: list[str] = []


def parse_flow(document: Any, *, flow_id: str | None = None) -> Flow:
    """Return the flow of a VisualFlow document, or of an object that can dump itself as one.

    `flow_id` names a document that does not name itself. Raises `Invalid("flow", …)` for what cannot be read as a flow
    at all; what else is wrong is in `problems`.
    """
    source = loads(dumps(_plain(document), field="flow"), field="flow")
    if not isinstance(source, dict):
        raise Invalid("flow", f"is a JSON {type(source).__name__}, not an object with 'id', 'nodes' and 'edges'")
    found = _Findings()
    identity = _first_id(source) or flow_id or ""
    if not identity:
        found.fatal.append("the document has no 'id'")
    nodes = _parse_nodes(_list_of(source, "nodes", found), found)
    edges = _parse_edges(_list_of(source, "edges", found), nodes, found)
    raise_problems(found.fatal)
    name = source.get("name")
    entry = source.get("entryNode")
    return Flow(
        id=identity,
        name=name if isinstance(name, str) else "",
        nodes=nodes,
        edges=edges,
        entry_node=entry if isinstance(entry, str) and entry in nodes else None,
        warnings=tuple(found.warnings),
        problems=tuple(found.problems),
    )


def raise_problems(problems: list[str]) -> None:
    """Raise one `Invalid("flow", …)` that lists the problems, unless there are none."""
    if problems:
        raise refusal(problems)


def refusal(problems: list[str]) -> Invalid:
    """Return the error that lists the problems, each once; of those that nobody would read it tells the number."""
    different = list(dict.fromkeys(problems))
    more = [f"and {len(different) - _MAX_TOLD} more"] if len(different) > _MAX_TOLD else []
    return Invalid("flow", "; ".join([*different[:_MAX_TOLD], *more]), code="flow_invalid")


def _plain(document: Any) -> Any:
    dump = getattr(document, "model_dump", None) or (
        None if isinstance(document, dict) else getattr(document, "dict", None)
    )
    return dump() if callable(dump) else document


def _first_id(source: JsonObject) -> str:
    for key in ("id", "flow_id", "workflow_id"):
        value = source.get(key)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return ""


def _list_of(source: JsonObject, key: str, found: _Findings) -> list[Any]:
    value = source.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        found.fatal.append(f"{key!r} is not a list")
        return []
    return value


def _parse_nodes(items: list[Any], found: _Findings) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    if len(items) > MAX_NODES:
        found.fatal.append(f"there are {len(items)} nodes; at most {MAX_NODES} are compiled")
        return nodes
    for position, item in enumerate(items):
        identity = _first_text(item, "id")
        if not identity:
            found.warnings.append(f"nodes[{position}] has no 'id' and is left out")
        elif identity in nodes:
            found.problems.append(f"two nodes have the id {identity!r}")
        else:
            nodes[identity] = _parse_node(identity, item)
    return nodes


def _first_text(item: Any, key: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else ""


def _parse_node(identity: str, item: JsonObject) -> Node:
    data = item.get("data")
    known = data if isinstance(data, dict) else {}
    return Node(
        id=identity,
        type=type_name(item.get("type")),
        inputs=_parse_pins(known.get("inputs")),
        outputs=_parse_pins(known.get("outputs")),
        data=known,
    )


def type_name(value: Any) -> str:
    """Return the type that a node's `type` means; old documents spell it `NodeType.IF` or `{"value": "if"}`."""
    if isinstance(value, dict):
        value = value.get("value")
    text = value.strip() if isinstance(value, str) else ""
    return text[len("NodeType.") :].lower() if text.startswith("NodeType.") else text


def _parse_pins(items: Any) -> tuple[Pin, ...]:
    if not isinstance(items, list):
        return ()
    pins = ((_first_text(item, "id"), _first_text(item, "type")) for item in items)
    return tuple(Pin(identity, kind) for identity, kind in pins if identity)


def _parse_edges(items: list[Any], nodes: Mapping[str, Node], found: _Findings) -> tuple[Edge, ...]:
    edges: list[Edge] = []
    for position, item in enumerate(items):
        source, source_handle = _first_text(item, "source"), _first_text(item, "sourceHandle")
        target, target_handle = _first_text(item, "target"), _first_text(item, "targetHandle")
        if not source_handle or not target_handle:
            found.warnings.append(f"edges[{position}] names no pins and is left out")
        elif source not in nodes or target not in nodes:
            missing = target if source in nodes else source
            found.warnings.append(f"edges[{position}] leads to the unknown node {missing!r} and is left out")
        else:
            edges.append(Edge(source, source_handle, target, target_handle))
    return tuple(edges)
