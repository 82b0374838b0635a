"""Stores in one SQLite file: WAL, one writer thread per process with group commit, `synchronous=FULL`.

Several processes may use one file. They take turns by a file lock instead of SQLite's busy wait, which starves
(measured: one process made 1 commit while another made 6,358). Only the process that drives the runs checkpoints the
write-ahead log, under that lock: SQLite 3.7.0 to 3.51.2 can corrupt a log that is written and reset at the same time.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import Conflict, GatewayError, Invalid, LeaseLost, StaleWrite, Unavailable
from ..jsonvalue import dumps, loads
from ..runtime.models import RunState, RunStatus, WaitReason
from . import sqlite_schema as sql
from .artifacts import FileArtifactStore
from .base import (
    ANY_REVISION,
    Changes,
    CommandAppendResult,
    CommandOutcome,
    CommandRecord,
    Commit,
    CommitReceipt,
    Done,
    LedgerPage,
    Listener,
    RunQuery,
    RunRow,
    RunWrite,
    StoredRun,
)
from .feed import Feed
from .group import GroupWriter, Submission
from .queries import CommandQueries, LedgerQueries, RunQueries
from .staging import Head
from .wake import Wake

CHECKPOINT_PAGES = 4000
"""Measured: with the default of 1000 the 99th percentile of a commit is 5.8 ms instead of 0.5 ms."""


class SqliteDatabase:
    """One SQLite file: a reading connection for each thread, one for the writer, and the lock between processes."""

    def __init__(self, path: str | Path, *, is_durable: bool = True) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._synchronous = "FULL" if is_durable else "NORMAL"
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._opening = threading.Lock()
        self._lock_fd = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.writer = self.connect()
        with self.exclusive():
            migrate_schema(self.writer)

    def connect(self) -> sqlite3.Connection:
        """Return a new connection that does not checkpoint. Raises `Unavailable` for a file SQLite cannot use."""
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA cache_size=-16000")
        except sqlite3.Error as error:
            raise Unavailable(
                f"{str(self.path)!r} cannot be used as a database: {error}; move it away or name another file",
                code="database_unusable",
            ) from error
        with self._opening:
            self._opened.append(connection)
        return connection

    def reader(self) -> sqlite3.Connection:
        """Return this thread's reading connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self.connect()
        return connection

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query. Raises `Unavailable` when the file cannot be read."""
        try:
            return self.reader().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise Unavailable(f"the database cannot be read: {error}", code="store_failed") from error

    def row(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Return the first row of a query, or None."""
        found = self.rows(statement, values)
        return found[0] if found else None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock between processes: whoever writes or checkpoints does so alone."""
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def close(self) -> None:
        with self._opening:
            opened, self._opened = self._opened, []
        for connection in opened:
            connection.close()
        os.close(self._lock_fd)


def migrate_schema(connection: sqlite3.Connection) -> None:
    """Bring a database to this version's schema; one of AbstractRuntime gains columns and keeps its rows.

    Raises `Conflict` for a database of a later version.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > sql.SCHEMA_VERSION:
        raise Conflict(
            f"the database has schema version {version}, this library knows {sql.SCHEMA_VERSION}; use a newer version",
            code="schema_too_new",
        )
    if version == sql.SCHEMA_VERSION:
        return
    connection.executescript("BEGIN IMMEDIATE;" + sql.TABLES)
    for table, column, kind in sql.ADDED_COLUMNS:
        known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if column not in known:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    for statement in (sql.INDICES + sql.BACKFILL).split(";"):
        connection.execute(statement)
    _index_foreign_runs(connection)
    connection.execute(f"PRAGMA user_version = {sql.SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _index_foreign_runs(connection: sqlite3.Connection) -> None:
    """Fill the wait columns of runs that AbstractRuntime wrote."""
    for run_id, body in connection.execute("SELECT run_id, run_json FROM runs WHERE status = 'waiting'").fetchall():
        try:
            row = RunRow.of(RunState.from_dict(loads(body)), revision=1, ledger_len=0)
        except Invalid:
            continue  # it stays listed, and opening it says what is wrong with it
        connection.execute(
            "UPDATE runs SET wait_key = ?, wait_due = ? WHERE run_id = ?", (row.wait_key, row.wait_due, run_id)
        )


class SqliteStores:
    """The SQLite backend; artifacts are files next to the database."""

    def __init__(self, database: SqliteDatabase, directory: str | Path) -> None:
        self.database = database
        self._feed = Feed()
        self._telling = threading.Lock()
        self._touched = int(database.row(sql.LAST_TOUCHED)[0])
        self._last_seq = int(database.row(sql.LAST_COMMAND)[0])
        self._is_owner = False
        self.runs = SqliteRunStore(self)
        self.ledger = SqliteLedgerStore(self)
        self.commands = SqliteCommandStore(self)
        self.artifacts = FileArtifactStore(directory)
        self._writer = GroupWriter(self._write_batch, name="gateway-sqlite-writer")
        self._wake = Wake(Path(directory), self._look)

    def commit(self, commit: Commit) -> CommitReceipt:
        return self._writer.commit(commit)

    def submit(self, commit: Commit, done: Done) -> None:
        self._writer.submit(commit, done)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        return self._feed.subscribe(listener)

    def claim(self, owner: str) -> int:
        connection = self.database.connect()
        with self.database.exclusive():
            connection.execute(sql.NEXT_EPOCH)
            (epoch,) = connection.execute(sql.EPOCH).fetchone()
        self._is_owner = True
        return int(epoch)

    def close(self) -> None:
        self._wake.close()
        self._writer.close()
        self.database.close()

    def _write_batch(self, batch: list[Submission]) -> None:
        """Write a batch in one transaction, each commit in a savepoint of its own, and tell the listeners."""
        connection = self.database.writer
        with self.database.exclusive():
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES if self._is_owner else 0}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                touched = connection.execute(sql.LAST_TOUCHED).fetchone()[0] + 1
                for item in batch:
                    _write_one(connection, item, touched)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        self._look()
        self._wake.ring()

    def _look(self) -> None:
        """Tell the listeners what has been committed since they were last told, here or by another process."""
        with self._telling:
            found = self.database.rows(sql.TOUCHED_SINCE, (self._touched,))
            rows = tuple(_row_of(row) for _, *row in found)
            last_seq = int(self.database.row(sql.LAST_COMMAND)[0])
            has_commands, self._last_seq = last_seq > self._last_seq, last_seq
            if found:
                self._touched = found[-1][0]
            self._feed.notify(Changes(rows, has_commands))


def _write_one(connection: sqlite3.Connection, item: Submission, touched: int) -> None:
    """Write one commit, or note why it was refused and leave no trace of it."""
    connection.execute("SAVEPOINT one")
    try:
        item.receipt = _apply(connection, item.commit, touched)
    except GatewayError as error:
        item.error = error
        connection.execute("ROLLBACK TO one")
    connection.execute("RELEASE one")


def _apply(connection: sqlite3.Connection, commit: Commit, touched: int) -> CommitReceipt:
    if commit.epoch is not None:
        (epoch,) = connection.execute(sql.EPOCH).fetchone()
        if commit.epoch != epoch:
            raise LeaseLost(f"lease epoch {commit.epoch} is over; epoch {epoch} has been claimed since")
    for write in commit.runs:
        _write_run(connection, write, touched)
    if commit.outcome is not None:
        outcome = commit.outcome
        values = (outcome.status, outcome.reason, outcome.applied_at, outcome.seq)
        connection.execute(sql.SET_OUTCOME, values)
        connection.execute(sql.MOVE_CURSOR, (outcome.seq, outcome.applied_at))
    receipt = _append_command(connection, commit.command) if commit.command is not None else None
    return CommitReceipt(command=receipt)


def _write_run(connection: sqlite3.Connection, write: RunWrite, touched: int) -> None:
    if write.expected == ANY_REVISION:
        expected = connection.execute(sql.HEAD_OF_RUN, {"id": write.run_id}).fetchone()[0]
    else:
        expected = write.expected
    if write.state is not None:
        _write_state(connection, write, write.state, expected, touched)
    else:
        connection.execute(sql.TOUCH_RUN, (touched, write.run_id))
    if write.records:
        _append_records(connection, write)


def _write_state(connection: sqlite3.Connection, write: RunWrite, state: RunState, expected: int, touched: int) -> None:
    row = RunRow.of(state, revision=expected + 1, ledger_len=write.ledger_len)
    until = state.waiting.until if row.is_timer and state.waiting is not None else None
    values = (
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
        write.body.decode(),
        touched,
    )
    if expected == 0:
        changed = connection.execute(sql.INSERT_RUN, (*values, state.created_at, state.run_id)).rowcount
    else:
        changed = connection.execute(sql.UPDATE_RUN, (*values, state.run_id, expected)).rowcount
    if changed != 1:
        raise StaleWrite(f"run {state.run_id!r} is not at revision {expected} any more; load it again")
    if until is not None:
        connection.execute(sql.SET_TIMER, (state.run_id, until, state.updated_at))
    else:
        connection.execute(sql.CLEAR_TIMER, (state.run_id,))


def _append_records(connection: sqlite3.Connection, write: RunWrite) -> None:
    length = write.ledger_len + len(write.records)
    moved = connection.execute(sql.MOVE_HEAD, (length, write.ledger_hash, write.run_id, write.ledger_len)).rowcount
    if moved != 1 and write.ledger_len == 0:
        moved = connection.execute(sql.INSERT_HEAD, (write.run_id, length, write.ledger_hash)).rowcount
    if moved != 1:
        raise StaleWrite(f"the ledger of run {write.run_id!r} has not {write.ledger_len} records; load it again")
    numbered = enumerate(write.records, write.ledger_len + 1)
    connection.executemany(sql.INSERT_RECORD, [(write.run_id, seq, body.decode()) for seq, body in numbered])


def _append_command(connection: sqlite3.Connection, command: CommandRecord) -> CommandAppendResult:
    payload = dumps(command.payload, field="payload").decode()
    values = (command.command_id, command.run_id, command.type, payload, command.ts, command.client_id)
    is_new = connection.execute(sql.INSERT_COMMAND, values).rowcount == 1
    (seq,) = connection.execute(sql.SEQ_OF_COMMAND, (command.command_id,)).fetchone()
    return CommandAppendResult(accepted=is_new, duplicate=not is_new, seq=int(seq))


class SqliteRunStore(RunQueries["SqliteStores"]):
    """Checkpoints in SQLite."""

    def __init__(self, stores: SqliteStores) -> None:
        self.stores = stores

    def join_ledger(self, ledger: object) -> SqliteStores:
        """Return the store that this and its ledger store belong to."""
        if not isinstance(ledger, SqliteLedgerStore) or ledger.stores is not self.stores:
            raise Invalid("ledger_store", "belongs to another database; one commit must cover runs and ledgers")
        return self.stores

    def open(self, run_id: str) -> StoredRun | None:
        found = self.stores.database.row(sql.OPEN_RUN, (run_id,))
        if found is None:
            return None
        body, revision, ledger_len, ledger_hash = found
        return StoredRun(RunState.from_dict(loads(body, field="run")), revision, ledger_len, ledger_hash)

    def row(self, run_id: str) -> RunRow | None:
        found = self.stores.database.row(sql.ROW_OF_RUN, (run_id,))
        return _row_of(found) if found is not None else None

    def find(self, query: RunQuery) -> list[RunRow]:
        conditions, values = _conditions(query)
        where = " AND ".join(conditions) or "1"
        statement = f"SELECT {sql.ROW_COLUMNS} {sql.FROM_RUNS} WHERE {where} ORDER BY updated_at DESC LIMIT ?"
        limit = -1 if query.limit is None else query.limit
        return [_row_of(found) for found in self.stores.database.rows(statement, (*values, limit))]

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        keys = list(dict.fromkeys(wait_keys))
        marks = ", ".join("?" * len(keys))
        statement = f"SELECT run_id FROM runs WHERE wait_key IN ({marks}) ORDER BY updated_at"
        return [found[0] for found in self.stores.database.rows(statement, keys)]

    def children_of(self, run_id: str) -> list[str]:
        statement = "SELECT run_id FROM runs WHERE parent_run_id = ? ORDER BY created_at, run_id"
        return [found[0] for found in self.stores.database.rows(statement, (run_id,))]


class SqliteLedgerStore(LedgerQueries["SqliteStores"]):
    """Ledgers in SQLite."""

    def __init__(self, stores: SqliteStores) -> None:
        self.stores = stores

    def head(self, run_id: str) -> Head:
        revision, length, digest = self.stores.database.rows(sql.HEAD_OF_RUN, {"id": run_id})[0]  # type: ignore[arg-type]
        return Head(revision, length, digest)

    def read(self, run_id: str, after: int, limit: int) -> LedgerPage:
        found = self.stores.database.rows(sql.READ_RECORDS, (run_id, max(after, 0), max(limit, 0)))
        return LedgerPage([body for (body,) in found], after + len(found))


class SqliteCommandStore(CommandQueries["SqliteStores"]):
    """The command inbox in SQLite."""

    def __init__(self, stores: SqliteStores) -> None:
        self.stores = stores

    def list_after(self, *, after: int, limit: int = 1000) -> tuple[list[CommandRecord], int]:
        found = [_command_of(row) for row in self.stores.database.rows(sql.COMMANDS_AFTER, (after, limit))]
        return found, found[-1].seq if found else after

    def get_last_seq(self) -> int:
        return int(self.stores.database.row(sql.LAST_COMMAND)[0])

    def get_cursor(self) -> int:
        found = self.stores.database.row(sql.CURSOR)
        return int(found[0]) if found is not None else 0

    def get(self, command_id: str) -> CommandRecord | None:
        found = self.stores.database.row(sql.COMMAND_BY_ID, (command_id,))
        return _command_of(found) if found is not None else None

    def outcome(self, command_id: str) -> CommandOutcome | None:
        found = self.stores.database.row(sql.OUTCOME_OF_COMMAND, (command_id,))
        return CommandOutcome(*found) if found is not None and found[2] is not None else None


def _conditions(query: RunQuery) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    if query.statuses:
        conditions.append(f"status IN ({', '.join('?' * len(query.statuses))})")
        values += [status.value for status in query.statuses]
    columns = {
        "wait_reason": query.wait_reason.value if query.wait_reason is not None else None,
        "workflow_id": query.workflow_id,
        "session_id": query.session_id,
        "parent_run_id": query.parent_run_id,
    }
    for column, value in columns.items():
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if query.root_only:
        conditions.append("parent_run_id IS NULL")
    if query.hide_internal:
        conditions.append("workflow_id NOT LIKE '\\_\\_%' ESCAPE '\\'")
    return conditions, values


def _row_of(found: Sequence[Any]) -> RunRow:
    run_id, workflow_id, status, wait_reason, *rest = found
    return RunRow(run_id, workflow_id, RunStatus(status), WaitReason(wait_reason) if wait_reason else None, *rest)


def _command_of(found: Sequence[Any]) -> CommandRecord:
    command_id, run_id, kind, payload, ts, client_id, seq = found
    return CommandRecord(command_id, run_id, kind, loads(payload, field="payload"), ts, client_id, seq)


def open_sqlite_stores(
    directory: str | Path, *, database: str | Path | None = None, is_durable: bool = True
) -> SqliteStores:
    """Return stores in `<directory>/gateway.sqlite3`, or in the file that `database` names; both are made if missing.

    Raises `Unavailable` for a file that is no database, `Conflict` for one of a later version.
    """
    path = Path(database) if database is not None else Path(directory) / "gateway.sqlite3"
    return SqliteStores(SqliteDatabase(path, is_durable=is_durable), directory)
