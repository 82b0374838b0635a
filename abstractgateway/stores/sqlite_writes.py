"""Writing commits to SQLite, inside the transaction of their batch."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import GatewayError, Invalid
from ..jsonvalue import dumps, loads
from ..runtime.delta import Checkpoint
from ..runtime.models import RunState, RunStatus, WaitReason
from . import sqlite_schema as sql
from .base import CommandOutcome, CommandRecord, Removal, RunRow, RunWrite, instant_or_none
from .group import Submission
from .staging import Admitted, Head, Staging, after_write


class BatchWriter:
    """The commits of one batch on their way into the database.

    `rows` are those of the runs they change, `born` the writes of runs that are new and not changed again yet.

    `first_touched` and `last_touched` are the numbers of its first and last write of a run, `last_seq` and `newest_seq`
    the places of the newest command before and after it. Runs and records are gathered and written together.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.rows: dict[str, RunRow] = {}
        self.born: dict[str, RunWrite] = {}
        self.first_touched = int(connection.execute(sql.LAST_TOUCHED).fetchone()[0]) + 1
        self.last_touched = self.first_touched - 1
        self.last_seq = int(connection.execute(sql.LAST_COMMAND).fetchone()[0])
        self.newest_seq = self.last_seq
        self._heads: dict[str, Head] = {}
        self._have_timers: set[str] = set()
        self._have_deltas: set[str] = set()
        self._runs: dict[str, tuple[Any, ...]] = {}
        self._bodies: dict[str, str] = {}
        self._deltas: dict[str, list[tuple[str, int, str]]] = {}
        self._rewritten: list[str] = []
        self._lengths: dict[str, tuple[Any, ...]] = {}
        self._records: list[tuple[str, int, str]] = []
        self._timers: dict[str, tuple[Any, ...] | None] = {}
        self._staging = Staging(
            head_of=self._heads.__getitem__,
            seq_of=self._seq_of,
            waiting_on=lambda keys: read_waiting(connection, keys),
            last_seq=self.last_seq,
            epoch=int(connection.execute(sql.EPOCH).fetchone()[0]),
        )

    def write(self, batch: list[Submission]) -> None:
        """Write a batch, or note of single commits why they are refused.

        Raises `sqlite3.Error`: then nothing of the batch is written.
        """
        self._read_heads(batch)
        for item in batch:
            try:
                admitted = self._staging.admit(item.commit)
            except GatewayError as error:
                item.error = error
                continue
            item.receipt = admitted.receipt
            self._gather(admitted)
        self._flush()

    def _read_heads(self, batch: list[Submission]) -> None:
        """Read where the runs of the batch stand, all at once."""
        wanted = {write.run_id for item in batch for write in item.commit.runs}
        wanted |= {run_id for item in batch for run_id, _ in item.commit.premises.revisions}
        wanted |= {removal.run_id for item in batch for removal in item.commit.removed}
        found = self._connection.execute(sql.HEADS_OF_RUNS, (dumps(sorted(wanted)).decode(),)) if wanted else ()
        for run_id, revision, length, has_timer, has_deltas in found:
            self._heads[run_id] = Head(revision, length)
            if has_timer:
                self._have_timers.add(run_id)
            if has_deltas:
                self._have_deltas.add(run_id)

    def _gather(self, admitted: Admitted) -> None:
        for write in admitted.writes:
            self.last_touched += 1
            if write.state is not None:
                self._gather_state(write, write.state)
            else:
                self._touch(write)
            if write.records:
                self._gather_records(write)
        if admitted.removed:
            self._flush()
            self._connection.execute(sql.KEEP_TOUCHED, (self.last_touched,))
        for removal in admitted.removed:
            self._remove(removal)
        if admitted.outcome is not None:
            self._settle(admitted.outcome)
        if admitted.command is not None:
            self._append_command(admitted.command)

    def _remove(self, removal: Removal) -> None:
        run_id = removal.run_id
        for statement in sql.REMOVE_RUN:
            self._connection.execute(statement, (run_id,))
        if removal.keeps_id:
            self._connection.execute(sql.KEEP_ID, (run_id,))
        for told in (self.rows, self.born):
            told.pop(run_id, None)
        for having in (self._have_timers, self._have_deltas):
            having.discard(run_id)

    def _gather_state(self, write: RunWrite, state: RunState) -> None:
        head = after_write(write)
        row = RunRow.of(state, revision=head.revision, ledger_len=head.ledger_len)
        until = state.waiting.until if row.is_timer and state.waiting is not None else None
        self._runs[state.run_id] = (
            state.run_id,
            state.created_at,
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
            self.last_touched,
            head.revision,
        )
        self._gather_checkpoint(write, head.revision)
        if until is not None:
            self._timers[state.run_id] = (state.run_id, until, state.updated_at, "waiting_until")
        elif state.run_id in self._have_timers or state.run_id in self._timers:
            self._timers[state.run_id] = None
        self._tell(row)
        self.born.pop(state.run_id, None)
        if write.expected == 0:
            self.born[state.run_id] = write

    def _gather_checkpoint(self, write: RunWrite, revision: int) -> None:
        if write.delta:
            self._deltas.setdefault(write.run_id, []).append((write.run_id, revision, write.delta.decode()))
            return
        self._bodies[write.run_id] = write.body.decode()
        self._deltas.pop(write.run_id, None)
        if write.run_id in self._have_deltas:
            self._have_deltas.discard(write.run_id)
            self._rewritten.append(write.run_id)

    def _tell(self, row: RunRow) -> None:
        """Note what listeners are told; of two writes of a run the place of the later one counts."""
        self.rows.pop(row.run_id, None)
        self.rows[row.run_id] = row

    def _touch(self, write: RunWrite) -> None:
        """Number a write that only appends records, so that other processes notice it."""
        self._flush()
        self._connection.execute(sql.TOUCH_RUN, (self.last_touched, write.run_id))
        found = self._connection.execute(sql.ROW_OF_RUN, (write.run_id,)).fetchone()
        if found is not None:
            self._tell(replace(row_of(found), ledger_len=after_write(write).ledger_len))

    def _gather_records(self, write: RunWrite) -> None:
        length = write.ledger_len + len(write.records)
        self._lengths[write.run_id] = (write.run_id, length, write.ledger_hash, length)
        numbered = enumerate(write.records, write.ledger_len + 1)
        self._records += [(write.run_id, seq, body.decode()) for seq, body in numbered]

    def _flush(self) -> None:
        """Write what was gathered."""
        self._connection.executemany(sql.DROP_DELTAS, [(run_id,) for run_id in self._rewritten])
        whole = [(*self._runs[run_id], body) for run_id, body in self._bodies.items()]
        sql.PUT_RUNS.write(self._connection, whole)
        changed = [(*run[2:], run_id) for run_id, run in self._runs.items() if run_id not in self._bodies]
        self._connection.executemany(sql.CHANGE_RUN, changed)
        sql.ADD_DELTAS.write(self._connection, [delta for deltas in self._deltas.values() for delta in deltas])
        self._have_deltas.update(self._deltas)
        sql.SET_TIMERS.write(self._connection, [timer for timer in self._timers.values() if timer is not None])
        ended = [run_id for run_id, timer in self._timers.items() if timer is None]
        self._connection.executemany(sql.CLEAR_TIMER, [(run_id,) for run_id in ended])
        self._have_timers.update(self._timers)
        self._have_timers.difference_update(ended)
        sql.SET_HEADS.write(self._connection, list(self._lengths.values()))
        sql.ADD_RECORDS.write(self._connection, self._records)
        for gathered in (self._runs, self._bodies, self._deltas, self._timers, self._lengths):
            gathered.clear()
        self._records.clear()
        self._rewritten.clear()

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


def checkpoint_of(body: str | bytes, deltas: str | None) -> Checkpoint:
    """Return a checkpoint, given its deltas as lines that begin with their revisions."""
    lines = [line.partition(" ") for line in deltas.split("\n")] if deltas else []
    in_order = sorted((int(revision), delta) for revision, _, delta in lines)
    text = body if isinstance(body, bytes) else body.encode()
    return Checkpoint(text, tuple(delta.encode() for _, delta in in_order))


def write_whole(connection: sqlite3.Connection) -> None:
    """Put the deltas of all runs into their checkpoints, where AbstractRuntime finds them; a damaged one is left."""
    for run_id, body, deltas in connection.execute(sql.RUNS_WITH_DELTAS).fetchall():
        with contextlib.suppress(Invalid):
            connection.execute(sql.SET_BODY, (checkpoint_of(body, deltas).whole().decode(), run_id))
            connection.execute(sql.DROP_DELTAS, (run_id,))


def hash_of(record: bytes) -> str | None:
    """Return the chained hash of a record that somebody else wrote; None when it has none."""
    fields = loads(record, field="record")
    digest = fields.get("record_hash") if isinstance(fields, dict) else None
    return digest if isinstance(digest, str) else None


def row_of(found: Sequence[Any]) -> RunRow:
    """Return the row that the columns of `ROW_COLUMNS` hold. Raises `ValueError` for an unknown status or reason."""
    run_id, workflow_id, status, wait_reason, *rest = found
    return RunRow(run_id, workflow_id, RunStatus(status), WaitReason(wait_reason) if wait_reason else None, *rest)
