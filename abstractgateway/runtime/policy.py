"""How often an effect is tried and for how long, the rest in between, and what a crash in the middle leads to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..errors import Invalid
from .idempotency import compute_idempotency_key
from .models import Effect, EffectOutcome, EffectType, RunState

DEFAULT_TIMEOUT_S = 7200.0
"""How many seconds an effect on the outside world may take; AbstractRuntime's limit for model and tool calls."""

InDoubt = Literal["retry", "ask", "fail"]
"""What becomes of an effect that a crash left without outcome: perform it again under the same key, ask, or fail it."""


Reconciler = Callable[[RunState, Effect, str], EffectOutcome | None]
"""Finds out what became of an effect in doubt, called `(run, effect, idempotency_key)`; None when it cannot tell."""


class EffectPolicy(Protocol):
    """The rules by which failed effects are tried again.

    A policy may also have `timeout_seconds(effect) -> float | None`: how many seconds one attempt may take, None for
    any number. Without that method it is `DEFAULT_TIMEOUT_S`.
    """

    def max_attempts(self, effect: Effect) -> int:
        """Return how often an effect may be tried in all; 1 for no second try."""

    def backoff_seconds(self, *, effect: Effect, attempt: int) -> float:
        """Return how long a run rests after the failure of an attempt, the first of which is 1."""

    def idempotency_key(self, *, run: RunState, node_id: str, effect: Effect) -> str:
        """Return the name of what a node asks for; when it asks again the kernel adds the number of the visit."""


@dataclass(frozen=True)
class DefaultEffectPolicy:
    """The same rule for every effect, with exceptions by effect type; the back-off doubles from base to max.

    Timeouts are in seconds; None is no limit.
    """

    default_max_attempts: int = 1
    default_backoff_base: float = 1.0
    default_backoff_max: float = 60.0
    effect_max_attempts: Mapping[EffectType, int] = field(default_factory=dict)
    default_timeout: float | None = DEFAULT_TIMEOUT_S
    effect_timeouts: Mapping[EffectType, float | None] = field(default_factory=dict)

    def max_attempts(self, effect: Effect) -> int:
        return self.effect_max_attempts.get(effect.type, self.default_max_attempts)

    def backoff_seconds(self, *, effect: Effect, attempt: int) -> float:
        doubled: float = self.default_backoff_base * 2.0 ** min(attempt - 1, 64)
        return min(doubled, self.default_backoff_max)

    def timeout_seconds(self, effect: Effect) -> float | None:
        return self.effect_timeouts.get(effect.type, self.default_timeout)

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
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        super().__init__(
            default_backoff_base=backoff_base,
            default_backoff_max=backoff_max,
            effect_max_attempts={
                EffectType.LLM_CALL: llm_max_attempts,
                EffectType.TOOL_CALLS: tool_max_attempts,
            },
            default_timeout=timeout,
        )


class NoRetryPolicy(DefaultEffectPolicy):
    """Tries every effect once."""

    def __init__(self, *, timeout: float | None = DEFAULT_TIMEOUT_S) -> None:
        super().__init__(default_timeout=timeout)


def time_limit(policy: EffectPolicy, effect: Effect) -> float | None:
    """Return how many seconds an attempt may take, None for any number.

    Raises `Invalid` when the policy answers what is neither None nor a positive number.
    """
    ask = getattr(policy, "timeout_seconds", None)
    limit = ask(effect) if ask is not None else DEFAULT_TIMEOUT_S
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit < math.inf:
        raise Invalid("effect_policy.timeout_seconds", f"gives {limit!r}, which is neither None nor a positive number")
    return float(limit)


DEFAULT_IN_DOUBT: Mapping[EffectType, InDoubt] = {EffectType.LLM_CALL: "retry", EffectType.RUN_CODE: "retry"}
"""A model call can be repeated at the price of its tokens, code at none; what else reaches outside is asked about."""


_BY_CARE: tuple[InDoubt, ...] = ("retry", "ask", "fail")
"""The rules, the most careful last."""


@dataclass(frozen=True)
class InDoubtRules:
    """What becomes of effects in doubt: by effect type, and of tool calls by the name of the tool."""

    by_type: Mapping[EffectType, InDoubt]
    by_tool: Mapping[str, InDoubt] = field(default_factory=dict)

    @staticmethod
    def of(
        wished: Mapping[EffectType, InDoubt] | None = None, tools: Mapping[str, InDoubt] | None = None
    ) -> InDoubtRules:
        """Return the rule of every effect type and of these tools.

        Raises `Invalid` for a rule that is not retry, ask or fail, and for what is no effect type or no tool's name.
        """
        by_type = {type: DEFAULT_IN_DOUBT.get(type, "ask") for type in EffectType}
        by_type |= {_known_type(type): _known_rule("in_doubt", rule) for type, rule in (wished or {}).items()}
        by_tool = {_tool_name(name): _known_rule("in_doubt_tools", rule) for name, rule in (tools or {}).items()}
        return InDoubtRules(by_type, by_tool)

    def rule_of(self, effect: Effect) -> InDoubt:
        """Return what becomes of an effect; of several tool calls, what the most careful of their rules says."""
        general = self.by_type[effect.type]
        calls = effect.payload.get("tool_calls") if effect.type is EffectType.TOOL_CALLS else None
        if not self.by_tool or not isinstance(calls, list) or not calls:
            return general
        return max((self.by_tool.get(_name_in(call), general) for call in calls), key=_BY_CARE.index)


def _name_in(call: Any) -> str:
    return str(call.get("name")) if isinstance(call, dict) else ""


def _known_rule(field: str, rule: object) -> InDoubt:
    if rule not in _BY_CARE:
        raise Invalid(field, f"{rule!r} is not one of {', '.join(_BY_CARE)}")
    return rule


def _known_type(type: object) -> EffectType:
    try:
        return EffectType(type)
    except ValueError:
        raise Invalid("in_doubt", f"{type!r} is not a type of effect") from None


def _tool_name(name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        raise Invalid("in_doubt_tools", f"{name!r} is not the name of a tool")
    return name.strip()
