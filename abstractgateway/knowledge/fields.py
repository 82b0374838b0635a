"""Reading the payloads of the knowledge effects: each field is what it should be, or named in an error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject
from ..runtime.effects.memory.inputs import text
from .predicates import predicate
from .relevance import wanted_words
from .terms import canonical, entity, term_text
from .triples import SCOPES, Owner, Pattern, micros


@dataclass(frozen=True)
class Asked:
    """The payload of an effect, or the body of a request."""

    payload: JsonObject

    def first(self, *names: str, default: Any = None) -> Any:
        """Return the first of these fields that is there and not null."""
        found = (self.payload.get(name) for name in names)
        return next((value for value in found if value is not None), default)


def scope_in(asked: Asked, *, may_be_all: bool) -> str:
    """Return the scope that is named, `run` by default. Raises `Invalid` for an unknown one."""
    known = (*SCOPES, "all") if may_be_all else SCOPES
    return checked_scope(asked.first("scope"), known)


def checked_scope(value: Any, known: tuple[str, ...] = SCOPES, *, default: str = "run") -> str:
    """Return a scope in lower case, the default for null or a blank text. Raises `Invalid` for an unknown one."""
    scope = str(value).strip().lower() if value is not None else ""
    if scope and scope not in known:
        raise Invalid("scope", f"{value!r} is not one of {', '.join(known)}")
    return scope or default


def number(asked: Asked, *names: str) -> float | None:
    """Return the first of these fields as a number; None when none is there. Raises `Invalid` for what is none."""
    value = asked.first(*names)
    return finite(value, names[0]) if value is not None and value != "" else None


def finite(value: Any, field: str) -> float:
    """Return a number, or the number that a text spells. Raises `Invalid(field, …)`."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise Invalid(field, f"{value!r} is not a number")
    return found


def pattern_in(asked: Asked, owners: tuple[Owner, ...], *, limit: int | None, min_score: float = 0.0) -> Pattern:
    """Return the pattern that a payload describes; blank fields count as not given.

    `subject`, `predicate`, `object`, `since`, `until`, `active_at`, `query_text`, `order`. Raises `Invalid`.
    """
    order = (text(asked, "order") or "desc").lower()
    if order not in ("asc", "desc"):
        raise Invalid("order", f"{order!r} is neither asc nor desc")
    wanted = text(asked, "query_text")
    subject, relation, target = (_term(asked, name) for name in ("subject", "predicate", "object"))
    since, until, active_at = (_instant(asked, name) for name in ("since", "until", "active_at"))
    return Pattern(
        owners=owners,
        subject=entity(subject) if subject else None,
        predicate=predicate(relation) if relation else None,
        object=object_key(target) if target else None,
        since=since,
        until=until,
        active_at=active_at,
        words=wanted_words(wanted) if wanted else None,
        min_score=min_score,
        limit=limit,
        is_newest_first=order == "desc",
    )


def object_key(text: str) -> str:
    """Return what an object is looked up by; that of an entity, where it is the name of one."""
    return entity(text) if canonical(text).startswith("ex:") else canonical(text)


def _term(asked: Asked, name: str) -> str | None:
    value = asked.first(name)
    return None if value is None or value == "" else term_text(value, name)


def _instant(asked: Asked, name: str) -> int | None:
    value = text(asked, name)
    return micros(value, field=name) if value is not None else None
