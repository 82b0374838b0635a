"""The one connection of a process that commits, and what becomes of a batch whose connection is lost.

Each batch carries its number into the row of its writer in `writers`. When the connection ends between COMMIT and the
answer, that row tells on a new connection whether the COMMIT arrived. It is read with a lock: should the old
connection's transaction still be under way on the server, it is ended, or waited for.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from abstractgateway.errors import Unavailable
from abstractgateway.ids import new_hex
from abstractgateway.stores.group import Submission

from . import sql
from .batch import Batch
from .database import FIRST_PAUSE_S, Connection, Database
from .faults import REPEATABLE, Lost, as_unavailable, is_lost, one_line

MOST_REPEATS = 20
"""How often a batch is begun anew because others were quicker; each time at least one of them got through."""


class Writer:
    """Writes batches, one after the other; used by one thread."""

    def __init__(self, database: Database) -> None:
        self.writer_id = new_hex()
        self._database = database
        self._name = f"abstractgateway {self.writer_id}"
        self._connection: Connection | None = None
        self._number = 0
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
                return self._attempt(items)
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

    def _attempt(self, items: Sequence[Submission]) -> Batch:
        connection = self._connected()
        try:
            batch = Batch(connection, items)
            with connection.pipeline() as pipeline:
                batch.look(pipeline)
                batch.admit()
                ended = self._end(connection, batch)
            _check_committed(ended, batch)
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
                ((last,),) = self._connected().execute(sql.LAST_BATCH, (self.writer_id,)).fetchall()
                return batch if last == self._number else None
            except (psycopg.Error, Unavailable) as trouble:
                self._drop()
                if time.monotonic() > until:
                    raise _unknown(self._database, error) from trouble
                time.sleep(FIRST_PAUSE_S)
        return None

    def _connected(self) -> Connection:
        """Return the connection, a new one if need be; then nothing of the old one is under way on the server."""
        if self._connection is None or self._connection.closed:
            connection = self._connection = self._database.connect(name=self._name, one_plan=True)
            try:
                connection.execute(sql.END_OLD_SELF, (self._name,))
                connection.execute(sql.ADD_WRITER, (self.writer_id,))
            except psycopg.Error as error:
                self._drop()
                if is_lost(connection, error):
                    raise Lost(one_line(error)) from error
                raise
        return self._connection

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
