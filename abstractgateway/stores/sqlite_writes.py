"""Writing commits to SQLite, inside the transaction of their batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import GatewayError
from ..jsonvalue import dumps, loads
from ..runtime.models import RunState, RunStatus, WaitReason
from . import sqlite_schema as sql
from .base import CommandOutcome, CommandRecord, RunRow, RunWrite, instant_or_none
from .group import Submission
from .staging import Admitted, Head, Staging, after_write


class BatchWriter:
    """The commits of one batch on their way into the database; `rows` are those of the runs they change.

    `first_touched` and `last_touched` are the numbers of its first and last write of a run, `last_seq` and `newest_seq`
    the places of the newest command before and after it.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.rows: dict[str, RunRow] = {}
        self.first_touched = int(connection.execute(sql.LAST_TOUCHED).fetchone()[0]) + 1
        self.last_touched = self.first_touched - 1
        self.last_seq = int(connection.execute(sql.LAST_COMMAND).fetchone()[0])
        self.newest_seq = self.last_seq
        self._staging = Staging(
            head_of=lambda run_id: read_head(connection, run_id),
            seq_of=self._seq_of,
            waiting_on=lambda keys: read_waiting(connection, keys),
            last_seq=self.last_seq,
            epoch=int(connection.execute(sql.EPOCH).fetchone()[0]),
        )

    def write(self, item: Submission) -> None:
        """Write one commit, or note why it is refused. Raises `sqlite3.Error`: then nothing of the batch is written."""
        try:
            admitted = self._staging.admit(item.commit)
        except GatewayError as error:
            item.error = error
            return
        item.receipt = admitted.receipt
        self._write(admitted)

    def _write(self, admitted: Admitted) -> None:
        for write in admitted.writes:
            self.last_touched += 1
            if write.state is not None:
                self._write_state(write, write.state)
            else:
                self._connection.execute(sql.TOUCH_RUN, (self.last_touched, write.run_id))
                self._touch_row(write)
            if write.records:
                self._append_records(write)
        if admitted.outcome is not None:
            self._settle(admitted.outcome)
        if admitted.command is not None:
            self._append_command(admitted.command)

    def _write_state(self, write: RunWrite, state: RunState) -> None:
        head = after_write(write)
        row = RunRow.of(state, revision=head.revision, ledger_len=head.ledger_len)
        until = state.waiting.until if row.is_timer and state.waiting is not None else None
        values: tuple[Any, ...] = (
            state.workflow_id,
            state.status.value,
            row.wait_reason.value if row.wait_reason else None,
            until,
            row.wait_key,
            row.wait_due,
            state.parent_run_id,
            state.actor_id,
            state.session_id,
            state.updated_at,
            instant_or_none(state.updated_at),
            state.updated_at,
            write.body.decode(),
            self.last_touched,
            head.revision,
        )
        if write.expected == 0:
            self._connection.execute(sql.INSERT_RUN, (*values, state.created_at, state.run_id))
        else:
            self._connection.execute(sql.UPDATE_RUN, (*values, state.run_id))
        self._set_timer(state, until, is_new=write.expected == 0)
        self.rows.pop(state.run_id, None)
        self.rows[state.run_id] = row

    def _set_timer(self, state: RunState, until: str | None, *, is_new: bool) -> None:
        if until is not None:
            self._connection.execute(sql.SET_TIMER, (state.run_id, until, state.updated_at))
        elif not is_new:
            self._connection.execute(sql.CLEAR_TIMER, (state.run_id,))

    def _touch_row(self, write: RunWrite) -> None:
        found = self._connection.execute(sql.ROW_OF_RUN, (write.run_id,)).fetchone()
        if found is not None:
            self.rows.pop(write.run_id, None)
            self.rows[write.run_id] = replace(row_of(found), ledger_len=after_write(write).ledger_len)

    def _append_records(self, write: RunWrite) -> None:
        length = write.ledger_len + len(write.records)
        self._connection.execute(sql.SET_HEAD, (write.run_id, length, write.ledger_hash, length))
        numbered = enumerate(write.records, write.ledger_len + 1)
        self._connection.executemany(sql.INSERT_RECORD, [(write.run_id, seq, body.decode()) for seq, body in numbered])

    def _append_command(self, command: CommandRecord) -> None:
        payload = dumps(command.payload, field="payload").decode()
        values = (command.command_id, command.run_id, command.type, payload, command.ts, command.client_id)
        self._connection.execute(sql.INSERT_COMMAND, (command.seq, *values))
        self.newest_seq = command.seq

    def _settle(self, outcome: CommandOutcome) -> None:
        values = (outcome.status, outcome.reason, outcome.applied_at, outcome.seq)
        self._connection.execute(sql.SET_OUTCOME, values)
        self._connection.execute(sql.MOVE_CURSOR, (outcome.seq, outcome.applied_at))

    def _seq_of(self, command_id: str) -> int | None:
        found = self._connection.execute(sql.SEQ_OF_COMMAND, (command_id,)).fetchone()
        return int(found[0]) if found is not None else None


def read_waiting(connection: sqlite3.Connection, wait_keys: Iterable[str]) -> list[str]:
    """Return the runs that wait on one of these keys, as the transaction sees them."""
    return [run_id for key in wait_keys for (run_id,) in connection.execute(sql.WAITING_ON, (key,))]


def read_head(connection: sqlite3.Connection, run_id: str) -> Head:
    """Return where a run stands, as far as it decides whether a commit is admitted: without the hash of its ledger."""
    revision, length, _, _ = connection.execute(sql.HEAD_OF_RUN, {"id": run_id}).fetchone()
    return Head(revision, length)


def hash_of(record: bytes) -> str | None:
    """Return the chained hash of a record that somebody else wrote; None when it has none."""
    fields = loads(record, field="record")
    digest = fields.get("record_hash") if isinstance(fields, dict) else None
    return digest if isinstance(digest, str) else None


def row_of(found: Sequence[Any]) -> RunRow:
    """Return the row that the columns of `ROW_COLUMNS` hold. Raises `ValueError` for an unknown status or reason."""
    run_id, workflow_id, status, wait_reason, *rest = found
    return RunRow(run_id, workflow_id, RunStatus(status), WaitReason(wait_reason) if wait_reason else None, *rest)
