"""Stores in one SQLite file: WAL, one writer thread per process with group commit, `synchronous=FULL`.

Several processes may use one file. They take turns by a file lock instead of SQLite's busy wait, which starves
(measured: one process made 1 commit while another made 6,358). Whoever writes or checkpoints does so under that lock:
SQLite 3.7.0 to 3.51.2 can corrupt a log that is written and reset at the same time. The process that drives the runs
checkpoints early; another one only where the log has grown large without such a process.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import GatewayError, Unavailable
from . import sqlite_schema as sql
from .artifacts import FileArtifactStore
from .base import Changes, Commit, CommitReceipt, Done, Listener, RunRow
from .feed import Feed
from .files import unusable_directory
from .group import GroupWriter, Submission, as_unavailable
from .sqlite_database import SqliteDatabase
from .sqlite_ports import SqliteCommandStore, SqliteLedgerStore, SqliteRunStore
from .sqlite_writes import BatchWriter, row_of, write_whole
from .wake import Wake

_log = logging.getLogger(__name__)


class SqliteStores:
    """The SQLite backend; artifacts are files next to the database."""

    def __init__(self, database: SqliteDatabase, directory: str | Path) -> None:
        self.database = database
        self.problems = database.problems
        self._feed = Feed()
        self._telling = threading.Lock()
        self._told_touched = int(database.row(sql.LAST_TOUCHED)[0])
        self._told_seq = int(database.row(sql.LAST_COMMAND)[0])
        self.runs = SqliteRunStore(self)
        self.ledger = SqliteLedgerStore(self)
        self.commands = SqliteCommandStore(self)
        self.artifacts = FileArtifactStore(directory, problems=self.problems)
        self._writer = GroupWriter(self._write_batch, name="gateway-sqlite-writer")
        self.measures = self._writer.measures
        self.measures.syncs = database.syncs
        self._wake = Wake(Path(directory), lambda has_rung: self.look())

    def commit(self, commit: Commit) -> CommitReceipt:
        return self._writer.commit(commit)

    def submit(self, commit: Commit, done: Done) -> None:
        self._writer.submit(commit, done)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        return self._feed.subscribe(listener)

    def claim(self, owner: str) -> int:
        try:
            with self.database.transaction() as connection:
                connection.execute(sql.NEXT_EPOCH)
                (epoch,) = connection.execute(sql.EPOCH).fetchone()
            self.database.checkpoint_as_owner()
        except sqlite3.Error as error:
            raise as_unavailable(error) from error
        return int(epoch)

    def close(self) -> None:
        """Write what was submitted, leave whole checkpoints for programs that know no others, and close the file."""
        self._writer.close()
        self._wake.close()
        with contextlib.suppress(sqlite3.Error, GatewayError), self.database.transaction() as connection:
            write_whole(connection)
        self.database.close()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing be committed meanwhile, by any process."""
        with self.database.exclusive():
            yield

    def look(self) -> None:
        """Tell the listeners what other processes have committed, without waiting for this one to commit something."""
        with self._telling:
            self._post_news()
        self._feed.deliver()

    def whole_rows(self, found: Iterable[Any]) -> list[RunRow]:
        """Return the rows of runs; one that holds nonsense is reported and left out."""
        rows: list[RunRow] = []
        for columns in found:
            try:
                if bytes in map(type, columns):
                    raise ValueError("a text in it is no UTF-8")
                rows.append(row_of(columns))
            except ValueError as error:
                self.problems.note(f"run {columns[0]}", f"its row cannot be read: {error}")
        return rows

    def _write_batch(self, batch: list[Submission]) -> None:
        """Write a batch in one transaction; where that fails for what is in it, each commit in one of its own."""
        try:
            try:
                self._write(batch)
            except (sqlite3.OperationalError, GatewayError):
                raise
            except (sqlite3.Error, ValueError, OverflowError):
                if len(batch) == 1:
                    raise
                self._write_one_by_one(batch)
        finally:
            self._feed.deliver()
        self._wake.ring()

    def _write_one_by_one(self, batch: list[Submission]) -> None:
        for item in batch:
            item.receipt = item.error = None
            try:
                self._write([item])
            except (sqlite3.Error, GatewayError, ValueError, OverflowError) as error:
                item.error = as_unavailable(error)

    def _write(self, batch: list[Submission]) -> None:
        with self.database.transaction() as connection:
            writer = BatchWriter(connection)
            writer.write(batch)
        try:
            self._post_own(writer)
        except Unavailable as error:  # the batch is durable; the next look tells of it
            _log.warning("what was committed could not be told yet: %s", error)

    def _post_own(self, written: BatchWriter) -> None:
        """Post what a batch changed, and what another process committed before it."""
        with self._telling:
            if self._told_touched >= written.first_touched or self._told_touched < written.first_touched - 1:
                self._post_news()
                return
            has_commands = written.newest_seq > self._told_seq
            self._told_touched = written.last_touched
            self._told_seq = max(self._told_seq, written.newest_seq)
            self._feed.post(Changes(tuple(written.rows.values()), has_commands, written.born))

    def _post_news(self) -> None:
        """Post what was committed since the listeners were last told.

        A commit between the two reads has its command told now and its runs at the next look, which its bell causes.
        """
        found = self.database.rows(sql.TOUCHED_SINCE, (self._told_touched,))
        last_seq = int(self.database.row(sql.LAST_COMMAND)[0])
        has_commands, self._told_seq = last_seq > self._told_seq, max(last_seq, self._told_seq)
        if found:
            self._told_touched = found[-1][0]
        self._feed.post(Changes(tuple(self.whole_rows(row[1:] for row in found)), has_commands))


def open_sqlite_stores(
    directory: str | Path, *, database: str | Path | None = None, is_durable: bool = True
) -> SqliteStores:
    """Return stores in `<directory>/gateway.sqlite3`, or in the file that `database` names; both are made if missing.

    Raises `Unavailable` for a file that is no database or a directory that cannot be used, `Conflict` for a database of
    a later version.
    """
    path = Path(database) if database is not None else Path(directory) / "gateway.sqlite3"
    try:
        opened = SqliteDatabase(path, is_durable=is_durable)
    except OSError as error:
        raise unusable_directory(directory, error) from error
    try:
        return SqliteStores(opened, directory)
    except BaseException as error:
        opened.close()
        if isinstance(error, OSError):
            raise unusable_directory(directory, error) from error
        if isinstance(error, (Unavailable, ValueError, TypeError)):  # damage that SQLite or its readers come upon
            raise opened.unusable(error) from error
        raise
