"""Nodes that write into memory, look into it, and keep a conversation short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import Invalid
from ...jsonvalue import JsonObject
from ...runtime.models import EffectType
from ..flow import Node
from ..node import Ask, Inputs, NodeType, Site
from ..state import Step
from ..values import as_object, first_text

PayloadOf = Callable[[Inputs, Step], JsonObject]
Present = Callable[[Any, Step], Any]

_QUERY_LIMIT = 10


def _given(inputs: Inputs, **pins: str) -> JsonObject:
    """Return the payload fields whose pins carry something, as `field=pin`; null and blank texts are nothing."""
    found = ((field, inputs.get(pin)) for field, pin in pins.items())
    return {field: value for field, value in found if value is not None and value != ""}


def _memory_note(site: Site) -> PayloadOf:
    config = site.node.config("effectConfig")
    is_kept = bool(config.get("keep_in_context", config.get("keepInContext", False)))

    def payload(inputs: Inputs, _step: Step) -> JsonObject:
        content = first_text(inputs.get("content"))
        if content is None:
            raise Invalid("content", f"{inputs.get('content')!r} is no text to remember")
        tags = as_object(inputs.get("tags"))
        kept = inputs.get("keep_in_context")
        return {
            "note": content,
            "tags": {name: tag for name, tag in tags.items() if isinstance(tag, str)},
            "keep_in_context": bool(kept) if kept is not None else is_kept,
            **_given(inputs, sources="sources", location="location", scope="scope"),
        }

    return payload


def _note_id(_node: Node, _wired: frozenset[str]) -> Present:
    return lambda raw, _step: {"note_id": _meta(raw).get("span_id"), "raw": raw}


def _memory_query(_site: Site) -> PayloadOf:
    def payload(inputs: Inputs, _step: Step) -> JsonObject:
        limit = inputs.get("limit")
        level = first_text(inputs.get("recall_level"))
        pins = {name: name for name in ("query", "tags", "tags_mode", "since", "until", "scope")}
        return {
            **_given(inputs, authors="usernames", locations="locations", **pins),
            **({"recall_level": level} if level is not None else {}),
            "limit_spans": _QUERY_LIMIT if limit is None and level is None else limit,
            "return": "both",
        }

    return payload


def _found(_node: Node, _wired: frozenset[str]) -> Present:
    def present(raw: Any, _step: Step) -> JsonObject:
        meta = _meta(raw)
        return {
            "results": meta.get("matches", []),
            "rendered": _rendered(raw),
            "span_ids": meta.get("span_ids", []),
            "raw": raw,
        }

    return present


def _memory_tag(_site: Site) -> PayloadOf:
    def payload(inputs: Inputs, _step: Step) -> JsonObject:
        return {
            "tags": as_object(inputs.get("tags")),
            **_given(inputs, span_id="span_id", scope="scope", merge="merge"),
        }

    return payload


def _tagged(_node: Node, _wired: frozenset[str]) -> Present:
    def present(raw: Any, _step: Step) -> JsonObject:
        entry = _entry(raw)
        return {
            "success": bool(entry.get("success")),
            "rendered": _rendered(raw),
            "results": _meta(raw).get("applied", []),
            "raw": raw,
        }

    return present


def _memory_compact(_site: Site) -> PayloadOf:
    def payload(inputs: Inputs, _step: Step) -> JsonObject:
        names = ("preserve_recent", "compression_mode", "focus")
        return _given(inputs, **{name: name for name in names})

    return payload


def _compacted(_node: Node, _wired: frozenset[str]) -> Present:
    return lambda raw, _step: {"span_id": _meta(raw).get("span_id"), "rendered": _rendered(raw), "raw": raw}


def _memory_rehydrate(_site: Site) -> PayloadOf:
    def payload(inputs: Inputs, _step: Step) -> JsonObject:
        named = inputs.get("span_ids")
        if named is None or named == "":
            named = inputs.get("span_id")
        return {
            "span_ids": [] if named is None or named == "" else named,
            **_given(inputs, placement="placement", recall_level="recall_level", max_messages="max_messages"),
        }

    return payload


def _rehydrated(_node: Node, _wired: frozenset[str]) -> Present:
    def present(raw: Any, _step: Step) -> JsonObject:
        told = as_object(raw)
        return {
            "inserted": told.get("inserted", 0),
            "skipped": told.get("skipped", 0),
            "artifacts": told.get("artifacts", []),
            "raw": raw,
        }

    return present


def _entry(raw: Any) -> JsonObject:
    """Return what a tool-shaped result says of its only call."""
    results = as_object(raw).get("results")
    return as_object(results[0]) if isinstance(results, list) and results else {}


def _meta(raw: Any) -> JsonObject:
    return as_object(_entry(raw).get("meta"))


def _rendered(raw: Any) -> str:
    output = _entry(raw).get("output")
    return output if isinstance(output, str) else ""


TYPES = (
    NodeType(
        "memory_note",
        "memory",
        Ask(EffectType.MEMORY_NOTE, _memory_note, _note_id, "note_id"),
        ("keep_in_context", "scope", "content", "location", "tags", "sources"),
        ("note_id",),
        "Writes a note into the memory of the run, the session or everybody.",
    ),
    NodeType(
        "memory_query",
        "memory",
        Ask(EffectType.MEMORY_QUERY, _memory_query, _found, "results"),
        (
            "query",
            "recall_level",
            "limit",
            "tags",
            "tags_mode",
            "usernames",
            "locations",
            "since",
            "until",
            "scope",
        ),
        ("results", "rendered"),
        "Looks for notes and archived conversations.",
    ),
    NodeType(
        "memory_tag",
        "memory",
        Ask(EffectType.MEMORY_TAG, _memory_tag, _tagged, "rendered"),
        ("span_id", "scope", "tags", "merge"),
        ("success", "rendered"),
        "Tags a note or an archived conversation.",
    ),
    NodeType(
        "memory_compact",
        "memory",
        Ask(EffectType.MEMORY_COMPACT, _memory_compact, _compacted, "span_id"),
        ("preserve_recent", "compression_mode", "focus"),
        ("span_id",),
        "Archives the older part of the conversation and puts a summary in its place.",
    ),
    NodeType(
        "memory_rehydrate",
        "memory",
        Ask(EffectType.MEMORY_REHYDRATE, _memory_rehydrate, _rehydrated, "inserted"),
        ("span_ids", "placement", "recall_level", "max_messages"),
        ("inserted", "skipped"),
        "Brings archived messages and notes back into the conversation.",
    ),
)
