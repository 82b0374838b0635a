"""Nodes that decide where execution goes: branches, loops, sequences and joins.

A block (loop, while, for, sequence, parallel) puts itself on the control stack and starts a branch; whatever would
end the run inside the branch comes back to the block instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...errors import Invalid
from ...jsonvalue import JsonObject
from ...runtime.context import StepContext
from ...runtime.models import NodeHandler, RunState, StepPlan
from ..flow import EXECUTION, Node
from ..node import Action, Control, Evaluate, Inputs, NodeType, Pure, Site, end_block
from ..state import ControlStack, Step, set_exec_handle
from ..values import as_list, as_number

MAX_ITERATIONS = 10_000
"""A `while` or `for` that goes on longer is taken for one that never ends."""


def _if(_node: Node) -> Evaluate:
    def decide(inputs: Inputs, _step: Step) -> JsonObject:
        condition = inputs.get("condition")
        return {"branch": "true" if condition else "false", "condition": condition}

    return decide


def _switch(node: Node) -> Evaluate:
    listed = node.config("switchConfig").get("cases")
    cases = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    table = [
        (str(item["value"]), item["id"]) for item in cases if item.get("value") is not None and _is_text(item.get("id"))
    ]

    def decide(inputs: Inputs, _step: Step) -> JsonObject:
        value = inputs.get("value")
        text = "" if value is None else str(value)
        case = next((identity for label, identity in table if label == text), None)
        if case is None:
            return {"branch": "default", "value": value}
        return {"branch": f"case:{case}", "value": value, "matched": text}

    return decide


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _run_body(step: Step, site: Site, added: JsonObject) -> StepPlan:
    """Start the next round of a loop: its values join the bus."""
    bus = step.bus
    output = {**(bus if isinstance(bus, dict) else {} if bus is None else {"input": bus}), **added}
    step.bus = output
    step.keep_output(site.node.id, output)
    set_exec_handle(step, "loop")
    return StepPlan(site.node.id, next_node=site.targets["loop"])


def _while(site: Site) -> NodeHandler:
    node_id, resolve = site.node.id, site.resolve

    def handle(run: RunState, ctx: StepContext) -> StepPlan:
        step = Step(run, ctx)
        if not resolve(step).get("condition") or "loop" not in site.targets:
            return end_block(step, site)
        control = ControlStack(step)
        frame = control.frame(node_id) or control.enter(node_id, {"kind": "while", "iters": 0})
        index = frame["iters"]
        if index >= MAX_ITERATIONS:
            raise Invalid("condition", f"is still true after {MAX_ITERATIONS} rounds")
        frame["iters"] = index + 1
        before = step.bus
        first = {} if isinstance(before, dict) and "item" in before else {"item": before}
        return _run_body(step, site, {**first, "index": index})

    return handle


def _loop(site: Site) -> NodeHandler:
    node_id, resolve = site.node.id, site.resolve

    def handle(run: RunState, ctx: StepContext) -> StepPlan:
        step = Step(run, ctx)
        control = ControlStack(step)
        frame = control.frame(node_id)
        if frame is None:
            items = list(as_list(resolve(step).get("items")))
            frame = control.enter(node_id, {"kind": "loop", "index": 0, "items": items})
        index, items = frame["index"], frame["items"]
        if index >= len(items) or "loop" not in site.targets:
            return end_block(step, site)
        frame["index"] = index + 1
        return _run_body(step, site, {"item": items[index], "index": index, "total": len(items)})

    return handle


def _for(site: Site) -> NodeHandler:
    node_id, resolve = site.node.id, site.resolve

    def handle(run: RunState, ctx: StepContext) -> StepPlan:
        step = Step(run, ctx)
        control = ControlStack(step)
        frame = control.frame(node_id)
        if frame is None:
            frame = control.enter(node_id, _range_frame(resolve(step)))
        index, total = frame["index"], frame["total"]
        if index >= total or "loop" not in site.targets:
            return end_block(step, site)
        if index >= MAX_ITERATIONS:
            raise Invalid("end", f"leads to {total} rounds; at most {MAX_ITERATIONS} are run")
        value = frame["i"]
        frame["index"], frame["i"] = index + 1, value + frame["step"]
        return _run_body(step, site, {"i": value, "index": index, "total": total})

    return handle


def _range_frame(inputs: Inputs) -> JsonObject:
    start, end = as_number(inputs.get("start"), "start"), as_number(inputs.get("end"), "end")
    try:
        stride = as_number(inputs.get("step"), "step")
    except Invalid:
        stride = 1.0
    if stride == 0:
        raise Invalid("step", "is 0; a range needs steps that lead from start to end")
    total = max(0, math.ceil((end - start) / stride))
    return {"kind": "for", "index": 0, "i": start, "start": start, "end": end, "step": stride, "total": total}


def _branches(node: Node, targets: Any) -> list[str]:
    """Return the connected `then:<n>` pins by number."""
    listed = [pin.id for pin in node.outputs if pin.type == EXECUTION and _branch_number(pin.id) is not None]
    return sorted((handle for handle in listed if handle in targets), key=lambda handle: _branch_number(handle) or 0)


def _branch_number(handle: str) -> int | None:
    head, _, number = handle.partition(":")
    return int(number) if head == "then" and number.isdecimal() else None


def _in_turn(kind: str, last_handle: str) -> Callable[[Site], NodeHandler]:
    """Sequence and parallel both run one branch after the other; parallel has a pin for what comes after them."""

    def build(site: Site) -> NodeHandler:
        node_id = site.node.id
        branches = _branches(site.node, site.targets)

        def handle(run: RunState, ctx: StepContext) -> StepPlan:
            step = Step(run, ctx)
            control = ControlStack(step)
            frame = control.frame(node_id) or control.enter(node_id, {"kind": kind, "idx": 0, "then": branches})
            position = frame["idx"]
            if position >= len(branches):
                return end_block(step, site, last_handle)
            frame["idx"] = position + 1
            set_exec_handle(step, branches[position])
            return StepPlan(node_id, next_node=site.targets[branches[position]])

        return handle

    return build


def _check_branches(node: Node) -> str | None:
    return (
        None if any(_branch_number(pin.id) is not None for pin in node.outputs) else "lists no 'then:<n>' output pins"
    )


def _join(_node: Node) -> Evaluate:
    def remember(_inputs: Inputs, step: Step) -> JsonObject:
        temp = step.section()
        return {"which": 0, "from": temp.get("prev_node_id"), "from_handle": temp.get("prev_exec_handle")}

    return remember


def _path_mux(_node: Node) -> Evaluate:
    def choose(inputs: Inputs, _step: Step) -> JsonObject:
        try:
            which = int(float(inputs.get("select") or 0))
        except (TypeError, ValueError, OverflowError):
            which = 0
        return {"out": inputs.get(f"in{which}", inputs.get("fallback"))}

    return choose


_LOOP_HANDLES = ("loop", "done")

TYPES = (
    NodeType("if", "control", Action(_if), ("condition",), ("true", "false"), "Goes on by `true` or `false`."),
    NodeType(
        "switch",
        "control",
        Action(_switch),
        ("value",),
        ("default",),
        "Goes on by the case whose text equals the value.",
    ),
    NodeType(
        "while",
        "control",
        Control(_while, _LOOP_HANDLES),
        ("condition",),
        ("loop", "done", "item", "index"),
        "Repeats its body as long as the condition holds.",
    ),
    NodeType(
        "loop",
        "control",
        Control(_loop, _LOOP_HANDLES),
        ("items",),
        ("loop", "done", "item", "index", "total"),
        "Runs its body once for each item of a list.",
    ),
    NodeType(
        "for",
        "control",
        Control(_for, _LOOP_HANDLES),
        ("start", "end", "step"),
        ("loop", "done", "i", "index", "total"),
        "Runs its body for each number from start up to, but not including, end.",
        {"step": 1},
    ),
    NodeType(
        "sequence",
        "control",
        Control(_in_turn("sequence", "")),
        (),
        ("then:0", "then:1"),
        "Runs its branches one after the other.",
        check=_check_branches,
    ),
    NodeType(
        "parallel",
        "control",
        Control(_in_turn("parallel", "completed")),
        (),
        ("then:0", "then:1", "completed"),
        "Runs its branches one after the other, then goes on by `completed`.",
        check=_check_branches,
    ),
    NodeType(
        "join_exec",
        "control",
        Action(_join, sets_bus=False),
        (),
        ("exec-out", "which", "from", "from_handle"),
        "Lets several lines of execution meet and tells by which one the run came.",
    ),
    NodeType(
        "path_mux",
        "control",
        Pure(_path_mux),
        ("select", "fallback"),
        ("out",),
        "Gives the value of the input whose number is selected.",
    ),
)
