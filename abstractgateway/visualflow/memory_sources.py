"""What a node that calls a model looks up in memory first: archived messages and statements of the knowledge graph.

The pins are those of `memory`, or the same names on the node itself. Each look-up is an effect of the run; what they
gave is in `_temp.memory_sources.<node>`: `span_query`, `span_rehydrate`, `kg_query`, and `_meta {fingerprint, warnings,
span_ids, kg_active_memory_text_len}`. Each time execution comes by they are looked up anew.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject, canonical_text
from ..runtime.models import Effect, EffectType
from .conversation import leading_system, messages_in
from .state import Step, result_path
from .values import as_list, as_object, first_text

MEMORY_PINS = (
    "use_session_attachments",
    "use_span_memory",
    "use_semantic_search",
    "use_kg_memory",
    "memory_query",
    "memory_scope",
    "recall_level",
    "max_span_messages",
    "kg_max_input_tokens",
    "kg_limit",
    "kg_min_score",
)
_LOOKED_UP = ("use_span_memory", "use_kg_memory")
_UNAVAILABLE = {
    "use_semantic_search": "there is no semantic search here; use_span_memory finds messages by their words",
    "use_session_attachments": "models are not told of them; name the tool open_attachment, or use context.attachments",
}
_MOST_SPAN_MESSAGES = 80
_MOST_KG_TOKENS = 1_200
_SECTION = "memory_sources"
_OFF = frozenset({"", "0", "false", "no", "off"})


def memory_settings(inputs: JsonObject, step: Step) -> JsonObject:
    """Return the memory pins that carry something, and warn about sources that this gateway does not have."""
    given = {**inputs, **as_object(inputs.get("memory"))}
    settings = {name: given[name] for name in MEMORY_PINS if given.get(name) is not None and given[name] != ""}
    for name, why in _UNAVAILABLE.items():
        if _is_on(settings, name):
            step.warn(f"{name}: {why}")
    return settings


def source_params(settings: JsonObject) -> JsonObject:
    """Return what memory settings add to the `params` of a call, for models of the host's own that know of it."""
    return {"include_session_attachments_index": True} if _is_on(settings, "use_session_attachments") else {}


def wants_look_up(settings: JsonObject) -> bool:
    """Say whether anything is to be looked up before the call."""
    return any(_is_on(settings, name) for name in _LOOKED_UP)


def forget(step: Step, node_id: str) -> None:
    """Forget what was looked up for an earlier call."""
    if node_id in step.temp(_SECTION):
        del step.section(_SECTION)[node_id]


def begin(step: Step, node_id: str, settings: JsonObject, prompt: Any) -> None:
    """Note what is asked for now."""
    query = first_text(settings.get("memory_query"), prompt) or ""
    asked = {**settings, "memory_query": query, "memory_scope": first_text(settings.get("memory_scope")) or "run"}
    fingerprint = hashlib.sha256(canonical_text(asked).encode()).hexdigest()[:32]
    meta = {"fingerprint": fingerprint, "warnings": _defaults_told(settings), "span_ids": [], "asked": []}
    step.section(_SECTION)[node_id] = {"_meta": meta}


def _defaults_told(settings: JsonObject) -> list[str]:
    if first_text(settings.get("recall_level")) is not None:
        return []
    limits = {
        "max_span_messages": ("use_span_memory", _MOST_SPAN_MESSAGES),
        "kg_max_input_tokens": ("use_kg_memory", _MOST_KG_TOKENS),
    }
    return [
        f"{name} is {most}: neither it nor recall_level was given"
        for name, (source, most) in limits.items()
        if _is_on(settings, source) and name not in settings
    ]


def next_look_up(step: Step, node_id: str, settings: JsonObject, prompt: Any) -> Effect | None:
    """Return the effect of the next look-up, or None when all has been looked up.

    Raises `Invalid` for a limit that is not a positive number.
    """
    found = step.section(_SECTION, node_id)
    meta = found["_meta"]
    meta["span_ids"] = _span_ids(found)
    wanted = {
        "span_query": _is_on(settings, "use_span_memory"),
        "span_rehydrate": bool(meta["span_ids"]),
        "kg_query": _is_on(settings, "use_kg_memory"),
    }
    name = next((name for name, is_wanted in wanted.items() if is_wanted and name not in meta["asked"]), None)
    if name is None:
        meta["kg_active_memory_text_len"] = len(statements(step, node_id))
        _tell_of_trouble(step, node_id, found)
        return None
    meta["asked"] = [*meta["asked"], name]
    type, payload = _LOOK_UPS[name](settings, prompt, meta["span_ids"])
    return Effect(type, payload, result_path(_SECTION, node_id, name))


def _span_query(settings: JsonObject, _prompt: Any, _spans: list[str]) -> tuple[EffectType, JsonObject]:
    """Without a query these are the latest spans: hardly any contains a whole prompt."""
    query = first_text(settings.get("memory_query"))
    return EffectType.MEMORY_QUERY, {**_where(settings), **({"query": query} if query else {}), "return": "meta"}


def _span_rehydrate(settings: JsonObject, _prompt: Any, spans: list[str]) -> tuple[EffectType, JsonObject]:
    level = _level(settings)
    most = _positive(settings, "max_span_messages") or (None if level else _MOST_SPAN_MESSAGES)
    return EffectType.MEMORY_REHYDRATE, {"span_ids": spans, **level, **({"max_messages": most} if most else {})}


def _kg_query(settings: JsonObject, prompt: Any, _spans: list[str]) -> tuple[EffectType, JsonObject]:
    query = first_text(settings.get("memory_query"), prompt)
    tokens = _positive(settings, "kg_max_input_tokens") or (None if _level(settings) else _MOST_KG_TOKENS)
    numbers = {
        "max_input_tokens": tokens,
        "limit": _positive(settings, "kg_limit"),
        "min_score": settings.get("kg_min_score"),
    }
    asked = {name: value for name, value in numbers.items() if value is not None}
    return EffectType.MEMORY_KG_QUERY, {**_where(settings), **({"query_text": query} if query else {}), **asked}


_LOOK_UPS = {"span_query": _span_query, "span_rehydrate": _span_rehydrate, "kg_query": _kg_query}


def _where(settings: JsonObject) -> JsonObject:
    return {"scope": first_text(settings.get("memory_scope")) or "run", **_level(settings)}


def _level(settings: JsonObject) -> JsonObject:
    level = first_text(settings.get("recall_level"))
    return {"recall_level": level} if level is not None else {}


def _positive(settings: JsonObject, name: str) -> int | None:
    value = settings.get(name)
    if value is None:
        return None
    try:
        number = int(float(value)) if not isinstance(value, bool) else 0
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1:
        raise Invalid(name, f"{value!r} is not a number above 0")
    return number


def _span_ids(found: JsonObject) -> list[str]:
    result = as_object(next(iter(as_list(as_object(found.get("span_query")).get("results"))), None))
    return [item for item in as_list(as_object(result.get("meta")).get("span_ids")) if isinstance(item, str)]


def _tell_of_trouble(step: Step, node_id: str, found: JsonObject) -> None:
    """A source that could not be read leaves a warning, and the call does without it."""
    graph = as_object(found.get("kg_query"))
    if graph.get("ok") is False:
        step.warn(f"use_kg_memory of node {node_id!r} found nothing: {graph.get('error') or 'the query failed'}")


def recalled(step: Step, node_id: str, messages: list[JsonObject]) -> list[JsonObject]:
    """Return a conversation with the messages that were brought back into the run's own, where it lacks them."""
    spans = as_list(as_object(as_object(step.temp(_SECTION).get(node_id)).get("_meta")).get("span_ids"))
    if not spans:
        return messages
    known = {_id_of(message) for message in messages}
    back = [
        message
        for message in messages_in(step.vars.get("context"))
        if as_object(message.get("metadata")).get("source_artifact_id") in spans and _id_of(message) not in known
    ]
    head = leading_system(messages)
    return [*messages[:head], *back, *messages[head:]]


def _id_of(message: JsonObject) -> str:
    return str(as_object(message.get("metadata")).get("message_id") or id(message))


def statements(step: Step, node_id: str) -> str:
    """Return what the knowledge graph says, as a text for the system prompt."""
    found = as_object(as_object(step.temp(_SECTION).get(node_id)).get("kg_query"))
    return first_text(found.get("active_memory_text")) or ""


def with_statements(step: Step, node_id: str, system: str | None) -> str | None:
    """Return the system prompt with what the knowledge graph says."""
    told = statements(step, node_id)
    if not told:
        return system
    return f"{system}\n\n{told}" if system else told


def _is_on(settings: JsonObject, name: str) -> bool:
    value = settings.get(name)
    return value.strip().lower() not in _OFF if isinstance(value, str) else bool(value)
