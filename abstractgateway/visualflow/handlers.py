"""The step functions of nodes that compute, act and ask."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject, check_weight
from ..runtime.context import StepContext
from ..runtime.models import Effect, NodeHandler, RunState, StepPlan
from .flow import EXEC_OUT, Node
from .node import Action, Ask, Deferred, Inputs, Pure, Site, continue_at
from .nodes.registry import REGISTRY
from .state import Step, result_path, set_exec_handle
from .values import as_object, split_path, write_path

_CAME_FROM = ("prev_node_id", "prev_exec_handle")


def action_handler(site: Site, action: Action) -> NodeHandler:
    """Return the step of a node that computes an output when execution comes by."""
    node_id, evaluate = site.node.id, _evaluation(site, action)
    store = output_writer(site.node)
    choose = _chooser(site)
    finish = action.finish or _finish_with_output

    def handle(run: RunState, ctx: StepContext) -> StepPlan:
        step = Step(run, ctx)
        output = evaluate(step)
        if isinstance(output, StepPlan):
            return output
        check_weight(output)
        step.keep_output(node_id, output)
        if action.sets_bus:
            step.bus = output
        if store is not None:
            store(step, output)
        if action.is_end:
            return StepPlan(node_id, complete_output=finish(step, output))
        target = choose(step, output, action.sets_bus)
        if target is None:
            return StepPlan(node_id, complete_output=finish(step, output))
        return StepPlan(node_id, next_node=target)

    return handle


def _evaluation(site: Site, action: Action) -> Callable[[Step], Any]:
    """Return what computes the output of an action, or the plan of the effect that does so."""
    node_id, evaluate, resolve = site.node.id, action.build(site.node), site.resolve
    if not action.may_defer:
        return lambda step: evaluate(resolve(step), step)

    def compute(step: Step) -> Any:
        done = step.section("deferred").pop(node_id, None)
        if done is not None:
            return done["value"]
        try:
            return evaluate(resolve(step), step)
        except Deferred as deferred:
            if deferred.node_id is not None:
                raise
            return _deferral(node_id, node_id, deferred)

    return compute


def _deferral(node_id: str, computed: str, deferred: Deferred) -> StepPlan:
    effect = Effect(deferred.effect, deferred.payload, result_path("deferred", computed))
    return StepPlan(node_id, effect=effect, next_node=node_id)


def with_deferred_values(node_id: str, handle: NodeHandler, slow: Collection[str]) -> NodeHandler:
    """Return the step of a node that reads values which may take long to compute.

    Each such value becomes an effect, after which the step begins again as if it came from where it first came from.
    """

    def handle_or_defer(run: RunState, ctx: StepContext) -> StepPlan:
        step = Step(run, ctx)
        temp, began = step.section(), step.section("deferred_steps").pop(node_id, None)
        if began is not None:
            for key in _CAME_FROM:
                temp.pop(key, None)
            temp.update(began)
        before = {key: temp[key] for key in _CAME_FROM if key in temp}
        try:
            plan = handle(run, ctx)
        except Deferred as deferred:
            step.section("deferred_steps")[node_id] = before
            return _deferral(node_id, deferred.node_id or node_id, deferred)
        for item in slow:
            step.section("deferred").pop(item, None)
        return plan

    return handle_or_defer


def pure_handler(site: Site, pure: Pure) -> NodeHandler:
    """Return the step of a computing node that somebody drew into the line of execution."""
    return action_handler(site, Action(pure.build))


def ask_handler(site: Site, ask: Ask) -> NodeHandler:
    """Return the step of a node that asks the kernel for an effect and goes on when its result is there."""
    node_id, resolve = site.node.id, site.resolve
    payload_of = ask.build(site)
    key = result_path("effects", node_id)
    following = site.targets.get(EXEC_OUT) or next(iter(site.targets.values()), None)

    prepare = _preparation(site, ask)

    def handle(run: RunState, ctx: StepContext) -> StepPlan:
        step = Step(run, ctx)
        inputs, first = (resolve(step), None) if prepare is None else prepare(step)
        if first is not None:
            return StepPlan(node_id, effect=first, next_node=node_id)
        payload = payload_of(inputs, step)
        target = continue_at(step, following)
        if target is not None:
            payload["resume_to_node"] = target
        return StepPlan(node_id, effect=Effect(ask.effect, payload, key), next_node=target)

    return handle


def _preparation(site: Site, ask: Ask) -> Callable[[Step], tuple[Inputs, Effect | None]] | None:
    """Return what gives a node's inputs, and the effect that has to be performed before its own."""
    if ask.before is None:
        return None
    node_id, resolve, next_effect = site.node.id, site.resolve, ask.before(site)

    def prepare(step: Step) -> tuple[Inputs, Effect | None]:
        held = step.temp("held_inputs").get(node_id)
        inputs = resolve(step) if held is None else held
        effect = next_effect(inputs, step, held is None)
        if effect is not None:
            step.section("held_inputs")[node_id] = inputs
        elif held is not None:
            del step.section("held_inputs")[node_id]
        return inputs, effect

    return prepare


def output_writer(node: Node) -> Callable[[Step, Any], None] | None:
    """Return what stores a node's value under the variable that its `outputKey` names, if it names one."""
    key = node.data.get("outputKey")
    segments = split_path(key.strip(), brackets=False) if isinstance(key, str) else []
    if not segments:
        return None
    return lambda step, value: write_path(step.vars, segments, value)


def with_output_keys(handlers: Mapping[str, NodeHandler], keyed: Iterable[Node]) -> Mapping[str, NodeHandler]:
    """Return the handlers, told to store the result of an effect node under its `outputKey` when the next step begins.

    Actions store theirs at once; an effect's result is there only after the kernel has performed it.
    """
    writers = {node.id: writer for node in keyed if (writer := _result_writer(node)) is not None}
    if not writers:
        return handlers

    def wrap(handle: NodeHandler) -> NodeHandler:
        def first_store(run: RunState, ctx: StepContext) -> StepPlan:
            temp = run.vars.get("_temp")
            writer = writers.get(str(temp.get("prev_node_id"))) if isinstance(temp, dict) else None
            if writer is not None:
                writer(Step(run, ctx))
            return handle(run, ctx)

        return first_store

    return {node_id: wrap(handle) for node_id, handle in handlers.items()}


def _result_writer(node: Node) -> Callable[[Step], None] | None:
    run, store = REGISTRY[node.type].run, output_writer(node)
    if not isinstance(run, Ask) or run.main is None or store is None:
        return None
    main, present, node_id = run.main, run.present(node, frozenset()), node.id

    def write(step: Step) -> None:
        effects = step.temp("effects")
        if node_id in effects:
            store(step, as_object(present(effects[node_id], step)).get(main))

    return write


def _finish_with_output(_step: Step, output: Any) -> JsonObject:
    if not isinstance(output, dict):
        return {"response": output, "success": True}
    return output if "success" in output else {**output, "success": True}


def _chooser(site: Site) -> Callable[[Step, Any, bool], str | None]:
    """A node with one way out takes it; a node with several takes the one that its output's `branch` names."""
    handles = site.targets
    if set(handles) <= {EXEC_OUT}:
        only = handles.get(EXEC_OUT)

        def straight(step: Step, _output: Any, is_recorded: bool) -> str | None:
            if is_recorded:
                set_exec_handle(step, EXEC_OUT)
            return continue_at(step, only)

        return straight

    def branching(step: Step, output: Any, _is_recorded: bool) -> str | None:
        branch = output.get("branch") if isinstance(output, dict) else None
        if not isinstance(branch, str):
            raise Invalid(
                "branch", f"node {site.node.id!r} must return an object whose 'branch' is one of {sorted(handles)}"
            )
        set_exec_handle(step, branch)
        return continue_at(step, handles.get(branch))

    return branching
