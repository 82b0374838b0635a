"""Looking into the knowledge graph from outside of runs."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import Invalid, NotFound, Unavailable
from ..jsonvalue import JsonObject
from ..knowledge.fields import Asked, checked_scope, finite, pattern_in
from ..knowledge.graph import StoredKnowledge
from ..knowledge.triples import SCOPES, Owner
from ..runtime.effects.memory.inputs import text
from ..runtime.models import RunState

DEFAULT_LIMIT = 500


class _Whose(NamedTuple):
    """Whose statements are asked for, the one owner of a single scope, and what has to be said about it."""

    owners: tuple[Owner, ...]
    owner_id: str | None = None
    warnings: tuple[str, ...] = ()


class KnowledgeService:
    """The use case around the knowledge graph; without one of the gateway's own it only says so."""

    def __init__(self, knowledge: StoredKnowledge | None) -> None:
        self._knowledge = knowledge

    def query(
        self,
        *,
        scope: str | None = None,
        limit: int = DEFAULT_LIMIT,
        all_owners: bool = False,
        min_score: float | None = None,
        **fields: str | None,
    ) -> JsonObject:
        """Return `{ok, scope, owner_id, count, items, warnings, store}`: the statements that the fields describe.

        `fields` are `run_id`, `session_id`, `owner_id`, `subject`, `predicate`, `object`, `since`, `until`,
        `active_at`, `query_text` and `order`. `scope` is `session` (default), `run`, `global` or `all`; a `limit` up
        to 0 means every statement. Raises `Invalid` for fields that mean nothing together, `NotFound` for an unknown
        run whose session is wanted, and `Unavailable` when the store cannot be read or is the embedding program's.
        """
        knowledge = self._of_the_gateway()
        asked = Asked({name: value for name, value in fields.items() if value is not None})
        named = checked_scope(scope, (*SCOPES, "all"), default="session")
        whose = self._whose(knowledge, asked, named, all_owners)
        least = finite(min_score, "min_score") if min_score is not None else 0.0
        pattern = pattern_in(asked, whose.owners, limit=limit if limit > 0 else None, min_score=least)
        items = [found.to_dict() for found in knowledge.store.query(pattern)]
        empty = [] if knowledge.store.exists() else ["the knowledge graph is empty: nothing has been asserted yet"]
        warnings = [*whose.warnings, *empty]
        return {
            "ok": True,
            "scope": named,
            "owner_id": whose.owner_id,
            "count": len(items),
            "items": items,
            "warnings": warnings or None,
            "store": {**knowledge.store.describe(), "require_vector": False},
        }

    def _of_the_gateway(self) -> StoredKnowledge:
        if self._knowledge is None:
            raise Unavailable(
                "the knowledge graph belongs to the program that embeds this gateway; ask it there",
                code="knowledge_elsewhere",
            )
        return self._knowledge

    def _whose(self, knowledge: StoredKnowledge, asked: Asked, scope: str, all_owners: bool) -> _Whose:
        owner_id = text(asked, "owner_id")
        if owner_id is not None and scope == "all":
            raise Invalid("owner_id", "is not supported when scope=all")
        if owner_id is not None and all_owners:
            raise Invalid("all_owners", "cannot be combined with owner_id")
        if all_owners:
            return _Whose(tuple((name, None) for name in (SCOPES if scope == "all" else (scope,))))
        if scope == "all":
            return self._of_all(knowledge, asked)
        found = owner_id or self._owner_of(knowledge, asked, scope)
        return _Whose(((scope, found),), found)

    def _owner_of(self, knowledge: StoredKnowledge, asked: Asked, scope: str) -> str:
        run_id, session_id = text(asked, "run_id"), text(asked, "session_id")
        if scope == "global":
            return knowledge.owners.of_everybody()
        if scope == "session" and session_id is not None:
            return knowledge.owners.of_session(session_id)
        if run_id is None:
            needed = "run_id" if scope == "run" else "run_id or session_id"
            raise Invalid(needed, f"is required for scope={scope}, or give an owner_id")
        return run_id if scope == "run" else knowledge.owners.of_run(self._run(knowledge, run_id), scope)

    def _of_all(self, knowledge: StoredKnowledge, asked: Asked) -> _Whose:
        run_id, session_id = text(asked, "run_id"), text(asked, "session_id")
        run = knowledge.owners.peek(run_id) if run_id is not None else None
        if run is not None:
            return _Whose(knowledge.owners.seen_from(run, "all"))
        if session_id is None:
            if run_id is not None:
                raise _no_run(run_id)
            raise Invalid("run_id or session_id", "is required for scope=all, or set all_owners")
        why = f"Run '{run_id}' not found" if run_id is not None else "no run_id is given"
        owners = knowledge.owners
        known = (("session", owners.of_session(session_id)), ("global", owners.of_everybody()))
        return _Whose(known, warnings=(f"{why}: the statements of scope run are left out",))

    def _run(self, knowledge: StoredKnowledge, run_id: str) -> RunState:
        run = knowledge.owners.peek(run_id)
        if run is None:
            raise _no_run(run_id)
        return run


def _no_run(run_id: str) -> NotFound:
    return NotFound(f"Run '{run_id}' not found", code="run_not_found")
