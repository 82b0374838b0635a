"""What an effect of the kernel's own is given, and what it must give back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ...jsonvalue import JsonObject
from ..draft import Draft, OpenRun
from ..journal import visit_of
from ..models import Effect, EffectOutcome, RunState
from ..paths import namespace
from ..registry import WorkflowRegistry

GLOBAL_RUN_ID = "global_memory"
"""The id of the run that holds the memory of everybody, where the host names no other."""


class EffectRequest(NamedTuple):
    """One effect to perform inside a draft: whatever it changes becomes durable with the step itself.

    `global_memory` is the id of the run that holds the memory of everybody.
    """

    draft: Draft
    run: OpenRun
    effect: Effect
    node_id: str
    next_node: str | None
    registry: WorkflowRegistry | None
    global_memory: str = GLOBAL_RUN_ID

    @property
    def state(self) -> RunState:
        return self.run.state

    @property
    def payload(self) -> JsonObject:
        return self.effect.payload

    @property
    def visit(self) -> int:
        """How often the node has asked for an effect by now, from 1."""
        return visit_of(namespace(self.run.state.vars, "_runtime"), self.node_id)

    @property
    def resume_target(self) -> str | None:
        """The node to continue at after a wait: the payload's wish, else the plan's next node."""
        wished = self.payload.get("resume_to_node")
        return str(wished) if wished else self.next_node

    def first(self, *names: str, default: Any = None) -> Any:
        """Return the first of these payload fields that is there and not null."""
        payload = self.effect.payload
        for name in names:
            value = payload.get(name)
            if value is not None:
                return value
        return default


InternalEffect = Callable[[EffectRequest], EffectOutcome]
"""An effect of the kernel's own: it changes runs in the draft and touches nothing outside."""

ExternalEffect = Callable[..., EffectOutcome]
"""An effect on the outside world, called `(run, effect, default_next_node)`; journalled before it is performed."""
