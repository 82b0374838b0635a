"""One SQLite file: its connections, the lock between processes, and bringing its schema up to date."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import Conflict, Invalid, Unavailable
from ..jsonvalue import loads
from ..measures import Durations
from ..runtime.models import RunState
from . import sqlite_schema as sql
from .base import RunRow, instant_or_none
from .group import closed_error
from .problems import Problems

PAGE_BYTES = 8192
"""Of a new database. Measured: commits of many records cost a tenth less than with SQLite's 4096."""
OWNER_CHECKPOINT_PAGES = 2000
"""Measured: with a quarter of it the 99th percentile of a commit is 5.8 ms instead of 0.5 ms."""
CHECKPOINT_PAGES = 8000
"""The others leave checkpoints to the owner of the runs; where there is none, the log must not grow for ever."""
FAILED_SYNCS = (1034, 1290)
"""SQLITE_IOERR_FSYNC and SQLITE_IOERR_DIR_FSYNC; the module `sqlite3` names them from Python 3.11 on."""
SPARE_READERS = 16
"""How many reading connections are kept: about as many as there are threads that read at once."""

Migrate = Callable[[sqlite3.Connection, Problems], None]
"""Brings the schema of an open file up to date; the file is held against everybody else meanwhile."""


class SqliteDatabase:
    """One SQLite file: one connection that writes, a few that read, and the lock between processes.

    `migrate` brings its schema up to date; without it the schema is that of the stores. Raises `Unavailable` for a
    file that cannot be used, `Conflict` for one of a later version.
    """

    def __init__(self, path: str | Path, *, is_durable: bool = True, migrate: Migrate | None = None) -> None:
        self.path = Path(path)
        self._migrate = migrate or migrate_schema
        self._version = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.problems = Problems()
        self.syncs = Durations()
        if self.path.exists() and self.path.stat().st_size == 0:
            self.problems.note(self.path.name, "has no bytes; a new database was made in its place")
        self._synchronous = "FULL" if is_durable else "NORMAL"
        self._spare: deque[sqlite3.Connection] = deque()
        self._holding = threading.Lock()
        self._is_closed = False
        self._broken: Unavailable | None = None
        self._lock_fd = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with self.exclusive():
                self.writer = self._open_writer()
        except BaseException:
            os.close(self._lock_fd)
            raise

    def rows(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """Return the rows of a query; a text that is no UTF-8 comes as bytes, and hides no other.

        Raises `Unavailable` when the file cannot be read.
        """
        if self._is_closed:
            raise closed_error()
        try:
            connection = self._spare.pop()
        except IndexError:
            connection = self._connect()
        try:
            found = _fetch(connection, statement, values)
        except sqlite3.Error as error:
            connection.close()
            raise Unavailable(f"the database cannot be read: {error}", code="store_failed") from error
        if len(self._spare) < SPARE_READERS and not self._is_closed:
            self._spare.append(connection)
        else:
            connection.close()
        return found

    def row(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> Any:
        """Return the first row of a query, or None."""
        found = self.rows(statement, values)
        return found[0] if found else None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the file against this process's other threads and other processes: one writes or checkpoints at a time.

        The thread lock comes first, because the threads of a process share the file lock.
        """
        with self._holding:
            if self._is_closed:
                raise closed_error()
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the file and write to it: all of it is durable after the block, or none of it when the block raises.

        Raises `Unavailable` once an fsync has failed, until the file is opened again.
        """
        with self.exclusive():
            if self._broken is not None:
                raise self._broken
            try:
                with transaction_of(self.writer, self.syncs):
                    yield self.writer
            except sqlite3.OperationalError as error:
                if _may_be_failed_sync(error):
                    self._break(error)
                raise

    def _break(self, error: sqlite3.Error) -> None:
        """Refuse to write from now on, and take what was refused out of the log before a crash makes it valid.

        The log has the whole transaction, and whoever reads the log anew would take it for committed. The next
        transaction takes its place in the log; this one changes nothing.
        """
        self._broken = Unavailable(
            f"nothing is written since the disk failed ({error}); see to the disk, and restart", code="store_failed"
        )
        with contextlib.suppress(sqlite3.Error):
            self.writer.execute(f"PRAGMA user_version = {self._version}")

    def checkpoint_as_owner(self) -> None:
        """Checkpoint early and often from now on."""
        with self.exclusive():
            self.writer.execute(f"PRAGMA wal_autocheckpoint={OWNER_CHECKPOINT_PAGES}")

    def close(self) -> None:
        """Close every connection; the last one on the file also empties the log."""
        with contextlib.suppress(Unavailable), self.exclusive():
            self._is_closed = True
            while self._spare:
                self._spare.pop().close()
            self.writer.close()
        if self._lock_fd >= 0:
            fd, self._lock_fd = self._lock_fd, -1
            os.close(fd)

    def _connect(self) -> sqlite3.Connection:
        """Return a new connection that does not checkpoint."""
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA cache_size=-16000")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise self.unusable(error) from error
        return connection

    def _open_writer(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            if not os.access(self.path, os.W_OK):  # SQLite would say so at the first commit only
                refused = PermissionError("it may not be written")
                raise self.unusable(refused) from refused
            self._migrate(connection, self.problems)
            (self._version,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        except sqlite3.Error as error:
            connection.close()
            raise self.unusable(error) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def unusable(self, error: Exception) -> Unavailable:
        """Return the error for a file that is no database, or a damaged one."""
        return Unavailable(
            f"{str(self.path)!r} cannot be used as a database: {error}; move it away or name another file",
            code="database_unusable",
        )


def _fetch(connection: sqlite3.Connection, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
    try:
        return connection.execute(statement, values).fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
    connection.text_factory = _text_or_bytes  # not always: it is called for every text
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.text_factory = str


def _text_or_bytes(stored: bytes) -> str | bytes:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


@contextmanager
def transaction_of(connection: sqlite3.Connection, syncs: Durations | None = None) -> Iterator[None]:
    """Write what the block executes, or nothing of it when the block raises; `syncs` is told how long the end took."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        begun = time.perf_counter()
        connection.execute("COMMIT")
        if syncs is not None:
            syncs.add(time.perf_counter() - begun)
    except BaseException:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # why it is rolled back is what the caller has to know
                connection.execute("ROLLBACK")
        raise


def _may_be_failed_sync(error: sqlite3.Error) -> bool:
    """Say whether an fsync failed; before Python 3.11 an error does not tell which operation of the disk it was."""
    code = getattr(error, "sqlite_errorcode", None)
    return code in FAILED_SYNCS if code is not None else "disk I/O error" in str(error)


def migrate_schema(connection: sqlite3.Connection, problems: Problems) -> None:
    """Bring a database to this version's schema, and take in what AbstractRuntime wrote to it since it was last open.

    A database of AbstractRuntime gains columns and keeps its rows. Raises `Conflict` for one of a later version.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > sql.SCHEMA_VERSION:
        raise Conflict(
            f"the database has schema version {version}, this library knows {sql.SCHEMA_VERSION}; use a newer version",
            code="schema_too_new",
        )
    with transaction_of(connection):
        if version < sql.SCHEMA_VERSION:
            _build_schema(connection)
        _adopt_foreign_runs(connection, problems)


def _build_schema(connection: sqlite3.Connection) -> None:
    for statement in sql.TABLES.split(";"):
        connection.execute(statement)
    for table, column, kind in sql.OWN_COLUMNS:
        known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if column not in known:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    for statement in sql.INDICES.split(";"):
        connection.execute(statement)
    connection.execute(sql.MISSING_HEADS)
    connection.execute(f"PRAGMA user_version = {sql.SCHEMA_VERSION}")


def _adopt_foreign_runs(connection: sqlite3.Connection, problems: Problems) -> None:
    """Fill the own columns of runs that AbstractRuntime wrote."""
    (touched,) = connection.execute(sql.LAST_TOUCHED).fetchone()
    for run_id, body, revision, seen_at in _fetch(connection, sql.FOREIGN_RUNS):
        try:
            row = RunRow.of(RunState.from_dict(loads(body, field="run")), revision=1, ledger_len=0)
        except (Invalid, TypeError, AttributeError) as error:
            problems.note(f"run {run_id}", f"its row is no checkpoint: {error}")
            continue
        touched += 1
        revision += 1 if seen_at is not None else 0
        updated_s = instant_or_none(row.updated_at)
        connection.execute(sql.ADOPT_RUN, (row.wait_key, row.wait_due, updated_s, revision, touched, run_id))
        connection.execute(sql.DROP_DELTAS, (run_id,))
