"""What a schedule does not do at a time when it was to do it."""

from __future__ import annotations

from ..models import EffectOutcome
from .request import EffectRequest


def skip_firings(request: EffectRequest) -> EffectOutcome:
    """Record times of a schedule that were not fired, and why: payload `skipped`, a list; docs/schedules.md has it."""
    skipped = request.payload.get("skipped")
    counts = [item.get("count", 0) for item in skipped if isinstance(item, dict)] if isinstance(skipped, list) else []
    return EffectOutcome.completed({"skipped": sum(counts)})
