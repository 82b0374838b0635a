"""A database as the end of a migration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import psycopg

from abstractgateway.errors import Conflict
from abstractgateway.stores.base import Stores
from abstractgateway.stores.ends import Standing

from .address import Address
from .alone import GATEWAYS, DatabaseLock, count_gateways
from .checks import check_server, live_runners, schema_version
from .database import Connection, Database
from .faults import as_unavailable
from .migrations import migrate
from .stores import open_postgres_stores

_HOLDS = """
SELECT EXISTS (SELECT 1 FROM counters WHERE name = 'migration' AND value > 0),
    EXISTS (SELECT 1 FROM runs) OR EXISTS (SELECT 1 FROM commands) OR EXISTS (SELECT 1 FROM artifacts)
    OR EXISTS (SELECT 1 FROM removed_runs)
"""
_MARK = """
INSERT INTO counters (name, value) VALUES ('migration', 1) ON CONFLICT (name) DO UPDATE SET value = 1
"""
_UNMARK = "DELETE FROM counters WHERE name = 'migration'"
_EMPTY = (
    "TRUNCATE runs, removed_runs, run_deltas, ledger, commands, artifacts, blobs, blob_pieces, shelf",
    "UPDATE counters SET value = 0 WHERE name IN ('command_cursor', 'command_seq')",
)

T = TypeVar("T")


class PostgresEnd:
    """The stores in a database, which no gateway uses; an entry of the table `counters` says while they are filled."""

    def __init__(self, url: str, *, artifacts_dir: str | Path | None = None) -> None:
        self._url = url
        self._artifacts_dir = artifacts_dir
        self._database = Database(Address(url))
        self._lock = DatabaseLock(self._database, GATEWAYS)
        self.place = f"the database {self._database.address}"

    def take(self) -> None:
        self._ask(lambda connection: check_server(self._database, connection, is_durable=False))
        if not self._lock.try_acquire():
            raise self._in_use(self._ask(_users))
        runners = self._ask(live_runners)
        if runners:
            raise self._in_use(", ".join(f"a runner (process {pid} on {host})" for pid, host in runners))

    def release(self) -> None:
        self._lock.release()
        self._database.close()

    def standing(self) -> Standing:
        return self._ask(self._look)

    def begin(self, *, anew: bool) -> None:
        def mark(connection: Connection) -> None:
            migrate(connection)
            with connection.transaction():
                for statement in (*(_EMPTY if anew else ()), _MARK):
                    connection.execute(statement)

        self._ask(mark)

    def open(self) -> Stores:
        return open_postgres_stores(self._url, artifacts_dir=self._artifacts_dir, is_migrating=True)

    def finish(self) -> None:
        self._ask(lambda connection: connection.execute(_UNMARK))

    def _look(self, connection: Connection) -> Standing:
        if not schema_version(connection):
            return Standing.EMPTY
        ((is_unfinished, has_data),) = connection.execute(_HOLDS).fetchall()
        if is_unfinished:
            return Standing.UNFINISHED
        return Standing.FILLED if has_data or _has_files(connection) else Standing.EMPTY

    def _ask(self, question: Callable[[Connection], T]) -> T:
        """Ask on a connection of its own. Raises `Unavailable` when there is no answer."""
        with closing(self._database.connect(patience_s=0.0)) as connection:
            try:
                return question(connection)
            except psycopg.Error as error:
                raise as_unavailable(error) from error

    def _in_use(self, who: str) -> Conflict:
        return Conflict(
            f"{self.place} is in use by {who}: stop every 'abstractgateway serve' and 'abstractgateway runner' on it "
            "first; the lease of one that was killed ends by itself within ABSTRACTGATEWAY_LEASE_S",
            code="runner_active",
        )


def _has_files(connection: Connection) -> bool:
    """Say whether somebody has put files there; the first version of the schema had no place for them."""
    ((has_shelf,),) = connection.execute("SELECT to_regclass('shelf') IS NOT NULL").fetchall()
    return bool(has_shelf and connection.execute("SELECT 1 FROM shelf WHERE sha256 IS NOT NULL LIMIT 1").fetchall())


def _users(connection: Connection) -> str:
    count = count_gateways(connection)
    return f"{count} gateway process{'es' if count > 1 else ''}" if count else "another migration"
