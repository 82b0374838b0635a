"""Which spans a query means: filters on their metadata, and the spans that are connected to those found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ....errors import Invalid
from ..request import EffectRequest
from .inputs import instant, text, texts
from .spans import Span, seconds

_MODES = {"all": True, "and": True, "any": False, "or": False}


@dataclass(frozen=True)
class SpanFilter:
    """What a span must be like: every condition that is given holds.

    `since` and `until` are seconds since the epoch; a span without times is in no range. `tags` are the values that
    will do for each name, of which all names or any must match. Authors and places are compared in lower case.
    """

    since: float | None = None
    until: float | None = None
    tags: tuple[tuple[str, frozenset[str]], ...] = ()
    needs_all_tags: bool = True
    authors: frozenset[str] = frozenset()
    locations: frozenset[str] = frozenset()

    def accepts(self, span: Span) -> bool:
        """Say whether a span is wanted."""
        return self._in_range(span) and self._has_tags(span) and self._is_by(span) and self._is_at(span)

    def _in_range(self, span: Span) -> bool:
        if self.since is None and self.until is None:
            return True
        first, last = seconds(span.get("from_timestamp")), seconds(span.get("to_timestamp"))
        first, last = (last if first is None else first), (first if last is None else last)
        if first is None or last is None:
            return False
        return (self.since is None or last >= self.since) and (self.until is None or first <= self.until)

    def _has_tags(self, span: Span) -> bool:
        if not self.tags:
            return True
        hits = [tag_of(span, name) in values for name, values in self.tags]
        return all(hits) if self.needs_all_tags else any(hits)

    def _is_by(self, span: Span) -> bool:
        return not self.authors or str(span.get("created_by") or "").strip().lower() in self.authors

    def _is_at(self, span: Span) -> bool:
        place = span.get("location") or tag_of(span, "location") or ""
        return not self.locations or str(place).strip().lower() in self.locations


def filter_of(request: EffectRequest) -> SpanFilter:
    """Return the filter that a payload describes.

    `since`, `until`, `tags` (a text or a list of texts for each name), `tags_mode`, `authors`, `locations`. Raises
    `Invalid` for a field that means nothing.
    """
    mode = text(request, "tags_mode", "tagsMode", "tag_mode") or "all"
    if mode.lower() not in _MODES:
        raise Invalid("tags_mode", f"{mode!r} is not one of {', '.join(_MODES)}")
    return SpanFilter(
        since=instant(request, "since"),
        until=instant(request, "until"),
        tags=_wanted_tags(request.payload.get("tags")),
        needs_all_tags=_MODES[mode.lower()],
        authors=_lowered(request.first("authors", "usernames", "users")),
        locations=_lowered(request.first("locations", "location")),
    )


def tag_of(span: Span, name: str) -> str | None:
    """Return a tag of a span; `kind` is the kind of the span itself."""
    if name == "kind":
        return str(span.get("kind") or "")
    tags = span.get("tags")
    found = tags.get(name) if isinstance(tags, dict) else None
    return found if isinstance(found, str) else None


def connected(found: Sequence[int], spans: Sequence[Span], *, hops: int, connect_by: Sequence[str]) -> list[int]:
    """Return the positions of the spans connected to those found, in the order of `spans` (by time).

    Connected are up to `hops` neighbours on each side, and the spans that share the value of a tag in `connect_by`.
    """
    near = {place for at in found for place in range(at - hops, at + hops + 1)}
    shared = {(name, tag_of(spans[at], name)) for at in found for name in connect_by} - {
        (name, None) for name in connect_by
    }
    taken = set(found)
    return [
        place
        for place, span in enumerate(spans)
        if place not in taken and (place in near or any((name, tag_of(span, name)) in shared for name in connect_by))
    ]


def _wanted_tags(value: Any) -> tuple[tuple[str, frozenset[str]], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise Invalid("tags", f"must be an object of texts or lists of texts, not {type(value).__name__}")
    wanted = ((name, frozenset(texts(values))) for name, values in value.items())
    return tuple((name, values) for name, values in wanted if values)


def _lowered(value: Any) -> frozenset[str]:
    return frozenset(item.lower() for item in texts(value))
