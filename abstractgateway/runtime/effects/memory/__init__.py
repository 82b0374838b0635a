"""Memory: notes, archived conversations, and finding them again.

Whatever an effect changes, in its own run or in others, is part of the draft and so of the commit of its step. Content
goes into artifacts, which are durable before the commit that refers to them.
"""

from __future__ import annotations

from functools import wraps

from ....errors import Invalid, NotFound
from ...models import EffectOutcome
from ..request import EffectRequest, InternalEffect
from . import compact, note, query, rehydrate, tag


def _named(name: str, perform: InternalEffect) -> InternalEffect:
    """Return an effect whose refusals say which effect refused; what the disk refuses is tried again by the runner."""

    @wraps(perform)
    def performed(request: EffectRequest) -> EffectOutcome:
        try:
            return perform(request)
        except Invalid as error:
            return EffectOutcome.failed(f"{name}: {error}" if error.field else f"{name} {error}")
        except NotFound as error:
            return EffectOutcome.failed(f"{name}: {error}")

    return performed


memory_note = _named("memory_note", note.memory_note)
memory_query = _named("memory_query", query.memory_query)
memory_tag = _named("memory_tag", tag.memory_tag)
memory_compact = _named("memory_compact", compact.memory_compact)
memory_rehydrate = _named("memory_rehydrate", rehydrate.memory_rehydrate)

__all__ = ["memory_compact", "memory_note", "memory_query", "memory_rehydrate", "memory_tag"]
