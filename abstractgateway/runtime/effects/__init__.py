"""The effects the kernel performs itself; every other type is performed by a handler the host gives."""

from __future__ import annotations

from ..models import EffectType
from .events import emit_event
from .firings import skip_firings
from .memory import memory_compact, memory_note, memory_query, memory_rehydrate, memory_tag
from .request import EffectRequest, ExternalEffect, InternalEffect
from .subworkflows import start_subworkflow
from .variables import vars_query
from .waits import answer_user, ask_user, wait_event, wait_until

INTERNAL_EFFECTS: dict[EffectType, InternalEffect] = {
    EffectType.WAIT_EVENT: wait_event,
    EffectType.WAIT_UNTIL: wait_until,
    EffectType.ASK_USER: ask_user,
    EffectType.ANSWER_USER: answer_user,
    EffectType.EMIT_EVENT: emit_event,
    EffectType.START_SUBWORKFLOW: start_subworkflow,
    EffectType.SKIP_FIRINGS: skip_firings,
    EffectType.VARS_QUERY: vars_query,
    EffectType.MEMORY_NOTE: memory_note,
    EffectType.MEMORY_QUERY: memory_query,
    EffectType.MEMORY_TAG: memory_tag,
    EffectType.MEMORY_COMPACT: memory_compact,
    EffectType.MEMORY_REHYDRATE: memory_rehydrate,
}

__all__ = ["INTERNAL_EFFECTS", "EffectRequest", "ExternalEffect", "InternalEffect"]
