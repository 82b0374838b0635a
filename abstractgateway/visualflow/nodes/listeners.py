"""Entries that wait: for an event, or for a time; most of them again and again."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from ...clock import parse_iso, to_iso
from ...errors import Invalid
from ...jsonvalue import JsonObject
from ...runtime.context import StepContext
from ...runtime.effects.events import build_event_wait_key
from ...runtime.models import Effect, EffectType, NodeHandler, RunState, StepPlan
from ..flow import EXEC_OUT, Node
from ..node import Ask, Control, Inputs, NodeType, Site, continue_at
from ..state import ControlStack, Step
from ..values import as_object, first_text, safe_name

LISTENER = "on_event"
_SCOPES = frozenset({"session", "workflow", "run", "global"})
_INTERVAL = re.compile(r"\A\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h|d)\s*\Z", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_INTERVAL_S = 100 * 365 * 86400.0


def listener_workflow_id(workflow_id: str, node_id: str) -> str:
    """Return the id of the workflow that begins at a listening node."""
    return f"visual_event_listener_{safe_name(workflow_id)}_{safe_name(node_id)}"


def _on_event(site: Site) -> Callable[[Inputs, Step], JsonObject]:
    """Listen, and listen again when the chain behind has ended: the node stays on the control stack for ever.

    Only declared pins and the drawing name the event: the bus carries what the chain computed, which is no name.
    """
    node_id, config = site.node.id, site.node.config("eventConfig")
    pins = frozenset(site.node.data_inputs)

    def payload(inputs: Inputs, step: Step) -> JsonObject:
        given = {pin: value for pin, value in inputs.items() if pin in pins}
        name = first_text(given.get("name"), given.get("event_name"), config.get("name")) or "*"
        scope = (first_text(given.get("scope"), config.get("scope")) or "session").lower()
        ControlStack(step).enter(node_id, {"kind": "event"})
        run = step.run
        key = build_event_wait_key(
            scope=scope if scope in _SCOPES else "session",
            name=name,
            session_id=run.session_id or run.run_id,
            workflow_id=site.workflow_id,
            run_id=run.parent_run_id or run.run_id,
        )
        return {"wait_key": key, "allow_free_text": True}

    return payload


def _received(_node: Node, _wired: frozenset[str]) -> Callable[[Any, Step], Any]:
    def present(raw: Any, _step: Step) -> JsonObject:
        event = as_object(raw)
        return {"event": raw, **{name: event.get(name) for name in ("payload", "event_id", "name")}}

    return present


def _on_schedule(site: Site) -> NodeHandler:
    """Wait for a time, or for each point of a grid of times that starts when the run does."""
    node_id, config, resolve = site.node.id, site.node.config("eventConfig"), site.resolve
    pins = frozenset(site.node.data_inputs)
    following = site.targets.get(EXEC_OUT)

    def handle(run: RunState, ctx: StepContext) -> StepPlan:
        step = Step(run, ctx)
        given = {pin: value for pin, value in resolve(step).items() if pin in pins}
        schedule = first_text(given.get("schedule"), config.get("schedule"))
        interval_s, instant = read_schedule(schedule)
        is_recurrent = interval_s is not None and _is_recurrent(given.get("recurrent"), config.get("recurrent"))
        if interval_s is not None:
            instant = _next_point(step, node_id, interval_s, is_recurrent=is_recurrent)
        until = to_iso(instant or ctx.now())
        step.keep_output(node_id, {"timestamp": until, "recurrent": is_recurrent})
        target = continue_at(step, following)
        payload = {"until": until, **({"resume_to_node": target} if target is not None else {})}
        return StepPlan(node_id, effect=Effect(EffectType.WAIT_UNTIL, payload), next_node=target)

    return handle


def read_schedule(text: str | None) -> tuple[float | None, datetime | None]:
    """Return the seconds of an interval such as `15s` or `1.5 h`, or the instant that an ISO 8601 text names.

    Raises `Invalid("schedule", …)` for anything else, intervals of nothing included.
    """
    found = _INTERVAL.match(text or "")
    if found is None:
        try:
            return None, parse_iso(text or "", field="schedule")
        except Invalid:
            raise Invalid(
                "schedule", f"{text!r} is neither an interval such as '15s' or '2h' nor an ISO 8601 time"
            ) from None
    seconds = float(found.group(1)) * _SECONDS[found.group(2).lower()]
    if not 0 < seconds <= _LONGEST_INTERVAL_S:
        raise Invalid("schedule", f"{text!r} is no interval that can be waited for")
    return seconds, None


def _next_point(step: Step, node_id: str, interval_s: float, *, is_recurrent: bool) -> datetime:
    """Return the next point of the grid that is still to come, so that slow chains make no drift."""
    control, now, interval = ControlStack(step), step.ctx.now(), timedelta(seconds=interval_s)
    frame = control.frame(node_id)
    last = parse_iso(frame["last"], field="last") if frame is not None else now
    point = last + interval
    if point <= now:
        point += interval * ((now - point) // interval + 1)
    if is_recurrent:
        control.enter(node_id, {"kind": "schedule", "last": to_iso(point)})
    return point


def _is_recurrent(*candidates: Any) -> bool:
    return next((value for value in candidates if isinstance(value, bool)), True)


def _check_schedule(node: Node) -> str | None:
    text = first_text(node.pin_defaults.get("schedule"), node.config("eventConfig").get("schedule"))
    if text is None and "schedule" in node.data_inputs:
        return None
    try:
        read_schedule(text)
    except Invalid as error:
        return f"cannot be scheduled: {error}"
    return None


TYPES = (
    NodeType(
        LISTENER,
        "entry",
        Ask(EffectType.WAIT_EVENT, _on_event, _received, "payload"),
        ("name", "scope"),
        ("event", "payload", "event_id", "name"),
        "Begins a chain of its own each time an event arrives.",
        {"name": "*", "scope": "session"},
    ),
    NodeType(
        "on_schedule",
        "entry",
        Control(_on_schedule),
        ("schedule", "recurrent"),
        ("timestamp", "recurrent"),
        "Begins its chain at a time, or again after each interval.",
        {"recurrent": True},
        _check_schedule,
    ),
)
