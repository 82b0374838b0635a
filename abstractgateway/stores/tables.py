"""The indices that a store without a database keeps in memory: rows of runs, and the command inbox.

Every query of the product is answered from an index that holds just what is wanted; none scans all runs.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice

from ..runtime.models import RunStatus, WaitReason
from .base import CommandOutcome, CommandRecord, RunQuery, RunRow, instant_or_none

Place = tuple[float, int, str]
"""Where a run stands in an order: seconds since the epoch, the number it got when it was first put, the run id."""

TimedRow = tuple[RunRow, float, float]
"""A row, and when the run was updated and created, as seconds."""


class Order:
    """Runs in the order of their places; what is added is mostly the latest, so that adding is cheap."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: list[Place] = []

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def add(self, place: Place) -> None:
        if self._places and place < self._places[-1]:
            insort(self._places, place)
        else:
            self._places.append(place)

    def append(self, place: Place) -> None:
        """Add a place wherever it belongs; `sort` must follow."""
        self._places.append(place)

    def sort(self) -> None:
        self._places.sort()

    def remove(self, place: Place) -> None:
        del self._places[bisect_left(self._places, place)]

    def latest_first(self, low: Place, high: Place) -> Iterator[Place]:
        """Return the places from `low` to before `high`, the highest first."""
        first, last = bisect_left(self._places, low), bisect_left(self._places, high)
        return (self._places[at] for at in range(last - 1, first - 1, -1))


class OrdersByKey:
    """An order for each value of a field; values that no run has any more are forgotten."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}

    def get(self, key: str) -> Order:
        return self._orders.get(key) or Order()

    def add(self, key: str | None, place: Place) -> None:
        if key is not None:
            self._orders.setdefault(key, Order()).add(place)

    def append(self, key: str | None, place: Place) -> None:
        if key is not None:
            if (order := self._orders.get(key)) is None:
                order = self._orders[key] = Order()
            order.append(place)

    def sort(self) -> None:
        for order in self._orders.values():
            order.sort()

    def remove(self, key: str | None, place: Place) -> None:
        if key is None:
            return
        order = self._orders[key]
        order.remove(place)
        if not order:
            del self._orders[key]


class _Known:
    """A run's row, its place, the second it was created at, and its place among those that wait."""

    __slots__ = ("created", "row", "updated", "waits")

    def __init__(self, row: RunRow, updated: Place, created: float, waits: Place) -> None:
        self.row = row
        self.updated = updated
        self.created = created
        self.waits = waits


class RunTable:
    """The rows of all runs, with an index for each thing they are looked up by."""

    def __init__(self) -> None:
        self._runs: dict[str, _Known] = {}
        self._all = Order()
        self._roots = Order()
        self._by_status: dict[RunStatus, Order] = {status: Order() for status in RunStatus}
        self._by_wait_reason: dict[WaitReason, Order] = {reason: Order() for reason in WaitReason}
        self._by_workflow = OrdersByKey()
        self._by_session = OrdersByKey()
        self._by_parent = OrdersByKey()
        self._by_wait_key = OrdersByKey()  # by the changes that made them wait
        self._changes = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._runs

    def get(self, run_id: str) -> RunRow | None:
        known = self._runs.get(run_id)
        return known.row if known is not None else None

    def fill(self, rows: Iterable[TimedRow]) -> None:
        """Put the rows of many runs into an empty table at once."""
        for number, (row, updated, created) in enumerate(rows):
            place = (updated, number, row.run_id)
            self._runs[row.run_id] = _Known(row, place, created, place)
            for order in self._orders_of(row):
                order.append(place)
            self._by_workflow.append(row.workflow_id, place)
            self._by_session.append(row.session_id, place)
            self._by_parent.append(row.parent_run_id, place)
            self._by_wait_key.append(row.wait_key, place)
        self._changes = len(self._runs)
        for order in (self._all, self._roots, *self._by_status.values(), *self._by_wait_reason.values()):
            order.sort()
        for orders in (self._by_workflow, self._by_session, self._by_parent, self._by_wait_key):
            orders.sort()

    def timed(self, run_id: str) -> TimedRow | None:
        """Return a run's row as `fill` takes it, or None."""
        known = self._runs.get(run_id)
        return (known.row, known.updated[0], known.created) if known is not None else None

    def in_order(self, run_ids: Iterable[str]) -> list[str]:
        """Return run ids in the order in which the runs were first put; those without a row come last."""
        return sorted(run_ids, key=lambda run_id: self._runs[run_id].updated[1] if run_id in self._runs else len(self))

    def put(self, row: RunRow) -> None:
        """Add a run's row, or put it in the place of the one that is there."""
        run_id = row.run_id
        old = self._runs.get(run_id)
        if old is not None:
            self._remove(old)
        self._changes += 1
        updated = instant_or_none(row.updated_at) or 0.0
        is_as_old = old is not None and old.row.created_at == row.created_at
        created = old.created if old is not None and is_as_old else instant_or_none(row.created_at) or 0.0
        place = (updated, old.updated[1] if old is not None else len(self._runs), run_id)
        waits = (updated, self._changes, run_id)
        self._runs[run_id] = known = _Known(row, place, created, waits)
        for order in self._orders_of(row):
            order.add(place)
        self._by_workflow.add(row.workflow_id, place)
        self._by_session.add(row.session_id, place)
        self._by_parent.add(row.parent_run_id, place)
        self._by_wait_key.add(row.wait_key, known.waits)

    def remove(self, run_id: str) -> None:
        """Take a run's row away; without one nothing happens."""
        known = self._runs.get(run_id)
        if known is not None:
            self._remove(known)
            del self._runs[run_id]

    def find(self, query: RunQuery) -> list[RunRow]:
        """Return the rows a query wants, the latest updated first."""
        low, high = self._bounds(query)
        orders = (order.latest_first(low, high) for order in self._narrowest(query))
        rows = (self._runs[run_id].row for _, _, run_id in merge(*orders, reverse=True))
        wanted = (row for row in rows if query.matches(row))
        return list(islice(wanted, None if query.limit is None else max(query.limit, 0)))

    def count(self) -> dict[RunStatus, int]:
        """Return how many runs have each status."""
        return {status: len(order) for status, order in self._by_status.items()}

    def waiting_on(self, wait_keys: Iterable[str]) -> list[str]:
        """Return the ids of the runs that wait on one of the keys, oldest wait first."""
        orders = (self._by_wait_key.get(key) for key in dict.fromkeys(wait_keys))
        return [run_id for _, _, run_id in merge(*orders)]

    def children_of(self, run_id: str) -> list[str]:
        """Return the ids of a run's children, oldest first."""
        children = [child for _, _, child in self._by_parent.get(run_id)]
        return sorted(children, key=lambda child: (self._runs[child].created, child))

    def _bounds(self, query: RunQuery) -> tuple[Place, Place]:
        """Return from which place on and before which place a query's runs are."""
        low = (query.updated_from if query.updated_from is not None else -math.inf, -1, "")
        high = (query.updated_to if query.updated_to is not None else math.inf, -1, "")
        if query.before is not None:
            last = self._runs.get(query.before.run_id)
            number = last.updated[1] if last is not None else -1
            high = min(high, (query.before.updated, number, ""))
        return low, high

    def _narrowest(self, query: RunQuery) -> list[Order]:
        """Return the orders to look through that have the fewest runs among those that hold all that are wanted."""
        choices = [[self._roots if query.root_only else self._all]]
        if query.parent_run_id is not None:
            choices.append([self._by_parent.get(query.parent_run_id)])
        if query.session_id is not None:
            choices.append([self._by_session.get(query.session_id)])
        if query.workflow_id is not None:
            choices.append([self._by_workflow.get(query.workflow_id)])
        if query.wait_reason is not None:
            choices.append([self._by_wait_reason[query.wait_reason]])
        if query.statuses:
            choices.append([self._by_status[status] for status in dict.fromkeys(query.statuses)])
        return min(choices, key=lambda orders: sum(map(len, orders)))

    def _orders_of(self, row: RunRow) -> list[Order]:
        """Return the orders by update that a row is in whatever its ids are."""
        orders = [self._all, self._by_status[row.status]]
        if not row.parent_run_id:
            orders.append(self._roots)
        if row.wait_reason is not None:
            orders.append(self._by_wait_reason[row.wait_reason])
        return orders

    def _remove(self, known: _Known) -> None:
        row, place = known.row, known.updated
        for order in self._orders_of(row):
            order.remove(place)
        self._by_workflow.remove(row.workflow_id, place)
        self._by_session.remove(row.session_id, place)
        self._by_parent.remove(row.parent_run_id, place)
        self._by_wait_key.remove(row.wait_key, known.waits)


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

    def settle(self, outcome: CommandOutcome) -> None:
        """Note what became of a command and move the cursor past it."""
        self._outcomes[outcome.command_id] = outcome
        self.cursor = max(self.cursor, outcome.seq)
        self.last_seq = max(self.last_seq, self.cursor)

    def after(self, after: int, limit: int) -> tuple[list[CommandRecord], int]:
        places = (seq for seq in range(max(after, 0) + 1, self.last_seq + 1) if seq in self._by_seq)
        found = [self._by_seq[seq] for seq in islice(places, max(limit, 0))]
        return found, found[-1].seq if found else after

    def get(self, command_id: str) -> CommandRecord | None:
        return self._by_id.get(command_id)

    def outcome(self, command_id: str) -> CommandOutcome | None:
        return self._outcomes.get(command_id)
