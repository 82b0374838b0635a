"""What an effect of the kernel's own is given, and what it must give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...jsonvalue import JsonObject
from ..draft import Draft, OpenRun
from ..models import Effect, EffectOutcome, RunState
from ..registry import WorkflowRegistry


@dataclass(frozen=True)
class EffectRequest:
    """One effect to perform inside a draft: whatever it changes becomes durable with the step itself."""

    draft: Draft
    run: OpenRun
    effect: Effect
    node_id: str
    next_node: str | None
    visit: int
    registry: WorkflowRegistry | None

    @property
    def state(self) -> RunState:
        return self.run.state

    @property
    def payload(self) -> JsonObject:
        return self.effect.payload

    @property
    def resume_target(self) -> str | None:
        """The node to continue at after a wait: the payload's wish, else the plan's next node."""
        wished = self.payload.get("resume_to_node")
        return str(wished) if wished else self.next_node

    def first(self, *names: str, default: Any = None) -> Any:
        """Return the first of these payload fields that is there and not null."""
        return next((self.payload[name] for name in names if self.payload.get(name) is not None), default)


InternalEffect = Callable[[EffectRequest], EffectOutcome]
"""An effect of the kernel's own: it changes runs in the draft and touches nothing outside."""

ExternalEffect = Callable[..., EffectOutcome]
"""An effect on the outside world, called `(run, effect, default_next_node)`; journalled before it is performed."""
