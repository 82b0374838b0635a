"""What a node type is: its pins, its sentence, and one of four ways to run.

`Pure` computes a value whenever a step needs it. `Action` computes one when execution comes by, and may change the
run's variables. `Ask` turns inputs into an effect that the kernel performs, and its result into an output. `Control`
decides by itself where execution goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..jsonvalue import JsonObject
from ..runtime.models import Effect, EffectType, NodeHandler, StepPlan
from .flow import Node
from .state import ControlStack, Step, set_exec_handle, top_block

Inputs = dict[str, Any]
Evaluate = Callable[[Inputs, Step], Any]


class Deferred(Exception):
    """Raised by an evaluation that takes too long to be waited for: an effect does the work instead.

    The result of the effect is `{"value": …}`; with it the node is executed again. `node_id` names the node whose value
    it is when that is one that the executed node reads.
    """

    def __init__(self, effect: EffectType, payload: JsonObject) -> None:
        super().__init__(effect)
        self.effect = effect
        self.payload = payload
        self.node_id: str | None = None


@dataclass(frozen=True)
class Site:
    """One node of one flow, with everything about its surroundings that is known when the flow is compiled.

    `workflow_id` is that of the flow, also in the workflows that begin at another of its nodes.
    """

    node: Node
    workflow_id: str
    resolve: Callable[[Step], Inputs]
    targets: Mapping[str, str]
    wired_outputs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Pure:
    """Computes an output whenever a step needs it; `without_pins` says whether a node without pins does so too."""

    build: Callable[[Node], Evaluate]
    without_pins: bool = True


@dataclass(frozen=True)
class Action:
    """Computes an output when execution comes by.

    `sets_bus` actions see all variables before the bus is first written, and their output becomes the bus.
    `finish` makes the run's output when nothing follows; `as_pure` is what a node without execution pins computes,
    and `acts_without_pins` says that a node that lists no pins at all is executed nevertheless. Evaluations that
    `may_defer` raise `Deferred` when they would keep other runs waiting.
    """

    build: Callable[[Node], Evaluate]
    sets_bus: bool = True
    finish: Callable[[Step, Any], JsonObject] | None = None
    is_end: bool = False
    as_pure: Callable[[Node], Evaluate] | None = None
    acts_without_pins: bool = False
    may_defer: bool = False


@dataclass(frozen=True)
class Ask:
    """Turns inputs into the payload of an effect, and the effect's stored result into an output.

    `present` returns a function of the raw result and the step. `main` names the output that `outputKey` stores.
    `before` returns what is to be asked for first, one effect after the other until it gives None; it is told whether
    execution has just come by, and the inputs stay what they were then.
    """

    effect: EffectType
    build: Callable[[Site], Callable[[Inputs, Step], JsonObject]]
    present: Callable[[Node, frozenset[str]], Callable[[Any, Step], Any]]
    main: str | None = None
    before: Callable[[Site], Callable[[Inputs, Step, bool], Effect | None]] | None = None


@dataclass(frozen=True)
class Control:
    """Builds the handler itself."""

    build: Callable[[Site], NodeHandler]
    handles: tuple[str, ...] | None = None


@dataclass(frozen=True)
class NodeType:
    """A row of the node library; `check` tells why a node cannot be compiled, `advise` what is odd about it."""

    name: str
    family: str
    run: Pure | Action | Ask | Control
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    text: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Node], str | None] | None = None
    advise: Callable[[Node], str | None] | None = None


def continue_at(step: Step, target: str | None) -> str | None:
    """Return where execution goes: the target, else the innermost block, else None, which ends the run."""
    if target is not None:
        return target
    block = top_block(step)
    if block is not None:
        set_exec_handle(step, None)
    return block


def end_block(step: Step, site: Site, handle: str = "done") -> StepPlan:
    """Leave a loop or sequence: by its `handle` pin, to the block around it, or to the end of the run."""
    node_id = site.node.id
    ControlStack(step).leave(node_id)
    set_exec_handle(step, handle)
    target = continue_at(step, site.targets.get(handle))
    if target is None:
        return StepPlan(node_id, complete_output={"success": True, "result": step.bus})
    return StepPlan(node_id, next_node=target)
