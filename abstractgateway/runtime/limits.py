"""The advisory limits a run carries in `vars._limits`, and the configuration they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..jsonvalue import JsonObject

DEFAULT_MAX_TOKENS = 32_768
_MARGIN_TOKENS = 256
"""What is kept free between input and output budgets for the provider's own framing."""


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
    usage = result.get("usage") if isinstance(result, dict) else None
    limits = vars.get("_limits")
    if not isinstance(usage, dict) or not isinstance(limits, dict):
        return
    used = usage.get("input_tokens") or usage.get("prompt_tokens") or usage.get("total_tokens")
    if isinstance(used, int):
        limits["estimated_tokens_used"] = used
