"""Nodes that speak with people, wait, and send events."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ...clock import parse_iso, to_iso
from ...errors import Invalid
from ...jsonvalue import JsonObject
from ...runtime.models import EffectType
from ..flow import Node
from ..node import Ask, Inputs, NodeType, Site
from ..state import Step
from ..values import as_object, first_text

PayloadOf = Callable[[Inputs, Step], JsonObject]

_LEVELS = {"message": "message", "info": "message", "warn": "warning", "warning": "warning", "error": "error"}
_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600}
_LONGEST_WAIT_S = 100 * 365 * 86400.0
_SCOPES = frozenset({"session", "workflow", "run", "global"})


def show_raw(_node: Node, _wired: frozenset[str]) -> Callable[[Any, Step], Any]:
    """Present the effect's result as it is."""
    return lambda raw, _step: raw


def _ask_user(site: Site) -> PayloadOf:
    allow_free_text = site.node.config("effectConfig").get("allowFreeText", True)

    def payload(inputs: Inputs, _step: Step) -> JsonObject:
        prompt = inputs.get("prompt", "Please respond:")
        if not prompt:
            raise Invalid("prompt", f"{prompt!r} is no question to ask")
        choices = inputs.get("choices")
        return {
            "prompt": str(prompt),
            "choices": choices if isinstance(choices, list) else None,
            "allow_free_text": bool(allow_free_text),
        }

    return payload


def _answer(_node: Node, _wired: frozenset[str]) -> Callable[[Any, Step], Any]:
    return lambda raw, _step: {"response": None, **raw} if isinstance(raw, dict) else {"response": raw}


def _answer_user(_site: Site) -> PayloadOf:
    def payload(inputs: Inputs, _step: Step) -> JsonObject:
        message, level = inputs.get("message", ""), inputs.get("level")
        if message is None:
            raise Invalid("message", "is null; there is nothing to show to the user")
        return {"message": str(message), "level": _LEVELS.get(str(level).strip().lower(), "message")}

    return payload


def _wait_until(site: Site) -> PayloadOf:
    unit = str(site.node.config("effectConfig").get("durationType") or "seconds").strip().lower()

    def payload(inputs: Inputs, step: Step) -> JsonObject:
        duration = inputs.get("duration")
        if unit == "timestamp":
            return {"until": to_iso(parse_iso(_timestamp(duration), field="duration"))}
        seconds = min(_amount(duration) * _SECONDS.get(unit, 1), _LONGEST_WAIT_S)
        return {"until": to_iso(step.ctx.now() + timedelta(seconds=max(0.0, seconds)))}

    return payload


def _timestamp(value: Any) -> str:
    text = "" if value is None else str(value).strip()
    if not text:
        raise Invalid("duration", "is empty; give the time to wait for, such as '2026-11-21T07:00:00+00:00'")
    return text


def _amount(value: Any) -> float:
    """What is no number waits no time, as drawn flows rely on."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _wait_event(_site: Site) -> PayloadOf:
    def payload(inputs: Inputs, _step: Step) -> JsonObject:
        key = inputs.get("event_key", "default")
        if key is None or not str(key).strip():
            raise Invalid("event_key", f"{key!r} is no key to wait for")
        prompt, choices = first_text(inputs.get("prompt")), _choice_texts(inputs.get("choices"))
        return {
            "wait_key": str(key),
            "allow_free_text": bool(inputs.get("allow_free_text", True)),
            **({"prompt": prompt} if prompt is not None else {}),
            **({"choices": choices} if choices is not None else {}),
        }

    return payload


def _choice_texts(value: Any) -> list[str] | None:
    if not isinstance(value, list):
        return None
    return [item.strip() for item in value if isinstance(item, str) and item.strip()]


def _event_data(_node: Node, _wired: frozenset[str]) -> Callable[[Any, Step], Any]:
    return lambda raw, _step: {"event_data": raw}


def _emit_event(site: Site) -> PayloadOf:
    node_id, config = site.node.id, site.node.config("effectConfig")

    def payload(inputs: Inputs, step: Step) -> JsonObject:
        names = (inputs.get("name"), inputs.get("event_name"), config.get("name"), config.get("event_name"))
        name = first_text(*names)
        if name is None:
            raise Invalid("name", "is missing: name the event to emit")
        scope = first_text(inputs.get("scope"), config.get("scope")) or "session"
        session = first_text(inputs.get("session_id"), config.get("sessionId"), config.get("session_id"))
        return {
            "name": name,
            "scope": scope.lower() if scope.lower() in _SCOPES else "session",
            "payload": _event_payload(inputs.get("payload")),
            "event_id": f"{step.run.run_id}:{node_id}:{_next_number(step, node_id)}",
            **({"session_id": session} if session is not None else {}),
        }

    return payload


def _event_payload(value: Any) -> JsonObject:
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"value": value}


def _next_number(step: Step, node_id: str) -> int:
    counters = step.section("event_seq")
    counters[node_id] = int(counters.get(node_id, 0)) + 1
    return int(counters[node_id])


def _emitted(_node: Node, _wired: frozenset[str]) -> Callable[[Any, Step], Any]:
    return lambda raw, _step: as_object(raw)


TYPES = (
    NodeType(
        "ask_user",
        "interaction",
        Ask(EffectType.ASK_USER, _ask_user, _answer, "response"),
        ("prompt", "choices"),
        ("response",),
        "Asks a person and waits for the answer.",
        {"prompt": "Please respond:"},
    ),
    NodeType(
        "answer_user",
        "interaction",
        Ask(EffectType.ANSWER_USER, _answer_user, show_raw, "message"),
        ("message", "level"),
        ("message",),
        "Shows a message to the user.",
        {"level": "message"},
    ),
    NodeType(
        "wait_until",
        "interaction",
        Ask(EffectType.WAIT_UNTIL, _wait_until, show_raw),
        ("duration",),
        ("until", "ready"),
        "Waits for a duration or until a time.",
    ),
    NodeType(
        "wait_event",
        "interaction",
        Ask(EffectType.WAIT_EVENT, _wait_event, _event_data, "event_data"),
        ("event_key", "prompt", "choices", "allow_free_text"),
        ("event_data",),
        "Waits until somebody resumes the run with this key.",
        {"event_key": "default", "allow_free_text": True},
    ),
    NodeType(
        "emit_event",
        "interaction",
        Ask(EffectType.EMIT_EVENT, _emit_event, _emitted),
        ("name", "scope", "payload", "session_id"),
        ("delivered", "delivered_to", "wait_key"),
        "Sends an event to the runs that listen for it.",
        {"scope": "session"},
    ),
)
