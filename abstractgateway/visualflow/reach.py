"""Which nodes of a flow can ever be executed, and which other flows it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import Invalid
from .flow import parse_flow
from .graph import Graph, build_graph
from .nodes.listeners import LISTENER
from .nodes.registry import is_pure_without_pins
from .nodes.subflow import referenced_flow


@dataclass(frozen=True)
class Reach:
    """Where execution starts, what begins chains of its own beside it, and everything that is executed by either."""

    entry: str
    listening: tuple[str, ...]
    executed: tuple[str, ...]


NOWHERE_TO_START = "there is no execution node to start at"


def reach_of(graph: Graph) -> Reach | None:
    """Return what of a graph is executed, or None when there is nothing to start at."""
    entry = graph.entry()
    if entry is None:
        return None
    first = graph.reachable(entry)
    beside = graph.execution.difference(first)
    listening = tuple(node.id for node in graph.flow.nodes.values() if node.type == LISTENER and node.id in beside)
    chains = [node_id for item in listening for node_id in graph.reachable(item)]
    return Reach(entry, listening, tuple(dict.fromkeys([*first, *chains])))


def referenced_flows(document: Any) -> list[str]:
    """Return the ids of the flows that the executed subflow nodes of a document run, each once.

    Raises `Invalid("flow", …)` when the document cannot be read, or a node names no flow.
    """
    flow = parse_flow(document)
    reach = reach_of(build_graph(flow, is_pure_without_pins))
    if reach is None:
        raise Invalid("flow", NOWHERE_TO_START, code="flow_invalid")
    executed = [flow.nodes[node_id] for node_id in reach.executed]
    found: dict[str, None] = {}
    for node in executed:
        flow_id = referenced_flow(node) if node.type == "subflow" else ""
        if flow_id is None:
            raise Invalid("flow", f"{flow.id!r}: node {node.id!r} (subflow) names no flow to run", code="flow_invalid")
        if flow_id:
            found[flow_id] = None
    return list(found)
