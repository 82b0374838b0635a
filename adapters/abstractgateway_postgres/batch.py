"""One batch of commits on its way into the database, inside its transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from abstractgateway.errors import GatewayError, Invalid, LeaseLost
from abstractgateway.jsonvalue import dumps
from abstractgateway.runtime.commit import NO_PREMISES
from abstractgateway.runtime.models import RunState, RunStatus, WaitReason
from abstractgateway.stores.base import (
    CommandRecord,
    Commit,
    Removal,
    RunRow,
    RunWrite,
    instant_or_none,
    slot_of,
)
from abstractgateway.stores.group import Submission
from abstractgateway.stores.staging import Admitted, Head, Staging, after_write

from . import at_once, sql
from .locks import Locks

Cursor = psycopg.Cursor[Any]


class Batch:
    """What some commits change. `rows` are those of the runs, `born` the writes of runs that are new and unchanged.

    `look` locks and reads, `admit` decides each commit, `write` sends what changes; the connection is in a pipeline, so
    that the server is waited for once after `look` and once at the end. Where commits say all that there is to know,
    `presume` and `write_at_once` do the same with one statement.
    """

    def __init__(self, connection: psycopg.Connection[Any], items: Sequence[Submission]) -> None:
        self._connection = connection
        self._items = items
        self._locks = Locks(item.commit for item in items)
        self.rows: dict[str, RunRow] = {}
        self.born: dict[str, RunWrite] = {}
        self.xact = 0
        self.newest_seq = 0
        self._heads: dict[str, Head] = {}
        self._delta_counts: dict[str, int] = {}
        self._have_deltas: set[str] = set()
        self._states: dict[str, RunState] = {}
        self._bodies: dict[str, bytes] = {}
        self._after: dict[str, Head] = {}
        self._rewritten: list[str] = []
        self._slots: dict[str, int] = {}
        self._epochs: set[int] = set()
        self._removed: list[str] = []
        self._kept_ids: list[str] = []
        self._deltas: list[tuple[str, int, bytes]] = []
        self._records: list[tuple[str, int, bytes]] = []
        self._commands: list[CommandRecord] = []
        self._outcomes: list[tuple[int, str, str | None, str]] = []
        self._touching: Cursor | None = None

    @property
    def is_empty(self) -> bool:
        return not (self._after or self._commands or self._outcomes or self._removed or self._kept_ids)

    def look(self, pipeline: psycopg.Pipeline) -> None:
        """Lock what the commits are about, and read where it stands.

        The server is told that it is to wait for more (`sync`), so that it gives up on a process that stands still.
        """
        connection, locks = self._connection, self._locks
        numbers, are_alone = locks.buckets
        command_ids = sorted({item.commit.command.command_id for item in self._items if item.commit.command})
        connection.execute(sql.BEGIN)
        if numbers:
            connection.execute(sql.LOCK_BUCKETS, (numbers, are_alone))
        heads = connection.execute(sql.LOCK_HEADS, (locks.run_ids,)) if locks.run_ids else None
        last_seq = connection.execute(sql.LOCK_COMMANDS) if command_ids else None
        seqs = connection.execute(sql.SEQS_OF_COMMANDS, (command_ids,)) if command_ids else None
        waiters = connection.execute(sql.WAITERS, (locks.wait_keys,)) if locks.wait_keys else None
        parents = connection.execute(sql.SLOTS, (locks.parent_ids,)) if locks.parent_ids else None
        epochs = connection.execute(sql.LOCK_EPOCHS, (locks.epochs,)) if locks.epochs else None
        xact = connection.execute(sql.XACT)
        pipeline.sync()
        ((self.xact,),) = _all(xact)
        self._epochs = {epoch for (epoch,) in _all(epochs)}
        self._slots = dict(_all(parents))
        for run_id, revision, length, has_deltas, slot in _all(heads):
            self._heads[run_id], self._slots[run_id] = Head(revision, length), slot
            if has_deltas:
                self._have_deltas.add(run_id)
        known_seqs = dict(_all(seqs))
        waiting = _by_key(_all(waiters))
        self._staging = Staging(
            head_of=lambda run_id: self._heads.get(run_id) or Head(),
            seq_of=known_seqs.get,
            waiting_on=lambda keys: [run_id for key in keys for run_id in waiting.get(key, ())],
            last_seq=_all(last_seq)[0][0] if last_seq else 0,
            epoch=0,
        )

    def presume(self) -> bool:
        """Take it that every run is where its first write expects it; return False where something must be looked up.

        What was presumed is checked by `write_at_once`.
        """
        if not all(_needs_no_look(item.commit) for item in self._items):
            return False
        for write in (write for item in self._items for write in item.commit.runs):
            self._heads.setdefault(write.run_id, Head(write.expected, write.ledger_len))
        self._heads = {run_id: head for run_id, head in self._heads.items() if head.revision}
        self._slots = {run_id: slot_of(run_id) for run_id in self._heads}
        self._epochs = set(self._locks.epochs)
        self._staging = Staging(
            head_of=lambda run_id: self._heads.get(run_id) or Head(),
            seq_of=lambda command_id: None,
            waiting_on=lambda keys: [],
            last_seq=0,
            epoch=0,
        )
        self.admit()
        return not self.is_empty and not any(item.error for item in self._items)

    def admit(self) -> None:
        """Decide each commit, and gather what those change that are not refused."""
        for item in self._items:
            item.receipt = item.error = None
            try:
                check_texts(item.commit)
                admitted = self._staging.admit(self._in_lease(item.commit))
            except GatewayError as error:
                item.error = error
                continue
            item.receipt = admitted.receipt
            self._gather(admitted)

    def write(self) -> None:
        """Send what was gathered."""
        for statement in (sql.DROP_RUNS, sql.DROP_DELTAS, sql.DROP_RECORDS):
            self._send(statement, [(run_id,) for run_id in self._removed])
        self._send(sql.KEEP_IDS, [(run_id,) for run_id in self._kept_ids])
        self._write_runs()
        self._send(sql.DROP_DELTAS, [(run_id,) for run_id in self._rewritten])
        self._send(sql.ADD_DELTAS, self._deltas)
        self._send(sql.ADD_RECORDS, self._records)
        self._write_commands()

    def write_at_once(self, writer_id: str, number: int) -> bool:
        """Write what was presumed, durably; return False, with nothing written, where it is not so."""
        looks, writes = self._looks(), self._writes(writer_id, number)
        values = [*looks.values(), [len(self._epochs)] if self._epochs else [], *writes.values()]
        statement = at_once.statement(tuple(looks), tuple(writes))
        sent = self._connection.execute(statement, [value for part in values for value in part])
        ((holds, self.xact, slots),) = sent.fetchall()
        for run_id, slot in zip(sorted(self._heads), slots or (), strict=False):
            if slot != self._slots[run_id]:
                self.rows[run_id] = replace(self.rows[run_id], slot=slot)
        return bool(holds)

    def recall(self, connection: psycopg.Connection[Any]) -> None:
        """Find out what the answer would have told, of a batch that was written at once and whose answer was lost."""
        if self.xact:
            return
        found = connection.execute(sql.RECALL, (list(self.rows),)).fetchall()
        self.xact = min((changed for _, changed, _ in found), default=0)
        for run_id, _, slot in found:
            self.rows[run_id] = replace(self.rows[run_id], slot=slot)

    def finish(self) -> None:
        """Take in what the statements answered, once all is durable: nothing here may make it look as if it were not.

        A row that cannot be read is left to the next look, which reports it.
        """
        for found in _all(self._touching):
            with contextlib.suppress(ValueError):
                self._tell(row_of(found))

    def _in_lease(self, commit: Commit) -> Commit:
        """Return what is to be decided of a commit whose lease is not over. Raises `LeaseLost`."""
        if commit.epoch is None:
            return commit
        if commit.epoch not in self._epochs:
            raise LeaseLost(f"lease epoch {commit.epoch} is over; others drive its runs now")
        return replace(commit, epoch=None)

    def _gather(self, admitted: Admitted) -> None:
        new = {write.run_id: write.state for write in admitted.writes if write.run_id not in self._slots}
        for run_id in new:
            self._place(run_id, new)
        for write in admitted.writes:
            self._gather_write(write)
        for removal in admitted.removed:
            self._gather_removal(removal)
        if admitted.outcome is not None:
            given = admitted.outcome
            self._outcomes.append((given.seq, given.status, given.reason, given.applied_at))
        if admitted.command is not None:
            self._commands.append(admitted.command)
            self.newest_seq = admitted.command.seq

    def _place(self, run_id: str, new: Mapping[str, RunState | None]) -> int:
        """Return the slot of a run; a new one joins its parent, so that whoever drives one drives both."""
        if run_id in self._slots:
            return self._slots[run_id]
        self._slots[run_id] = slot_of(run_id)  # also where runs are each other's parents
        state = new[run_id]
        parent_id = state.parent_run_id if state is not None else None
        if parent_id is not None and (parent_id in self._slots or parent_id in new):
            self._slots[run_id] = self._place(parent_id, new)
        return self._slots[run_id]

    def _gather_removal(self, removal: Removal) -> None:
        """Forget what was gathered of a run; one of the same id that comes later is a new one."""
        run_id = removal.run_id
        for known in (self._after, self._states, self._bodies, self._delta_counts, self.rows, self.born, self._slots):
            known.pop(run_id, None)
        self._deltas = [delta for delta in self._deltas if delta[0] != run_id]
        self._records = [record for record in self._records if record[0] != run_id]
        self._rewritten = [other for other in self._rewritten if other != run_id]
        self._have_deltas.discard(run_id)
        if self._heads.pop(run_id, None) is not None:
            self._removed.append(run_id)
        if removal.keeps_id:
            self._kept_ids.append(run_id)

    def _gather_write(self, write: RunWrite) -> None:
        run_id, head = write.run_id, after_write(write)
        before = self._after.get(run_id) or Head()
        self._after[run_id] = head if write.records else replace(head, ledger_hash=before.ledger_hash)
        numbered = enumerate(write.records, write.ledger_len + 1)
        self._records += [(run_id, seq, record) for seq, record in numbered]
        if write.state is not None:
            self._gather_state(write, write.state)
        elif run_id in self.rows:
            self._tell(replace(self.rows[run_id], ledger_len=head.ledger_len))

    def _gather_state(self, write: RunWrite, state: RunState) -> None:
        run_id, head = write.run_id, self._after[write.run_id]
        self._states[run_id] = state
        if write.delta:
            self._deltas.append((run_id, head.revision, write.delta))
            self._delta_counts[run_id] = self._delta_counts.get(run_id, 0) + 1
        else:
            self._gather_body(run_id, write.body)
        slot = self._slots[run_id]
        self._tell(RunRow.of(state, revision=head.revision, ledger_len=head.ledger_len, slot=slot))
        self.born.pop(run_id, None)
        if write.expected == 0:
            self.born[run_id] = write

    def _gather_body(self, run_id: str, body: bytes) -> None:
        self._bodies[run_id] = body
        if run_id in self._have_deltas:
            self._rewritten.append(run_id)
            self._have_deltas.discard(run_id)
        if self._delta_counts.pop(run_id, 0):
            self._deltas = [delta for delta in self._deltas if delta[0] != run_id]

    def _tell(self, row: RunRow) -> None:
        """Note what listeners are told; of two writes of a run the place of the later one counts."""
        self.rows.pop(row.run_id, None)
        self.rows[row.run_id] = row

    def _write_runs(self) -> None:
        changed = [run_id for run_id in self._states if run_id in self._heads]
        added = [run_id for run_id in self._after if run_id not in self._heads]
        touched = [run_id for run_id in self._after if run_id not in self._states and run_id in self._heads]
        self._send(sql.ADD_RUNS, [self._columns(run_id) for run_id in added])
        self._send(sql.CHANGE_RUNS, [self._columns(run_id) for run_id in changed])
        heads = [(run_id, self._after[run_id].ledger_len, self._after[run_id].ledger_hash) for run_id in touched]
        self._touching = self._send(sql.CHANGE_HEADS, heads)

    def _looks(self) -> dict[str, Sequence[Any]]:
        """Return what is to be locked and looked up at once, and the values for it."""
        looks: dict[str, Sequence[Any]] = {}
        numbers, _ = self._locks.buckets
        if numbers:
            looks["held"] = (numbers,)
        if self._heads:
            looks["given"] = _by_column(
                (*self._columns(run_id), head.revision, head.ledger_len) for run_id, head in self._heads.items()
            )
            looks["locked"] = ()
        if self._epochs:
            looks["leases"] = (self._locks.epochs,)
        return looks

    def _writes(self, writer_id: str, number: int) -> dict[str, Sequence[Any]]:
        """Return what is to be written at once, and the values for it."""
        writes: dict[str, Sequence[Any]] = {"changed": (), "cleared": ()} if self._heads else {}
        added = [self._columns(run_id) for run_id in self._after if run_id not in self._heads]
        for name, rows in (("added", added), ("deltas", self._deltas), ("records", self._records)):
            if rows:
                writes[name] = _by_column(rows)
        if self._outcomes:
            writes["outcomes"], writes["cursor"] = _by_column(self._outcomes), (_last(self._outcomes),)
        return {**writes, "marked": (writer_id, number)}

    def _columns(self, run_id: str) -> tuple[Any, ...]:
        """Return the values of a run's row; of one that has no state only its ledger is known."""
        head, state = self._after[run_id], self._states.get(run_id)
        if state is None:
            blank = (run_id, "", "", None, None, None, None, None, None, "", "", 0.0, 0.0)
            return (*blank, 0, head.ledger_len, head.ledger_hash, 0, self._slots[run_id], "")
        row = self.rows[run_id]
        return (
            run_id,
            row.workflow_id,
            row.status.value,
            row.wait_reason.value if row.wait_reason else None,
            row.wait_key,
            row.wait_due,
            row.parent_run_id,
            row.actor_id,
            row.session_id,
            row.created_at,
            row.updated_at,
            instant_or_none(row.created_at) or 0.0,
            instant_or_none(row.updated_at) or 0.0,
            head.revision,
            head.ledger_len,
            head.ledger_hash,
            self._delta_counts.get(run_id, 0),
            row.slot,
            self._bodies.get(run_id),
        )

    def _write_commands(self) -> None:
        commands = [
            (item.seq, item.command_id, item.run_id, item.type, _payload(item), item.ts, item.client_id)
            for item in self._commands
        ]
        self._send(sql.ADD_COMMANDS, commands)
        if self._commands:
            self._connection.execute(sql.SET_COUNTER, (self.newest_seq, "command_seq"))
        self._send(sql.SET_OUTCOMES, self._outcomes)
        if self._outcomes:
            self._connection.execute(sql.SET_COUNTER, (_last(self._outcomes), "command_cursor"))

    def _send(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> Cursor | None:
        """Send a statement that takes one array per column; without rows there is nothing to send."""
        if not rows:
            return None
        return self._connection.execute(statement, _by_column(rows))


def check_texts(commit: Commit) -> None:
    """Raise `Invalid` for a commit with a text that PostgreSQL cannot hold."""
    for write in commit.runs:
        if write.state is not None:
            wait = write.state.waiting
            state = (write.state.workflow_id, write.state.parent_run_id, write.state.actor_id, write.state.session_id)
            check_text("runs", (*state, wait.wait_key if wait is not None else None))
    if commit.command is not None:
        command = commit.command
        check_text("command", (command.command_id, command.run_id, command.type, command.ts, command.client_id))
    if commit.outcome is not None:
        check_text("outcome", (commit.outcome.reason,))


def check_text(field: str, texts: Iterable[str | None]) -> None:
    """Raise `Invalid` for a text that PostgreSQL cannot hold."""
    for text in texts:
        if text is not None and "\0" in text:
            raise Invalid(field, f"{text!r} has a NUL character, which PostgreSQL cannot hold")


def row_of(found: Sequence[Any]) -> RunRow:
    """Return the row that the columns of `ROW_COLUMNS` hold. Raises `ValueError` for an unknown status or reason."""
    run_id, workflow_id, status, wait_reason, *rest = found
    return RunRow(run_id, workflow_id, RunStatus(status), WaitReason(wait_reason) if wait_reason else None, *rest)


def _needs_no_look(commit: Commit) -> bool:
    """Say whether a commit tells all that it expects of runs, and relies on no others; a new command needs a place."""
    is_alone = commit.premises is NO_PREMISES and not commit.removed and commit.command is None
    return is_alone and all(map(_is_plain, commit.runs))


def _is_plain(write: RunWrite) -> bool:
    """Say whether a write changes a run, or adds one whose slot is not its parent's."""
    return write.state is not None and (write.expected > 0 or (write.expected == 0 and not write.state.parent_run_id))


def _last(outcomes: Sequence[tuple[int, str, str | None, str]]) -> int:
    return max(seq for seq, *_ in outcomes)


def _by_column(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _payload(command: CommandRecord) -> str:
    return dumps(command.payload, field="payload").decode()


def _all(cursor: Cursor | None) -> list[Any]:
    return cursor.fetchall() if cursor is not None else []


def _by_key(found: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    waiting: dict[str, list[str]] = {}
    for key, run_id in found:
        waiting.setdefault(key, []).append(run_id)
    return waiting
