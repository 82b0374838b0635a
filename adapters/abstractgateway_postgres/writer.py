"""The one connection of a process that commits, and what becomes of a batch whose connection is lost.

Each batch carries its number into the row of its writer in `writers`. When the connection ends between COMMIT and the
answer, that row tells on a new connection whether the COMMIT arrived. It is changed then, which waits for the old
connection's transaction, should that still be under way on the server, and, where commits wait for a replica, until the
replica has what the row tells. A row that is older than what was acknowledged tells that the database has gone back.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from abstractgateway.errors import Unavailable
from abstractgateway.ids import new_hex
from abstractgateway.stores.group import Submission

from . import sql
from .arrays import send_lists_as_arrays
from .batch import Batch
from .database import FIRST_PAUSE_S, Connection, Database
from .faults import REPEATABLE, Lost, as_unavailable, is_lost, one_line

MOST_REPEATS = 20
"""How often a batch is begun anew because others were quicker; each time at least one of them got through."""


class Writer:
    """Writes batches, one after the other; used by one thread.

    `on_loss` is called when a new connection finds that batches are missing that were acknowledged.
    """

    def __init__(self, database: Database, on_loss: Callable[[], None] = lambda: None) -> None:
        self.writer_id = new_hex()
        self._database = database
        self._name = f"abstractgateway {self.writer_id}"
        self._connection: Connection | None = None
        self._on_loss = on_loss
        self._number = self._acknowledged = self._found = 0
        self._unsure: Batch | None = None

    def write(self, items: Sequence[Submission]) -> Batch:
        """Make a batch durable, whatever happens to the connection, and return it.

        Each commit of it has its receipt or its error then. Raises `Unavailable` when the server stays away: nothing of
        it is durable, unless the code is `outcome_unknown`.
        """
        until = time.monotonic() + self._database.patience_s
        losses = repeats = 0
        while True:
            try:
                return self._attempt(items, may_presume=repeats == 0)
            except Lost as error:
                self._drop()
                committed = self._find_out(error)
                if committed is not None:
                    return committed
                if time.monotonic() > until:
                    raise self._database.unreachable(error) from error
                time.sleep(FIRST_PAUSE_S * min(losses, 10))
                losses += 1
            except REPEATABLE as error:
                repeats += 1
                if repeats > MOST_REPEATS:
                    raise as_unavailable(error) from error
                time.sleep(random.uniform(0, 0.002 * repeats))

    def close(self) -> None:
        """Forget the writer, and close its connection."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.execute(sql.DROP_WRITER, (self.writer_id,))
        self._drop()

    def _attempt(self, items: Sequence[Submission], *, may_presume: bool) -> Batch:
        connection = self._connected()
        try:
            batch = self._write_at_once(connection, items) if may_presume else None
            if batch is None:
                batch = self._look_and_write(connection, items)
            batch.finish()
        except psycopg.Error as error:
            if is_lost(connection, error):
                raise Lost(one_line(error)) from error
            self._roll_back(connection)
            raise
        except BaseException:
            self._roll_back(connection)
            raise
        self._unsure = None
        self._acknowledged = self._number
        return batch

    def _write_at_once(self, connection: Connection, items: Sequence[Submission]) -> Batch | None:
        """Return the batch, or None, and nothing is written, where it is not as the commits presume."""
        batch = Batch(connection, items)
        if not batch.presume():
            return None
        self._number += 1
        self._unsure = batch
        return batch if batch.write_at_once(self.writer_id, self._number) else None

    def _look_and_write(self, connection: Connection, items: Sequence[Submission]) -> Batch:
        self._unsure = None
        batch = Batch(connection, items)
        with connection.pipeline() as pipeline:
            batch.look(pipeline)
            batch.admit()
            ended = self._end(connection, batch)
        _check_committed(ended, batch)
        return batch

    def _end(self, connection: Connection, batch: Batch) -> psycopg.Cursor[Any]:
        if batch.is_empty:
            return connection.execute(sql.ROLLBACK)
        batch.write()
        self._number += 1
        connection.execute(sql.MARK_BATCH, (self.writer_id, self._number))
        self._unsure = batch
        return connection.execute(sql.COMMIT)

    def _find_out(self, error: Lost) -> Batch | None:
        """Return the batch whose COMMIT was not answered if it is durable, None if nothing is.

        Raises `Unavailable` when the server stays away.
        """
        batch, self._unsure = self._unsure, None
        until = time.monotonic() + self._database.patience_s
        while batch is not None:
            try:
                connection = self._connected()
                if self._found != self._number:
                    return None
                batch.recall(connection)
                self._acknowledged = self._number
                return batch
            except (Lost, psycopg.Error, Unavailable) as trouble:
                self._drop()
                if time.monotonic() > until:
                    raise _unknown(self._database, error) from trouble
                time.sleep(FIRST_PAUSE_S)
        return None

    def _connected(self) -> Connection:
        """Return the connection, a new one if need be; then nothing of the old one is under way on the server."""
        if self._connection is None or self._connection.closed:
            connection = self._connection = self._database.connect(name=self._name, one_plan=True)
            send_lists_as_arrays(connection)
            try:
                connection.execute(sql.COMPRESS_QUICKLY)
                connection.execute(sql.END_OLD_SELF, (self._name,))
                ((self._found,),) = connection.execute(sql.GREET, (self.writer_id,)).fetchall()
            except psycopg.Error as error:
                self._drop()
                if is_lost(connection, error):
                    raise Lost(one_line(error)) from error
                raise
            self._look_back()
        return self._connection

    def _look_back(self) -> None:
        if self._found < self._acknowledged:
            self._acknowledged = self._found
            self._on_loss()

    def _roll_back(self, connection: Connection) -> None:
        self._unsure = None  # whatever failed, the COMMIT behind it was not executed
        try:
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                connection.execute(sql.ROLLBACK)
        except psycopg.Error:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _check_committed(ended: psycopg.Cursor[Any], batch: Batch) -> None:
    if not batch.is_empty and ended.statusmessage != "COMMIT":
        raise Unavailable(f"the database answered {ended.statusmessage!r} to a commit", code="store_failed")


def _unknown(database: Database, error: Lost) -> Unavailable:
    return Unavailable(
        f"the connection to the database {database.address} was lost during a commit ({error}), and the server does "
        "not answer: whether it is durable will be seen when it is back",
        code="outcome_unknown",
    )
