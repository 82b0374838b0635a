"""The mailbox: events that came before their listener waited, kept for it.

A mailbox is a run that exists to hold the events of one key. It is written in the commit of the emission that nobody
waited for, and in the commit of the wait that takes an event out, so an event is delivered once. Neither side can miss
the other: the emission relies on who waits, the wait on what the mailbox holds, and a store refuses a commit that
relies on what has changed meanwhile.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

from ..clock import parse_iso
from ..jsonvalue import JsonObject, dumps
from .draft import Draft, OpenRun
from .models import RunState, RunStatus
from .paths import copied

WORKFLOW_ID = "__mailbox__"
MAX_EVENTS = 100
MAX_BYTES = 65_536
"""A mailbox is rewritten with every event it takes in, so it stays small; its latest event is kept at any size."""
MAX_AGE = timedelta(days=7)
"""Longer than people take to answer what a flow waits for first; after it an event would only surprise."""

_PREFIX = "evt:"
_NOT_KEPT = ("abstract.status", "*")
"""The end of a run, told to whoever watches just then, and the name that listeners of everything wait on."""


def mailbox_id(key: str) -> str:
    """Return the id of the run that holds the events of a key."""
    return f"mailbox_{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def is_keepable(draft: Draft, key: str, name: str) -> bool:
    """Say whether an event that nobody waits for is kept; one for a run is not once that run has ended."""
    if name in _NOT_KEPT:
        return False
    if not key.startswith("evt:run:"):
        return True
    owner = draft.peek(key[len("evt:run:") : -len(name) - 1])
    return owner is not None and not owner.status.is_terminal


def keep(draft: Draft, key: str, envelope: JsonObject) -> None:
    """Put an event into the mailbox of its key; the oldest ones make room and are counted as `dropped`."""
    box = draft.find(mailbox_id(key)) or draft.create(_new_box(draft, key))
    vars = box.state.vars
    event = {"kept_at": draft.now_iso(), "bytes": len(dumps(envelope, field="event")), "event": copied(envelope)}
    events = [*_events(box), event]
    left = _within_bounds(events)
    vars["dropped"] = int(vars.get("dropped") or 0) + len(events) - len(left)
    vars["events"] = left
    box.touch(draft.now_iso())


def take(draft: Draft, key: str) -> JsonObject | None:
    """Return the oldest event that was kept for a key and take it out of the mailbox; None when there is none.

    The commit then relies on the mailbox being as it was seen.
    """
    if not key.startswith(_PREFIX):
        return None
    box = draft.find(mailbox_id(key))
    draft.rely_on_run(mailbox_id(key))
    left = [event for event in _events(box) if not _is_over(draft, event)] if box is not None else []
    if box is None or not left:
        return None
    box.state.vars["events"] = left[1:]
    box.touch(draft.now_iso())
    taken: JsonObject = left[0]["event"]
    return taken


def _events(box: OpenRun) -> list[JsonObject]:
    found = box.state.vars.get("events")
    return found if isinstance(found, list) else []


def _within_bounds(events: list[JsonObject]) -> list[JsonObject]:
    left = events[-MAX_EVENTS:]
    size = sum(int(event["bytes"]) for event in left)
    while size > MAX_BYTES and len(left) > 1:
        size -= int(left[0]["bytes"])
        left = left[1:]
    return left


def _is_over(draft: Draft, event: JsonObject) -> bool:
    return draft.clock.now() - parse_iso(str(event["kept_at"])) > MAX_AGE


def _new_box(draft: Draft, key: str) -> RunState:
    now = draft.now_iso()
    return RunState(
        run_id=mailbox_id(key),
        workflow_id=WORKFLOW_ID,
        status=RunStatus.COMPLETED,
        current_node="done",
        vars={"key": key, "events": [], "dropped": 0},
        created_at=now,
        updated_at=now,
    )
