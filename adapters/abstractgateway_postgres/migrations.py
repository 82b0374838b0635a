"""Bringing a database to the schema of this version: numbered SQL files, each applied once."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import psycopg

from abstractgateway.errors import Conflict, Unavailable

from . import sql
from .faults import as_unavailable, one_line

_LOCK = "SELECT pg_advisory_xact_lock(1095190598)"
_HAS_VERSIONS = "SELECT to_regclass('abstractgateway.schema_version') IS NOT NULL"
_VERSION = "SELECT COALESCE(MAX(version), 0) FROM abstractgateway.schema_version"
_HAS_SCHEMA = f"SELECT to_regnamespace('{sql.SCHEMA}') IS NOT NULL"
_CREATE_SCHEMA = f"CREATE SCHEMA {sql.SCHEMA}"
_CREATE_VERSIONS = f"""
CREATE TABLE {sql.SCHEMA}.schema_version (
    version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)
"""


def known_migrations() -> list[tuple[int, str, str]]:
    """Return number, name and SQL of every migration, in order."""
    found = [item for item in files(__package__).joinpath("migrations").iterdir() if item.name.endswith(".sql")]
    return sorted((int(item.name.split("_")[0]), item.name, item.read_text(encoding="utf-8")) for item in found)


def migrate(connection: psycopg.Connection[Any]) -> None:
    """Apply the migrations that a database lacks; gateways that start at the same time wait for each other.

    Raises `Conflict` for a database of a later version, `Unavailable` when a right is missing.
    """
    migrations = known_migrations()
    newest = migrations[-1][0]
    version = version_of(connection)
    if version < newest:
        try:
            with connection.transaction():
                _apply(connection, migrations)
        except psycopg.Error as error:
            raise _not_migrated(error) from error
        version = version_of(connection)
    if version > newest:
        raise too_new(version, newest)


def too_new(version: int, newest: int) -> Conflict:
    """Return the error of a database that a later version of the gateway has written."""
    return Conflict(
        f"the database has schema version {version}, this gateway knows {newest}; use a newer version of it",
        code="schema_too_new",
    )


def _apply(connection: psycopg.Connection[Any], migrations: list[tuple[int, str, str]]) -> None:
    connection.execute("SET LOCAL statement_timeout = 0")
    connection.execute("SET LOCAL lock_timeout = 0")
    connection.execute(_LOCK)
    if not _is_true(connection, _HAS_SCHEMA):
        connection.execute(_CREATE_SCHEMA)
    if not _is_true(connection, _HAS_VERSIONS):
        connection.execute(_CREATE_VERSIONS)
    version = version_of(connection)
    for number, name, statements in migrations:
        if number > version:
            connection.execute(statements.encode())
            connection.execute("INSERT INTO schema_version (version, name) VALUES (%s, %s)", (number, name))


def version_of(connection: psycopg.Connection[Any]) -> int:
    """Return the version of a database's tables, 0 where there are none. Raises `Unavailable`."""
    if not _is_true(connection, _HAS_VERSIONS):
        return 0
    try:
        ((version,),) = connection.execute(_VERSION).fetchall()
    except psycopg.Error as error:
        raise as_unavailable(error) from error
    return int(version)


def _is_true(connection: psycopg.Connection[Any], question: str) -> bool:
    return connection.execute(question).fetchall() == [(True,)]


def _not_migrated(error: psycopg.Error) -> Exception:
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return Unavailable(
            f"the database user may not create the gateway's tables: {one_line(error)}; "
            f"grant it CREATE on the database, or make the schema {sql.SCHEMA!r} for it (docs/scaling.md)",
            code="store_failed",
        )
    return as_unavailable(error)
