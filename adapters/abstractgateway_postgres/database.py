"""The connections to one database: how they are made, how many there are, and reading through them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import Loader

from abstractgateway.errors import Unavailable
from abstractgateway.stores.group import closed_error

from . import sql
from .address import Address
from .faults import Lost, as_unavailable, is_lost, one_line

Connection = psycopg.Connection[Any]
T = TypeVar("T")

SESSION = {
    "search_path": sql.SCHEMA,
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",  # a process that stands still must not hold up the others for long
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",  # compiling costs these short statements more than it saves
    "enable_seqscan": "off",  # plans are kept: one that was made for a young, small table would read all of a large one
    "client_min_messages": "warning",
}
ONE_PLAN = {"plan_cache_mode": "force_generic_plan"}
A_REPLICA = "it takes no writes: it is a replica; name the primary, or both"
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


class RawText(Loader):
    """Texts as the bytes they are: records go to readers without being decoded."""

    format = psycopg.pq.Format.BINARY

    def load(self, data: Any) -> bytes:
        return bytes(data)


class Database:
    """One database and the connections to it; `most` of them read, and each caller waits `patience_s` for one.

    `patience_s` is also how long a lost server is waited for. `losses` counts the times that connections were lost.
    """

    def __init__(self, address: Address, *, is_durable: bool = True, most: int = 8, patience_s: float = 5.0) -> None:
        self.address = address
        self.patience_s = patience_s
        self._session = dict(SESSION)
        if not is_durable:
            self._session["synchronous_commit"] = "off"
        self._must_sync = is_durable
        self._most = most
        self._places = threading.BoundedSemaphore(most)
        self._spare: deque[Connection] = deque()
        self.losses = 0
        self._is_down = False
        self._is_closed = False

    def rows(self, statement: str, values: Sequence[Any] = (), *, raw: bool = False) -> list[Any]:
        """Return the rows of a query, with `raw` their texts as bytes. Raises `Unavailable` when there is no answer."""
        try:
            return self._answer(statement, values, raw)
        except Lost:
            self.note_loss()
        try:
            return self._answer(statement, values, raw)
        except Lost as error:
            raise self.unreachable(error) from error

    def row(self, statement: str, values: Sequence[Any] = (), *, raw: bool = False) -> Any:
        """Return the first row of a query, or None."""
        found = self.rows(statement, values, raw=raw)
        return found[0] if found else None

    def repeatable(self, action: Callable[[Connection], T]) -> T:
        """Do something in a transaction that may be done twice: it is, when the connection is lost meanwhile.

        Raises `Unavailable` when it could not be done.
        """
        try:
            return self._transact(action)
        except Lost:
            self.note_loss()
        try:
            return self._transact(action)
        except Lost as error:
            raise self.unreachable(error) from error

    @contextmanager
    def borrowed(self) -> Iterator[Connection]:
        """Use one of the connections. Raises `Unavailable` when all are in use, or when there is no server."""
        if self._is_closed:
            raise closed_error()
        if not self._places.acquire(timeout=self.patience_s):
            raise Unavailable(
                f"all {self._most} connections to the database are in use; try again, or raise "
                "ABSTRACTGATEWAY_DATABASE_CONNECTIONS",
                code="store_busy",
            )
        try:
            connection = self._take()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._places.release()

    def connect(
        self, *, patience_s: float | None = None, name: str | None = None, one_plan: bool = False
    ) -> Connection:
        """Return a new connection, waiting for a server that is gone. Raises `Unavailable` when it stays away.

        `name` is what the server calls it; `one_plan` is for statements whose plan suits all values. Only the first
        who misses the server waits for it; the others are told at once until it is back.
        """
        patience = self.patience_s if patience_s is None else patience_s
        until = time.monotonic() + (0.0 if self._is_down else patience)
        pause = FIRST_PAUSE_S
        while True:
            try:
                connection = self._connect_once(name, one_plan)
            except psycopg.OperationalError as error:
                if time.monotonic() + pause > until:
                    self._is_down = self._is_down or patience > 0
                    raise self.unreachable(error) from error
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            except psycopg.Error as error:
                raise as_unavailable(error) from error
            else:
                self._is_down = False
                return connection

    def close(self) -> None:
        """Close the connections that nobody uses; the others are closed when they are given back."""
        self._is_closed = True
        self._drop_spare()

    def _connect_once(self, name: str | None, one_plan: bool) -> Connection:
        session = {**self._session, **(ONE_PLAN if one_plan else {})}
        named = {"application_name": name} if name is not None else {}
        connection = psycopg.connect(**{**self.address.parameters, **named}, autocommit=True, prepare_threshold=2)
        try:
            values = (list(session), list(session.values()))
            ((is_replica, _),) = connection.execute(sql.SET_SESSION, values).fetchall()
            if is_replica:
                raise psycopg.OperationalError(A_REPLICA)
            if self._must_sync:
                connection.execute(sql.SYNC_COMMITS)
        except BaseException:
            connection.close()
            raise
        return connection

    def _answer(self, statement: str, values: Sequence[Any], raw: bool) -> list[Any]:
        """Return the rows of a query. Raises `Lost` when the connection was lost: asking again may help."""
        with self.borrowed() as connection:
            try:
                cursor = connection.cursor(binary=raw)
                if raw:
                    cursor.adapters.register_loader("text", RawText)
                return cursor.execute(statement, values).fetchall()
            except psycopg.Error as error:
                if is_lost(connection, error):
                    connection.close()
                    raise Lost(one_line(error)) from error
                raise as_unavailable(error) from error

    def _transact(self, action: Callable[[Connection], T]) -> T:
        with self.borrowed() as connection:
            try:
                with connection.transaction():
                    return action(connection)
            except psycopg.Error as error:
                if is_lost(connection, error):
                    connection.close()
                    raise Lost(one_line(error)) from error
                raise as_unavailable(error) from error

    def _take(self) -> Connection:
        with contextlib.suppress(IndexError):
            return self._spare.pop()
        return self.connect()

    def _give_back(self, connection: Connection) -> None:
        is_idle = connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        if self._is_closed or not is_idle:
            connection.close()
        else:
            self._spare.append(connection)

    def note_loss(self) -> None:
        """Let go of what connections are left: a server that went down took all of them with it."""
        self.losses += 1
        self._drop_spare()

    def _drop_spare(self) -> None:
        while self._spare:
            with contextlib.suppress(IndexError):
                self._spare.pop().close()

    def unreachable(self, error: BaseException) -> Unavailable:
        """Return the error of a server that does not answer."""
        why = self.address.without_password(one_line(error))
        return Unavailable(f"no connection to the database {self.address}: {why}", code="database_unreachable")
