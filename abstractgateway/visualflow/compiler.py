"""From a VisualFlow document to workflows that the kernel runs.

A compiled flow never changes and is shared by all its runs; everything that changes is in the run's variables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..runtime.models import NodeHandler, WorkflowSpec
from .agent import agent_workflow
from .evaluation import InputCompiler, can_be_deferred
from .flow import EXEC_OUT, EXECUTION, Flow, Node, Pin, parse_flow, refusal
from .graph import Graph, Problem, build_graph, find_rings, pins_between, values_read
from .handlers import action_handler, ask_handler, pure_handler, with_deferred_values, with_output_keys
from .node import Action, Ask, Control, NodeType, Pure, Site
from .nodes.agents import agent_workflow_id
from .nodes.elsewhere import REFUSALS
from .nodes.listeners import listener_workflow_id
from .nodes.registry import REGISTRY, is_pure_without_pins, library
from .nodes.subflow import referenced_flow
from .reach import NOWHERE_TO_START, Reach, reach_of
from .sandbox import CodeRunner
from .values import split_path

_WRITABLE = frozenset({"_limits"})
"""Drawn flows set their own limits with an `outputKey`, as in `_limits.max_iterations`."""

_BRANCH_HANDLES = frozenset({"true", "false"})
_MAX_RINGS = 20


@dataclass(frozen=True)
class CompiledFlow:
    """What a document became: its workflow, those that belong to it, and what its author may want to know.

    `listeners` are started with each run of the workflow; `derived` are started by nodes.
    """

    workflow: WorkflowSpec
    derived: tuple[WorkflowSpec, ...] = ()
    listeners: tuple[WorkflowSpec, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def all_workflows(self) -> tuple[WorkflowSpec, ...]:
        return (self.workflow, *self.derived, *self.listeners)


def compile_flow(
    document: Any,
    *,
    workflow_id: str | None = None,
    code_runner: CodeRunner | None = None,
    known_flows: Collection[str] | None = None,
) -> CompiledFlow:
    """Return the workflow of a VisualFlow document, under `workflow_id` or the document's own id.

    `derived` holds one agent loop per agent node. `code_runner` executes the code nodes; without one it is a pool that
    the whole program shares. With `known_flows` a reference to any other flow gives a warning. Raises
    `Invalid("flow", …)` listing every problem at once, each with the node and the pin it is about.
    """
    flow = parse_flow(document, flow_id=workflow_id)
    graph = build_graph(flow, is_pure_without_pins)
    reach = reach_of(graph)
    executed = reach.executed if reach is not None else tuple(flow.nodes)
    used = {**dict.fromkeys(executed), **values_read(graph, executed)}
    problems = _problems(graph)
    advice = (*_undrawn_pins(graph), *_unknown_flows(graph, used, known_flows))
    found = [
        *flow.problems,
        *([NOWHERE_TO_START] if reach is None else []),
        *_unknown_types(flow),
        *_texts(problems, used, is_used=True),
        *_ring_texts(graph, used),
    ]
    if found or reach is None:
        raise refusal([*found, *advice])
    compiled = _compile(_Plan(graph, reach, library(code_runner), workflow_id or flow.id))
    harmless = (*_unreachable(graph, frozenset(executed)), *_never_run(graph), *_texts(problems, used, is_used=False))
    warnings = (*flow.warnings, *graph.warnings, *harmless, *_advice(graph, used), *advice)
    return replace(compiled, warnings=warnings)


def _problems(graph: Graph) -> list[Problem]:
    known = (node for node in graph.flow.nodes.values() if node.type in REGISTRY)
    return [*graph.problems, *(problem for node in known for problem in _node_problems(node, graph))]


def _texts(problems: list[Problem], used: Collection[str], *, is_used: bool) -> list[str]:
    return [problem.text for problem in problems if (problem.node in used) == is_used]


def _ring_texts(graph: Graph, used: Collection[str]) -> list[str]:
    """Return a sentence for each ring of values, with the pins by which one depends on the next."""
    texts: list[str] = []
    for ring in find_rings(graph, used, most=_MAX_RINGS):
        links = zip(ring, [*ring[1:], ring[0]], strict=True)
        named = [f"{item!r} (pin {', '.join(map(repr, pins_between(graph, item, source)))})" for item, source in links]
        texts.append("the values of " + " and ".join(named) + " depend on each other")
    return texts


@dataclass(frozen=True)
class _Plan:
    """What is to be made of a graph: of which of its nodes, by which library, under which id."""

    graph: Graph
    reach: Reach
    types: Mapping[str, NodeType]
    workflow_id: str


def _compile(plan: _Plan) -> CompiledFlow:
    workflow_id, nodes, reach = plan.workflow_id, plan.graph.flow.nodes, plan.reach
    compiler = InputCompiler(plan.graph, plan.types)
    made = {item: _handler(nodes[item], plan, compiler) for item in reach.executed}
    handlers = with_output_keys(made, [nodes[item] for item in reach.executed if nodes[item].data.get("outputKey")])
    handlers = _with_deferred_values(handlers, plan)
    agents = [item for item in reach.executed if nodes[item].type == "agent"]
    return CompiledFlow(
        workflow=WorkflowSpec(workflow_id, reach.entry, handlers),
        derived=tuple(agent_workflow(agent_workflow_id(workflow_id, item)) for item in agents),
        listeners=tuple(
            WorkflowSpec(listener_workflow_id(workflow_id, item), item, handlers) for item in reach.listening
        ),
    )


def _with_deferred_values(handlers: Mapping[str, NodeHandler], plan: _Plan) -> Mapping[str, NodeHandler]:
    graph, nodes = plan.graph, plan.graph.flow.nodes
    slow = {item for item in nodes if item not in graph.execution and can_be_deferred(plan.types[nodes[item].type].run)}
    if not slow:
        return handlers
    read = {item: slow.intersection(values_read(graph, [item])) for item in handlers}
    return {
        item: with_deferred_values(item, handle, sorted(read[item])) if read[item] else handle
        for item, handle in handlers.items()
    }


def _handler(node: Node, plan: _Plan, compiler: InputCompiler) -> NodeHandler:
    site = Site(
        node=node,
        workflow_id=plan.workflow_id,
        resolve=compiler.inputs_of(node),
        targets=plan.graph.targets.get(node.id, {}),
        wired_outputs=plan.graph.wired_outputs.get(node.id, frozenset()),
    )
    run = plan.types[node.type].run
    if isinstance(run, Action):
        return action_handler(site, run)
    if isinstance(run, Pure):
        return pure_handler(site, run)
    return ask_handler(site, run) if isinstance(run, Ask) else run.build(site)


def _unknown_types(flow: Flow) -> list[str]:
    """Unknown types are refused wherever they are: nobody can say what the flow would have done."""
    unknown = [node for node in flow.nodes.values() if node.type not in REGISTRY]
    return [
        f"node {node.id!r} has the type {node.type!r}, which this gateway does not run{_why(node)}" for node in unknown
    ]


def _why(node: Node) -> str:
    reason = REFUSALS.get(node.type)
    return f": {reason}" if reason else ""


def _node_problems(node: Node, graph: Graph) -> list[Problem]:
    check, key = REGISTRY[node.type].check, _reserved_key(node)
    own = check(node) if check is not None else None
    texts = [
        *([own] if own else []),
        *_handle_problems(node, graph),
        *([f"has the reserved 'outputKey' {key!r}"] if key else []),
    ]
    return [Problem(node.id, f"node {node.id!r} ({node.type}) {text}") for text in texts]


def _reserved_key(node: Node) -> str | None:
    key = node.data.get("outputKey")
    segments = split_path(key.strip(), brackets=False) if isinstance(key, str) else []
    is_reserved = bool(segments) and segments[0].startswith("_") and segments[0] not in _WRITABLE
    return str(key) if is_reserved else None


def _handle_problems(node: Node, graph: Graph) -> list[str]:
    """Return what is wrong with the pins by which execution leaves a node."""
    handles = set(graph.targets.get(node.id, {}))
    run = REGISTRY[node.type].run
    if node.type in ("sequence", "parallel"):
        allowed = {pin.id for pin in node.outputs if pin.type == EXECUTION}
        allowed |= {"completed"} if node.type == "parallel" else set()
    elif isinstance(run, Control) and run.handles is not None:
        allowed = set(run.handles)
    elif isinstance(run, (Action, Pure)) and handles != {EXEC_OUT}:
        allowed = {handle for handle in handles if handle in _BRANCH_HANDLES or _is_case(handle)}
        if handles & _BRANCH_HANDLES and any(_is_case(handle) for handle in handles):
            return ["branches by true/false and by cases at once"]
    else:
        allowed = {EXEC_OUT}
    wrong = handles - allowed
    return [f"has no execution pin {handle!r}" for handle in sorted(wrong - {EXEC_OUT} or wrong)]


def _is_case(handle: str) -> bool:
    return handle == "default" or handle.startswith("case:")


def _undrawn_pins(graph: Graph) -> list[str]:
    """Return what is odd about edges: pins that are neither drawn nor in the library.

    They are no problem: editors leave such edges behind, and a node may give or take more than its drawing shows.
    """
    texts: list[str] = []
    for edge in graph.flow.edges:
        source, target = graph.flow.nodes[edge.source], graph.flow.nodes[edge.target]
        if edge.is_data or edge.source_handle != EXEC_OUT:
            texts += _undrawn(source, edge.source_handle, "output", source.outputs)
        if edge.is_data:
            texts += _undrawn(target, edge.target_handle, "input", target.inputs)
        elif not edge.is_execution:
            texts.append(
                f"node {edge.target!r} has an edge from the execution pin {edge.source_handle!r} of {edge.source!r} "
                f"into {edge.target_handle!r}; it does nothing"
            )
    return list(dict.fromkeys(texts))


def _undrawn(node: Node, handle: str, kind: str, drawn: Collection[Pin]) -> list[str]:
    known = REGISTRY.get(node.type)
    listed = (known.outputs if kind == "output" else known.inputs) if known is not None else ()
    if not drawn or handle in listed or any(pin.id == handle for pin in drawn):
        return []
    return [f"node {node.id!r} ({node.type}) has an edge at the {kind} pin {handle!r}, which is not drawn"]


def _unreachable(graph: Graph, reachable: Collection[str]) -> list[str]:
    lost = [node_id for node_id in graph.flow.nodes if node_id in graph.execution and node_id not in reachable]
    return [f"node {node_id!r} ({graph.flow.nodes[node_id].type}) is never reached" for node_id in lost]


def _advice(graph: Graph, used: Collection[str]) -> list[str]:
    nodes = [(node, REGISTRY[node.type].advise) for node in graph.flow.nodes.values() if node.id in used]
    found = [(node, advise(node)) for node, advise in nodes if advise is not None]
    return [f"node {node.id!r} ({node.type}) {text}" for node, text in found if text]


def _unknown_flows(graph: Graph, used: Collection[str], known: Collection[str] | None) -> list[str]:
    if known is None:
        return []
    nodes = [node for node in graph.flow.nodes.values() if node.type == "subflow" and node.id in used]
    return [
        f"node {node.id!r} (subflow) names the flow {flow_id!r}, which is not here"
        for node in nodes
        if (flow_id := referenced_flow(node)) is not None and flow_id not in known
    ]


def _never_run(graph: Graph) -> list[str]:
    idle = [node for node in graph.flow.nodes.values() if node.id not in graph.execution]
    return [
        f"node {node.id!r} ({node.type}) has no execution pins and never runs"
        for node in idle
        if not isinstance(REGISTRY[node.type].run, Pure) and not is_pure_without_pins(node.type)
    ]
