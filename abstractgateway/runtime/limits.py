"""The advisory limits a run carries in `vars._limits`, and the configuration they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import Invalid
from ..jsonvalue import JsonObject
from .model_usage import by_attempt
from .paths import namespace

DEFAULT_MAX_TOKENS = 32_768
_MARGIN_TOKENS = 256
"""What is kept free between input and output budgets for the provider's own framing."""
LIMITS = (
    "max_iterations",
    "current_iteration",
    "max_tokens",
    "max_output_tokens",
    "max_input_tokens",
    "estimated_tokens_used",
    "max_history_messages",
    "warn_iterations_pct",
    "warn_tokens_pct",
)
"""The fields of `vars._limits`."""


@dataclass(frozen=True)
class RuntimeConfig:
    """What a run starts with: its limits, and the model it uses where its workflow names none."""

    max_iterations: int = 50
    warn_iterations_pct: int = 80
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    max_input_tokens: int | None = None
    warn_tokens_pct: int = 80
    max_history_messages: int = -1
    provider: str | None = None
    model: str | None = None
    model_capabilities: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)
    """The most that a run may use, by the names of `budgets.NAMES`."""
    prompt_cache: bool | None = None
    """Whether providers are given a key for the cache of prompts, where the run's input does not say it."""

    def with_capabilities(self, capabilities: Mapping[str, Any]) -> RuntimeConfig:
        """Return a copy for a model with other capabilities."""
        return replace(self, model_capabilities=dict(capabilities))

    def to_limits_dict(self) -> JsonObject:
        """Return the nine `_limits` fields of a new run."""
        max_tokens = self.max_tokens or self.model_capabilities.get("max_tokens") or DEFAULT_MAX_TOKENS
        max_output = self.max_output_tokens or self.model_capabilities.get("max_output_tokens")
        max_input = self.max_input_tokens
        if max_input is not None and max_output is not None:
            max_input = max(0, min(max_input, max_tokens - max_output - _MARGIN_TOKENS))
        return {
            "max_iterations": self.max_iterations,
            "current_iteration": 0,
            "max_tokens": max_tokens,
            "max_output_tokens": max_output,
            "max_input_tokens": max_input,
            "estimated_tokens_used": 0,
            "max_history_messages": self.max_history_messages,
            "warn_iterations_pct": self.warn_iterations_pct,
            "warn_tokens_pct": self.warn_tokens_pct,
        }

    def seed(self, vars: JsonObject) -> None:
        """Put the limits and the model defaults into the vars of a new run; what is there stays."""
        if "_limits" not in vars:
            vars["_limits"] = self.to_limits_dict()
        own = vars.get("_runtime")
        if not isinstance(own, dict):
            own = vars["_runtime"] = {}
        for name in ("provider", "model"):
            value = getattr(self, name)
            if value:
                own.setdefault(name, value)
        if self.prompt_cache is not None:
            own.setdefault("prompt_cache", {"enabled": self.prompt_cache, "version": 1})
        support = self.model_capabilities.get("tool_support")
        if isinstance(support, str) and support:
            own.setdefault("tool_support", support)
            own.setdefault("supports_native_tools", support == "native")


def token_use(vars: Mapping[str, Any]) -> JsonObject:
    """Return how much of its token budget a run has used: counts, and `pct` from 0 to 100 where a budget is known."""
    limits = vars.get("_limits")
    limits = limits if isinstance(limits, dict) else {}
    used = limits.get("estimated_tokens_used") or 0
    budget = limits.get("max_input_tokens") or limits.get("max_tokens")
    return {
        "estimated_used": used,
        "max_tokens": limits.get("max_tokens"),
        "max_input_tokens": limits.get("max_input_tokens"),
        "pct": round(100 * used / budget, 1) if budget else None,
        "warn_tokens_pct": limits.get("warn_tokens_pct"),
    }


def note_usage(vars: JsonObject, result: Any) -> None:
    """Keep the input size of the latest model call as the estimate of the tokens in use."""
    usage = by_attempt(result)[-1]
    limits = vars.get("_limits")
    if not isinstance(usage, dict) or not isinstance(limits, dict):
        return
    used = usage.get("input_tokens") or usage.get("prompt_tokens") or usage.get("total_tokens")
    if isinstance(used, int):
        limits["estimated_tokens_used"] = used


@dataclass(frozen=True)
class LimitWarning:
    """A limit that a run has come near to (`warning`) or has reached (`exceeded`); `pct` is worked out."""

    limit_type: Literal["iterations", "tokens", "history"]
    status: Literal["warning", "exceeded"]
    current: int
    maximum: int
    pct: float = 0.0

    def __post_init__(self) -> None:
        if self.maximum > 0:
            object.__setattr__(self, "pct", _share(self.current, self.maximum))


def limit_status(vars: Mapping[str, Any], config: RuntimeConfig) -> JsonObject:
    """Return how much of its limits a run has used; limits it does not carry are those of the configuration."""
    limits = _limits_of(vars, config)
    used, most = _amount(limits, "current_iteration"), _amount(limits, "max_iterations")
    tokens, budget = _amount(limits, "estimated_tokens_used"), _amount(limits, "max_tokens")
    return {
        "iterations": {
            "current": used,
            "max": most,
            "pct": _share(used, most),
            "warning": _is_near(used, most, limits.get("warn_iterations_pct")),
        },
        "tokens": {
            "estimated_used": tokens,
            "max": budget,
            "max_input_tokens": limits.get("max_input_tokens"),
            "max_output_tokens": limits.get("max_output_tokens"),
            "pct": _share(tokens, budget),
            "warning": _is_near(tokens, budget, limits.get("warn_tokens_pct")),
        },
        "history": {"max_messages": limits.get("max_history_messages")},
    }


def limit_warnings(vars: Mapping[str, Any], config: RuntimeConfig) -> list[LimitWarning]:
    """Return the limits that are reached or near; nothing is near where nothing has been used."""
    limits = _limits_of(vars, config)
    found: list[LimitWarning] = []
    iterations, most = _amount(limits, "current_iteration"), _amount(limits, "max_iterations")
    if _is_near(iterations, most, limits.get("warn_iterations_pct")):
        found.append(LimitWarning("iterations", _how_near(iterations, most), iterations, most))
    tokens, budget = _amount(limits, "estimated_tokens_used"), _amount(limits, "max_tokens")
    if _is_near(tokens, budget, limits.get("warn_tokens_pct")):
        found.append(LimitWarning("tokens", _how_near(tokens, budget), tokens, budget))
    return found


def change_limits(vars: JsonObject, updates: Mapping[str, Any]) -> bool:
    """Set the limits of a run that are named, and say whether any was; other names are left alone.

    Raises `Invalid` for a limit that is neither a whole number nor null.
    """
    known = {name: value for name, value in updates.items() if name in LIMITS}
    for name, value in known.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise Invalid(f"updates.{name}", f"must be a whole number or null, not {value!r}")
    if known:
        namespace(vars, "_limits").update(known)
    return bool(known)


def _limits_of(vars: Mapping[str, Any], config: RuntimeConfig) -> JsonObject:
    own = vars.get("_limits")
    return {**config.to_limits_dict(), **(own if isinstance(own, dict) else {})}


def _amount(limits: JsonObject, name: str) -> int:
    value = limits.get(name)
    return int(value) if isinstance(value, (int, float)) else 0


def _share(used: int, most: int) -> float:
    return round(100 * used / most, 1) if most > 0 else 0.0


def _is_near(used: int, most: int, warn_pct: Any) -> bool:
    """Say whether a limit is near or reached; one that is not positive is none."""
    if most <= 0 or used <= 0:
        return False
    threshold = warn_pct if isinstance(warn_pct, (int, float)) else 100
    return used >= most or 100 * used / most >= threshold


def _how_near(used: int, most: int) -> Literal["warning", "exceeded"]:
    return "exceeded" if used >= most else "warning"
