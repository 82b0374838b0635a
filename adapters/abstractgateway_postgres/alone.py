"""Who uses a database: gateways share it, and a migration or a retention has it alone.

Both hold an advisory lock of a session of their own, which the server drops with the connection, however that ends.
"""

from __future__ import annotations

import psycopg
from psycopg.errors import LockNotAvailable

from .database import Connection, Database
from .faults import as_unavailable

GATEWAYS, RETENTION = 1, 2
"""What is locked: the presence of gateways, which they share and a migration holds alone; and removing old runs."""
_KEY = 1_095_190_600
_WAIT_BRIEFLY = "SELECT set_config('lock_timeout', '2s', %s)"
"""A server takes a moment to notice that a process has closed its connections, or died."""
_SHARE = "SELECT pg_try_advisory_lock_shared(%s, %s)"
_SHARE_BRIEFLY = "SELECT pg_advisory_xact_lock_shared(%s, %s)"
_HOLD = "SELECT pg_advisory_lock(%s, %s)"
_COUNT = """
SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ShareLock' AND objsubid = 2
    AND classid = %s::bigint::oid AND objid = %s::bigint::oid
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def be_seen(connection: Connection) -> bool:
    """Have others see that a gateway uses the database, for as long as the session lasts; False during a migration."""
    return connection.execute(_SHARE, (_KEY, GATEWAYS)).fetchall() == [(True,)]


def is_held(connection: Connection) -> bool:
    """Say whether a migration has the database alone."""
    try:
        with connection.transaction():
            connection.execute(_WAIT_BRIEFLY, (True,))
            connection.execute(_SHARE_BRIEFLY, (_KEY, GATEWAYS))
    except LockNotAvailable:
        return True
    return False


def count_gateways(connection: Connection) -> int:
    """Return how many processes have the database open."""
    ((count,),) = connection.execute(_COUNT, (_KEY, GATEWAYS)).fetchall()
    return int(count)


class DatabaseLock:
    """A lock that one process among all on a database holds, in a session of its own."""

    def __init__(self, database: Database, what: int) -> None:
        self._database = database
        self._what = what
        self._connection: Connection | None = None

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it, and say whether this object holds it now. Raises `Unavailable`."""
        if self._connection is not None:
            return True
        connection = self._database.connect(patience_s=0.0)
        try:
            connection.execute(_WAIT_BRIEFLY, (False,))
            connection.execute(_HOLD, (_KEY, self._what))
        except psycopg.Error as error:
            connection.close()
            if isinstance(error, LockNotAvailable):
                return False
            raise as_unavailable(error) from error
        self._connection = connection
        return True

    def release(self) -> None:
        """Give the lock back; without it nothing happens."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
