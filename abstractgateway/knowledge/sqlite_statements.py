"""The SQL of the statements in SQLite.

The table and its first columns are AbstractMemory's, so that its files open here and ours open there; `OWN_COLUMNS` are
this library's, and a row without `observed_us` was written by somebody else. Times are microseconds since the epoch,
because texts with other offsets do not sort by time. `place` names scope and owner in one word for the index of words.
"""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any

from ..errors import Conflict, Invalid
from ..jsonvalue import JsonObject, compact_text, loads
from ..stores.problems import Problems
from ..stores.sqlite_database import transaction_of
from .relevance import LEAST_PREFIX
from .triples import MOST_FOUND_BY_TEXT, Owner, Pattern, Triple, micros_or_none

SCHEMA_VERSION = 1

COLUMNS = (
    "assertion_id, subject, predicate, object, scope, owner_id, observed_at, valid_from, valid_until, confidence, "
    "provenance_json, attributes_json"
)
OWN_COLUMNS = {
    "object_key": "TEXT",
    "observed_us": "INTEGER",
    "from_us": "INTEGER",
    "until_us": "INTEGER",
    "place": "TEXT",
    "words": "TEXT",
}

TABLE = """
CREATE TABLE IF NOT EXISTS triples (
    assertion_id TEXT PRIMARY KEY, subject TEXT NOT NULL, predicate TEXT NOT NULL, object TEXT NOT NULL,
    scope TEXT NOT NULL, owner_id TEXT, observed_at TEXT NOT NULL, valid_from TEXT, valid_until TEXT, confidence REAL,
    provenance_json TEXT, attributes_json TEXT, text TEXT
)
"""

INDICES = (
    "CREATE INDEX IF NOT EXISTS idx_own_statement ON triples (scope, owner_id, subject, predicate, object_key)",
    "CREATE INDEX IF NOT EXISTS idx_own_object ON triples (scope, owner_id, object_key, predicate)",
    "CREATE INDEX IF NOT EXISTS idx_own_predicate ON triples (scope, owner_id, predicate, observed_us)",
    "CREATE INDEX IF NOT EXISTS idx_own_owner ON triples (scope, owner_id, observed_us)",
    "CREATE INDEX IF NOT EXISTS idx_own_any_subject ON triples (subject)",
    "CREATE INDEX IF NOT EXISTS idx_own_any_object ON triples (object_key)",
    "CREATE INDEX IF NOT EXISTS idx_own_foreign ON triples (assertion_id) WHERE observed_us IS NULL",
)

WORD_INDEX = """
CREATE VIRTUAL TABLE IF NOT EXISTS triple_words
USING fts5(place, words, content='', tokenize='ascii', detail='column')
"""
INDEX_NEW_WORDS = """
INSERT INTO triple_words (rowid, place, words)
SELECT rowid, place, words FROM triples
WHERE rowid > COALESCE((SELECT rowid FROM triple_words ORDER BY rowid DESC LIMIT 1), 0) AND words IS NOT NULL
ORDER BY rowid
"""

_ALL_COLUMNS = f"{COLUMNS}, text, {', '.join(OWN_COLUMNS)}"
_MARKS = ", ".join("?" * (_ALL_COLUMNS.count(",") + 1))
ADD = f"INSERT INTO triples ({_ALL_COLUMNS}) VALUES ({_MARKS})"
HAS_ID = "SELECT 1 FROM triples WHERE assertion_id = ?"
IS_SAID = """
SELECT 1 FROM triples WHERE subject = ? AND predicate = ? AND object_key = ? AND scope = ? AND owner_id IS ?
AND from_us IS ? AND until_us IS ?
"""
FOREIGN = f"SELECT rowid, {COLUMNS} FROM triples WHERE observed_us IS NULL"
ADOPT = f"UPDATE triples SET {', '.join(f'{name} = ?' for name in OWN_COLUMNS)} WHERE rowid = ?"


def can_index_words(connection: sqlite3.Connection) -> bool:
    """Say whether this SQLite has FTS5, making the index of words where it is missing."""
    try:
        connection.execute(WORD_INDEX)
        connection.execute("SELECT rowid FROM triple_words LIMIT 1").fetchall()
    except sqlite3.OperationalError as error:
        if "no such module" not in str(error):
            raise
        return False
    return True


def migrate(connection: sqlite3.Connection, problems: Problems) -> None:
    """Bring a file to this version's schema, and take in what AbstractMemory wrote to it since it was last open.

    Raises `Conflict` for a file of a later version.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise Conflict(
            f"the knowledge graph has schema version {version}, this library knows {SCHEMA_VERSION}; "
            "use a newer version",
            code="schema_too_new",
        )
    with transaction_of(connection):
        connection.execute(TABLE)
        known = {row[1] for row in connection.execute("PRAGMA table_info(triples)")}
        for name, kind in OWN_COLUMNS.items():
            if name not in known:
                connection.execute(f"ALTER TABLE triples ADD COLUMN {name} {kind}")
        for statement in INDICES:
            connection.execute(statement)
        for row in connection.execute(FOREIGN).fetchall():
            connection.execute(ADOPT, (*_own_values(triple_of(row[1:], problems)), row[0]))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if can_index_words(connection):
            connection.execute(INDEX_NEW_WORDS)


def values_of(triple: Triple) -> tuple[object, ...]:
    """Return the row of a statement."""
    return (
        *(getattr(triple, name) for name in Triple.__slots__[:-2]),
        compact_text(dict(triple.provenance)),
        compact_text(dict(triple.attributes)),
        f"{triple.subject} {triple.predicate} {triple.object}",
        *_own_values(triple),
    )


def said_values(triple: Triple) -> tuple[object, ...]:
    """Return what `IS_SAID` compares."""
    times = (micros_or_none(triple.valid_from), micros_or_none(triple.valid_until))
    return (*triple.statement_key[:5], *times)


def triple_of(row: tuple[object, ...], problems: Problems) -> Triple:
    """Return the statement of a row; what is no JSON object there is noted and counts as empty."""
    values: list[Any] = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in row]
    provenance, attributes = (_object(text, f"statement {values[0]}", problems) for text in values[-2:])
    return Triple(*values[:-2], provenance=provenance, attributes=attributes)  # type: ignore[misc]


def _object(text: object, where: str, problems: Problems) -> JsonObject:
    if text is None:
        return {}
    try:
        found = loads(str(text), field=where)
    except Invalid as error:
        problems.note(where, str(error))
        return {}
    return found if isinstance(found, dict) else {}


def _own_values(triple: Triple) -> tuple[object, ...]:
    return (
        triple.object_key,
        micros_or_none(triple.observed_at) or 0,
        micros_or_none(triple.valid_from),
        micros_or_none(triple.valid_until),
        _place((triple.scope, triple.owner_id)),
        " ".join(triple.words()),
    )


def _place(owner: Owner) -> str:
    return hashlib.sha256("\0".join(part or "" for part in owner).encode()).hexdigest()[:16]


def select(pattern: Pattern, owner: Owner, *, has_index: bool) -> tuple[str, list[object]]:
    """Return the query for one owner's statements, and its values; its rows end with time, row id and words."""
    wanted: dict[str, object | None] = {
        "scope = ?": owner[0],
        "owner_id = ?": owner[1],
        "subject = ?": pattern.subject,
        "predicate = ?": pattern.predicate,
        "object_key = ?": pattern.object,
        "observed_us >= ?": pattern.since,
        "observed_us <= ?": pattern.until,
        "(from_us IS NULL OR from_us <= ?)": pattern.active_at,
        "(until_us IS NULL OR until_us > ?)": pattern.active_at,
    }
    held = {condition: value for condition, value in wanted.items() if value is not None}
    conditions, values = list(held), list(held.values())
    direction = "DESC" if pattern.is_newest_first else "ASC"
    # A plus keeps SQLite from an index that has the order and reads all of the owner's statements.
    time = "observed_us" if pattern.subject is None and pattern.object is None else "+observed_us"
    source, order, limit = "triples", f"{time} {direction}, triples.rowid {direction}", pattern.limit
    if pattern.words is not None:
        limit = MOST_FOUND_BY_TEXT
        if has_index:
            source, order = "triple_words CROSS JOIN triples ON triples.rowid = triple_words.rowid", "rank"
            conditions, values = ["triple_words MATCH ?", *conditions], [_match(pattern.words, owner), *values]
        else:
            conditions.append("(" + " OR ".join("instr(' ' || triples.words || ' ', ?)" for _ in pattern.words) + ")")
            values += [f" {word}" if len(word) >= LEAST_PREFIX else f" {word} " for word in pattern.words]
    query = (
        f"SELECT {COLUMNS}, observed_us, triples.rowid, triples.words FROM {source} "
        f"WHERE {' AND '.join(conditions)} ORDER BY {order}"
    )
    return (query, values) if limit is None else (f"{query} LIMIT ?", [*values, limit])


def _match(words: tuple[str, ...], owner: Owner) -> str:
    """Return what FTS5 looks for; the words have letters and digits only."""
    any_of = " OR ".join(f'"{word}"*' if len(word) >= LEAST_PREFIX else f'"{word}"' for word in words)
    found = f"words : ({any_of})"
    return found if owner[1] is None else f'place : "{_place(owner)}" AND {found}'
