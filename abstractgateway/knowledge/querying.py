"""Querying: the statements that a payload describes, and a text of them for a model."""

from __future__ import annotations

from ..jsonvalue import JsonObject
from ..runtime.effects.memory.inputs import text, whole
from ..runtime.effects.memory.recall import Effort, recall_level
from ..runtime.models import RunState
from .fields import Asked, number, pattern_in, scope_in
from .owners import Owners
from .packing import packed, packets_of
from .triples import Owner, TripleStore

DEFAULT_LIMIT, MOST = 100, 10_000


def owners_in(asked: Asked, run: RunState, owners: Owners) -> tuple[str, tuple[Owner, ...]]:
    """Return the scope that is named and whose statements it means. Raises `Invalid`.

    An `owner_id` stands for the owner of the one scope that is named; of `all` it says nothing.
    """
    scope, owner_id = scope_in(asked, may_be_all=True), text(asked, "owner_id")
    if owner_id is not None and scope != "all":
        return scope, ((scope, owner_id),)
    return scope, owners.seen_from(run, scope)


def found_by(store: TripleStore, owners: Owners, run: RunState, asked: Asked, effort: Effort) -> JsonObject:
    """Return the result of a query: `{ok, count, items[, effort, warnings]}`, packed into a text where asked for.

    Raises `Invalid` for a field that means nothing.
    """
    scope, whose = owners_in(asked, run, owners)
    has_text = text(asked, "query_text") is not None
    limit, budget = _limit(asked, effort), _budget(asked, effort)
    least = _least_score(asked, effort) if has_text else 0.0
    found = store.query(pattern_in(asked, whose, limit=limit, min_score=least))
    items = [item.to_dict() for item in found]
    result: JsonObject = {"ok": True, "count": len(items), "items": items}
    if budget:
        result |= packed(packets_of(items), scope=scope, budget=budget)
        if items and not result["packed_count"]:
            effort.warnings.append(f"max_input_tokens: {budget} is too little for a single statement")
    told = effort.to_dict()
    result |= {"effort": told} if told else {}
    return result | ({"warnings": effort.warnings} if effort.warnings else {})


def effort_of(asked: Asked) -> Effort:
    """Return how much effort a query may make. Raises `Invalid` for an unknown recall level."""
    return Effort(recall_level(asked.first("recall_level", "recallLevel")))


def _limit(asked: Asked, effort: Effort) -> int:
    wish = whole(asked, "limit")
    if effort.level is not None:
        return max(1, effort.number("limit", wish, effort.level.kg_limit, otherwise=DEFAULT_LIMIT))
    return max(1, min(wish or DEFAULT_LIMIT, MOST))


def _budget(asked: Asked, effort: Effort) -> int:
    """Return how many tokens the text may have; 0 for no text."""
    wish = number(asked, "max_input_tokens", "max_in_tokens")
    tokens = None if wish is None else int(wish)
    if effort.level is None:
        return max(0, tokens or 0)
    return effort.number("max_input_tokens", tokens, effort.level.kg_tokens, otherwise=0)


def _least_score(asked: Asked, effort: Effort) -> float:
    wish, level = number(asked, "min_score"), effort.level
    if level is None:
        return wish or 0.0
    chosen = level.kg_score_default if wish is None else wish
    if chosen < level.kg_score_floor:
        effort.warnings.append(
            f"min_score: {chosen:g} is less than recall level {level.name!r} takes; {level.kg_score_floor:g} is used"
        )
        chosen = level.kg_score_floor
    effort.applied["min_score"] = chosen
    return chosen
