"""What must be so before a database is used."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg

from abstractgateway.clock import SystemClock
from abstractgateway.errors import Conflict, Unavailable
from abstractgateway.ids import new_hex
from abstractgateway.stores.ends import DatabaseFacts, unfinished

from . import sql
from .address import Address
from .alone import count_gateways, is_held
from .database import Connection, Database
from .faults import as_unavailable
from .migrations import known_migrations, too_new, version_of

_log = logging.getLogger(__name__)

OLDEST_SERVER = 130_000
"""PostgreSQL 13, the first with `xid8`, by which other processes' commits are found; older ones get no fixes either."""
_FACTS = """
SELECT current_setting('server_encoding'), pg_is_in_recovery(),
    current_setting('default_transaction_read_only'), current_setting('fsync')
"""
_RUNNERS = """
SELECT pid, host FROM runners WHERE lease_until >= clock_timestamp() AND lease_until < 'infinity' ORDER BY epoch
"""
_IS_UNFINISHED = "SELECT 1 FROM counters WHERE name = 'migration' AND value > 0"
_STANDING = "SELECT current_setting('fsync') = 'on', extract(epoch FROM clock_timestamp())::float8"
_MAY_MAKE_TABLES = f"""
SELECT CASE WHEN to_regnamespace('{sql.SCHEMA}') IS NULL THEN has_database_privilege(current_database(), 'CREATE')
    ELSE has_schema_privilege('{sql.SCHEMA}', 'CREATE') END
"""
_LACKING = f"""
SELECT wanted.privilege, relname FROM pg_class
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted (privilege)
WHERE relnamespace = to_regnamespace('{sql.SCHEMA}') AND relkind = 'r'
    AND NOT has_table_privilege(pg_class.oid, wanted.privilege)
ORDER BY relname, wanted.privilege
"""
_MARK = "SELECT set_config('abstractgateway.probe', %s, false)"
_MARKED = "SELECT current_setting('abstractgateway.probe', true)"


def check_server(database: Database, connection: Connection, *, is_durable: bool) -> None:
    """Raise `Unavailable` for a server or a pooler that cannot keep what the stores promise."""
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise _unfit(database, f"it is PostgreSQL {version // 10_000}; 13 or newer is needed")
    ((encoding, is_replica, is_read_only, fsync),) = connection.execute(_FACTS).fetchall()
    if encoding != "UTF8":
        raise _unfit(database, f"its encoding is {encoding}; create one WITH ENCODING 'UTF8'")
    if is_replica or is_read_only == "on":
        raise _unfit(database, "it takes no writes: it is a replica, or set to read only; name the primary")
    if is_durable and fsync == "off":
        _log.warning("the database server runs with fsync off: a power loss may cost what was acknowledged")
    _check_sessions(database, connection)


def check_alone(database: Database, connection: Connection) -> None:
    """Raise `Conflict` while a migration reads or fills the database."""
    if is_held(connection):
        raise in_migration(database)


def in_migration(database: Database) -> Conflict:
    """Return the error of a database that a migration reads or fills."""
    return Conflict(
        f"a migration has the database {database.address} for itself; wait for its end", code="migration_active"
    )


def check_finished(database: Database, connection: Connection) -> None:
    """Raise `Conflict` for a database that a migration has not filled to the end."""
    if connection.execute(_IS_UNFINISHED).fetchall():
        raise unfinished(f"the database {database.address}")


def live_runners(connection: Connection) -> list[tuple[int, str]]:
    """Return process and host of each runner that has a lease; a database without tables has none."""
    return connection.execute(_RUNNERS).fetchall() if schema_version(connection) else []


def schema_version(connection: Connection) -> int:
    """Return the version of the gateway's tables, 0 where there are none. Raises `Conflict` for a later one."""
    version, newest = version_of(connection), known_migrations()[-1][0]
    if version > newest:
        raise too_new(version, newest)
    return version


def look_at(url: str) -> DatabaseFacts:
    """Return what can be seen of a database; nothing is made or changed.

    Raises `Unavailable` for one that cannot be used, `Conflict` for one of a later version.
    """
    with closing(Database(Address(url))) as database, closing(database.connect(patience_s=0.0)) as connection:
        try:
            check_server(database, connection, is_durable=False)
            version = schema_version(connection)
            ((syncs, epoch_s),) = connection.execute(_STANDING).fetchall()
            return DatabaseFacts(
                place=str(database.address),
                server=f"PostgreSQL {connection.info.server_version // 10_000}",
                schema_version=version,
                runners=len(live_runners(connection)),
                gateways=count_gateways(connection),
                is_unfinished=bool(version) and bool(connection.execute(_IS_UNFINISHED).fetchall()),
                syncs=syncs,
                clock_ahead_s=epoch_s - SystemClock().now().timestamp(),
                lacking=tuple(_lacking_rights(connection, version)),
            )
        except psycopg.Error as error:
            raise as_unavailable(error) from error


def _lacking_rights(connection: Connection, version: int) -> Iterator[str]:
    """Yield what the user would have to be granted."""
    if version < known_migrations()[-1][0] and connection.execute(_MAY_MAKE_TABLES).fetchall() != [(True,)]:
        yield f"CREATE on the database, or on the schema {sql.SCHEMA} where there is one"
    for privilege, table in connection.execute(_LACKING):
        yield f"{privilege} on {sql.SCHEMA}.{table}"


def adopt_restored(connection: Connection) -> None:
    """Make the rows of a dump that was restored here old: their transactions are those of another server."""
    ((is_restored,),) = connection.execute(sql.IS_FROM_ANOTHER_SERVER).fetchall()
    if is_restored:
        with connection.transaction():
            connection.execute(sql.LOCK_RUNS)
            connection.execute(sql.FORGET_OTHER_SERVER)


def _check_sessions(database: Database, mine: Connection) -> None:
    """Refuse a pooler that gives each transaction another session: settings, LISTEN and locks would go astray.

    While this connection is idle another one begins a transaction. Such a pooler gives it the session that is free.
    """
    token = new_hex()
    mine.execute(_MARK, (token,))
    with database.borrowed() as other, other.transaction():
        has_strayed = _marked(other) == token
        is_mine = _marked(mine) == token
    if has_strayed or not is_mine:
        raise _unfit(
            database,
            "a pooler in front of it gives each transaction another session; use pool_mode=session, or the server's "
            "own port",
        )


def _marked(connection: Connection) -> Any:
    ((mark,),) = connection.execute(_MARKED).fetchall()
    return mark


def _unfit(database: Database, why: str) -> Unavailable:
    return Unavailable(f"the database {database.address} cannot be used: {why}", code="database_unusable")
