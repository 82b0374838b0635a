"""Events: their keys, and their delivery to the runs that wait for them.

A key is `evt:<scope>:<scope id>:<name>`; the scopes are session, workflow, run and global.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import GatewayError, Invalid
from ...jsonvalue import JsonObject
from .. import lifecycle, mailbox
from ..draft import Draft
from ..models import EffectOutcome, RunState, RunStatus, WaitReason
from ..paths import copied
from .request import EffectRequest

SCOPES = ("session", "workflow", "run", "global")
MAX_NAMES = 15
"""How many listeners are named to who emitted an event that nobody waited for, as in AbstractRuntime."""
MAX_LOOKED_AT = 200
"""How many waiting runs of the session are looked at for that: it is a hint, and may not cost more than the event."""


def build_event_wait_key(
    *,
    scope: str,
    name: str,
    session_id: str | None = None,
    workflow_id: str | None = None,
    run_id: str | None = None,
) -> str:
    """Return the key that listeners of an event wait on. Raises `Invalid` for a blank name, scope or scope id."""
    wanted = str(scope or "").strip().lower()
    if wanted not in SCOPES:
        raise Invalid("scope", f"{scope!r} is not one of {', '.join(SCOPES)}")
    label = str(name or "").strip()
    if not label:
        raise Invalid("name", "is blank; name the event")
    owner = {"session": session_id, "workflow": workflow_id, "run": run_id, "global": "global"}[wanted]
    if not owner:
        raise Invalid(f"{wanted}_id", f"is missing; an event of scope {wanted!r} needs it")
    return f"evt:{wanted}:{owner}:{label}"


def event_key_for(state: RunState, payload: JsonObject) -> str:
    """Return the key of the event that a run's effect payload names."""
    return build_event_wait_key(
        scope=str(payload.get("scope") or "session"),
        name=str(payload.get("name") or payload.get("event_name") or ""),
        session_id=str(payload.get("session_id") or state.session_id or state.run_id),
        workflow_id=state.workflow_id,
        run_id=state.run_id,
    )


@dataclass(frozen=True)
class Event:
    """Something that happened, on its way to whoever waits for it."""

    key: str
    name: str
    scope: str
    payload: JsonObject
    emitter: JsonObject
    session_id: str | None = None
    event_id: str | None = None
    emitted_at: str | None = None

    def to_envelope(self) -> JsonObject:
        """Return what a listener receives."""
        return {
            "event_id": self.event_id,
            "name": self.name,
            "scope": self.scope,
            "session_id": self.session_id,
            "payload": self.payload,
            "emitted_at": self.emitted_at,
            "emitter": self.emitter,
        }

    @property
    def wildcard_key(self) -> str:
        """The key of listeners that take every event of the same scope."""
        return self.key[: len(self.key) - len(self.name)] + "*"


def deliver(draft: Draft, event: Event) -> list[JsonObject]:
    """Resume every run that waits for the event; `[{run_id, status[, error]}]`, one entry per listener.

    A listener that cannot take the event now (it is paused) is skipped and does not keep it from the others. What no
    listener takes is kept in the mailbox of its key.
    """
    entries: list[JsonObject] = []
    keys = (event.key, event.wildcard_key)
    waiting_ids = draft.stores.runs.waiting_on(keys)
    for run_id in waiting_ids:
        listener = draft.open(run_id)
        waiting = listener.state.waiting
        if waiting is None or waiting.wait_key not in keys:
            continue  # an earlier step of the same commit resumed it already
        try:
            lifecycle.resume(draft, listener, None, copied(event.to_envelope()))
            entries.append({"run_id": run_id, "status": listener.state.status.value})
        except GatewayError as error:
            entries.append({"run_id": run_id, "status": "skipped", "error": str(error)})
    if is_missed(entries) and mailbox.is_keepable(draft, event.key, event.name):
        mailbox.keep(draft, event.key, event.to_envelope())
        draft.rely_on_waiters(keys, waiting_ids)
        for run_id in waiting_ids:
            draft.rely_on_run(run_id)
    return entries


def is_missed(entries: list[JsonObject]) -> bool:
    """Say whether no listener took an event."""
    return all("error" in entry for entry in entries)


def emit_event(request: EffectRequest) -> EffectOutcome:
    """Emit an event: payload `name`, `scope`, `session_id`, `payload`, `event_id`; delivered in the same commit."""
    payload = request.payload
    try:
        key = event_key_for(request.state, payload)
    except Invalid as error:
        return EffectOutcome.failed(f"emit_event: {error}")
    state = request.state
    event = Event(
        key=key,
        name=str(request.first("name", "event_name", default="")).strip(),
        scope=key.split(":", 2)[1],
        payload=as_object(payload.get("payload")),
        emitter={"run_id": state.run_id, "workflow_id": state.workflow_id, "node_id": request.node_id},
        session_id=str(payload.get("session_id") or state.session_id or state.run_id),
        event_id=request.first("event_id"),
        emitted_at=request.draft.now_iso(),
    )
    entries = deliver(request.draft, event)
    reached = [entry["run_id"] for entry in entries if "error" not in entry]
    result: JsonObject = {
        "wait_key": key,
        "name": event.name,
        "scope": event.scope,
        "delivered": len(reached),
        "delivered_to": reached,
        "resumed": entries,
    }
    if not entries and (names := _listened_for(request.draft, str(event.session_id))):
        result["available_listeners_in_session"] = names
    if not reached and mailbox.is_keepable(request.draft, key, event.name):
        result["kept"] = True
    return EffectOutcome.completed(result)


def _listened_for(draft: Draft, session_id: str) -> list[str]:
    """Return the names of the events that runs of a session wait for, in alphabetical order."""
    find = getattr(draft.stores.runs, "list_run_index", None)
    if find is None:
        return []  # the store has no such query, which AbstractRuntime's stores may lack as well
    rows = find(status=RunStatus.WAITING, session_id=session_id, limit=MAX_LOOKED_AT)
    event_ids = (row["run_id"] for row in rows if row["wait_reason"] == WaitReason.EVENT.value)
    waits = [state.waiting for state in map(draft.peek, event_ids) if state is not None]
    prefix = f"evt:session:{session_id}:"
    keys = {wait.wait_key or "" for wait in waits if wait is not None}
    return sorted(key[len(prefix) :] for key in keys if key.startswith(prefix))[:MAX_NAMES]


def as_object(value: Any) -> JsonObject:
    """Return an event's payload as an object: other values become `{"value": …}`, null an empty one."""
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"value": value}
