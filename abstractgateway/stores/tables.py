"""The indices that a store without a database keeps in memory: rows of runs, and the command inbox.

Every query of the product is answered from an index that holds just what is wanted; none scans all runs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice

from ..runtime.models import RunStatus
from .base import CommandOutcome, CommandRecord, RunQuery, RunRow, instant_or_none

Place = tuple[float, int, str]
"""Where a run stands in an order: seconds since the epoch, a number that grows with each change, the run id."""


class Order:
    """Runs in the order of their places; what is added is mostly the latest, so that adding is cheap."""

    def __init__(self) -> None:
        self._places: list[Place] = []

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def __reversed__(self) -> Iterator[Place]:
        return reversed(self._places)

    def add(self, place: Place) -> None:
        if self._places and place < self._places[-1]:
            insort(self._places, place)
        else:
            self._places.append(place)

    def remove(self, place: Place) -> None:
        del self._places[bisect_left(self._places, place)]


class OrdersByKey:
    """An order for each value of a field; values that no run has any more are forgotten."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}

    def get(self, key: str) -> Order:
        return self._orders.get(key) or Order()

    def add(self, key: str | None, place: Place) -> None:
        if key is not None:
            self._orders.setdefault(key, Order()).add(place)

    def remove(self, key: str | None, place: Place) -> None:
        if key is None:
            return
        order = self._orders[key]
        order.remove(place)
        if not order:
            del self._orders[key]


class RunTable:
    """The rows of all runs, with an index for each thing they are looked up by."""

    def __init__(self) -> None:
        self._rows: dict[str, RunRow] = {}
        self._updated: dict[str, Place] = {}
        self._created: dict[str, Place] = {}
        self._all = Order()
        self._by_status: dict[RunStatus, Order] = {status: Order() for status in RunStatus}
        self._by_session = OrdersByKey()
        self._by_wait_key = OrdersByKey()
        self._by_parent = OrdersByKey()  # in the order of creation
        self._changes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._rows

    def get(self, run_id: str) -> RunRow | None:
        return self._rows.get(run_id)

    def put(self, row: RunRow) -> None:
        """Add a run's row, or put it in the place of the one that is there."""
        old = self._rows.get(row.run_id)
        if old is not None:
            self._remove(old)
        self._changes += 1
        place = self._updated[row.run_id] = (instant_or_none(row.updated_at) or 0.0, self._changes, row.run_id)
        if old is None or old.created_at != row.created_at:
            self._created[row.run_id] = (instant_or_none(row.created_at) or 0.0, 0, row.run_id)
        self._rows[row.run_id] = row
        self._all.add(place)
        self._by_status[row.status].add(place)
        self._by_session.add(row.session_id, place)
        self._by_wait_key.add(row.wait_key, place)
        self._by_parent.add(row.parent_run_id, self._created[row.run_id])

    def find(self, query: RunQuery) -> list[RunRow]:
        """Return the rows a query wants, the latest updated first."""
        rows = (self._rows[run_id] for _, _, run_id in self._candidates(query))
        wanted = (row for row in rows if query.matches(row))
        return list(islice(wanted, None if query.limit is None else max(query.limit, 0)))

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        """Return the ids of the runs that wait on one of the keys, oldest wait first."""
        orders = (self._by_wait_key.get(key) for key in dict.fromkeys(wait_keys))
        return [run_id for _, _, run_id in merge(*orders)]

    def children_of(self, run_id: str) -> list[str]:
        """Return the ids of a run's children, oldest first."""
        return [child for _, _, child in self._by_parent.get(run_id)]

    def _candidates(self, query: RunQuery) -> Iterable[Place]:
        """Return the latest updated first, from the narrowest index there is for the query."""
        if query.parent_run_id is not None:
            children = self._by_parent.get(query.parent_run_id)
            return sorted((self._updated[run_id] for _, _, run_id in children), reverse=True)
        if query.session_id is not None:
            return reversed(self._by_session.get(query.session_id))
        if query.statuses:
            orders = (reversed(self._by_status[status]) for status in dict.fromkeys(query.statuses))
            return merge(*orders, reverse=True)
        return reversed(self._all)

    def _remove(self, row: RunRow) -> None:
        place = self._updated[row.run_id]
        self._all.remove(place)
        self._by_status[row.status].remove(place)
        self._by_session.remove(row.session_id, place)
        self._by_wait_key.remove(row.wait_key, place)
        self._by_parent.remove(row.parent_run_id, self._created[row.run_id])


class Inbox:
    """The commands by place and id, what became of them, and the cursor."""

    def __init__(self) -> None:
        self.last_seq = 0
        self.cursor = 0
        self._by_seq: dict[int, CommandRecord] = {}
        self._by_id: dict[str, CommandRecord] = {}
        self._outcomes: dict[str, CommandOutcome] = {}

    def seq_of(self, command_id: str) -> int | None:
        command = self._by_id.get(command_id)
        return command.seq if command is not None else None

    def put(self, command: CommandRecord) -> None:
        """Add a command; the first one of an id and of a place stays."""
        self._by_id.setdefault(command.command_id, command)
        self._by_seq.setdefault(command.seq, command)
        self.last_seq = max(self.last_seq, command.seq)

    def has_place(self, seq: int) -> bool:
        return seq in self._by_seq

    def settle(self, outcome: CommandOutcome) -> None:
        """Note what became of a command and move the cursor past it."""
        self._outcomes[outcome.command_id] = outcome
        self.move_cursor(outcome.seq)

    def move_cursor(self, seq: int) -> None:
        """Move the cursor to a place, never back; new commands come after it, or they would never be applied."""
        self.cursor = max(self.cursor, seq)
        self.last_seq = max(self.last_seq, self.cursor)

    def after(self, after: int, limit: int) -> tuple[list[CommandRecord], int]:
        places = (seq for seq in range(max(after, 0) + 1, self.last_seq + 1) if seq in self._by_seq)
        found = [self._by_seq[seq] for seq in islice(places, max(limit, 0))]
        return found, found[-1].seq if found else after

    def get(self, command_id: str) -> CommandRecord | None:
        return self._by_id.get(command_id)

    def outcome(self, command_id: str) -> CommandOutcome | None:
        return self._outcomes.get(command_id)
