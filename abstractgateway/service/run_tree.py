"""The ledgers of a run and of everything below it, read as one.

How far they are read is a `Place`: the cursor of a run, and the places of those runs that records up to that cursor
began and that are not read to their end. Which run that is, the record says; so a place names none, stays valid for as
long as the ledgers do, and does not grow with runs that are over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import Invalid, NotFound
from ..jsonvalue import loads
from ..stores.base import Stores
from .whole_records import before_damage

MOST_OPEN = 500
"""So many runs below a run are read at once; the records of others follow when one of them is over."""

MOST_CURSOR = 10**18 - 1
"""The largest cursor that a place can have as text; no ledger gets near it."""

_PAGE = 500
_MOST_TEXT = 65_536
_MOST_DEPTH = 100
_TOKENS = re.compile(r"[0-9]{1,18}|[(),:]", re.ASCII)
_STARTS = ("start_subworkflow", "memory_compact")


@dataclass
class Place:
    """How far a run and those below it are read; `open` has the places of runs by the cursor of what began them."""

    cursor: int = 0
    open: dict[int, Place] = field(default_factory=dict)

    def __str__(self) -> str:
        """The place as text, such as `12` or `12(7:3,9:0)`: at 12, and the run that record 7 began is at 3."""
        inner = ",".join(f"{at}:{place}" for at, place in self.open.items())
        return f"{self.cursor}({inner})" if inner else str(self.cursor)

    @staticmethod
    def of(text: str) -> Place:
        """Return the place that a text stands for. Raises `Invalid` for any other text."""
        tokens = _TOKENS.findall(text) if len(text) <= _MOST_TEXT else []
        if not tokens or "".join(tokens) != text:
            raise _no_place(text)
        return _parsed(tokens[::-1], text, 0)


@dataclass(frozen=True)
class TreeEntry:
    """A record as stored JSON bytes, whose it is, and the place after it as text."""

    run_id: str
    cursor: int
    record: bytes
    place: str


@dataclass(frozen=True)
class TreeTail:
    """The next records of a run and those below it.

    `next_after` is the place after them as text, `ended` says that the run is over and nothing is left to read, and
    `runs` are the ids of the runs that may have more.
    """

    entries: Sequence[TreeEntry]
    next_after: str
    ended: bool
    runs: frozenset[str]


def read_tree(stores: Stores, run_id: str, place: Place, max_bytes: int) -> TreeTail:
    """Return the next records after a place: at least one if there is one, then up to `max_bytes` in all.

    Each run's come in their order; those of different runs in any. Raises `NotFound` for an unknown run.
    """
    if stores.runs.row(run_id) is None:
        raise NotFound(f"Run '{run_id}' not found", code="run_not_found")
    while True:
        reader = _Reader(stores, run_id, place, max_bytes)
        was_full = reader.is_full
        is_over = reader.read(run_id, place)
        if reader.entries or is_over or not was_full or reader.is_full:
            return TreeTail(reader.entries, str(place), is_over, frozenset(reader.runs))


class _Reader:
    """One reading, which moves a place forward."""

    def __init__(self, stores: Stores, run_id: str, place: Place, max_bytes: int) -> None:
        self.root = place
        self.entries: list[TreeEntry] = []
        self.runs: set[str] = set()
        self._stores = stores
        self._left = max_bytes
        self._open = _count(place)

    @property
    def is_full(self) -> bool:
        """Whether no further run can be read before another one is over."""
        return self._open >= MOST_OPEN

    def read(self, run_id: str, place: Place) -> bool:
        """Read what fits of a run and those below it, and say whether all of them are over and read."""
        row = self._stores.runs.row(run_id)
        if row is None:
            return True
        self.runs.add(run_id)
        for at in list(place.open):
            self._read_below(run_id, place, at)
        if row.ledger_len > place.cursor:
            self._read_own(run_id, place)
        return row.status.is_terminal and place.cursor >= row.ledger_len and not place.open

    def _read_own(self, run_id: str, place: Place) -> None:
        """Read what fits of a run's own ledger, and of each run where it is begun."""
        records = self._stores.ledger.read(run_id, place.cursor, _PAGE).records
        records = before_damage(run_id, place.cursor, records)
        for record in records:
            begun = _begun_in(record)
            if not self._fits(record, begun):
                return
            place.cursor += 1
            if begun is not None:
                place.open[place.cursor] = Place()
                self._open += 1
            self.entries.append(TreeEntry(run_id, place.cursor, record, str(self.root)))
            if begun is not None:
                self._read_below(run_id, place, place.cursor)

    def _read_below(self, run_id: str, place: Place, at: int) -> None:
        """Read what fits of the run that a record began; when that is over, it is open no more."""
        child = self._begun_by(run_id, at)
        if self._left >= 0 and (child is None or self.read(child, place.open[at])):
            del place.open[at]
            self._open -= 1

    def _fits(self, record: bytes, begun: str | None) -> bool:
        self._left -= len(record)
        if begun is not None and self.is_full:
            return False
        return self._left >= 0 or not self.entries

    def _begun_by(self, run_id: str, cursor: int) -> str | None:
        """Return the run that a record began, if it is one below the run."""
        records = self._stores.ledger.read(run_id, cursor - 1, 1).records if cursor > 0 else ()
        begun = _begun_in(records[0]) if records else None
        row = self._stores.runs.row(begun) if begun is not None else None
        return begun if row is not None and row.parent_run_id == run_id else None


def _begun_in(record: bytes) -> str | None:
    """Return the id of the run that a record says was begun, or None."""
    if b'"sub_run_id"' not in record:
        return None
    fields = loads(record, field="record")
    effect = _object(fields.get("effect"))
    if effect.get("type") not in _STARTS or "sub_run_id" in _object(effect.get("payload")):
        return None
    result = _object(fields.get("result"))
    waited = _object(_object(result.get("wait")).get("details"))
    called = [_object(_object(item).get("output")) for item in result.get("results") or ()]
    found = (place.get("sub_run_id") for place in (waited, result, *called))
    return next((identity for identity in found if isinstance(identity, str)), None)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(place: Place) -> int:
    return len(place.open) + sum(_count(inner) for inner in place.open.values())


def _parsed(tokens: list[str], text: str, depth: int) -> Place:
    """Return the place that the last of the tokens, which are in reverse, begin with; they are taken away."""
    place = Place(_number(tokens, text))
    if not tokens or tokens[-1] != "(":
        if depth == 0 and tokens:
            raise _no_place(text)
        return place
    while tokens and tokens.pop() in "(,":
        at = _number(tokens, text)
        if depth >= _MOST_DEPTH or not tokens or tokens.pop() != ":":
            raise _no_place(text)
        place.open[at] = _parsed(tokens, text, depth + 1)
        if tokens and tokens[-1] == ")":
            tokens.pop()
            if depth == 0 and tokens:
                break
            return place
    raise _no_place(text)


def _number(tokens: list[str], text: str) -> int:
    if not tokens or not tokens[-1].isdigit():
        raise _no_place(text)
    return int(tokens.pop())


def _no_place(text: str) -> Invalid:
    return Invalid("after", f"{text[:80]!r} is no place in the ledgers of a run and those below it, such as 12(7:3)")
