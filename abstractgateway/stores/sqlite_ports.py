"""The run, ledger and command stores of a SQLite file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Invalid, Unavailable
from ..jsonvalue import loads
from ..runtime.models import RunState, WaitReason
from . import sqlite_schema as sql
from .base import CommandOutcome, CommandRecord, LedgerPage, RunQuery, RunRow, StoredRun, instant_or_none
from .queries import CommandQueries, LedgerQueries, RunQueries
from .sqlite_writes import hash_of
from .staging import Head

if TYPE_CHECKING:
    from .sqlite import SqliteStores


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
        body, revision, length, digest, hashed = found
        if length and hashed != length:
            digest = self.stores.ledger.head(run_id).ledger_hash
        try:
            state = RunState.from_dict(loads(body, field="run"))
        except (Invalid, TypeError) as error:
            raise Unavailable(f"the checkpoint of run {run_id!r} is damaged: {error}", code="run_damaged") from error
        return StoredRun(state, revision, length, digest)

    def row(self, run_id: str) -> RunRow | None:
        found = self.stores.whole_rows(self.stores.database.rows(sql.ROW_OF_RUN, (run_id,)))
        return found[0] if found else None

    def find(self, query: RunQuery) -> list[RunRow]:
        statement, values = statement_of(query)
        return self.stores.whole_rows(row[:-2] for row in self.stores.database.rows(statement, values))

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        keys = list(dict.fromkeys(wait_keys))
        marks = ", ".join("?" * len(keys))
        statement = f"SELECT run_id FROM runs WHERE wait_key IN ({marks}) ORDER BY updated_s, touched"
        return [found[0] for found in self.stores.database.rows(statement, keys)]

    def children_of(self, run_id: str) -> list[str]:
        found = self.stores.database.rows(sql.CHILDREN, (run_id,))
        return [child for child, _ in sorted(found, key=lambda row: (instant_or_none(row[1]) or 0.0, row[0]))]


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

    def count(self, run_id: str) -> int:
        found = self.stores.database.row(sql.LENGTH_OF_LEDGER, (run_id,))
        return int(found[0]) if found is not None else 0

    def read(self, run_id: str, after: int, limit: int) -> LedgerPage:
        first, most = max(after, 0), max(limit, 0)
        found = self.stores.database.rows(sql.READ_RECORDS, (run_id, first, first + most, most))
        return LedgerPage([body for (body,) in found], first + len(found))


class SqliteCommandStore(CommandQueries["SqliteStores"]):
    """The command inbox in SQLite."""

    def __init__(self, stores: SqliteStores) -> None:
        self.stores = stores

    def list_after(self, *, after: int, limit: int = 1000) -> tuple[list[CommandRecord], int]:
        rows = self.stores.database.rows(sql.COMMANDS_AFTER, (after, max(limit, 0)))
        found = [_command_of(row) for row in rows]
        return found, found[-1].seq if found else after

    def get_last_seq(self) -> int:
        return int(self.stores.database.row(sql.LAST_COMMAND)[0])

    def get_cursor(self) -> int:
        found = self.stores.database.row(sql.CURSOR)
        return int(found[0]) if found is not None else 0

    def get(self, command_id: str) -> CommandRecord | None:
        found = self.stores.database.row(sql.COMMAND_BY_ID, (command_id,))
        return _command_of(found) if found is not None else None

    def outcome(self, command_id: str) -> CommandOutcome | None:
        found = self.stores.database.row(sql.OUTCOME_OF_COMMAND, (command_id,))
        return CommandOutcome(*found) if found is not None and found[2] is not None else None


def statement_of(query: RunQuery) -> tuple[str, list[Any]]:
    """Return the statement that finds what a query wants, and its values; its last two columns are for the order.

    With several statuses, each is looked for through the index, so that a few running runs are found among many.
    """
    limit = -1 if query.limit is None else max(query.limit, 0)
    parts: list[str] = []
    values: list[Any] = []
    for status in dict.fromkeys(query.statuses) or (None,):
        conditions, own = _conditions(query)
        if status is not None:
            conditions.append("status = ?")
            own.append(status.value)
        where = " AND ".join(conditions) or "1"
        parts.append(
            f"SELECT * FROM (SELECT {sql.ROW_COLUMNS}, updated_s, touched {sql.FROM_RUNS} "
            f"WHERE {where} {sql.LATEST_FIRST} LIMIT ?)"
        )
        values += [*own, limit]
    if len(parts) == 1:
        return parts[0], values
    return f"{' UNION ALL '.join(parts)} {sql.LATEST_FIRST} LIMIT ?", [*values, limit]


def _conditions(query: RunQuery) -> tuple[list[str], list[Any]]:
    """Return the conditions of a query without its statuses, and their values."""
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
            conditions.append(f"{column} = ?")
            values.append(value)
    if query.root_only:
        conditions.append("COALESCE(parent_run_id, '') = ''")
    if query.hide_internal:
        conditions.append("workflow_id NOT LIKE '\\_\\_%' ESCAPE '\\'")
    return conditions, values


def _command_of(found: Sequence[Any]) -> CommandRecord:
    command_id, run_id, kind, payload, ts, client_id, seq = found
    return CommandRecord(command_id, run_id, kind, loads(payload, field="payload"), ts, client_id, seq)
