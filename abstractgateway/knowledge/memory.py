"""Statements in memory: nothing survives the process."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ..jsonvalue import JsonObject
from .relevance import relevances
from .triples import MOST_FOUND_BY_TEXT, Found, Pattern, Triple, micros_or_none


class MemoryTripleStore:
    """Statements in a list."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._triples: list[Triple] = []
        self._ids: set[str] = set()
        self._said: set[tuple[str | None, ...]] = set()

    def add(self, triples: Sequence[Triple], *, skip_known: bool) -> list[bool]:
        with self._lock:
            return [self._add(triple, skip_known) for triple in triples]

    def _add(self, triple: Triple, skip_known: bool) -> bool:
        if triple.assertion_id in self._ids:
            return True
        if skip_known and triple.statement_key in self._said:
            return False
        self._ids.add(triple.assertion_id)
        self._said.add(triple.statement_key)
        self._triples.append(triple)
        return True

    def query(self, pattern: Pattern) -> list[Found]:
        with self._lock:
            triples = list(self._triples)
        chosen = [(number, triple) for number, triple in enumerate(triples) if _matches(triple, pattern)]
        chosen.sort(key=lambda item: (_observed(item[1]), item[0]), reverse=pattern.is_newest_first)
        found = [Found(triple) for _, triple in chosen]
        if pattern.words is not None:
            found = most_relevant([(triple, triple.words()) for _, triple in chosen], pattern)
        return found[: pattern.limit]

    def describe(self) -> JsonObject:
        return {"backend": "memory"}

    def exists(self) -> bool:
        return bool(self._triples)

    def close(self) -> None:
        """Nothing is open."""


def most_relevant(ordered: Sequence[tuple[Triple, Sequence[str]]], pattern: Pattern) -> list[Found]:
    """Return which of these statements, each with its words, a text finds; of equal ones the first stays first."""
    scores = relevances(pattern.words or (), [words for _, words in ordered])
    scored = [Found(triple, score) for (triple, _), score in zip(ordered, scores, strict=True)]
    found = [item for item in scored if item.score and item.score >= pattern.min_score]
    found.sort(key=lambda item: item.score or 0.0, reverse=True)
    return found[:MOST_FOUND_BY_TEXT]


def _observed(triple: Triple) -> int:
    return micros_or_none(triple.observed_at) or 0


def _matches(triple: Triple, pattern: Pattern) -> bool:
    return _is_owned(triple, pattern) and _says(triple, pattern) and _is_timely(triple, pattern)


def _is_owned(triple: Triple, pattern: Pattern) -> bool:
    return any(scope == triple.scope and owner in (None, triple.owner_id) for scope, owner in pattern.owners)


def _says(triple: Triple, pattern: Pattern) -> bool:
    wanted = ((pattern.subject, triple.subject), (pattern.predicate, triple.predicate))
    return all(want is None or want == has for want, has in (*wanted, (pattern.object, triple.object_key)))


def _is_timely(triple: Triple, pattern: Pattern) -> bool:
    observed = _observed(triple)
    if pattern.since is not None and observed < pattern.since or pattern.until is not None and observed > pattern.until:
        return False
    return pattern.active_at is None or _holds(triple, pattern.active_at)


def _holds(triple: Triple, instant: int) -> bool:
    begin, end = micros_or_none(triple.valid_from), micros_or_none(triple.valid_until)
    return (begin is None or begin <= instant) and (end is None or instant < end)
