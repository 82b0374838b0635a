"""What the errors of PostgreSQL mean to the callers of a store."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors

from abstractgateway.errors import GatewayError, Unavailable

REPEATABLE = (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation)
"""Somebody else was quicker; the same transaction, begun anew, sees what they did."""
_GOING_DOWN = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow)
_BUSY = (errors.LockNotAvailable, errors.QueryCanceled, errors.TooManyConnections)


class Lost(Exception):
    """The connection ended. Whoever was in a transaction has to find out what became of it."""


def is_lost(connection: psycopg.Connection[Any], error: BaseException) -> bool:
    """Say whether an error means that the connection is of no use any more."""
    return isinstance(error, _GOING_DOWN) or connection.closed or connection.broken


def as_unavailable(error: BaseException) -> GatewayError:
    """Return what the callers are told."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, _BUSY):
        return Unavailable(f"the database is too busy: {one_line(error)}", code="store_busy")
    if isinstance(error, errors.InsufficientPrivilege):
        return Unavailable(
            f"the database user lacks a right: {one_line(error)}; docs/scaling.md says which it needs",
            code="store_failed",
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return Unavailable(
            "the database takes no writes now: it is a replica, or set to read only", code="store_failed"
        )
    return Unavailable(f"the database refused: {type(error).__name__}: {one_line(error)}", code="store_failed")


def one_line(error: BaseException) -> str:
    """Return the text of an error on one line."""
    return " ".join(str(error).split())
