"""The run, ledger and command stores of a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from abstractgateway.errors import Invalid, Unavailable
from abstractgateway.jsonvalue import loads
from abstractgateway.runtime.delta import Checkpoint
from abstractgateway.runtime.models import RunStatus
from abstractgateway.stores.base import CommandOutcome, CommandRecord, LedgerPage, RunQuery, RunRow, StoredRun
from abstractgateway.stores.queries import CommandQueries, LedgerQueries, RunQueries
from abstractgateway.stores.staging import Head

from . import sql

if TYPE_CHECKING:
    from .stores import PostgresStores


_ORPHANS = "SELECT run_id FROM runs WHERE revision = 0 AND ledger_len > 0"


class PostgresRunStore(RunQueries["PostgresStores"]):
    """Checkpoints in PostgreSQL."""

    def __init__(self, stores: PostgresStores) -> None:
        self.stores = stores

    def join_ledger(self, ledger: object) -> PostgresStores:
        """Return the store that this and its ledger store belong to."""
        if not isinstance(ledger, PostgresLedgerStore) or ledger.stores is not self.stores:
            raise Invalid("ledger_store", "belongs to another database; one commit must cover runs and ledgers")
        return self.stores

    def open(self, run_id: str) -> StoredRun | None:
        found = self.stores.database.row(sql.OPEN_RUN, (_known(run_id),), raw=True)
        if found is None:
            return None
        revision, length, digest, body, deltas = found
        checkpoint = Checkpoint(body, tuple(deltas or ()))
        try:
            state = checkpoint.state()
        except (Invalid, TypeError, AttributeError) as error:
            raise Unavailable(f"the checkpoint of run {run_id!r} is damaged: {error}", code="run_damaged") from error
        head_hash = digest.decode() if digest is not None else None
        return StoredRun(state, revision, length, head_hash, len(body), checkpoint.delta_bytes)

    def row(self, run_id: str) -> RunRow | None:
        found = self.stores.whole_rows(self.stores.database.rows(sql.ROW_OF_RUN, (_known(run_id),)))
        return found[0] if found else None

    def find(self, query: RunQuery) -> list[RunRow]:
        statement, values = statement_of(query)
        return self.stores.whole_rows(self.stores.database.rows(statement, values))

    def count(self) -> dict[RunStatus, int]:
        found = dict(self.stores.database.rows(sql.COUNT_RUNS))
        return {status: found.get(status.value, 0) for status in RunStatus}

    def was_removed(self, run_id: str) -> bool:
        return self.stores.database.row(sql.KEPT_ID, (_known(run_id),)) is not None

    def removed_ids(self) -> list[str]:
        return [found[0] for found in self.stores.database.rows(sql.KEPT_IDS)]

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        keys = list(dict.fromkeys(_known(key) for key in wait_keys))
        return [found[0] for found in self.stores.database.rows(sql.WAITING_ON, (keys,))]

    def children_of(self, run_id: str) -> list[str]:
        return [found[0] for found in self.stores.database.rows(sql.CHILDREN, (_known(run_id),))]


class PostgresLedgerStore(LedgerQueries["PostgresStores"]):
    """Ledgers in PostgreSQL."""

    def __init__(self, stores: PostgresStores) -> None:
        self.stores = stores

    def head(self, run_id: str) -> Head:
        found = self.stores.database.row(sql.HEAD_OF_RUN, (_known(run_id),))
        return Head(*found) if found is not None else Head()

    def orphans(self) -> Sequence[str]:
        return [run_id for (run_id,) in self.stores.database.rows(_ORPHANS)]

    def read(self, run_id: str, after: int, limit: int) -> LedgerPage:
        first, most = max(after, 0), max(limit, 0)
        values = (_known(run_id), min(first, LAST), min(first + most, LAST))
        found = self.stores.database.rows(sql.READ_RECORDS, values, raw=True)
        return LedgerPage([body for (body,) in found], first + len(found))


class PostgresCommandStore(CommandQueries["PostgresStores"]):
    """The command inbox in PostgreSQL."""

    def __init__(self, stores: PostgresStores) -> None:
        self.stores = stores

    def list_after(self, *, after: int, limit: int = 1000) -> tuple[list[CommandRecord], int]:
        rows = self.stores.database.rows(sql.COMMANDS_AFTER, (min(after, LAST), min(max(limit, 0), LAST)))
        found = []
        for row in rows:
            try:
                found.append(_command_of(row))
            except Invalid as error:
                self.stores.problems.note(f"command {row[0]}", f"its row is no command: {error}")
        return found, rows[-1][-1] if rows else after

    def get_last_seq(self) -> int:
        return int(self.stores.database.row(sql.COUNTER, ("command_seq",))[0])

    def get_cursor(self) -> int:
        return int(self.stores.database.row(sql.COUNTER, ("command_cursor",))[0])

    def get(self, command_id: str) -> CommandRecord | None:
        found = self.stores.database.row(sql.COMMAND_BY_ID, (_known(command_id),))
        try:
            return _command_of(found) if found is not None else None
        except Invalid as error:
            raise Unavailable(f"command {command_id!r} is damaged: {error}", code="store_failed") from error

    def outcome(self, command_id: str) -> CommandOutcome | None:
        found = self.stores.database.row(sql.OUTCOME_OF_COMMAND, (_known(command_id),))
        return CommandOutcome(*found) if found is not None and found[2] is not None else None


LAST = 2**63 - 1
"""The largest number that a column holds; whoever asks for what is beyond it gets nothing."""


def statement_of(query: RunQuery) -> tuple[str, list[Any]]:
    """Return the SQL that finds what a query wants, and its values."""
    conditions, values = ["revision > 0"], []
    for condition, value in _conditions(query):
        conditions.append(condition)
        values += value
    limit = "" if query.limit is None else f"LIMIT {max(query.limit, 0)}"
    return f"SELECT {sql.ROW_COLUMNS} FROM runs WHERE {' AND '.join(conditions)} {sql.LATEST_FIRST} {limit}", values


def _conditions(query: RunQuery) -> Iterable[tuple[str, list[Any]]]:
    if query.statuses:
        yield "status = ANY(%s::text[])", [[status.value for status in query.statuses]]
    named = {
        "wait_reason": query.wait_reason.value if query.wait_reason is not None else None,
        "workflow_id": query.workflow_id,
        "session_id": query.session_id,
        "parent_run_id": query.parent_run_id,
    }
    for column, value in named.items():
        if value is not None:
            yield f"{column} = %s", [_known(value)]
    if query.root_only:
        yield "COALESCE(parent_run_id, '') = ''", []
    if query.hide_internal:
        yield "NOT starts_with(workflow_id, '__')", []
    if query.updated_from is not None:
        yield "updated_s >= %s", [query.updated_from]
    if query.updated_to is not None:
        yield "updated_s < %s", [query.updated_to]
    if query.before is not None:
        last = "COALESCE((SELECT number FROM runs AS last WHERE last.run_id = %s), 0)"
        yield f"(updated_s, number) < (%s, {last})", [query.before.updated, _known(query.before.run_id)]


def _known(text: str) -> str:
    """Return a text that a client gave as one that a column may hold; what cannot be stored is not found."""
    if "\0" not in text and text.isprintable():
        return text
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


def _command_of(found: Sequence[Any]) -> CommandRecord:
    """Return the command that a row holds. Raises `Invalid` when it holds none."""
    command_id, run_id, kind, payload, ts, client_id, seq = found
    fields = loads(payload, field="payload")
    if not isinstance(fields, dict):
        raise Invalid("command", "has a payload that is no object")
    return CommandRecord(command_id, run_id, kind, fields, ts, client_id, seq)
