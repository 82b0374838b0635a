"""What every store refuses, whoever asks: commits that could not be written, and commands that are none."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

from ..clock import to_iso
from ..errors import Invalid
from ..ids import check_safe_id, new_hex
from ..jsonvalue import dumps
from .base import ANY_REVISION, CommandRecord, Commit, RunWrite


def check_commit(commit: Commit) -> None:
    """Raise `Invalid` for a commit that no store can take; called in the committing thread, before it is queued."""
    changed = [write.run_id for write in commit.runs] + [removal.run_id for removal in commit.removed]
    if len(set(changed)) != len(changed):
        raise Invalid("runs", "has two writes of one run; a commit has one for each")
    for write in commit.runs:
        _check_write(write)
    for removal in commit.removed:
        check_safe_id(removal.run_id, field="run_id")
    if commit.command is not None:
        dumps(commit.command.to_dict(), field="command")
    if commit.outcome is not None:
        dumps(commit.outcome.to_dict(), field="outcome")


def _check_write(write: RunWrite) -> None:
    check_safe_id(write.run_id, field="run_id")
    if write.state is not None and write.state.run_id != write.run_id:
        raise Invalid("runs", f"a write of run {write.run_id!r} has the state of run {write.state.run_id!r}")
    if write.state is not None and not (write.delta or write.body).rstrip().endswith(b"}"):
        raise Invalid("runs", f"the body of run {write.run_id!r} is not a JSON object")
    if write.delta and write.expected < 1:
        raise Invalid("runs", f"a delta of run {write.run_id!r} changes no revision")
    if write.moved_to is not None and (write.state is None or write.moved_to <= write.expected):
        raise Invalid("runs", f"run {write.run_id!r} cannot be moved to revision {write.moved_to}")
    if write.expected < 0 and write.expected != ANY_REVISION:
        raise Invalid("runs", f"run {write.run_id!r} cannot be expected at revision {write.expected}")
    if any(b"\n" in record for record in write.records):
        raise Invalid("records", f"a record of run {write.run_id!r} has a line break; a record is one line of JSON")


def complete_command(command: CommandRecord) -> CommandRecord:
    """Return a command with an id and a time where it had none. Raises `Invalid` for what is no command."""
    for name in ("run_id", "type"):
        if not str(getattr(command, name) or "").strip():
            raise Invalid(name, "is missing; a command names its run and its type")
    if not isinstance(command.payload, dict):
        raise Invalid("payload", f"must be an object, not {type(command.payload).__name__}")
    return replace(
        command,
        seq=0,
        command_id=(command.command_id or "").strip() or new_hex(),
        ts=(command.ts or "").strip() or to_iso(datetime.now(timezone.utc)),
    )
