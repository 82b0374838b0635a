"""The methods of AbstractRuntime's stores, written once on top of the ports."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Generic, TypeVar

from ..clock import parse_iso, to_iso
from ..errors import StaleWrite
from ..jsonvalue import JsonObject, loads
from ..runtime.chain import encode_record
from ..runtime.commit import ANY_REVISION, Commit, RunWrite
from ..runtime.delta import encode_state
from ..runtime.models import RunState, RunStatus, StepRecord, WaitReason
from .base import CommandAppendResult, CommandRecord, RunQuery, RunRow, RunStore, Stores
from .checks import complete_command
from .staging import Head

Records = list[JsonObject]
Backend = TypeVar("Backend", bound=Stores)


class RunQueries(Generic[Backend]):
    """`load`, `save`, `list_runs` and their siblings for a run store that has `open`, `find` and its stores."""

    stores: Backend

    def load(self: Any, run_id: str) -> RunState | None:
        """Return a copy of a run's state, or None for an unknown id."""
        stored = self.open(run_id)
        return stored.state if stored is not None else None

    def save(self, run: RunState) -> None:
        """Store a state whatever revision is there."""
        write = RunWrite(run.run_id, run, encode_state(run), ANY_REVISION, (), 0, None)
        self.stores.commit(Commit(runs=(write,)))

    def list_runs(
        self,
        *,
        status: RunStatus | None = None,
        wait_reason: WaitReason | None = None,
        workflow_id: str | None = None,
        limit: int = 100,
    ) -> list[RunState]:
        """Return runs, the latest updated first."""
        query = RunQuery(
            statuses=(RunStatus(status),) if status is not None else (),
            wait_reason=WaitReason(wait_reason) if wait_reason is not None else None,
            workflow_id=workflow_id,
            limit=max(limit, 1),
        )
        return _states(self.stores.runs, self.stores.runs.find(query))

    def list_due_wait_until(self, *, now_iso: str, limit: int = 100) -> list[RunState]:
        """Return the runs whose time has come, the earliest due first."""
        now = parse_iso(now_iso).timestamp()
        query = RunQuery(statuses=(RunStatus.WAITING,), wait_reason=WaitReason.UNTIL, limit=None)
        due = [row for row in self.stores.runs.find(query) if row.wait_due is not None and row.wait_due <= now]
        due.sort(key=lambda row: row.wait_due or 0.0)
        return _states(self.stores.runs, due[: max(limit, 0)])

    def list_children(self, *, parent_run_id: str, status: RunStatus | None = None) -> list[RunState]:
        """Return the runs whose parent is this run, oldest first."""
        opened = (self.stores.runs.open(run_id) for run_id in self.stores.runs.children_of(parent_run_id))
        states = [stored.state for stored in opened if stored is not None]
        return [state for state in states if status is None or state.status == status]

    def list_run_index(
        self,
        *,
        status: RunStatus | None = None,
        workflow_id: str | None = None,
        session_id: str | None = None,
        root_only: bool = False,
        limit: int = 100,
    ) -> list[JsonObject]:
        """Return the outline of runs, the latest updated first."""
        query = RunQuery(
            statuses=(RunStatus(status),) if status is not None else (),
            workflow_id=workflow_id,
            session_id=session_id,
            root_only=root_only,
            limit=max(limit, 1),
        )
        return [_outline(row) for row in self.stores.runs.find(query)]


class LedgerQueries(Generic[Backend]):
    """`list`, `append` and their siblings for a ledger store that has `read`, `head` and its stores."""

    stores: Backend

    def append(self: Any, record: StepRecord) -> None:
        """Add a record to its run's ledger, chained to the one before."""
        while True:
            head: Head = self.head(record.run_id)
            record.prev_hash = head.ledger_hash
            body, digest = encode_record(record)
            write = RunWrite(record.run_id, None, b"", head.revision, (body,), head.ledger_len, digest)
            try:
                self.stores.commit(Commit(runs=(write,)))
                return
            except StaleWrite:
                continue

    def list(self: Any, run_id: str) -> Records:
        """Return all records, decoded, oldest first."""
        return [loads(body, field="record") for body in self.read(run_id, 0, self.count(run_id)).records]

    def read_record(self: Any, run_id: str, cursor: int) -> JsonObject | None:
        """Return the record at a cursor (from 1), or None when there is none."""
        records = self.read(run_id, cursor - 1, 1).records if cursor > 0 else ()
        if not records:
            return None
        found: JsonObject = loads(records[0], field="record")
        return found

    def count(self: Any, run_id: str) -> int:
        """Return how many records a run has."""
        head: Head = self.head(run_id)
        return head.ledger_len

    def list_after(self: Any, *, run_id: str, after: int, limit: int = 1000) -> tuple[Records, int]:
        """Return the decoded records after a cursor, and the cursor of the last one."""
        page = self.read(run_id, after, limit)
        return [loads(body, field="record") for body in page.records], page.next_after


class CommandQueries(Generic[Backend]):
    """`append` for a command store that has its stores."""

    stores: Backend

    def append(self, command: CommandRecord) -> CommandAppendResult:
        """Store a command durably; a repeated `command_id` changes nothing.

        A blank id or time is filled in. Raises `Invalid` for a command without run or type, or with another payload
        than a JSON object.
        """
        receipt = self.stores.commit(Commit(command=complete_command(command))).command
        assert receipt is not None
        return receipt


def _states(runs: RunStore, rows: list[RunRow]) -> list[RunState]:
    opened = (runs.open(row.run_id) for row in rows)
    return [stored.state for stored in opened if stored is not None]


def _outline(row: RunRow) -> JsonObject:
    due = to_iso(datetime.fromtimestamp(row.wait_due, timezone.utc)) if row.wait_due is not None else None
    return {
        "run_id": row.run_id,
        "workflow_id": row.workflow_id,
        "status": row.status.value,
        "wait_reason": row.wait_reason.value if row.wait_reason else None,
        "wait_until": due,
        "parent_run_id": row.parent_run_id,
        "actor_id": row.actor_id,
        "session_id": row.session_id,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }
