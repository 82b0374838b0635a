"""From a VisualFlow document to workflows that the kernel runs.

A compiled flow never changes and is shared by all its runs; everything that changes is in the run's variables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import Invalid
from ..runtime.models import NodeHandler, WorkflowSpec
from .agent import agent_workflow
from .evaluation import InputCompiler
from .flow import EXEC_OUT, EXECUTION, Flow, Node, parse_flow, raise_problems
from .graph import Graph, Problem, build_graph, find_cycle
from .handlers import action_handler, ask_handler, pure_handler, with_output_keys
from .node import Action, Ask, Control, Pure, Site
from .nodes.agents import agent_workflow_id
from .nodes.registry import REGISTRY, is_pure_without_pins
from .values import split_path

_BRANCH_HANDLES = frozenset({"true", "false"})


@dataclass(frozen=True)
class CompiledFlow:
    """What a document became: its workflow, those that belong to it, and what its author may want to know."""

    workflow: WorkflowSpec
    derived: tuple[WorkflowSpec, ...] = ()
    warnings: tuple[str, ...] = ()


def compile_flow(document: Any, *, workflow_id: str | None = None) -> CompiledFlow:
    """Return the workflow of a VisualFlow document, under `workflow_id` or the document's own id.

    `derived` holds one agent loop per agent node. Raises `Invalid("flow", …)` listing every problem at once, each with
    the node it is about.
    """
    flow = parse_flow(document, flow_id=workflow_id)
    graph = build_graph(flow, is_pure_without_pins)
    entry = graph.entry()
    if entry is None:
        raise Invalid("flow", "there is no execution node to start at", code="flow_invalid")
    reachable = graph.reachable(entry)
    known = (node for node in flow.nodes.values() if node.type in REGISTRY)
    problems = [*graph.problems, *(problem for node in known for problem in _node_problems(node, graph))]
    raise_problems(
        [*_unknown_types(flow), *_texts(problems, reachable, is_reached=True), *_cycle_problem(graph, reachable)]
    )
    compiled = _compile(graph, entry, reachable, workflow_id or flow.id)
    harmless = (*_unreachable(graph, reachable), *_never_run(graph), *_texts(problems, reachable, is_reached=False))
    return replace(compiled, warnings=(*flow.warnings, *graph.warnings, *harmless))


def _texts(problems: list[Problem], reachable: list[str], *, is_reached: bool) -> list[str]:
    known = set(reachable)
    return [problem.text for problem in problems if (problem.node in known) == is_reached]


def _cycle_problem(graph: Graph, reachable: list[str]) -> list[str]:
    ring = find_cycle(graph, reachable)
    return ["the values of " + " and ".join(map(repr, ring)) + " depend on each other"] if ring else []


def _compile(graph: Graph, entry: str, reachable: list[str], workflow_id: str) -> CompiledFlow:
    flow = graph.flow
    compiler = InputCompiler(graph, REGISTRY)
    handlers = {node_id: _handler(flow.nodes[node_id], graph, compiler, workflow_id) for node_id in reachable}
    keyed = [flow.nodes[node_id] for node_id in reachable if flow.nodes[node_id].data.get("outputKey")]
    agents = [node_id for node_id in reachable if flow.nodes[node_id].type == "agent"]
    return CompiledFlow(
        workflow=WorkflowSpec(workflow_id, entry, with_output_keys(handlers, keyed)),
        derived=tuple(agent_workflow(agent_workflow_id(workflow_id, node_id)) for node_id in agents),
    )


def _handler(node: Node, graph: Graph, compiler: InputCompiler, workflow_id: str) -> NodeHandler:
    site = Site(
        node=node,
        workflow_id=workflow_id,
        resolve=compiler.inputs_of(node),
        targets=graph.targets.get(node.id, {}),
        wired_outputs=graph.wired_outputs.get(node.id, frozenset()),
    )
    run = REGISTRY[node.type].run
    if isinstance(run, Action):
        return action_handler(site, run)
    if isinstance(run, Pure):
        return pure_handler(site, run)
    return ask_handler(site, run) if isinstance(run, Ask) else run.build(site)


def _unknown_types(flow: Flow) -> list[str]:
    """Unknown types are refused wherever they are: nobody can say what the flow would have done."""
    unknown = [node for node in flow.nodes.values() if node.type not in REGISTRY]
    return [f"node {node.id!r} has the type {node.type!r}, which this gateway does not run" for node in unknown]


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
    return str(key) if segments and segments[0].startswith("_") else None


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
    wrong = sorted(handles - allowed)
    return [f"has no execution pin {handle!r}" for handle in wrong]


def _is_case(handle: str) -> bool:
    return handle == "default" or handle.startswith("case:")


def _unreachable(graph: Graph, reachable: list[str]) -> list[str]:
    lost = [node_id for node_id in graph.flow.nodes if node_id in graph.execution and node_id not in reachable]
    return [f"node {node_id!r} ({graph.flow.nodes[node_id].type}) is never reached" for node_id in lost]


def _never_run(graph: Graph) -> list[str]:
    idle = [node for node in graph.flow.nodes.values() if node.id not in graph.execution]
    return [
        f"node {node.id!r} ({node.type}) has no execution pins and never runs"
        for node in idle
        if not isinstance(REGISTRY[node.type].run, Pure) and not is_pure_without_pins(node.type)
    ]
