"""Asserting: what a flow says becomes statements, all of them or none."""

from __future__ import annotations

import hashlib
from typing import Any

from ..clock import parse_iso, to_iso
from ..errors import Invalid
from ..ids import new_hex
from ..jsonvalue import JsonObject, check_json
from ..runtime.effects.memory.inputs import flag, text
from ..runtime.models import RunState
from .fields import Asked, checked_scope, finite, scope_in
from .owners import Owners
from .predicates import is_known, predicate
from .terms import entity, term_text
from .triples import Triple, micros

MOST_AT_ONCE = 10_000

_NAMES = ("assertions", "triples", "items")
_SHOWN = 12
"""How many unknown predicates an error names."""


def assertions_in(asked: Asked) -> list[Any]:
    """Return what a payload asserts; one object counts as a list of it. Raises `Invalid`."""
    value = asked.first(*_NAMES)
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise Invalid(
            "assertions", f"must be a list of objects, not {'null' if value is None else type(value).__name__}"
        )
    if len(value) > MOST_AT_ONCE:
        raise Invalid("assertions", f"has {len(value)} items; at most {MOST_AT_ONCE} are asserted at once")
    return value


def triples_in(asked: Asked, run: RunState, owners: Owners, *, now: str, key: str) -> list[Triple]:
    """Return the statements of a payload, which is checked as a whole. Raises `Invalid` naming what is wrong with it.

    `now` is when they are observed where they do not say so. The same `key`, which names one performance of the effect,
    gives them the same ids.
    """
    maker = _Maker(asked, run, owners, now)
    made = [maker.triple(item, number, _id_of(key, number)) for number, item in enumerate(assertions_in(asked))]
    predicates = dict.fromkeys(triple.predicate for triple in made)
    refused = [term for term in predicates if not is_known(term, may_be_custom=maker.may_be_custom)]
    if refused:
        more = " …" if len(refused) > _SHOWN else ""
        raise Invalid(
            "predicate",
            f"unknown: {', '.join(map(repr, refused[:_SHOWN]))}{more}; use one of docs/knowledge.md, "
            "or ex:… with allow_custom_predicates",
        )
    return made


def _id_of(key: str, number: int) -> str:
    return hashlib.sha256(f"{key}:{number}".encode()).hexdigest()[:32] if key else new_hex()


class _Maker:
    """Makes statements of objects, with what the payload says about all of them."""

    def __init__(self, asked: Asked, run: RunState, owners: Owners, now: str) -> None:
        self.may_be_custom = bool(flag(asked, "allow_custom_predicates", "allow_custom"))
        self._run = run
        self._owners = owners
        self._now = now
        self._scope = scope_in(asked, may_be_all=False)
        self._owner_id = text(asked, "owner_id")
        self._span_id = text(asked, "span_id")
        self._attributes = _object(asked.first("attributes_defaults"), "attributes_defaults")
        self._owner_of: dict[str, str] = {}

    def triple(self, item: Any, number: int, assertion_id: str) -> Triple:
        """Return one statement. Raises `Invalid` naming its number and what is wrong with it."""
        where = f"assertions[{number}]"
        if not isinstance(item, dict):
            raise Invalid(where, f"must be an object with subject, predicate and object, not {type(item).__name__}")
        try:
            return self._triple(Asked(item), assertion_id)
        except Invalid as error:
            raise Invalid(f"{where}.{error.field}", error.why) from error

    def _triple(self, item: Asked, assertion_id: str) -> Triple:
        attributes = {**self._attributes, **_object(item.first("attributes"), "attributes")}
        subject, relation, target = (term_text(item.first(name), name) for name in ("subject", "predicate", "object"))
        scope = checked_scope(item.first("scope"), default=self._scope)
        valid_from, valid_until = _time(item, "valid_from"), _time(item, "valid_until")
        if valid_from and valid_until and valid_from >= valid_until:
            raise Invalid("valid_until", f"{valid_until!r} is not after valid_from")
        return Triple(
            assertion_id=assertion_id,
            subject=entity(subject),
            predicate=predicate(relation),
            object=target if attributes.get("literal") else entity(target),
            scope=scope,
            owner_id=text(item, "owner_id") or self._owner_id or self._owner(scope),
            observed_at=_time(item, "observed_at") or self._now,
            valid_from=valid_from,
            valid_until=valid_until,
            confidence=finite(item.first("confidence"), "confidence") if item.first("confidence") is not None else None,
            provenance=self._provenance(item),
            attributes=attributes,
        )

    def _provenance(self, item: Asked) -> JsonObject:
        by = {"writer_run_id": self._run.run_id, "writer_workflow_id": self._run.workflow_id}
        span = {"span_id": self._span_id} if self._span_id else {}
        return {**span, **by, **_object(item.first("provenance"), "provenance")}

    def _owner(self, scope: str) -> str:
        if scope not in self._owner_of:
            self._owner_of[scope] = self._owners.of_run(self._run, scope)
        return self._owner_of[scope]


def _object(value: Any, field: str) -> JsonObject:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(field, f"must be an object, not {type(value).__name__}")
    check_json(value, field=field)
    return value


def _time(item: Asked, name: str) -> str | None:
    value = text(item, name)
    if value is None:
        return None
    micros(value, field=name)
    return to_iso(parse_iso(value, field=name))
