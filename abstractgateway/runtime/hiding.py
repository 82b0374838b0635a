"""What effects on the outside world give, without the secrets that whoever put the kernel together knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from .models import EffectOutcome, WaitState


class HidesSecrets(Protocol):
    """Knows secrets, and takes them out."""

    def error(self, text: str) -> str:
        """Return a text about a failure without secrets."""

    def value(self, value: Any) -> Any:
        """Return a JSON value without secrets; the value itself where it has none."""


def without_secrets(outcome: EffectOutcome, secrets: HidesSecrets) -> EffectOutcome:
    """Return an outcome as it may be kept."""
    result = secrets.value(outcome.result) if outcome.result is not None else None
    if outcome.error is None and outcome.wait is None and result is outcome.result:
        return outcome
    error = secrets.error(str(outcome.error)) if outcome.error is not None else None
    wait = outcome.wait
    if isinstance(wait, WaitState):  # a handler may return anything
        wait = WaitState.from_dict(secrets.value(vars(wait)))
    return replace(outcome, result=result, error=error, wait=wait)
