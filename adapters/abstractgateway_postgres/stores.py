"""Stores in a PostgreSQL database: one writer connection per process with group commit, shared by many processes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psycopg

from abstractgateway.errors import GatewayError
from abstractgateway.stores.artifacts import FileArtifactStore
from abstractgateway.stores.base import Changes, Commit, CommitReceipt, Done, Listener, RunRow
from abstractgateway.stores.feed import Feed
from abstractgateway.stores.group import GroupWriter, Submission
from abstractgateway.stores.problems import Problems

from . import sql
from .address import Address
from .alone import RETENTION, DatabaseLock
from .artifacts import PostgresArtifactStore
from .batch import Batch, row_of
from .database import Connection, Database
from .faults import as_unavailable
from .fleet import Fleet, FleetWatch
from .news import News
from .opening import prepare
from .ports import PostgresCommandStore, PostgresLedgerStore, PostgresRunStore
from .shelf import PostgresShelf
from .writer import Writer

MAX_BATCH_REFUSALS = (psycopg.Error, ValueError, OverflowError)
"""What one commit of a batch may cause: a value that no column takes must not fail the others."""


SEEN_WITHIN_S = 1.0
GONE_BACK = 20_000
"""How many transactions are told of again after connections were lost, as a server may then have gone back.

One that crashed gives the numbers of transactions again that were not written to disk; a replica that has taken over,
those that it had not received.
"""


class PostgresStores:
    """The PostgreSQL backend; artifacts are in the database, or in a directory that all processes share."""

    def __init__(self, database: Database, artifacts_dir: str | Path | None = None) -> None:
        self.database = database
        self.problems = Problems()
        self._feed = Feed()
        self._telling = threading.Lock()
        self._told: dict[str, tuple[int, int, int]] = {}
        self._told_from, self._told_seq = _standing(database)
        self._losses = database.losses
        self._start_over: Callable[[], None] = lambda: None
        self.runs = PostgresRunStore(self)
        self.ledger = PostgresLedgerStore(self)
        self.commands = PostgresCommandStore(self)
        self.artifacts: PostgresArtifactStore | FileArtifactStore = (
            FileArtifactStore(artifacts_dir, problems=self.problems)
            if artifacts_dir is not None
            else PostgresArtifactStore(database)
        )
        self._batches = Writer(database, self._note_loss)
        self._writer = GroupWriter(self._write_batch, name="gateway-postgres-writer")
        self.measures = self._writer.measures
        self.watch = FleetWatch(database)
        self.shelf = PostgresShelf(database)
        self._news = News(database, self._batches.writer_id, self.look)
        self._news.on_shelf = self.shelf.look
        self._news.is_seen.wait(SEEN_WITHIN_S)  # before anything is done that a migration would have to know of

    def commit(self, commit: Commit) -> CommitReceipt:
        return self._writer.commit(commit)

    def submit(self, commit: Commit, done: Done) -> None:
        self._writer.submit(commit, done)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        return self._feed.subscribe(listener)

    def claim(self, owner: str) -> int:
        return self.database.repeatable(_claim)

    def share(self, lease_s: float) -> Fleet:
        """Return what a runner of this process needs to share the runs with others, under leases of `lease_s` s."""
        fleet = Fleet(self.database, self._batches.writer_id, lease_s)
        self._news.on_share, self._start_over = fleet.look, fleet.start_over
        return fleet

    def retention_lock(self) -> DatabaseLock:
        """Return the lock of whoever removes old runs; one process at a time has it."""
        return DatabaseLock(self.database, RETENTION)

    def close(self) -> None:
        """Write what was submitted, and close the connections."""
        self._writer.close()
        self._news.close()
        self._batches.close()
        self.database.close()

    def look(self) -> bool:
        """Tell the listeners what other processes have committed, and say whether there was anything."""
        with self._telling:
            has_news = self._post_news()
        self._feed.deliver()
        return has_news

    def whole_rows(self, found: Iterable[Any]) -> list[RunRow]:
        """Return the rows of runs; one that holds nonsense is reported and left out."""
        rows: list[RunRow] = []
        for columns in found:
            try:
                rows.append(row_of(columns))
            except ValueError as error:
                self.problems.note(f"run {columns[0]}", f"its row cannot be read: {error}")
        return rows

    def _write_batch(self, items: list[Submission]) -> None:
        """Write a batch in one transaction; where that fails for what is in it, each commit in one of its own."""
        try:
            try:
                self._write(items)
            except GatewayError:
                raise
            except MAX_BATCH_REFUSALS as error:
                if len(items) == 1:
                    raise as_unavailable(error) from error
                self._write_one_by_one(items)
        finally:
            self._feed.deliver()
        self._news.ring()

    def _write_one_by_one(self, items: list[Submission]) -> None:
        for item in items:
            item.receipt = item.error = None
            try:
                self._write([item])
            except (GatewayError, *MAX_BATCH_REFUSALS) as error:
                item.error = as_unavailable(error)

    def _write(self, items: list[Submission]) -> None:
        batch = self._batches.write(items)
        with self._telling:
            self._post_own(batch)

    def _post_own(self, batch: Batch) -> None:
        """Post what a batch changed, unless a look was quicker to find it."""
        has_commands = batch.newest_seq > self._told_seq
        self._told_seq = max(self._told_seq, batch.newest_seq)
        rows = [row for row in batch.rows.values() if batch.xact >= self._told_from and self._is_news(row)]
        for row in rows:
            self._told[row.run_id] = (row.revision, row.ledger_len, batch.xact)
        self._feed.post(Changes(tuple(rows), has_commands, batch.born))

    def _post_news(self) -> bool:
        """Post what was committed since the listeners were last told.

        Every transaction that may still have been under way at the last look is looked at again; `_told` has what the
        listeners know of those already.
        """
        found = self.database.rows(sql.NEWS, (str(self._told_from),))
        if may_have_gone_back := self.database.losses != self._losses:
            self._losses = self.database.losses
            self._told.clear()
            found = self.database.rows(sql.NEWS, (str(max(0, min(self._told_from, found[0][0]) - GONE_BACK)),))
        self._told_from, last_seq = found[0][0], found[0][1]
        has_commands, self._told_seq = may_have_gone_back or last_seq > self._told_seq, last_seq
        xacts = {row[3]: row[2] for row in found if row[2] is not None}
        rows = [row for row in self.whole_rows(row[3:] for row in found if row[2] is not None) if self._is_news(row)]
        for row in rows:
            self._told[row.run_id] = (row.revision, row.ledger_len, xacts[row.run_id])
        self._told = {run_id: told for run_id, told in self._told.items() if told[2] >= self._told_from}
        self._feed.post(Changes(tuple(rows), has_commands))
        return bool(rows) or has_commands

    def _note_loss(self) -> None:
        """Say that commits are gone, and have what this process drives looked up anew."""
        self.problems.note(
            f"the database {self.database.address}",
            "it has gone back: commits that were acknowledged are not in it. Either a replica has taken over that did "
            "not have them (use synchronous replication), or a backup was restored",
        )
        self._start_over()

    def _is_news(self, row: RunRow) -> bool:
        return (row.revision, row.ledger_len) > self._told.get(row.run_id, (0, 0, 0))[:2]


def _claim(connection: Connection) -> int:
    ((epoch,),) = connection.execute(sql.NEXT_EPOCH).fetchall()
    connection.execute(sql.DROP_RUNNERS)
    connection.execute(sql.ADD_CLAIM, (epoch, os.getpid(), socket.gethostname()))
    connection.execute(sql.TAKE_ALL, (epoch,))
    return int(epoch)


def _standing(database: Database) -> tuple[int, int]:
    """Return from which transaction on there will be news, and the place of the last command."""
    found = database.rows(sql.NEWS_BEGIN)
    return int(found[0][0]), int(found[0][1])


def open_postgres_stores(
    url: str,
    *,
    artifacts_dir: str | Path | None = None,
    is_durable: bool = True,
    connections: int = 8,
    patience_s: float = 5.0,
    is_migrating: bool = False,
) -> PostgresStores:
    """Return stores in a database, whose tables are made if they are missing.

    Up to `connections` read at once, one more writes and one listens; a server that is gone, or a connection that is in
    use, is waited for up to `patience_s` seconds. Raises `Invalid` for a URL that is none, `Unavailable` for a database
    that cannot be used, `Conflict` for one of a later version, and for one that a migration uses or has not filled to
    the end, unless this is the migration.
    """
    database = Database(Address(url), is_durable=is_durable, most=connections, patience_s=patience_s)
    try:
        prepare(database, has_warning=is_durable, is_migrating=is_migrating)
        return PostgresStores(database, artifacts_dir)
    except psycopg.Error as error:
        database.close()
        raise as_unavailable(error) from error
    except BaseException:
        database.close()
        raise
