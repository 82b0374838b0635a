"""Applying durable commands: each exactly once, in order, with an outcome that can be read (promise G4).

What a command changes, its outcome and the move of the inbox cursor are one commit. A command that cannot be applied
changes nothing but its outcome, which says why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext

from .. import schedules
from ..clock import Clock, to_iso
from ..errors import GatewayError, Invalid, LeaseLost, NotFound, Unavailable
from ..jsonvalue import JsonObject
from ..runtime import lifecycle
from ..runtime.commit import CommandOutcome, CommandRecord, Commit
from ..runtime.draft import Draft
from ..runtime.effects.events import Event, as_object, build_event_wait_key, deliver
from ..runtime.execution import printable
from ..runtime.runtime import transact
from ..stores.base import Stores
from .compaction import compact_on_command

_log = logging.getLogger(__name__)

COMMAND_TYPES = ("pause", "resume", "cancel", "emit_event", "update_schedule", "compact_memory")

PATIENT_ATTEMPTS = 3
"""How often a command is tried beside the runs that go on; a run between two quick effects is free half of the time."""


class CommandApplier:
    """Applies the commands of a store's inbox.

    A run whose effects are quick changes so often that a command hardly fits in: after a few attempts it is applied
    `quietly`, which is how the driver is told to hold everything for a moment. `on_rescheduled` is called with the id
    of the run that was named when a schedule has been changed.
    """

    def __init__(
        self,
        stores: Stores,
        clock: Clock,
        *,
        quietly: Callable[[], AbstractContextManager[None]] = nullcontext,
        max_inline_bytes: int | None = None,
        on_rescheduled: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        self.epoch: int | None = None
        self._on_rescheduled = on_rescheduled
        self._stores = stores
        self._clock = clock
        self._quietly = quietly
        self._max_inline_bytes = max_inline_bytes

    def apply(self, command: CommandRecord) -> CommandOutcome:
        """Apply one command durably and return its outcome.

        Raises `LeaseLost` when this process no longer owns the runs, `Unavailable` when the store cannot write now;
        the command is then still to be applied.
        """
        change = _HANDLERS.get(command.type.strip().lower())
        if change is None:
            known = ", ".join(COMMAND_TYPES)
            return self._reject(command, f"unknown command type {command.type!r}; known: {known}")
        applied = self._outcome(command, "applied", None)
        try:
            self._transact(lambda draft: change(draft, command), applied)
        except (LeaseLost, Unavailable, OSError):
            raise
        except GatewayError as error:
            if error.code == "busy":
                raise Unavailable(str(error), code="busy") from error
            return self._reject(command, str(error))
        except Exception as error:  # one command that nobody foresaw must not keep all later ones from their turn
            _log.exception("command %s could not be applied", command.command_id)
            return self._reject(command, f"internal error: {type(error).__name__}: {error}")
        if change is _update_schedule:
            self._on_rescheduled(command.run_id)
        return applied

    def _transact(self, change: Callable[[Draft], None], applied: CommandOutcome) -> None:
        with ExitStack() as stack:
            transact(
                self._stores,
                self._clock,
                change,
                epoch=self.epoch,
                max_inline_bytes=self._max_inline_bytes,
                to_commit=lambda draft, _: draft.to_commit(applied),
                on_stale=patience(stack, self._quietly),
            )

    def _reject(self, command: CommandRecord, reason: str) -> CommandOutcome:
        rejected = self._outcome(command, "rejected", printable(reason))
        self._stores.commit(Commit(outcome=rejected, epoch=self.epoch))
        return rejected

    def _outcome(self, command: CommandRecord, status: str, reason: str | None) -> CommandOutcome:
        return CommandOutcome(command.seq, command.command_id, status, reason, to_iso(self._clock.now()))


def patience(stack: ExitStack, quietly: Callable[[], AbstractContextManager[None]]) -> Callable[[int], None]:
    """Return what a transaction calls when it came too late: after a few attempts it goes on quietly, till its end."""

    def on_stale(attempt: int) -> None:
        if attempt == PATIENT_ATTEMPTS:
            stack.enter_context(quietly())

    return on_stale


def _pause(draft: Draft, command: CommandRecord) -> None:
    reason = _optional_text(command.payload, "reason")
    for run_id in _tree(draft, command.run_id):
        lifecycle.pause(draft, draft.open(run_id), reason)


def _resume(draft: Draft, command: CommandRecord) -> None:
    if "payload" in command.payload:
        _answer(draft, command)
        return
    tree = _tree(draft, command.run_id)
    schedule = schedules.find_schedule(draft, command.run_id)
    was_paused = schedule is not None and lifecycle.is_paused(schedule)
    for run_id in tree:
        lifecycle.unpause(draft, draft.open(run_id))
    if schedule is not None and was_paused and not lifecycle.is_paused(draft.open(schedule.run_id).state):
        schedules.go_on_after_pause(draft, draft.open(schedule.run_id))


def _answer(draft: Draft, command: CommandRecord) -> None:
    payload = command.payload["payload"]
    if not isinstance(payload, dict):
        raise Invalid("payload.payload", f"must be an object, not {type(payload).__name__}")
    wait_key = command.payload.get("wait_key", command.payload.get("waitKey"))
    _known(draft, command.run_id)
    lifecycle.resume(draft, draft.open(command.run_id), str(wait_key) if wait_key else None, payload)


def _cancel(draft: Draft, command: CommandRecord) -> None:
    reason = _optional_text(command.payload, "reason")
    for run_id in _tree(draft, command.run_id):
        lifecycle.cancel(draft, draft.open(run_id), reason)


def _emit_event(draft: Draft, command: CommandRecord) -> None:
    payload = command.payload
    name = str(payload.get("name") or "").strip()
    scope = str(payload.get("scope") or "session").strip().lower()
    session_id = str(_first(payload, "session_id", "sessionId") or command.run_id)
    key = build_event_wait_key(
        scope=scope,
        name=name,
        session_id=session_id,
        workflow_id=_first(payload, "workflow_id", "workflowId"),
        run_id=_first(payload, "run_id", "runId"),
    )
    event = Event(
        key=key,
        name=name,
        scope=scope,
        payload=as_object(payload.get("payload")),
        emitter={"source": "external", "client_id": command.client_id},
        session_id=session_id,
        event_id=_first(payload, "event_id", "eventId"),
        emitted_at=_first(payload, "emitted_at", "emittedAt"),
    )
    deliver(draft, event)


def _update_schedule(draft: Draft, command: CommandRecord) -> None:
    _known(draft, command.run_id)
    run = schedules.the_schedule(draft, command.run_id)
    schedules.update_schedule(draft, run, command.payload, command_id=command.command_id, requested=command.run_id)


def _compact_memory(draft: Draft, command: CommandRecord) -> None:
    _known(draft, command.run_id)
    compact_on_command(draft, command)


_HANDLERS: dict[str, Callable[[Draft, CommandRecord], None]] = {
    "pause": _pause,
    "resume": _resume,
    "cancel": _cancel,
    "emit_event": _emit_event,
    "update_schedule": _update_schedule,
    "compact_memory": _compact_memory,
}


def _tree(draft: Draft, run_id: str) -> list[str]:
    """Return a run and everything below it, breadth first. Raises `NotFound` for an unknown run."""
    _known(draft, run_id)
    return lifecycle.tree_of(draft, run_id)


def _known(draft: Draft, run_id: str) -> None:
    if draft.peek(run_id) is None:
        raise NotFound(f"unknown run {run_id!r}", code="unknown_run")


def _first(payload: JsonObject, *names: str) -> str | None:
    found = next((payload[name] for name in names if payload.get(name) is not None), None)
    return str(found) if found is not None else None


def _optional_text(payload: JsonObject, name: str) -> str | None:
    value = payload.get(name)
    return str(value) if value else None
