"""Shortening a conversation inside a schedule when a command says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import Conflict, NotFound
from ..jsonvalue import JsonObject
from ..runtime import lifecycle
from ..runtime.commit import CommandRecord
from ..runtime.draft import Draft
from ..runtime.effects.memory.compact import COMPACT_WORKFLOW_ID, begin_compaction
from ..runtime.models import RunState
from ..runtime.paths import namespace
from ..schedules import the_schedule

_PAYLOAD = {
    "preserve_recent": ("preserve_recent", "preserveRecent"),
    "compression_mode": ("compression_mode", "compressionMode"),
    "focus": ("focus",),
}


def compact_on_command(draft: Draft, command: CommandRecord) -> None:
    """Begin the compaction that a command asks for, of a run inside a schedule.

    Raises `Conflict` for other runs and where there is no conversation, `NotFound` for an unknown target, and `Invalid`
    for a payload that makes no sense.
    """
    root = the_schedule(draft, command.run_id)
    target = _target(draft, root.state, command.payload)
    payload = {"target_run_id": target, **_fields(command.payload)}
    is_over = draft.open(target).state.status.is_terminal
    teller = root if is_over else draft.open(target)
    if teller.state.status.is_terminal:
        raise Conflict(f"the schedule {root.state.run_id!r} has ended", code="not_possible_now")
    begin_compaction(draft, teller, payload, key=f"command:compact_memory:{command.command_id}")
    namespace(root.state.vars, "_runtime")["last_compact_memory"] = {
        "command_id": command.command_id,
        "updated_at": draft.now_iso(),
        "requested_run_id": command.run_id,
        "scheduled_root_run_id": root.state.run_id,
        "target_run_id": target,
    }
    root.touch(draft.now_iso())


def _fields(payload: JsonObject) -> JsonObject:
    found = ((name, [payload[key] for key in keys if payload.get(key) is not None]) for name, keys in _PAYLOAD.items())
    return {name: values[0] for name, values in found if values}


def _target(draft: Draft, root: RunState, payload: JsonObject) -> str:
    """Return the run that a command means: the one it names, or the conversation that somebody would mean."""
    named = payload.get("target_run_id") or payload.get("targetRunId")
    tree = lifecycle.tree_of(draft, root.run_id)
    if named is not None:
        if draft.peek(str(named)) is None:
            raise NotFound(f"unknown run {named!r}", code="unknown_run")
        if named not in tree:
            raise Conflict(f"run {named!r} is not part of the schedule {root.run_id!r}", code="not_scheduled")
        return str(named)
    found = next((state for state in _candidates(draft, root, tree) if conversation_of(state)), None)
    if found is None:
        raise Conflict(f"no run of the schedule {root.run_id!r} has a conversation", code="nothing_to_compact")
    return found.run_id


def _candidates(draft: Draft, root: RunState, tree: list[str]) -> Iterable[RunState]:
    """Return the schedule, then the runs that are under way for it, then all below it, the latest updated first."""
    current: RunState | None = root
    while current is not None:
        yield current
        child = lifecycle.awaited_child(current)
        current = draft.peek(child) if child else None
    below = [state for run_id in tree[1:] if (state := draft.peek(run_id)) is not None]
    yield from sorted(below, key=lambda state: state.updated_at, reverse=True)


def conversation_of(state: RunState) -> list[Any]:
    """Return the messages of the conversation that a run has, if it has one."""
    if state.workflow_id == COMPACT_WORKFLOW_ID:
        return []
    context = state.vars.get("context")
    messages = context.get("messages") if isinstance(context, dict) else None
    return messages if isinstance(messages, list) else []
