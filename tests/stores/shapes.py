"""Runs, records, commits and commands in the few shapes that the tests of the stores need."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.jsonvalue import JsonObject
from abstractgateway.runtime.chain import encode_record
from abstractgateway.runtime.commit import CommandOutcome, CommandRecord, Commit, RunWrite, StoredRun
from abstractgateway.runtime.delta import encode_delta, encode_state
from abstractgateway.runtime.models import RunState, RunStatus, StepRecord, StepStatus, WaitReason, WaitState
from abstractgateway.runtime.tracking import TrackedVars
from abstractgateway.stores import open_file_stores, open_memory_stores, open_sqlite_stores
from abstractgateway.stores.base import Changes, Stores
from tests.postgres.server import open_test_database

AT = "2026-11-21T07:00:00+00:00"
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Backend:
    """A way to keep stores in a directory; opening it twice is a restart."""

    name: str
    open_at: Callable[[Path], Stores]
    is_durable: bool = True


MEMORY = Backend("memory", lambda directory: open_memory_stores(), is_durable=False)
FILES = Backend("files", open_file_stores)
SQLITE = Backend("sqlite", open_sqlite_stores)
POSTGRES = Backend("postgres", open_test_database)
ON_A_DISK = pytest.mark.parametrize("durable", [FILES, SQLITE], indirect=True, ids=["files", "sqlite"])
"""For tests of what only stores in a directory have: its files, its locks, its disk."""


def at(second: float) -> str:
    """Return a time so many seconds after seven."""
    minutes, seconds = divmod(second, 60)
    return f"2026-11-21T07:{int(minutes):02d}:{seconds:09.6f}+00:00"


def a_run(run_id: str = "r1", **fields: Any) -> RunState:
    known = {"workflow_id": "wf", "status": RunStatus.RUNNING, "current_node": "n", "created_at": AT, "updated_at": AT}
    return RunState(run_id=run_id, **{**known, **fields})


def waiting(run_id: str = "r1", *, key: str | None = None, until: str | None = None, **fields: Any) -> RunState:
    reason = WaitReason.UNTIL if until else WaitReason.EVENT
    wait = WaitState(reason, wait_key=key, until=until)
    return a_run(run_id, **{"status": RunStatus.WAITING, "waiting": wait, **fields})


def records(run_id: str, count: int, *, first: int = 1, prev: str | None = None, text: str = "x") -> Any:
    """Return that many chained records from a number on, and the last one's hash."""
    bodies: list[bytes] = []
    for number in range(first, first + count):
        record = StepRecord(
            run_id=run_id,
            step_id=f"s{number}",
            node_id="n",
            status=StepStatus.COMPLETED,
            result={"i": number, "text": text},
            started_at=AT,
            prev_hash=prev,
        )
        body, prev = encode_record(record)
        bodies.append(body)
    return tuple(bodies), prev


def write(state: RunState, stored: StoredRun | None = None, *, count: int = 0, text: str = "x") -> RunWrite:
    """Return the write that puts a state after what is stored, with so many new records."""
    revision, length, head = (stored.revision, stored.ledger_len, stored.ledger_hash) if stored else (0, 0, None)
    added, digest = records(state.run_id, count, first=length + 1, prev=head, text=text)
    return RunWrite(state.run_id, state, encode_state(state), revision, added, length, digest)


def save(stores: Stores, state: RunState, *, count: int = 0, text: str = "x", **fields: Any) -> StoredRun:
    """Commit a state after what is stored, and return what is stored then."""
    stores.commit(Commit(runs=(write(state, stores.runs.open(state.run_id), count=count, text=text),), **fields))
    stored = stores.runs.open(state.run_id)
    assert stored is not None
    return stored


def changing(stored: StoredRun, changes: JsonObject, *, count: int = 0) -> RunWrite:
    """Return the write that puts some variables of a run after what is stored, as a delta, with so many new records."""
    vars = TrackedVars(stored.state.vars)
    vars.update(changes)
    state = replace(stored.state, vars=vars)
    delta = encode_delta(state, vars.take_changes())
    return replace(write(stored.state, stored, count=count), state=state, body=b"", delta=delta)


def appending(stored: StoredRun, count: int) -> RunWrite:
    """Return the write that only appends records to a run."""
    return replace(write(stored.state, stored, count=count), state=None, body=b"")


def a_command(command_id: str = "c1", **fields: Any) -> CommandRecord:
    return CommandRecord(
        **{"command_id": command_id, "run_id": "r1", "type": "pause", "payload": {}, "ts": AT, **fields}
    )


def applied(command: CommandRecord, seq: int) -> CommandOutcome:
    return CommandOutcome(seq, command.command_id, "applied", None, AT)


class Told:
    """A listener that remembers what it was told and can be waited for."""

    def __init__(self, stores: Stores) -> None:
        self.changes: list[Changes] = []
        self._changed = threading.Condition()
        self.stop = stores.subscribe(self)

    def __call__(self, changes: Changes) -> None:
        with self._changed:
            self.changes.append(changes)
            self._changed.notify_all()

    @property
    def revisions(self) -> list[tuple[str, int]]:
        return [(row.run_id, row.revision) for changes in self.changes for row in changes.runs]

    def has_heard(self, run_id: str, revision: int) -> bool:
        return (run_id, revision) in self.revisions

    def wait_until(self, is_there: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
        with self._changed:
            return self._changed.wait_for(is_there, timeout_s)
