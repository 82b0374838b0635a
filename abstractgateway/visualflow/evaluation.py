"""How a node gets its inputs: everything is looked up when the flow is compiled, nothing is searched for in a step.

For each execution node there is one list of sources in dependency order. A step runs down that list once, so a pure
node is computed afresh in each step and at most once in it, whatever happened in other steps or other runs, and
whatever else the flow contains. Precedence for an execution node: edge, then the bus, then the pin's default, which
only counts for pins without an edge. Pure nodes do not see the bus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import GatewayError
from ..jsonvalue import JsonObject, check_weight
from .flow import MAX_READS, Node, refusal
from .graph import FanIn, Graph, RoutedPin, Source, data_order
from .node import Action, Ask, Control, Deferred, Evaluate, Inputs, NodeType, Pure
from .state import BUS, Step, public_variables
from .values import MISSING, pick

Read = Callable[[Step], Any]
JOIN_PREFIX = "__internal_join_exec__"


class NodeFailed(GatewayError, ValueError):
    """A node that computes a value could not: look at the values that the message shows."""

    code = "node_failed"


@dataclass(frozen=True)
class _Wire:
    """One connected pin: the node its value comes from, and which part of what that node gave."""

    pin: str
    source: str
    handle: str


class InputCompiler:
    """Builds the input functions of all nodes of a flow."""

    def __init__(self, graph: Graph, types: Mapping[str, NodeType]) -> None:
        self._graph = graph
        self._types = types
        self._evaluate: dict[str, Evaluate] = {}
        self._constants: dict[str, Any] = {}
        self._reads: dict[str, tuple[str, Read]] = {}
        self._reads_left = MAX_READS
        for node in graph.flow.nodes.values():
            self._prepare(node)

    def inputs_of(self, node: Node) -> Callable[[Step], Inputs]:
        """Return the function that gives an execution node its inputs in a step.

        Raises `Invalid("flow", …)` when the steps of the flow read more values than anybody draws.
        """
        roots = [source.node for source in self._graph.dependencies(node.id)]
        needed = [item for item in data_order(self._graph, roots) if item not in self._constants]
        self._reads_left -= len(needed)
        if self._reads_left < 0:
            raise refusal([f"node {node.id!r} and those before it read more than {MAX_READS} computed values together"])
        reads = tuple(map(self._read, needed))
        constants, wires = self._wires(node)
        defaults = _open_defaults(node, self._graph)
        bus_of = _bus_reader(node, self._types[node.type].run)
        routed = self._routed(node)

        def resolve(step: Step) -> Inputs:
            inputs = dict(defaults)
            bus = bus_of(step)
            if isinstance(bus, dict):
                inputs.update(bus)
            inputs.update(constants)
            if reads:
                values = step.values
                for source, read in reads:
                    values[source] = read(step)
                for wire in wires:
                    value = pick(values[wire.source], wire.handle)
                    if value is not MISSING:
                        inputs[wire.pin] = value
            return inputs if routed is None else routed(step, inputs)

        return resolve

    def _prepare(self, node: Node) -> None:
        """Literals are known now; other pure nodes get their function, built once for all who read them."""
        run = self._types[node.type].run
        if node.id in self._graph.execution:
            return
        build = run.build if isinstance(run, Pure) else run.as_pure if isinstance(run, Action) else None
        if build is None:
            self._constants[node.id] = MISSING
            return
        evaluate = build(node)
        if can_be_deferred(run):
            evaluate = _resumable(node.id, evaluate)
        if getattr(evaluate, "is_constant", False):
            self._constants[node.id] = evaluate({}, None)  # type: ignore[arg-type]
        self._evaluate[node.id] = evaluate

    def _wires(self, node: Node) -> tuple[JsonObject, tuple[_Wire, ...]]:
        constants: JsonObject = {}
        wires: list[_Wire] = []
        for pin, source in self._graph.sources.get(node.id, {}).items():
            if source.node not in self._constants:
                wires.append(_Wire(pin, source.node, source.handle))
                continue
            value = pick(self._constants[source.node], source.handle)
            if value is not MISSING:
                constants[pin] = value
        return constants, tuple(wires)

    def _read(self, node_id: str) -> tuple[str, Read]:
        """Return a source and what reads or computes it; all nodes that need it share them."""
        if node_id not in self._reads:
            self._reads[node_id] = node_id, self._build_read(node_id)
        return self._reads[node_id]

    def _build_read(self, node_id: str) -> Read:
        node = self._graph.flow.nodes[node_id]
        if node_id not in self._graph.execution:
            return self._compute(node)
        run = self._types[node.type].run
        if isinstance(run, Ask):
            return _effect_reader(node_id, run.present(node, self._graph.wired_outputs.get(node_id, frozenset())))
        return _output_reader(node_id)

    def _compute(self, node: Node) -> Read:
        evaluate = self._evaluate[node.id]
        constants, wires = self._wires(node)
        base = {**_open_defaults(node, self._graph), **constants}

        def compute(step: Step) -> Any:
            inputs = dict(base)
            values = step.values
            for wire in wires:
                value = pick(values[wire.source], wire.handle)
                if value is not MISSING:
                    inputs[wire.pin] = value
            try:
                value = evaluate(inputs, step)
                check_weight(value)
                return value
            except Deferred:
                raise
            # Whatever a node raises goes on; here it only gets the name of the node that raised it.
            except Exception as error:
                raise NodeFailed(f"node {node.id!r} ({node.type}): {type(error).__name__}: {error}") from error

        return compute

    def _routed(self, node: Node) -> Callable[[Step, Inputs], Inputs] | None:
        fan_in = self._graph.fan_ins.get(node.id)
        if fan_in is None or not fan_in.pins:
            return None
        pins = [(pin, self._route_reader(node, pin, routed)) for pin, routed in fan_in.pins.items()]

        def apply(step: Step, inputs: Inputs) -> Inputs:
            which = enter_by_route(step, node.id, fan_in)
            for pin, read in pins:
                inputs[pin] = read(step, which)
            return inputs

        return apply

    def _route_reader(self, node: Node, pin: str, routed: RoutedPin) -> Callable[[Step, int], Any]:
        default = node.pin_defaults.get(pin)

        def read(step: Step, which: int) -> Any:
            chosen = self._value(step, routed.by_route.get(which))
            if chosen is not MISSING:
                return chosen
            if routed.fallback is None:
                return default
            fallback = self._value(step, routed.fallback)
            return None if fallback is MISSING else fallback

        return read

    def _value(self, step: Step, source: Source | None) -> Any:
        if source is None:
            return MISSING
        held = self._constants[source.node] if source.node in self._constants else step.values[source.node]
        return pick(held, source.handle)


def can_be_deferred(run: Pure | Action | Ask | Control) -> bool:
    """Say whether computing a value may take so long that an effect does it."""
    return isinstance(run, Action) and run.may_defer


def _resumable(node_id: str, evaluate: Evaluate) -> Evaluate:
    """Return the evaluation of a node that only computes; it takes what an effect has computed for this step."""

    def compute(inputs: Inputs, step: Step) -> Any:
        done = step.temp("deferred").get(node_id)
        if isinstance(done, dict):
            return done["value"]
        try:
            return evaluate(inputs, step)
        except Deferred as deferred:
            deferred.node_id = node_id
            raise

    return compute


def enter_by_route(step: Step, node_id: str, fan_in: FanIn) -> int:
    """Return the position of the route by which execution came, and remember it for steps that come by none."""
    outputs = step.section("node_outputs")
    temp = step.section()
    node, handle = temp.get("prev_node_id"), temp.get("prev_exec_handle", "")
    known = outputs.get(JOIN_PREFIX + node_id)
    if handle is None and isinstance(known, dict):
        return int(known.get("which", 0))
    which = _matching_route(step, fan_in.routes, node, handle, node_id)
    outputs[JOIN_PREFIX + node_id] = {"which": which, "from": node, "from_handle": fan_in.routes[which].handle}
    return which


def _matching_route(step: Step, routes: tuple[Source, ...], node: Any, handle: Any, node_id: str) -> int:
    same_node = [position for position, route in enumerate(routes) if route.node == node]
    exact = [position for position in same_node if routes[position].handle == handle]
    if exact or len(same_node) == 1:
        return (exact or same_node)[0]
    if same_node:
        step.warn(f"node {node_id!r} could not tell by which pin of {node!r} it was entered and took the first")
    return same_node[0] if same_node else 0


def _open_defaults(node: Node, graph: Graph) -> JsonObject:
    connected = graph.sources.get(node.id, {})
    return {pin: value for pin, value in node.pin_defaults.items() if pin not in connected}


def _bus_reader(node: Node, run: Pure | Action | Ask | Control) -> Read:
    sees_variables = isinstance(run, Pure) or (isinstance(run, Action) and run.sets_bus)
    key = node.data.get("inputKey")
    if sees_variables and isinstance(key, str) and key.strip():
        name = key.strip()
        return lambda step: step.vars.get(name)
    if sees_variables:
        return lambda step: step.vars[BUS] if BUS in step.vars else public_variables(step.vars)
    return lambda step: step.vars.get(BUS)


def _output_reader(node_id: str) -> Read:
    return lambda step: step.temp("node_outputs").get(node_id, MISSING)


def _effect_reader(node_id: str, present: Callable[[Any, Step], Any]) -> Read:
    def read(step: Step) -> Any:
        raw = step.temp("effects").get(node_id, MISSING)
        return MISSING if raw is MISSING else present(raw, step)

    return read
