"""A database that is made ready for use, and its shelf alone, for commands that need nothing else of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg

from .address import Address
from .alone import be_seen
from .checks import adopt_restored, check_alone, check_finished, check_server, in_migration, schema_version
from .database import Database
from .faults import as_unavailable
from .migrations import migrate
from .shelf import PostgresShelf

_HAS_SHELF = "SELECT to_regclass('shelf') IS NOT NULL"
_CONNECTIONS = 2
"""One asks; looking for a pooler that mixes sessions takes another one."""


def prepare(database: Database, *, has_warning: bool, is_migrating: bool = False) -> None:
    """See that a database can be used, and make the tables that it lacks.

    `has_warning` has a server without fsync be warned of. Raises `Unavailable` for a database that cannot be used,
    `Conflict` for one of a later version, and for one that a migration uses or has not filled to the end, unless this
    is the migration.
    """
    with closing(database.connect(patience_s=0.0)) as connection:
        try:
            check_server(database, connection, is_durable=has_warning)
            if not is_migrating:
                check_alone(database, connection)
            migrate(connection)
            if not is_migrating:
                check_finished(database, connection)
            adopt_restored(connection)
        except psycopg.Error as error:
            raise as_unavailable(error) from error


@contextmanager
def open_shelf(url: str) -> Iterator[PostgresShelf]:
    """Give the shelf of a database, to read and to change; no migration begins meanwhile. Raises as `prepare` does."""
    with closing(Database(Address(url), most=_CONNECTIONS)) as database:
        prepare(database, has_warning=False)
        with closing(database.connect(patience_s=0.0)) as presence:
            if not be_seen(presence):
                raise in_migration(database)
            yield PostgresShelf(database)


@contextmanager
def look_at_shelf(url: str) -> Iterator[PostgresShelf | None]:
    """Give the shelf of a database to be read, None where there are no tables yet; nothing is made or changed.

    Raises `Unavailable` for a database that cannot be used, `Conflict` for one of a later version.
    """
    with closing(Database(Address(url), most=_CONNECTIONS)) as database:
        with closing(database.connect(patience_s=0.0)) as connection:
            try:
                check_server(database, connection, is_durable=False)
                schema_version(connection)
                has_shelf = connection.execute(_HAS_SHELF).fetchall() == [(True,)]
            except psycopg.Error as error:
                raise as_unavailable(error) from error
        yield PostgresShelf(database) if has_shelf else None
