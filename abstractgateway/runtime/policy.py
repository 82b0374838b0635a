"""How often an effect is tried, how long it rests in between, and what a crash in the middle of one leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ..errors import Invalid
from .idempotency import compute_idempotency_key
from .models import Effect, EffectType, RunState

InDoubt = Literal["retry", "ask", "fail"]
"""What becomes of an effect that a crash left without outcome: perform it again under the same key, ask, or fail it."""


class EffectPolicy(Protocol):
    """The rules by which failed effects are tried again."""

    def max_attempts(self, effect: Effect) -> int:
        """Return how often an effect may be tried in all; 1 for no second try."""

    def backoff_seconds(self, *, effect: Effect, attempt: int) -> float:
        """Return how long a run rests after the failure of an attempt, the first of which is 1."""

    def idempotency_key(self, *, run: RunState, node_id: str, effect: Effect) -> str:
        """Return the name of what a node asks for; when it asks again the kernel adds the number of the visit."""


@dataclass(frozen=True)
class DefaultEffectPolicy:
    """The same rule for every effect, with exceptions by effect type; the back-off doubles from base to max."""

    default_max_attempts: int = 1
    default_backoff_base: float = 1.0
    default_backoff_max: float = 60.0
    effect_max_attempts: Mapping[EffectType, int] = field(default_factory=dict)

    def max_attempts(self, effect: Effect) -> int:
        return self.effect_max_attempts.get(effect.type, self.default_max_attempts)

    def backoff_seconds(self, *, effect: Effect, attempt: int) -> float:
        doubled: float = self.default_backoff_base * 2.0 ** min(attempt - 1, 64)
        return min(doubled, self.default_backoff_max)

    def idempotency_key(self, *, run: RunState, node_id: str, effect: Effect) -> str:
        return compute_idempotency_key(run_id=run.run_id, node_id=node_id, effect=effect)


class RetryPolicy(DefaultEffectPolicy):
    """Tries model calls and tool calls again, and nothing else."""

    def __init__(
        self,
        *,
        llm_max_attempts: int = 3,
        tool_max_attempts: int = 2,
        backoff_base: float = 1.0,
        backoff_max: float = 30.0,
    ) -> None:
        super().__init__(
            default_backoff_base=backoff_base,
            default_backoff_max=backoff_max,
            effect_max_attempts={
                EffectType.LLM_CALL: llm_max_attempts,
                EffectType.TOOL_CALLS: tool_max_attempts,
            },
        )


class NoRetryPolicy(DefaultEffectPolicy):
    """Tries every effect once."""

    def __init__(self) -> None:
        super().__init__()


DEFAULT_IN_DOUBT: Mapping[EffectType, InDoubt] = {EffectType.LLM_CALL: "retry", EffectType.RUN_CODE: "retry"}
"""A model call can be repeated at the price of its tokens, code at none; what else reaches outside is asked about."""


def in_doubt_rules(wished: Mapping[EffectType, InDoubt] | None) -> dict[EffectType, InDoubt]:
    """Return the rule of every effect type. Raises `Invalid` for one that is not retry, ask or fail."""
    rules: dict[EffectType, InDoubt] = {type: DEFAULT_IN_DOUBT.get(type, "ask") for type in EffectType}
    for type, rule in (wished or {}).items():
        if rule not in ("retry", "ask", "fail"):
            raise Invalid("in_doubt", f"{rule!r} is not one of retry, ask, fail")
        rules[EffectType(type)] = rule
    return rules
