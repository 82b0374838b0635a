"""The hash chain of a ledger, and the stored bytes of a record.

A record's hash is the SHA-256 of its canonical JSON with `prev_hash` in and `record_hash` and `signature` out (the
rule of AbstractRuntime's `HashChainedLedgerStore`). The stored line is that same text with the two fields put in
their places, so a record is encoded once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..jsonvalue import JsonObject, dumps_canonical
from .models import StepRecord, StepStatus


def encode_record(record: StepRecord) -> tuple[bytes, str]:
    """Return a record's stored bytes and its hash, having set `record_hash`. Raises `Invalid` for values JSON lacks."""
    before = dumps_canonical(
        {
            "actor_id": record.actor_id,
            "attempt": record.attempt,
            "effect": record.effect,
            "ended_at": record.ended_at,
            "error": record.error,
            "idempotency_key": record.idempotency_key,
            "node_id": record.node_id,
            "prev_hash": record.prev_hash,
        },
        field="record",
    )[:-1]
    middle = dumps_canonical(
        {"result": record.result, "run_id": record.run_id, "session_id": record.session_id}, field="record"
    )[1:-1]
    after = dumps_canonical(
        {"started_at": record.started_at, "status": StepStatus(record.status).value, "step_id": record.step_id}
    )[1:]
    digest = hashlib.sha256(b"%b,%b,%b" % (before, middle, after)).hexdigest()
    record.record_hash = digest
    return b'%b,"record_hash":"%b",%b,"signature":null,%b' % (before, digest.encode(), middle, after), digest


def compute_record_hash(record: Mapping[str, Any]) -> str:
    """Return the hash that a record (as stored, decoded) should have."""
    hashed = {key: value for key, value in record.items() if key not in ("record_hash", "signature")}
    return hashlib.sha256(dumps_canonical(hashed, field="record")).hexdigest()


@dataclass(frozen=True)
class ChainReport:
    """What verifying a ledger found; `errors` have `index` (from 0), `type`, and what was expected and found."""

    ok: bool
    count: int
    errors: tuple[JsonObject, ...]
    head_hash: str | None

    @property
    def first_bad_index(self) -> int | None:
        return self.errors[0]["index"] if self.errors else None


def verify_chain(records: Iterable[Mapping[str, Any]]) -> ChainReport:
    """Check every record's hash and its link to the one before it.

    Records written before chaining began (no `record_hash`) may only come first; the chain starts anew after them.
    """
    errors: list[JsonObject] = []
    previous: str | None = None
    count = 0
    for index, record in enumerate(records):
        count += 1
        errors.extend(_faults(index, record, previous))
        previous = record.get("record_hash")
    return ChainReport(ok=not errors, count=count, errors=tuple(errors), head_hash=previous)


def _faults(index: int, record: Mapping[str, Any], previous: str | None) -> Iterable[JsonObject]:
    stored = record.get("record_hash")
    if stored is None:
        if previous is not None:
            yield {"index": index, "type": "missing_record_hash"}
        return
    if record.get("prev_hash") != previous:
        yield {
            "index": index,
            "type": "prev_hash_mismatch",
            "expected_prev_hash": previous,
            "actual_prev_hash": record.get("prev_hash"),
        }
    computed = compute_record_hash(record)
    if computed != stored:
        yield {"index": index, "type": "record_hash_mismatch", "stored": stored, "computed": computed}
