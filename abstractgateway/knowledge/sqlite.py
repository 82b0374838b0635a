"""Statements in one SQLite file: WAL, `synchronous=FULL`, one writer at a time across processes.

The file is made by the first statement. Several processes may use it: they take turns by the lock of `SqliteDatabase`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from ..errors import Unavailable
from ..jsonvalue import JsonObject
from ..stores.sqlite_database import SqliteDatabase
from . import sqlite_statements as sql
from .memory import most_relevant
from .triples import Found, Pattern, Triple


class SqliteTripleStore:
    """Statements in a file; with FTS5 in this SQLite their words are indexed, otherwise a text reads them all."""

    def __init__(self, path: str | Path, *, is_durable: bool = True) -> None:
        self._path = Path(path)
        self._is_durable = is_durable
        self._opening = threading.Lock()
        self._opened: SqliteDatabase | None = None
        self._has_index = False

    def add(self, triples: Sequence[Triple], *, skip_known: bool) -> list[bool]:
        if not triples:
            return []
        try:
            with self._database().transaction() as connection:
                kept = [_add(connection, triple, skip_known) for triple in triples]
                if self._has_index:
                    connection.execute(sql.INDEX_NEW_WORDS)
        except sqlite3.Error as error:
            raise Unavailable(f"the statements cannot be stored: {error}", code="store_failed") from error
        return kept

    def query(self, pattern: Pattern) -> list[Found]:
        if not self.exists() or pattern.words == ():
            return []
        database = self._database()
        rows = [row for owner in pattern.owners for row in database.rows(*self._select(pattern, owner))]
        rows.sort(key=lambda row: (row[-3] or 0, row[-2]), reverse=pattern.is_newest_first)
        ordered = [(sql.triple_of(row[:-3], database.problems), row[-1]) for row in rows]
        if pattern.words is None:
            return [Found(triple) for triple, _ in ordered][: pattern.limit]
        return most_relevant([(triple, (words or "").split()) for triple, words in ordered], pattern)[: pattern.limit]

    def describe(self) -> JsonObject:
        return {"backend": "sqlite", "path": self._path.name}

    def exists(self) -> bool:
        return self._path.exists()

    def close(self) -> None:
        with self._opening:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _select(self, pattern: Pattern, owner: tuple[str, str | None]) -> tuple[str, list[object]]:
        return sql.select(pattern, owner, has_index=self._has_index)

    def _database(self) -> SqliteDatabase:
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> SqliteDatabase:
        try:
            database = SqliteDatabase(self._path, is_durable=self._is_durable, migrate=sql.migrate)
            self._has_index = sql.can_index_words(database.writer)
        except (OSError, sqlite3.Error, Unavailable) as error:
            why = error.__cause__ if isinstance(error, Unavailable) else error
            reason = (why.strerror or why) if isinstance(why, OSError) else why  # clients are not told the path
            raise Unavailable(
                f"the knowledge graph {self._path.name!r} cannot be opened: {reason}; move it away, or name another "
                "file with ABSTRACTGATEWAY_MEMORY_STORE_PATH",
                code="database_unusable",
            ) from error
        return database


def _add(connection: sqlite3.Connection, triple: Triple, skip_known: bool) -> bool:
    if connection.execute(sql.HAS_ID, (triple.assertion_id,)).fetchone():
        return True
    if skip_known and connection.execute(sql.IS_SAID, sql.said_values(triple)).fetchone():
        return False
    connection.execute(sql.ADD, sql.values_of(triple))
    return True
