"""The edges of a flow, read as two graphs: where execution goes, and where values come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .flow import EXEC_OUT, EXECUTION, Edge, Flow, Node


@dataclass(frozen=True)
class Source:
    """Where the value of a pin comes from."""

    node: str
    handle: str


@dataclass(frozen=True)
class RoutedPin:
    """A pin whose value depends on the route by which execution came: `by_route[k]`, else `fallback`."""

    by_route: Mapping[int, Source]
    fallback: Source | None


@dataclass(frozen=True)
class FanIn:
    """The routes by which execution may enter a node, and the pins that depend on them."""

    routes: tuple[Source, ...]
    pins: Mapping[str, RoutedPin]


@dataclass(frozen=True)
class Problem:
    """Something that cannot be run, and the node it is about; it only matters if the node is ever reached."""

    node: str
    text: str


@dataclass(frozen=True)
class Graph:
    """What the edges of one flow mean."""

    flow: Flow
    execution: frozenset[str]
    targets: Mapping[str, Mapping[str, str]]
    sources: Mapping[str, Mapping[str, Source]]
    wired_outputs: Mapping[str, frozenset[str]]
    fan_ins: Mapping[str, FanIn]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    def entry(self) -> str | None:
        """Return where execution starts: the named node, else the first that nothing leads to, else the first."""
        if self.flow.entry_node in self.execution:
            return self.flow.entry_node
        ordered = [node_id for node_id in self.flow.nodes if node_id in self.execution]
        led_to = {edge.target for edge in self.flow.edges if edge.is_execution}
        return next((node_id for node_id in ordered if node_id not in led_to), ordered[0] if ordered else None)

    def reachable(self, entry: str) -> list[str]:
        """Return the execution nodes that can be reached from the entry, the entry first."""
        seen = {entry: None}
        queue = [entry]
        while queue:
            for target in self.targets.get(queue.pop(), {}).values():
                if target not in seen:
                    seen[target] = None
                    queue.append(target)
        return list(seen)

    def dependencies(self, node_id: str) -> list[Source]:
        """Return everything the data pins of a node read from."""
        found = list(self.sources.get(node_id, {}).values())
        fan_in = self.fan_ins.get(node_id)
        for pin in fan_in.pins.values() if fan_in else ():
            found.extend(_routes_of(pin))
        return found


@dataclass
class _Draft:
    flow: Flow
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self, node_id: str, text: str) -> None:
        self.problems.append(Problem(node_id, f"node {node_id!r} {text}"))


def build_graph(flow: Flow, is_pure_without_pins: Callable[[str], bool]) -> Graph:
    """Return the graphs of a flow.

    `is_pure_without_pins` tells which types only compute when a node lists no pins at all. Problems are collected
    in `Graph.problems`, not raised, so that they can be reported together with all others of the flow.
    """
    draft = _Draft(flow)
    execution = frozenset(_execution_nodes(flow, is_pure_without_pins))
    sources = _data_sources(draft)
    fan_ins = _fan_ins(draft, sources)
    targets = _exec_targets(draft, execution)
    return Graph(
        flow=flow,
        execution=execution,
        targets=targets,
        sources=sources,
        wired_outputs=_wired_outputs(flow),
        fan_ins=fan_ins,
        problems=tuple(draft.problems),
        warnings=tuple(draft.warnings),
    )


def data_order(graph: Graph, roots: Iterable[str]) -> list[str]:
    """Return the nodes that must be read or computed for these, each after everything it depends on.

    Execution nodes are ends: their outputs are stored. Cycles must have been refused before.
    """
    ordered: dict[str, None] = {}
    stack = [(node_id, False) for node_id in reversed(list(roots))]
    while stack:
        node_id, is_ready = stack.pop()
        if node_id in ordered:
            continue
        if is_ready or node_id in graph.execution:
            ordered[node_id] = None
            continue
        stack.append((node_id, True))
        stack.extend((source.node, False) for source in reversed(graph.dependencies(node_id)))
    return list(ordered)


def _execution_nodes(flow: Flow, is_pure_without_pins: Callable[[str], bool]) -> list[str]:
    """A node is executed if a pin or edge of it says so, or if it has no pins at all and its type is one that acts."""
    drawn_in = {end for edge in flow.edges if edge.is_execution for end in (edge.source, edge.target)}
    return [
        node.id
        for node in flow.nodes.values()
        if node.id in drawn_in
        or any(pin.type == EXECUTION for pin in (*node.inputs, *node.outputs))
        or not (node.inputs or node.outputs or is_pure_without_pins(node.type))
    ]


def _exec_targets(draft: _Draft, execution: frozenset[str]) -> dict[str, dict[str, str]]:
    targets: dict[str, dict[str, str]] = {}
    for edge in draft.flow.edges:
        if not edge.is_execution:
            continue
        handles = targets.setdefault(edge.source, {})
        known = handles.setdefault(edge.source_handle, edge.target)
        if known != edge.target:
            text = f"has two execution edges on {edge.source_handle!r}, to {known!r} and {edge.target!r}"
            draft.refuse(edge.source, text)
    return targets


def _data_sources(draft: _Draft) -> dict[str, dict[str, Source]]:
    sources: dict[str, dict[str, Source]] = {}
    for edge in draft.flow.edges:
        if not edge.is_data:
            continue
        pins = sources.setdefault(edge.target, {})
        source = Source(edge.source, edge.source_handle)
        if pins.get(edge.target_handle, source) != source:
            draft.warnings.append(
                f"node {edge.target!r} has several edges into {edge.target_handle!r}; the last one counts"
            )
        pins[edge.target_handle] = source
    return sources


def _wired_outputs(flow: Flow) -> dict[str, frozenset[str]]:
    wired: dict[str, set[str]] = {}
    for edge in flow.edges:
        if edge.is_data:
            wired.setdefault(edge.source, set()).add(edge.source_handle)
    return {node_id: frozenset(handles) for node_id, handles in wired.items()}


def values_read(graph: Graph, roots: Iterable[str]) -> dict[str, None]:
    """Return the nodes whose values these read, directly or by way of others; rings do no harm."""
    found: dict[str, None] = {}
    queue = [source.node for node_id in roots for source in graph.dependencies(node_id)]
    while queue:
        node_id = queue.pop()
        if node_id not in found:
            found[node_id] = None
            queue += [] if node_id in graph.execution else [source.node for source in graph.dependencies(node_id)]
    return found


def find_rings(graph: Graph, computed: Iterable[str], *, most: int) -> list[list[str]]:
    """Return rings of values that depend on each other, at least one of each tangle, but no more than `most`.

    In a ring, each node reads from the next, and the last from the first. No recursion: drawings may be deep.
    """
    finished: set[str] = set()
    rings: list[list[str]] = []
    for root in computed:
        path: dict[str, None] = {}
        stack: list[tuple[str, bool]] = [(root, False)]
        while stack:
            node_id, is_leaving = stack.pop()
            if is_leaving:
                path.pop(node_id)
                finished.add(node_id)
            elif node_id in path:
                rings.append(list(path)[list(path).index(node_id) :])
                if len(rings) == most:
                    return rings
            elif node_id not in finished and node_id not in graph.execution:
                path[node_id] = None
                stack.append((node_id, True))
                stack.extend((source.node, False) for source in dict.fromkeys(graph.dependencies(node_id)))
    return rings


def pins_between(graph: Graph, target: str, source: str) -> list[str]:
    """Return the pins by which a node reads from another."""
    fan_in = graph.fan_ins.get(target)
    routed = fan_in.pins if fan_in else {}
    direct = [pin for pin, found in graph.sources.get(target, {}).items() if found.node == source]
    by_route = [pin for pin, found in routed.items() if source in {item.node for item in _routes_of(found)}]
    return list(dict.fromkeys([*direct, *by_route]))


def _routes_of(pin: RoutedPin) -> list[Source]:
    return [*pin.by_route.values(), *([pin.fallback] if pin.fallback else [])]


def _fan_ins(draft: _Draft, sources: Mapping[str, Mapping[str, Source]]) -> dict[str, FanIn]:
    incoming: dict[str, list[Edge]] = {}
    for edge in draft.flow.edges:
        if edge.is_execution:
            incoming.setdefault(edge.target, []).append(edge)
    return {
        target: _fan_in(draft, draft.flow.nodes[target], edges, sources.get(target, {}))
        for target, edges in incoming.items()
        if len(edges) > 1
    }


def _fan_in(draft: _Draft, node: Node, edges: list[Edge], sources: Mapping[str, Source]) -> FanIn:
    drawn = [Source(edge.source, edge.source_handle) for edge in edges]
    if len(set(drawn)) < len(drawn):
        draft.refuse(node.id, "is entered twice from the same execution pin")
    routes = _declared_routes(draft, node)
    if routes is None:
        routes = {f"{source.node}::{source.handle}": source for source in drawn}
    elif set(routes.values()) != set(drawn):
        draft.refuse(node.id, "has 'entryRoutes' that are not the execution edges that lead to it")
    return FanIn(tuple(routes.values()), _routed_pins(draft, node, list(routes), sources))


def _declared_routes(draft: _Draft, node: Node) -> dict[str, Source] | None:
    items = node.data.get("entryRoutes")
    if not isinstance(items, list) or not items:
        return None
    routes: dict[str, Source] = {}
    for item in items:
        source = _source_of(item, ("sourceNodeId", "source"), ("sourceHandle",), EXEC_OUT)
        if source is None:
            draft.refuse(node.id, "has an entry route without a source node")
            continue
        key = str(item.get("key") or f"{source.node}::{source.handle}")
        if key in routes:
            draft.refuse(node.id, f"has two entry routes with the key {key!r}")
        routes[key] = source
    return routes


def _routed_pins(draft: _Draft, node: Node, keys: list[str], sources: Mapping[str, Source]) -> dict[str, RoutedPin]:
    pins: dict[str, RoutedPin] = {}
    for pin, overrides in sorted(node.config("inputRouteOverrides").items()):
        by_route: dict[int, Source] = {}
        for key, item in overrides.items() if isinstance(overrides, dict) else ():
            source = _source_of(item, ("sourceNodeId", "source"), ("sourceHandle", "handle"), "result")
            if key not in keys:
                draft.refuse(node.id, f"overrides pin {pin!r} for the unknown route {key!r}")
            elif source is None or source.node not in draft.flow.nodes:
                draft.refuse(node.id, f"overrides pin {pin!r} with a node that does not exist")
            else:
                by_route[keys.index(key)] = source
        pins[pin] = RoutedPin(by_route, sources.get(pin))
    return pins


def _source_of(item: Any, node_keys: tuple[str, ...], handle_keys: tuple[str, ...], handle: str) -> Source | None:
    if not isinstance(item, dict):
        return None
    node = next((item[key] for key in node_keys if isinstance(item.get(key), str)), None)
    named = next((item[key] for key in handle_keys if isinstance(item.get(key), str)), handle)
    return Source(node, named) if node else None
