"""The run, ledger and command stores of a SQLite file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Invalid, Unavailable
from ..jsonvalue import loads
from ..runtime.models import RunStatus, WaitReason
from . import sqlite_schema as sql
from .base import CommandOutcome, CommandRecord, LedgerPage, RunQuery, RunRow, StoredRun, instant_or_none
from .queries import CommandQueries, LedgerQueries, RunQueries
from .sqlite_writes import checkpoint_of, hash_of
from .staging import Head

if TYPE_CHECKING:
    from .sqlite import SqliteStores

_LAST = 2**63 - 1
"""The largest whole number of SQLite."""


class SqliteRunStore(RunQueries["SqliteStores"]):
    """Checkpoints in SQLite."""

    def __init__(self, stores: SqliteStores) -> None:
        self.stores = stores

    def join_ledger(self, ledger: object) -> SqliteStores:
        """Return the store that this and its ledger store belong to."""
        if not isinstance(ledger, SqliteLedgerStore) or ledger.stores is not self.stores:
            raise Invalid("ledger_store", "belongs to another database; one commit must cover runs and ledgers")
        return self.stores

    def open(self, run_id: str) -> StoredRun | None:
        found = self.stores.database.row(sql.OPEN_RUN, (run_id,))
        if found is None:
            return None
        body, deltas, revision, length, digest, hashed = found
        if length and hashed != length:
            digest = self.stores.ledger.head(run_id).ledger_hash
        try:
            checkpoint = checkpoint_of(body, deltas)
            state = checkpoint.state()
        except (Invalid, TypeError, AttributeError) as error:
            raise Unavailable(f"the checkpoint of run {run_id!r} is damaged: {error}", code="run_damaged") from error
        return StoredRun(state, revision, length, digest, len(checkpoint.body), checkpoint.delta_bytes)

    def row(self, run_id: str) -> RunRow | None:
        found = self.stores.whole_rows(self.stores.database.rows(sql.ROW_OF_RUN, (run_id,)))
        return found[0] if found else None

    def find(self, query: RunQuery) -> list[RunRow]:
        statement, values = statement_of(query)
        return self.stores.whole_rows(row[:-2] for row in self.stores.database.rows(statement, values))

    def count(self) -> dict[RunStatus, int]:
        found = dict(self.stores.database.rows(sql.COUNT_RUNS))
        return {status: found.get(status.value, 0) for status in RunStatus}

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        keys = list(dict.fromkeys(wait_keys))
        marks = ", ".join("?" * len(keys))
        statement = f"SELECT run_id FROM runs WHERE wait_key IN ({marks}) ORDER BY updated_s, touched"
        return [found[0] for found in self.stores.database.rows(statement, keys)]

    def children_of(self, run_id: str) -> list[str]:
        found = self.stores.database.rows(sql.CHILDREN, (run_id,))
        return [child for child, _ in sorted(found, key=lambda row: (instant_or_none(row[1]) or 0.0, row[0]))]

    def was_removed(self, run_id: str) -> bool:
        return self.stores.database.row(sql.KEPT_ID, (run_id,)) is not None

    def removed_ids(self) -> list[str]:
        return [run_id for (run_id,) in self.stores.database.rows(sql.KEPT_IDS)]


class SqliteLedgerStore(LedgerQueries["SqliteStores"]):
    """Ledgers in SQLite."""

    def __init__(self, stores: SqliteStores) -> None:
        self.stores = stores

    def head(self, run_id: str) -> Head:
        revision, length, digest, hashed = self.stores.database.rows(sql.HEAD_OF_RUN, {"id": run_id})[0]
        if length and hashed != length:
            last = self.stores.database.row(sql.READ_RECORDS, (run_id, length - 1, length, 1))
            digest = hash_of(last[0]) if last is not None else None
        return Head(revision, length, digest)

    def orphans(self) -> Sequence[str]:
        return [run_id for (run_id,) in self.stores.database.rows(sql.ORPHANS)]

    def count(self, run_id: str) -> int:
        found = self.stores.database.row(sql.LENGTH_OF_LEDGER, (run_id,))
        return int(found[0]) if found is not None else 0

    def read(self, run_id: str, after: int, limit: int) -> LedgerPage:
        first, most = max(after, 0), max(limit, 0)
        values = (run_id, min(first, _LAST), min(first + most, _LAST), min(most, _LAST))
        found = self.stores.database.rows(sql.READ_RECORDS, values)
        return LedgerPage([body for (body,) in found], first + len(found))


class SqliteCommandStore(CommandQueries["SqliteStores"]):
    """The command inbox in SQLite."""

    def __init__(self, stores: SqliteStores) -> None:
        self.stores = stores

    def list_after(self, *, after: int, limit: int = 1000) -> tuple[list[CommandRecord], int]:
        rows = self.stores.database.rows(sql.COMMANDS_AFTER, (after, max(limit, 0)))
        found = []
        for row in rows:
            try:
                found.append(_command_of(row))
            except Invalid as error:
                self.stores.problems.note(f"command {row[0]}", f"its row is no command: {error}")
        return found, rows[-1][-1] if rows else after

    def get_last_seq(self) -> int:
        return int(self.stores.database.row(sql.LAST_COMMAND)[0])

    def get_cursor(self) -> int:
        found = self.stores.database.row(sql.CURSOR)
        return int(found[0]) if found is not None else 0

    def get(self, command_id: str) -> CommandRecord | None:
        found = self.stores.database.row(sql.COMMAND_BY_ID, (command_id,))
        try:
            return _command_of(found) if found is not None else None
        except Invalid as error:
            raise Unavailable(f"command {command_id!r} is damaged: {error}", code="store_failed") from error

    def outcome(self, command_id: str) -> CommandOutcome | None:
        found = self.stores.database.row(sql.OUTCOME_OF_COMMAND, (command_id,))
        return CommandOutcome(*found) if found is not None and found[2] is not None else None


def statement_of(query: RunQuery) -> tuple[str, list[Any]]:
    """Return the statement that finds what a query wants, and its values; its last two columns are for the order.

    Each part of it walks one index from its end. Where the status is part of the index, each status has a part, so that
    a few running runs are found among many. Times that are none are NULL and come last, which a comparison with the end
    of a page leaves out: they are looked for separately.
    """
    leading = _leading_column(query)
    statuses = list(dict.fromkeys(query.statuses))
    conditions, values = _conditions(query, leading)
    has_status = leading in ("status", "workflow_id")
    if statuses and not has_status:
        conditions.append(f"+status IN ({', '.join('?' * len(statuses))})")
        values += [status.value for status in statuses]
    limit = -1 if query.limit is None else max(query.limit, 0)
    parts: list[str] = []
    all_values: list[Any] = []
    for status in (statuses or list(RunStatus)) if has_status else [None]:
        for time_conditions, time_values in _time_conditions(query):
            own = conditions + time_conditions + (["status = ?"] if status is not None else [])
            parts.append(
                f"SELECT * FROM (SELECT {sql.ROW_COLUMNS}, updated_s, runs.rowid AS number {sql.FROM_RUNS} "
                f"WHERE {' AND '.join(own) or '1'} {sql.LATEST_FIRST} LIMIT ?)"
            )
            all_values += [*values, *time_values, *([status.value] if status is not None else []), limit]
    if len(parts) == 1:
        return parts[0], all_values
    return f"{' UNION ALL '.join(parts)} ORDER BY updated_s DESC, number DESC LIMIT ?", [*all_values, limit]


def _leading_column(query: RunQuery) -> str:
    """Return the first column of the index that finds a query's runs; a session and a parent have few of them."""
    if query.parent_run_id is not None:
        return "parent_run_id"
    if query.session_id is not None:
        return "session_id"
    if query.workflow_id is not None:
        return "workflow_id"
    return "status" if query.statuses else "updated_s"


def _conditions(query: RunQuery, leading: str) -> tuple[list[str], list[Any]]:
    """Return the conditions of a query without its statuses and times, and their values.

    A `+` keeps SQLite from choosing the index of a column that is not the leading one.
    """
    conditions: list[str] = []
    values: list[Any] = []
    if query.wait_reason is WaitReason.UNTIL:
        conditions.append("wait_reason = 'until'")  # spelt out, as in the index of the timers
    elif query.wait_reason is not None:
        conditions.append("wait_reason = ?")
        values.append(query.wait_reason.value)
    columns = {
        "parent_run_id": query.parent_run_id,
        "session_id": query.session_id,
        "workflow_id": query.workflow_id,
    }
    for column, value in columns.items():
        if value is not None:
            conditions.append(f"{'' if column == leading else '+'}{column} = ?")
            values.append(value)
    if query.root_only:
        conditions.append("COALESCE(parent_run_id, '') = ''")
    if query.hide_internal:
        conditions.append("workflow_id NOT LIKE '\\_\\_%' ESCAPE '\\'")
    return conditions, values


def _time_conditions(query: RunQuery) -> list[tuple[list[str], list[Any]]]:
    """Return the stretches of an index in which a query's runs are, each as conditions and their values."""
    conditions: list[str] = []
    values: list[Any] = []
    if query.updated_from is not None:
        conditions.append("updated_s >= ?")
        values.append(query.updated_from)
    if query.updated_to is not None:
        conditions.append("updated_s < ?")
        values.append(query.updated_to)
    if query.before is None:
        return [(conditions, values)]
    after_page = (
        [*conditions, "(updated_s, runs.rowid) < (?, COALESCE((SELECT rowid FROM runs WHERE run_id = ?), 0))"],
        [*values, query.before.updated, query.before.run_id],
    )
    if conditions:
        return [after_page]
    return [
        after_page,
        (
            [
                "updated_s IS NULL",
                "runs.rowid < COALESCE((SELECT rowid FROM runs WHERE run_id = ? AND updated_s IS NULL), ?)",
            ],
            [query.before.run_id, sys.maxsize],
        ),
    ]


def _command_of(found: Sequence[Any]) -> CommandRecord:
    """Return the command that a row holds. Raises `Invalid` when it holds none."""
    command_id, run_id, kind, payload, ts, client_id, seq = found
    fields = loads(payload, field="payload")
    if not isinstance(fields, dict) or bytes in map(type, found):
        raise Invalid("command", "has a payload that is no object, or a text that is no UTF-8")
    return CommandRecord(command_id, run_id, kind, fields, ts, client_id, seq)
