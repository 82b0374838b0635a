"""What must be so before a database is used."""

from __future__ import annotations

import logging
from typing import Any

from abstractgateway.errors import Unavailable
from abstractgateway.ids import new_hex

from . import sql
from .database import Connection, Database

_log = logging.getLogger(__name__)

OLDEST_SERVER = 130_000
"""PostgreSQL 13, the first with `xid8`, by which other processes' commits are found; older ones get no fixes either."""
_FACTS = """
SELECT current_setting('server_encoding'), pg_is_in_recovery(),
    current_setting('default_transaction_read_only'), current_setting('fsync')
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
