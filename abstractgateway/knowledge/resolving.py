"""Resolving: which entities a label may stand for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..errors import Invalid
from ..jsonvalue import JsonObject
from ..runtime.effects.memory.inputs import flag, text, whole
from ..runtime.effects.memory.recall import recall_level
from ..runtime.models import RunState
from .fields import Asked, number
from .owners import Owners
from .predicates import LABELS, TYPE
from .querying import owners_in
from .relevance import wanted_words
from .terms import canonical, entity
from .triples import Found, Owner, Pattern, TripleStore

_MOST_CANDIDATES = 50
_MOST_EVIDENCE = 3
_CANDIDATES = {None: 5, "urgent": 3, "standard": 5, "deep": 10}
_MODES = {"urgent": "none", "deep": "always"}
"""When labels are also compared by their words: never, always, or where no label is equal (`fallback`)."""


@dataclass
class Candidate:
    """An entity in somebody's memory, with the statements that give it the label, the best first."""

    owner: Owner
    id: str
    label: str
    score: float
    evidence: list[JsonObject] = field(default_factory=list)


def resolved(store: TripleStore, owners: Owners, run: RunState, asked: Asked) -> JsonObject:
    """Return `{ok, count, candidates: [{id, label, types, scope, owner_id, score, evidence}], raw}`.

    Entities are what has a name of its own (`ex:…`). Raises `Invalid` for a field that means nothing.
    """
    label = canonical(text(asked, "label", "query", "query_text") or "")
    if not label:
        raise Invalid("label", "is required")
    expected = canonical(text(asked, "expected_type", "expectedType", "type") or "")
    _, whose = owners_in(asked, run, owners)
    level = recall_level(asked.first("recall_level", "recallLevel"))
    most = whole(asked, "max_candidates", "maxCandidates", "limit")
    most = max(1, min(_CANDIDATES[level.name if level else None] if most is None else most, _MOST_CANDIDATES))
    least = number(asked, "min_score", "minScore") or 0.0
    found = _labelled(store, whose, label, mode=_mode(asked, level.name if level else None), least=least)
    shown = _typed(store, found, expected, most)
    raw = {"label": label, "expected_type": expected or None}
    return {"ok": True, "count": len(shown), "candidates": shown, "raw": raw}


def _mode(asked: Asked, level: str | None) -> str:
    wish = flag(asked, "include_semantic", "includeSemantic")
    if wish is not None:
        return "fallback" if wish else "none"
    return _MODES.get(level or "", "fallback")


def _labelled(store: TripleStore, whose: tuple[Owner, ...], label: str, *, mode: str, least: float) -> list[Candidate]:
    patterns = [Pattern(owners=whose, predicate=name, limit=_MOST_CANDIDATES * 4) for name in LABELS]
    equal = [hit for pattern in patterns for hit in store.query(replace(pattern, object=label))]
    hits = [(hit, 1.0) for hit in equal]
    if mode == "always" or (mode == "fallback" and not equal):
        words = wanted_words(label)
        alike = (hit for pattern in patterns for hit in store.query(replace(pattern, words=words, min_score=least)))
        known = {hit.triple.assertion_id for hit in equal}
        hits += [(hit, hit.score or 0.0) for hit in alike if hit.triple.assertion_id not in known]
    return _candidates(hits)


def _candidates(hits: Iterable[tuple[Found, float]]) -> list[Candidate]:
    ordered = sorted(hits, key=lambda hit: (hit[1], hit[0].triple.observed_at), reverse=True)
    known: dict[tuple[Owner, str], Candidate] = {}
    for hit, score in ordered:
        triple = hit.triple
        if not triple.subject.startswith("ex:"):
            continue
        owner = (triple.scope, triple.owner_id)
        found = known.setdefault((owner, triple.subject), Candidate(owner, triple.subject, triple.object, score))
        if len(found.evidence) < _MOST_EVIDENCE:
            found.evidence.append(hit.to_dict())
    return list(known.values())


def _typed(store: TripleStore, found: list[Candidate], expected: str, most: int) -> list[JsonObject]:
    shown: list[JsonObject] = []
    for candidate in found:
        types = _types(store, candidate)
        if expected and expected not in types and entity(expected) not in types:
            continue
        shown.append(_shown(candidate, types))
        if len(shown) == most:
            break
    return shown


def _types(store: TripleStore, candidate: Candidate) -> list[str]:
    pattern = Pattern(owners=(candidate.owner,), subject=candidate.id, predicate=TYPE, limit=_MOST_CANDIDATES)
    return list(dict.fromkeys(hit.triple.object for hit in store.query(pattern)))


def _shown(candidate: Candidate, types: list[str]) -> JsonObject:
    scope, owner_id = candidate.owner
    return {
        "id": candidate.id,
        "label": candidate.label,
        "types": types,
        "scope": scope,
        "owner_id": owner_id,
        "score": round(candidate.score, 4),
        "evidence": candidate.evidence,
    }
