"""The shelf in the database: bundles, deprecations, drawn flows and named tokens that all processes share."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection
from typing import TypeVar

from abstractgateway.errors import Unavailable
from abstractgateway.ids import new_hex
from abstractgateway.stores.shelf import ANYTHING, NEVER_ANYTHING, NOTHING, Shelved

from . import sql
from .batch import check_text
from .database import Connection, Database
from .news import CHANNEL, SHELF

_REVISION = "SELECT value FROM counters WHERE name = 'shelf'"
_LOCK = f"{_REVISION} FOR UPDATE"
_CALL_ME = "SELECT set_config('application_name', %s, true)"
_NEXT = "UPDATE counters SET value = value + 1 WHERE name = 'shelf' RETURNING value"
_TELL = "SELECT pg_notify(%s, %s)"
_LIST = "SELECT name, sha256, revision FROM shelf WHERE drawer = %s AND sha256 IS NOT NULL ORDER BY name"
_REMOVED = "SELECT name FROM shelf WHERE drawer = %s AND sha256 IS NULL"
_READ = "SELECT name, sha256, content FROM shelf WHERE drawer = %s AND name = ANY(%s::text[]) AND sha256 IS NOT NULL"
_HEAD = "SELECT sha256, change_id, revision FROM shelf WHERE drawer = %s AND name = %s"
_PUT = """
INSERT INTO shelf (drawer, name, revision, change_id, sha256, content) VALUES (%s, %s, %s, %s, %s, %b)
ON CONFLICT (drawer, name) DO UPDATE SET revision = EXCLUDED.revision, change_id = EXCLUDED.change_id,
    sha256 = EXCLUDED.sha256, content = EXCLUDED.content
"""
_CHANGED = "SELECT COUNT(*), MAX(revision) FROM shelf WHERE drawer = %s AND change_id = %s"
_COUNT_NAMED = "SELECT COUNT(*) FROM shelf WHERE drawer = %s AND name = ANY(%s::text[]) AND sha256 IS NOT NULL"
_REMOVE = """
UPDATE shelf SET revision = %s, change_id = %s, sha256 = NULL, content = NULL
WHERE drawer = %s AND name = ANY(%s::text[]) AND sha256 IS NOT NULL
"""

T = TypeVar("T")


class PostgresShelf:
    """A `SharedShelf` in PostgreSQL. Changes follow each other, and others are told of them by the commit itself."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told = 0
        self._noting = threading.Lock()
        self._seen = (-1, 0)
        self._listened = 0
        self._listeners: list[Callable[[], None]] = []

    @property
    def told(self) -> int:
        return self._told

    def newest(self) -> int:
        ((revision,),) = self._database.rows(_REVISION)
        return self._note(revision)

    def subscribe(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def look(self) -> None:
        """Ask for changes, and tell the listeners when there are any.

        When one of them raises, they are told again with the next look.
        """
        told = self.newest()
        if told != self._listened:
            for listener in self._listeners:
                listener()
            self._listened = told

    def list(self, drawer: str) -> list[Shelved]:
        return [Shelved(name, digest, revision) for name, digest, revision in self._database.rows(_LIST, (drawer,))]

    def removed(self, drawer: str) -> set[str]:
        return {name for (name,) in self._database.rows(_REMOVED, (drawer,))}

    def read(self, drawer: str, names: Collection[str]) -> dict[str, bytes]:
        check_text("name", names)
        found = self._database.rows(_READ, (drawer, [*names]), raw=True) if names else []
        return {
            name.decode(): content
            for name, digest, content in found
            if hashlib.sha256(content).hexdigest() == digest.decode()
        }

    def put(self, drawer: str, name: str, content: bytes, *, instead_of: str = ANYTHING) -> bool:
        check_text("name", (name,))
        digest, change_id = hashlib.sha256(content).hexdigest(), new_hex()

        def put(connection: Connection) -> tuple[bool, int]:
            head = connection.execute(_HEAD, (drawer, name)).fetchone()
            if head is not None and head[1] == change_id:  # the COMMIT before the connection was lost arrived
                return True, head[2]
            if not _fits(instead_of, head is not None, head[0] if head is not None else None):
                return False, 0
            revision = _next(connection)
            connection.execute(_PUT, (drawer, name, revision, change_id, digest, content))
            return True, revision

        return self._change(change_id, put)

    def remove(self, drawer: str, names: Collection[str]) -> int:
        check_text("name", names)
        change_id, wanted = new_hex(), [*names]

        def remove(connection: Connection) -> tuple[int, int]:
            ((removed, removed_at),) = connection.execute(_CHANGED, (drawer, change_id)).fetchall()
            ((there,),) = connection.execute(_COUNT_NAMED, (drawer, wanted)).fetchall()
            if removed or not there:
                return removed, removed_at or 0
            revision = _next(connection)
            connection.execute(_REMOVE, (revision, change_id, drawer, wanted))
            return there, revision

        return self._change(change_id, remove)

    def _change(self, change_id: str, action: Callable[[Connection], tuple[T, int]]) -> T:
        """Do something while nobody else changes the shelf, a second time if the connection is lost meanwhile.

        `action` returns what to return, and the revision that it gave the shelf, or 0.
        """
        name = f"abstractgateway {change_id}"
        may_be_done = False

        def attempt(connection: Connection) -> tuple[T, int]:
            nonlocal may_be_done
            connection.execute(sql.END_OLD_SELF, (name,))  # what a lost connection left on the server
            connection.execute(_CALL_ME, (name,))
            connection.execute(_LOCK)
            done = action(connection)
            may_be_done = True  # from here on the COMMIT may arrive
            return done

        try:
            done, revision = self._database.repeatable(attempt)
        except Unavailable as error:
            if may_be_done and error.code == "database_unreachable":
                raise Unavailable(
                    f"{error}: whether the change was made will be seen when it is back", code="outcome_unknown"
                ) from error
            raise
        if revision:
            self._note(revision)
        return done

    def _note(self, revision: int) -> int:
        """Take note of the revision, and return what `told` is then.

        Lost connections count as a change: another server may have taken over that lacks some, so that revisions are
        given again.
        """
        with self._noting:
            seen = (int(revision), self._database.losses)
            if seen != self._seen:
                self._seen = seen
                self._told += 1
            return self._told


def _next(connection: Connection) -> int:
    """Return the revision of the change that is being made, and have the others told of it once it is."""
    ((revision,),) = connection.execute(_NEXT).fetchall()
    connection.execute(_TELL, (CHANNEL, SHELF))
    return int(revision)


def _fits(instead_of: str, was_there: bool, digest: str | None) -> bool:
    if instead_of == NEVER_ANYTHING:
        return not was_there
    return instead_of == ANYTHING or (digest or NOTHING) == instead_of
