"""Recall levels: how much effort a look into memory may make, as a table, and the clamping to it.

A level gives each number a default and a most; what a caller asks beyond the most is cut down and said so. Without a
level nothing is clamped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ....errors import Invalid
from ....jsonvalue import JsonObject


@dataclass(frozen=True)
class Bound:
    """What a number is when nobody names it, and the most it may be."""

    default: int
    most: int


@dataclass(frozen=True)
class RecallLevel:
    """One row of the table; the `kg_…` columns are for hosts that have a knowledge graph."""

    name: str
    spans: Bound
    is_deep: bool
    deep_spans: int
    deep_messages: int
    is_connected: bool
    hops: int
    messages: Bound
    rehydrated: Bound
    kg_score_default: float
    kg_score_floor: float
    kg_limit: Bound
    kg_tokens: Bound


LEVELS: dict[str, RecallLevel] = {
    row.name: row
    for row in (
        RecallLevel(
            name="urgent",
            spans=Bound(2, 3),
            is_deep=False,
            deep_spans=0,
            deep_messages=0,
            is_connected=False,
            hops=0,
            messages=Bound(30, 60),
            rehydrated=Bound(30, 60),
            kg_score_default=0.55,
            kg_score_floor=0.5,
            kg_limit=Bound(20, 40),
            kg_tokens=Bound(600, 1000),
        ),
        RecallLevel(
            name="standard",
            spans=Bound(5, 8),
            is_deep=True,
            deep_spans=25,
            deep_messages=200,
            is_connected=True,
            hops=1,
            messages=Bound(80, 150),
            rehydrated=Bound(80, 200),
            kg_score_default=0.4,
            kg_score_floor=0.25,
            kg_limit=Bound(80, 200),
            kg_tokens=Bound(1200, 3000),
        ),
        RecallLevel(
            name="deep",
            spans=Bound(8, 20),
            is_deep=True,
            deep_spans=100,
            deep_messages=400,
            is_connected=True,
            hops=2,
            messages=Bound(200, 600),
            rehydrated=Bound(200, 800),
            kg_score_default=0.25,
            kg_score_floor=0.0,
            kg_limit=Bound(200, 1000),
            kg_tokens=Bound(2400, 6000),
        ),
    )
}


def recall_level(value: Any) -> RecallLevel | None:
    """Return the level of a name in any case; None for null or a blank text. Raises `Invalid` for another name."""
    name = str(value).strip().lower() if value is not None else ""
    if not name:
        return None
    if name not in LEVELS:
        raise Invalid("recall_level", f"{value!r} is not one of {', '.join(LEVELS)}")
    return LEVELS[name]


@dataclass
class Effort:
    """What a level makes of a caller's wishes: the numbers that were applied, and a sentence for each one cut down."""

    level: RecallLevel | None
    applied: JsonObject = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def number(self, name: str, wish: int | None, bound: Bound | None, *, otherwise: int) -> int:
        """Return a number: the wish up to the level's most, else its default; `otherwise` where there is no level.

        A negative wish means no limit.
        """
        chosen = wish if wish is not None else otherwise
        if bound is not None:
            chosen = bound.default if wish is None else wish
            if chosen < 0 or chosen > bound.most:
                self._cut(name, "unlimited" if chosen < 0 else str(chosen), str(bound.most))
                chosen = bound.most
        self.applied[name] = chosen
        return chosen

    def switch(self, name: str, wish: bool | None, allowed: bool | None, *, otherwise: bool) -> bool:
        """Return whether something is done: only where the level allows it; `otherwise` where there is no wish."""
        chosen = wish if wish is not None else otherwise
        if allowed is False and chosen:
            if wish:
                self._cut(name, "true", "false")
            chosen = False
        self.applied[name] = chosen
        return chosen

    def _cut(self, name: str, asked: str, given: str) -> None:
        assert self.level is not None
        self.warnings.append(f"{name}: {asked} is more than recall level {self.level.name!r} gives; {given} is used")

    def to_dict(self) -> JsonObject | None:
        """Return `{recall_level, applied}`, or None without a level."""
        if self.level is None:
            return None
        return {"recall_level": self.level.name, "applied": dict(self.applied)}
