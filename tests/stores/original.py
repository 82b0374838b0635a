"""Run by an interpreter that has AbstractRuntime 0.4.9 installed: writes a data directory, or goes on with one."""

from __future__ import annotations

import json
import sys
from typing import Any


def open_stores(backend: str, directory: str) -> tuple[Any, Any, Any, Any]:
    """Return the run, ledger, command and cursor stores of AbstractRuntime."""
    from pathlib import Path

    if backend == "files":
        from abstractruntime.storage.commands import JsonFileCommandCursorStore, JsonlCommandStore
        from abstractruntime.storage.json_files import JsonFileRunStore, JsonlLedgerStore

        cursor = JsonFileCommandCursorStore(Path(directory) / "commands_cursor.json")
        return JsonFileRunStore(directory), JsonlLedgerStore(directory), JsonlCommandStore(directory), cursor
    from abstractruntime.storage import sqlite

    database = sqlite.SqliteDatabase(str(Path(directory) / "gateway.sqlite3"))
    return (
        sqlite.SqliteRunStore(database),
        sqlite.SqliteLedgerStore(database),
        sqlite.SqliteCommandStore(database),
        sqlite.SqliteCommandCursorStore(database),
    )


def make(runs: Any, ledger: Any, commands: Any, cursor: Any) -> None:
    """Write a waiting parent, a timer, a completed child and two commands, of which the first is dealt with."""
    from abstractruntime.core.models import RunState, RunStatus, StepRecord, WaitReason, WaitState
    from abstractruntime.storage.commands import CommandRecord
    from abstractruntime.storage.ledger_chain import HashChainedLedgerStore

    parent = RunState.new(workflow_id="wf", entry_node="a", vars={"é": [1]}, session_id="s")
    parent.run_id = "parent"
    parent.status, parent.waiting = RunStatus.WAITING, WaitState(reason=WaitReason.EVENT, wait_key="evt:x")
    timer = RunState.new(workflow_id="wf", entry_node="a")
    timer.run_id = "timer"
    timer.status = RunStatus.WAITING
    timer.waiting = WaitState(reason=WaitReason.UNTIL, until="2026-11-21T07:00:00+00:00", wait_key="t")
    child = RunState.new(workflow_id="wf", entry_node="a", parent_run_id="parent")
    child.run_id, child.status, child.output = "child", RunStatus.COMPLETED, {"answer": 42}
    chained = HashChainedLedgerStore(ledger)
    for state in (parent, timer, child):
        runs.save(state)
        for number in range(2):
            record = StepRecord.start(run=state, node_id=f"n{number}", effect=None)
            (chained if state is parent else ledger).append(record.finish_success({"text": "grüße", "i": number}))
    for name in ("one", "two"):
        commands.append(CommandRecord(name, "parent", "pause", {"x": "é"}, "2026-11-21T07:00:00+00:00"))
    cursor.save(1)


def go_on(runs: Any, ledger: Any, commands: Any, cursor: Any) -> None:
    """Resume the parent, add a record and a command, and move the cursor."""
    from abstractruntime.core.models import RunStatus, StepRecord
    from abstractruntime.storage.commands import CommandRecord

    state = runs.load("parent")
    state.status, state.waiting, state.current_node = RunStatus.RUNNING, None, "went-on"
    state.updated_at = "2027-01-01T00:00:00+00:00"
    runs.save(state)
    ledger.append(StepRecord.start(run=state, node_id="went-on", effect=None).finish_success({"on": True}))
    commands.append(CommandRecord("three", "parent", "pause", {}, "2026-11-21T07:00:00+00:00"))
    cursor.save(2)


def look(runs: Any, ledger: Any, commands: Any, cursor: Any) -> None:
    """Print what AbstractRuntime finds."""
    from abstractruntime.storage.ledger_chain import verify_ledger_chain

    states = sorted(runs.list_runs(limit=100), key=lambda state: state.run_id)
    found, _ = commands.list_after(after=0)
    print(
        json.dumps(
            {
                "runs": {state.run_id: [state.status.value, state.current_node, state.vars] for state in states},
                "ledgers": {state.run_id: len(ledger.list(state.run_id)) for state in states},
                "is_chained": verify_ledger_chain(ledger.list("r1"))["ok"],
                "waiting": {state.run_id: state.waiting.wait_key for state in states if state.waiting},
                "due": [state.run_id for state in runs.list_due_wait_until(now_iso="2099-01-01T00:00:00+00:00")],
                "children": [state.run_id for state in runs.list_children(parent_run_id="r1")],
                "commands": [[command.command_id, command.seq, command.payload] for command in found],
                "cursor": cursor.load(),
            }
        )
    )


if __name__ == "__main__":
    {"make": make, "go_on": go_on, "look": look}[sys.argv[1]](*open_stores(*sys.argv[2:]))
