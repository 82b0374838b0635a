"""Where a flow keeps things in `run.vars`: the implicit bus, node outputs, effect results and the control stack.

The layout is that of AbstractRuntime, so that its runs can be continued. Containers named here belong to the flow
and are changed in place; the values inside them are not.
"""

from __future__ import annotations

import copy
from typing import Any

from ..jsonvalue import JsonObject
from ..runtime.context import StepContext
from ..runtime.models import RunState
from .values import MISSING, read_path, split_path

BUS = "_last_output"


class Step:
    """One executed step: the run, the ports of the world, and the values computed for this step only."""

    __slots__ = ("ctx", "run", "values", "vars")

    def __init__(self, run: RunState, ctx: StepContext) -> None:
        self.run = run
        self.ctx = ctx
        self.vars: JsonObject = run.vars
        self.values: dict[str, Any] = {}

    def section(self, *names: str) -> JsonObject:
        """Return the object at `_temp.<names>`, made when it is missing."""
        current = _child(self.vars, "_temp")
        for name in names:
            current = _child(current, name)
        return current

    def temp(self, name: str) -> JsonObject:
        """Return the object at `_temp.<name>` for reading; an empty one when it is missing."""
        temp = self.vars.get("_temp")
        found = temp.get(name) if isinstance(temp, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def bus(self) -> Any:
        """The implicit data bus: what the last node that sets it gave."""
        return self.vars.get(BUS)

    @bus.setter
    def bus(self, value: Any) -> None:
        self.vars[BUS] = value

    def keep_output(self, node_id: str, output: Any) -> None:
        """Store what a node gave, for the nodes that read it later."""
        self.section("node_outputs")[node_id] = output

    def warn(self, text: str) -> None:
        """Add a sentence to the run's warnings, once."""
        known = self.vars.get("_flow_warnings")
        warnings = known if isinstance(known, list) else []
        if text not in warnings:
            self.vars["_flow_warnings"] = [*warnings, text]


def public_variables(variables: JsonObject) -> JsonObject:
    """Return the variables that belong to the flow's author: those whose name has no leading underscore."""
    return {name: value for name, value in variables.items() if not name.startswith("_")}


def read_variable(variables: JsonObject, name: str) -> Any:
    """Return the variable at a dotted path, or None. What lies under `_` names changes later, so it is copied."""
    segments = split_path(name, brackets=False)
    if not segments:
        return None
    found = read_path(variables, segments)
    if found is MISSING:
        return None
    return copy.deepcopy(found) if segments[0].startswith("_") else found


class ControlStack:
    """The loops and sequences a run is inside of, innermost last, each with its frame."""

    __slots__ = ("_frames", "_stack")

    def __init__(self, step: Step) -> None:
        control = step.section("_control")
        self._stack: list[str] = control.setdefault("stack", [])
        self._frames: JsonObject = control.setdefault("frames", {})

    def frame(self, node_id: str) -> JsonObject | None:
        return self._frames.get(node_id)

    def enter(self, node_id: str, frame: JsonObject) -> JsonObject:
        """Put a block on top and return its frame."""
        if node_id in self._stack:
            self._stack.remove(node_id)
        self._stack.append(node_id)
        self._frames[node_id] = frame
        return frame

    def leave(self, node_id: str) -> None:
        """Take a block away, wherever it stands."""
        self._frames.pop(node_id, None)
        if node_id in self._stack:
            self._stack.remove(node_id)


def top_block(step: Step) -> str | None:
    """Return the innermost block that waits for its branch to end."""
    stack = step.temp("_control").get("stack")
    return stack[-1] if stack else None


def set_exec_handle(step: Step, handle: str | None) -> None:
    """Remember the pin by which a node was left; None says that a branch ended and its block takes over."""
    _child(step.vars, "_temp")["prev_exec_handle"] = handle


def result_path(*names: str) -> str:
    """Return the kernel's address of `_temp.<names>`: dotted, or a JSON pointer when a name contains a dot."""
    if all("." not in name for name in names):
        return ".".join(("_temp", *names))
    return "/" + "/".join(name.replace("~", "~0").replace("/", "~1") for name in ("_temp", *names))


def _child(container: JsonObject, name: str) -> JsonObject:
    found = container.get(name)
    if isinstance(found, dict):
        return found
    made: JsonObject = {}
    container[name] = made
    return made
