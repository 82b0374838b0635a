"""Reading and following ledgers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import Invalid, NotFound, Unavailable
from ..jsonvalue import JsonObject, loads
from ..stores.base import Changes, LedgerPage, Stores
from .run_tree import MOST_CURSOR, Place, TreeTail, read_tree
from .whole_records import before_damage, check_records

MOST_BYTES = 67_108_864
"""What pages of several runs may have together, which is in memory at once."""

_PAGE = 500
"""How many records are read at once while following; a page of ordinary records is some hundred kilobytes."""


@dataclass(frozen=True)
class LedgerEntry:
    """One record and its cursor."""

    cursor: int
    record: JsonObject


@dataclass(frozen=True)
class LedgerTail:
    """The next records after a cursor, as stored JSON bytes; `ended` once the run has and nothing is left to read."""

    records: Sequence[bytes]
    next_after: int
    ended: bool


class LedgerService:
    """The use cases around ledgers."""

    def __init__(self, *, stores: Stores) -> None:
        self._stores = stores
        self._followers: set[threading.Event] = set()
        self._is_closed = False

    def read(self, run_id: str, after: int = 0, limit: int = 200) -> LedgerPage:
        """Return up to `limit` records after a cursor; an unknown run has none.

        Raises `Unavailable` where one of them is damaged: a page that ended before it would look like the last one.
        """
        page = self._stores.ledger.read(run_id, after, limit)
        check_records(run_id, after, page.records)
        return page

    def read_many(self, cursors: Mapping[str, int], limit: int = 200) -> dict[str, LedgerPage]:
        """Return up to `limit` records after the cursor of each run, by run id; unknown runs have none.

        Once the pages have `MOST_BYTES` together, the pages of further runs are empty, to be asked for again.
        """
        pages: dict[str, LedgerPage] = {}
        left = MOST_BYTES
        for run_id, after in cursors.items():
            pages[run_id] = self.read(run_id, after, limit) if left > 0 else LedgerPage((), after)
            left -= sum(map(len, pages[run_id].records))
        return pages

    def may_grow(self, run_id: str, after: int) -> bool:
        """Say whether a run exists and may get records after a cursor that it does not have yet."""
        row = self._stores.runs.row(run_id)
        return row is not None and not (row.status.is_terminal and row.ledger_len <= after)

    def tail(self, run_id: str, after: int, max_bytes: int) -> LedgerTail:
        """Return the next records after a cursor: at least one if there is one, then up to `max_bytes` in all.

        Raises `NotFound` for an unknown run, and `Unavailable` where the next record is damaged.
        """
        row = self._stores.runs.row(run_id)
        if row is None:
            raise NotFound(f"Run '{run_id}' not found", code="run_not_found")
        records = self._stores.ledger.read(run_id, after, _PAGE).records if row.ledger_len > after else ()
        fitting = before_damage(run_id, after, _within(records, max_bytes))
        next_after = after + len(fitting)
        return LedgerTail(fitting, next_after, row.status.is_terminal and next_after >= row.ledger_len)

    def read_tree(self, run_id: str, place: str, max_bytes: int) -> TreeTail:
        """Return the next records of a run and of those below it after a place, which is a text; `""` is the begin.

        At least one if there is one, then up to `max_bytes` in all. Raises `NotFound` for an unknown run and `Invalid`
        for what is no place.
        """
        return read_tree(self._stores, run_id, Place.of(place) if place else Place(), max_bytes)

    def place_in_tree(self, place: str, after: int) -> str:
        """Return a place that a client was told, or the one after so many records of the run itself if it is none."""
        try:
            found = Place.of(place)
        except Invalid:
            found = Place()
        return str(found if found.cursor >= after else Place(min(after, MOST_CURSOR)))

    def follow(self, run_id: str, after: int = 0) -> Iterator[LedgerEntry]:
        """Yield the records after a cursor, then each new one once it is durable, until the run has ended.

        Raises `NotFound` at once for an unknown run, and `Unavailable` to whoever still follows when the gateway is
        closed.
        """
        self.tail(run_id, after, 0)
        return self._follow(run_id, after)

    def close(self) -> None:
        """Let everybody who follows a ledger know that nothing comes any more."""
        self._is_closed = True
        for changed in list(self._followers):
            changed.set()

    def _follow(self, run_id: str, after: int) -> Iterator[LedgerEntry]:
        changed = threading.Event()

        def note(changes: Changes) -> None:
            if any(row.run_id == run_id for row in changes.runs):
                changed.set()

        self._followers.add(changed)
        unsubscribe = self._stores.subscribe(note)
        try:
            yield from self._entries(run_id, after, changed)
        finally:
            unsubscribe()
            self._followers.discard(changed)

    def _entries(self, run_id: str, after: int, changed: threading.Event) -> Iterator[LedgerEntry]:
        while True:
            changed.clear()
            if self._is_closed:
                raise Unavailable(
                    "the gateway was closed; open it again and go on from the last cursor", code="store_closed"
                )
            tail = self.tail(run_id, after, max_bytes=1 << 20)
            for body in tail.records:
                after += 1
                yield LedgerEntry(after, loads(body, field="record"))
            if tail.ended:
                return
            if not tail.records:
                changed.wait()


def _within(records: Sequence[bytes], max_bytes: int) -> Sequence[bytes]:
    size = 0
    for number, body in enumerate(records):
        size += len(body)
        if size > max_bytes and number > 0:
            return records[:number]
    return records
