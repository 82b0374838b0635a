"""The indices that a store without a database keeps in memory: rows of runs, and the command inbox.

Every query of the product is answered from a dictionary that holds just what is wanted; none scans all runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..runtime.models import RunStatus
from .base import CommandOutcome, CommandRecord, RunQuery, RunRow, instant_or_none

Ids = dict[str, None]
"""An ordered set of run ids."""


class RunTable:
    """The rows of all runs, in the order of their updates, with an index for each thing they are looked up by."""

    def __init__(self) -> None:
        self._rows: dict[str, RunRow] = {}
        self._by_status: dict[RunStatus, Ids] = {status: {} for status in RunStatus}
        self._by_parent: dict[str, Ids] = {}
        self._by_session: dict[str, Ids] = {}
        self._by_wait_key: dict[str, Ids] = {}
        self._latest = float("-inf")
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._rows

    def get(self, run_id: str) -> RunRow | None:
        return self._rows.get(run_id)

    def put(self, row: RunRow) -> None:
        """Add or replace a run's row; it is the latest updated one now."""
        old = self._rows.pop(row.run_id, None)
        if old is not None:
            self._unindex(old)
        self._rows[row.run_id] = row
        self._by_status[row.status][row.run_id] = None
        _add(self._by_parent, row.parent_run_id, row.run_id, keep_place=True)
        _add(self._by_session, row.session_id, row.run_id)
        _add(self._by_wait_key, row.wait_key, row.run_id)
        updated = instant_or_none(row.updated_at) or 0.0
        self._is_sorted = self._is_sorted and updated >= self._latest
        self._latest = max(self._latest, updated)

    def find(self, query: RunQuery) -> list[RunRow]:
        """Return the rows a query wants, the latest updated first."""
        self._sort()
        found: list[RunRow] = []
        for row in self._candidates(query):
            if query.limit is not None and len(found) >= query.limit:
                break
            if query.matches(row):
                found.append(row)
        return found

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        return [run_id for key in dict.fromkeys(wait_keys) for run_id in self._by_wait_key.get(key, ())]

    def children_of(self, run_id: str) -> list[str]:
        return list(self._by_parent.get(run_id, ()))

    def _candidates(self, query: RunQuery) -> Iterator[RunRow]:
        if query.parent_run_id is not None:
            return self._latest_first(self._by_parent.get(query.parent_run_id, {}))
        if query.session_id is not None:
            return self._latest_first(self._by_session.get(query.session_id, {}))
        if len(query.statuses) == 1:
            return (self._rows[run_id] for run_id in reversed(self._by_status[query.statuses[0]]))
        return iter(reversed(self._rows.values()))

    def _latest_first(self, ids: Ids) -> Iterator[RunRow]:
        return iter(sorted((self._rows[run_id] for run_id in ids), key=_updated, reverse=True))

    def _sort(self) -> None:
        """Put the rows in order again after a program saved one with an update time of its own."""
        if self._is_sorted:
            return
        self._is_sorted = True
        self._rows = {row.run_id: row for row in sorted(self._rows.values(), key=_updated)}
        for status in self._by_status:
            self._by_status[status] = {row.run_id: None for row in self._rows.values() if row.status is status}

    def _unindex(self, row: RunRow) -> None:
        del self._by_status[row.status][row.run_id]
        _drop(self._by_session, row.session_id, row.run_id)
        _drop(self._by_wait_key, row.wait_key, row.run_id)


class Inbox:
    """The commands by place and id, what became of them, and the cursor."""

    def __init__(self) -> None:
        self.last_seq = 0
        self.cursor = 0
        self._commands: dict[int, CommandRecord] = {}
        self._seqs: dict[str, int] = {}
        self._outcomes: dict[str, CommandOutcome] = {}

    def seq_of(self, command_id: str) -> int | None:
        return self._seqs.get(command_id)

    def put(self, command: CommandRecord) -> None:
        self._commands[command.seq] = command
        self._seqs[command.command_id] = command.seq
        self.last_seq = max(self.last_seq, command.seq)

    def settle(self, outcome: CommandOutcome) -> None:
        """Note what became of a command and move the cursor past it."""
        self._outcomes[outcome.command_id] = outcome
        self.cursor = max(self.cursor, outcome.seq)

    def after(self, after: int, limit: int) -> tuple[list[CommandRecord], int]:
        found: list[CommandRecord] = []
        for seq in range(max(after, 0) + 1, self.last_seq + 1):
            if len(found) >= limit:
                break
            if seq in self._commands:
                found.append(self._commands[seq])
        return found, found[-1].seq if found else after

    def get(self, command_id: str) -> CommandRecord | None:
        seq = self._seqs.get(command_id)
        return self._commands.get(seq) if seq is not None else None

    def outcome(self, command_id: str) -> CommandOutcome | None:
        return self._outcomes.get(command_id)


def _updated(row: RunRow) -> float:
    return instant_or_none(row.updated_at) or 0.0


def _add(index: dict[str, Ids], key: str | None, run_id: str, *, keep_place: bool = False) -> None:
    if key is None:
        return
    ids = index.setdefault(key, {})
    if not keep_place:
        ids.pop(run_id, None)
    ids[run_id] = None


def _drop(index: dict[str, Ids], key: str | None, run_id: str) -> None:
    if key is None or key not in index:
        return
    index[key].pop(run_id, None)
    if not index[key]:
        del index[key]
