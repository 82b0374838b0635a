"""Statements of a knowledge graph, and the port that keeps them.

A store only ever gains statements. Every implementation passes tests/knowledge/test_contract.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from ..clock import parse_iso
from ..errors import Invalid
from ..jsonvalue import JsonObject
from .relevance import words_of_terms
from .terms import canonical

SCOPES = ("run", "session", "global")
MOST_FOUND_BY_TEXT = 5_000
"""A text may share a word with every statement there is; so many of them are compared with it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Owner = tuple[str, str | None]
"""A scope and the id of whose statements they are; None means anybody's."""


@dataclass(frozen=True, slots=True)
class Triple:
    """One statement, in canonical form: who said what about whom in whose memory, and when it holds.

    Times are ISO 8601 texts; it holds from `valid_from` until before `valid_until`, without them always.
    """

    assertion_id: str
    subject: str
    predicate: str
    object: str
    scope: str
    owner_id: str | None
    observed_at: str
    valid_from: str | None = None
    valid_until: str | None = None
    confidence: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def statement_key(self) -> tuple[str | None, ...]:
        """What two statements have in common that say the same, of the same time, in the same memory."""
        times = (self.valid_from, self.valid_until)
        return (self.subject, self.predicate, self.object_key, self.scope, self.owner_id, *times)

    @property
    def object_key(self) -> str:
        """The object as it is looked up; the object of a literal keeps its case."""
        return canonical(self.object)

    def words(self) -> tuple[str, ...]:
        """Return the words by which a text finds the statement."""
        return words_of_terms((self.subject, self.predicate, self.object))

    def to_dict(self) -> JsonObject:
        """Return the statement as JSON, without what it does not have."""
        named = {name: getattr(self, name) for name in self.__slots__}
        shown = {**named, "provenance": dict(self.provenance), "attributes": dict(self.attributes)}
        return {name: value for name, value in shown.items() if value is not None}


@dataclass(frozen=True)
class Pattern:
    """Which statements are wanted: every field that is set must hold; terms are canonical, times in microseconds.

    With `words` those are found whose relevance is above 0 and at least `min_score`, the most relevant first; otherwise
    they come by `observed_at`. Of equals the last added comes first, or last where the oldest come first.
    """

    owners: tuple[Owner, ...]
    subject: str | None = None
    predicate: str | None = None
    object: str | None = None
    since: int | None = None
    until: int | None = None
    active_at: int | None = None
    words: tuple[str, ...] | None = None
    min_score: float = 0.0
    limit: int | None = None
    is_newest_first: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """A statement, and its relevance where a text was asked for."""

    triple: Triple
    score: float | None = None

    def to_dict(self) -> JsonObject:
        """Return the statement as JSON, with its relevance in `attributes._retrieval`."""
        shown = self.triple.to_dict()
        if self.score is not None:
            shown["attributes"]["_retrieval"] = {"score": round(self.score, 4), "metric": "words"}
        return shown


class TripleStore(Protocol):
    """Keeps statements. Its methods may be called from any thread, and raise `Unavailable` when the store fails."""

    def add(self, triples: Sequence[Triple], *, skip_known: bool) -> list[bool]:
        """Keep statements durably, all or none, and say of each whether it is kept under its own id.

        One whose id is there already stays as it is and counts as kept. With `skip_known`, one that says the same as
        another in the store, or before it in the list, is left out.
        """

    def query(self, pattern: Pattern) -> list[Found]:
        """Return the statements that a pattern describes, in its order."""

    def describe(self) -> JsonObject:
        """Return `{backend[, path]}`; `path` is the name of a file, without its directory."""

    def exists(self) -> bool:
        """Say whether anything has ever been kept."""

    def close(self) -> None:
        """Let go of files and connections; a store that is used again opens them again."""


def micros(text: str, *, field: str) -> int:
    """Return an ISO 8601 time as microseconds since the epoch. Raises `Invalid(field, …)`."""
    try:
        return (parse_iso(text, field=field) - _EPOCH) // timedelta(microseconds=1)
    except OverflowError as error:
        raise Invalid(field, f"{text!r} is outside of the calendar") from error


def micros_or_none(text: str | None) -> int | None:
    """Return a stored time in microseconds since the epoch; None for one that is missing or is no time."""
    try:
        return micros(text, field="time") if text else None
    except Invalid:
        return None
