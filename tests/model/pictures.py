"""What is compared: a gateway and the model in the same form."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from abstractgateway.clock import parse_iso
from abstractgateway.runtime import RunState
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.lifecycle import is_paused
from abstractgateway.stores.base import RunQuery, Stores
from abstractgateway.testing import ManualClock
from tests.model.model import Entry, Model, Run, Wait
from tests.model.world import SESSION, WORKFLOW, Gateway

Picture = dict[str, Any]

BEGIN = ManualClock().now()


def of_model(model: Model) -> Picture:
    return {
        "runs": {run.name: _of_run(run) for run in model.runs.values()},
        "inbox": _in_order((command.command_id, command.type) for command in model.inbox),
        "outcomes": _in_order(model.outcomes),
        "mailbox": {name: kept for name, kept in model.mailbox.items() if kept},
        "performed": sorted(model.performed),
    }


def of_gateway(gateway: Gateway) -> Picture:
    """Return what a gateway holds, having checked that it is consistent in itself."""
    stores = gateway.stores
    names = {run_id: name for name, run_id in gateway.ids().items()}
    commands, _ = stores.commands.list_after(after=0)
    assert [command.seq for command in commands] == list(range(1, len(commands) + 1)), "the inbox has gaps"
    return {
        "runs": {name: _of_stored(stores, run_id, names) for run_id, name in names.items()},
        "inbox": _in_order((command.command_id, command.type) for command in commands),
        "outcomes": _in_order(_outcomes(stores, [command.command_id for command in commands])),
        "mailbox": _mailbox(stores),
        "performed": sorted(gateway.outside.performed),
    }


def _in_order(commands: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return commands in the order of the inbox, but those that arrived during calls of one time in any one order."""
    groups = itertools.groupby(commands, lambda command: command[0].startswith("during-"))
    return [command for arrived, group in groups for command in (sorted(group) if arrived else group)]


def _of_run(run: Run) -> Picture:
    return {
        "status": run.status,
        "paused": run.is_paused,
        "waits": _of_wait(run.wait),
        "output": run.results if run.status == "completed" else None,
        "ledger": _unordered(run.ledger),
        "children": sorted(child.name for child in run.children),
        "parent": run.parent.name if run.parent is not None else None,
    }


def _of_wait(wait: Wait | None) -> tuple[str, Any] | None:
    if wait is None:
        return None
    return wait.kind, wait.child.name if wait.child is not None else wait.due


def _of_stored(stores: Stores, run_id: str, names: dict[str, str]) -> Picture:
    stored, row = stores.runs.open(run_id), stores.runs.row(run_id)
    assert stored is not None and row is not None
    state = stored.state
    assert (row.status, row.revision, row.ledger_len) == (state.status, stored.revision, stored.ledger_len)
    assert (state.error is not None) == (state.status.value in ("failed", "cancelled"))
    return {
        "status": state.status.value,
        "paused": is_paused(state),
        "waits": _of_stored_wait(state, names),
        "output": state.output["results"] if state.output is not None else None,
        "ledger": _unordered(_ledger(stores, run_id, stored.ledger_len, stored.ledger_hash)),
        "children": sorted(names[child] for child in stores.runs.children_of(run_id)),
        "parent": names[state.parent_run_id] if state.parent_run_id else None,
    }


def _of_stored_wait(state: RunState, names: dict[str, str]) -> tuple[str, Any] | None:
    wait = state.waiting
    if wait is None:
        return None
    details = wait.details or {}
    if wait.reason.value == "subworkflow":
        return "child" if details.get("sync") else "await", names[details["sub_run_id"]]
    kind = details.get("kind") or {"user": "ask", "event": "hear", "until": "rest"}[wait.reason.value]
    due = (parse_iso(wait.until) - BEGIN).total_seconds() if wait.until is not None else None
    return kind, due


def _ledger(stores: Stores, run_id: str, length: int, head: str | None) -> list[Entry]:
    records = stores.ledger.list(run_id)
    report = verify_chain(records)
    assert report.ok, f"the ledger of {run_id} does not verify: {report.errors}"
    assert (report.count, report.head_hash) == (length, head), f"the ledger of {run_id} has gaps"
    assert stores.ledger.read_record(run_id, length + 1) is None
    assert len(stores.ledger.read(run_id, 0, length + 1).records) == length
    return [(record["status"], (record["effect"] or {}).get("type")) for record in records]


def _unordered(ledger: list[Entry]) -> list[Entry]:
    """Return a ledger without what depends on which run was faster: did the event or its listener come first?"""
    found: list[Entry] = []
    for entry in ledger:
        found.append(entry)
        if found[-3:-1] == [("started", "wait_event"), ("waiting", "wait_event")] and entry == ("completed", "resume"):
            found[-2:] = [("completed", "wait_event")]
    return found


def _outcomes(stores: Stores, command_ids: list[str]) -> list[tuple[str, str]]:
    """Return what became of the commands, as far as the inbox has been dealt with."""
    done, cursor = [], stores.commands.get_cursor()
    for place, command_id in enumerate(command_ids, 1):
        outcome = stores.commands.outcome(command_id)
        assert (outcome is not None) == (place <= cursor), f"{command_id} at {place}, but the cursor is {cursor}"
        if outcome is not None:
            assert (outcome.seq, bool(outcome.reason)) == (place, outcome.status == "rejected")
            done.append((command_id, outcome.status))
    return done


def _mailbox(stores: Stores) -> dict[str, list[Any]]:
    rows = stores.runs.find(RunQuery(limit=None))
    others = [stores.runs.open(row.run_id) for row in rows if row.workflow_id != WORKFLOW]
    boxes = [found.state.vars for found in others if found is not None and "events" in found.state.vars]
    prefix = f"evt:session:{SESSION}:"
    return {
        box["key"][len(prefix) :]: [kept["event"]["payload"] for kept in box["events"]]
        for box in boxes
        if box["events"]
    }
