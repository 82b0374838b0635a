"""The knowledge graph of flows, on a store of statements."""

from __future__ import annotations

from ..clock import Clock, to_iso
from ..errors import GatewayError
from ..jsonvalue import JsonObject
from ..runtime.effects.memory.inputs import flag
from ..runtime.models import RunState
from .assertions import triples_in
from .fields import Asked
from .owners import Owners
from .querying import effort_of, found_by
from .resolving import resolved
from .triples import TripleStore


class StoredKnowledge:
    """Keeps and finds the statements of runs; what a node asked is given as the payload of its effect."""

    def __init__(self, store: TripleStore, owners: Owners, clock: Clock) -> None:
        self.store = store
        self.owners = owners
        self._clock = clock

    def assert_statements(self, run: RunState, request: JsonObject, *, idempotency_key: str = "") -> JsonObject:
        """Keep statements: `{ok, count, assertion_ids, count_attempted, skipped_duplicates}`, with `skipped` for none.

        The same key again keeps nothing again and gives the same result. Raises `Invalid`, and nothing is kept.
        """
        asked = Asked(request)
        now = to_iso(self._clock.now())
        triples = triples_in(asked, run, self.owners, now=now, key=idempotency_key)
        if not triples:
            return {"ok": True, "count": 0, "assertion_ids": [], "skipped": True}
        skip_known = flag(asked, "dedupe", "deduplicate") is not False
        kept = self.store.add(triples, skip_known=skip_known)
        ids = [triple.assertion_id for triple, is_kept in zip(triples, kept, strict=True) if is_kept]
        return {
            "ok": True,
            "count": len(ids),
            "assertion_ids": ids,
            "count_attempted": len(triples),
            "skipped_duplicates": len(triples) - len(ids),
        }

    def query(self, run: RunState, request: JsonObject) -> JsonObject:
        """Find statements; what cannot be asked or read is told as `{ok: false, error, …}`.

        Raises `Invalid` for an unknown recall level.
        """
        asked = Asked(request)
        effort = effort_of(asked)
        try:
            return found_by(self.store, self.owners, run, asked, effort)
        except GatewayError as error:
            return {"ok": False, "count": 0, "items": [], "error": str(error)}

    def resolve(self, run: RunState, request: JsonObject) -> JsonObject:
        """Find what a label may stand for; errors are told as those of `query` are."""
        asked = Asked(request)
        effort_of(asked)
        try:
            return resolved(self.store, self.owners, run, asked)
        except GatewayError as error:
            return {"ok": False, "count": 0, "candidates": [], "error": str(error)}
