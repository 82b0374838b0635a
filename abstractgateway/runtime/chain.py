"""The hash chain of a ledger, and the stored bytes of a record.

A record's hash is the SHA-256 of its canonical JSON with `prev_hash` in and `record_hash` and `signature` out (the
rule of AbstractRuntime's `HashChainedLedgerStore`). The stored line is that same text with the two fields put in
their places, so a record is encoded once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject, canonical_text, dumps_canonical, loads
from .models import StepRecord, StepStatus


def encode_record(record: StepRecord, *, effect: str | None = None) -> tuple[bytes, str]:
    """Return a record's stored bytes and its hash, having set `record_hash`. Raises `Invalid` for values JSON lacks.

    `effect` is the canonical JSON of the record's effect, for a caller that has it already.
    """
    if effect is None:
        effect = canonical_text(record.effect, field="record")
    result = canonical_text(record.result, field="record")
    before = (
        f'{{"actor_id":{_text(record.actor_id)},"attempt":{int(record.attempt)},"effect":{effect},'
        f'"ended_at":{_text(record.ended_at)},"error":{_text(record.error)},'
        f'"idempotency_key":{_text(record.idempotency_key)},"node_id":{_quoted(record.node_id)},'
        f'"prev_hash":{_text(record.prev_hash)},'
    )
    middle = f'"result":{result},"run_id":{_quoted(record.run_id)},"session_id":{_text(record.session_id)},'
    status = record.status if isinstance(record.status, StepStatus) else StepStatus(record.status)
    after = (
        f'"started_at":{_quoted(record.started_at)},"status":{_quoted(status)},"step_id":{_quoted(record.step_id)}}}'
    )
    try:
        digest = hashlib.sha256(f"{before}{middle}{after}".encode()).hexdigest()
    except UnicodeEncodeError as error:
        raise Invalid("record", f"cannot be written as JSON: {error}") from error
    record.record_hash = digest
    return f'{before}"record_hash":"{digest}",{middle}"signature":null,{after}'.encode(), digest


def _text(value: str | None) -> str:
    return "null" if value is None else _quoted(value)


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


_LINKS = re.compile(rb'"prev_hash":(?:null|"([0-9a-f]{64})"),("record_hash":"([0-9a-f]{64})",)')
_UNSIGNED = b'"signature":null,'


def first_fault(records: Sequence[bytes], previous: str | None) -> tuple[int | None, str | None]:
    """Check records as they are stored, after one with the hash `previous`.

    Returns the index of the first that is not what was written, or None, and the hash of the last one.
    """
    for index, record in enumerate(records):
        digest = _whole_hash(record, previous)
        if digest is None:
            fields = loads(record, field="record")
            if any(_faults(index, fields, previous)):
                return index, fields.get("record_hash")
            digest = fields.get("record_hash")
        previous = digest
    return None, previous


def _whole_hash(record: bytes, previous: str | None) -> str | None:
    """Return the hash of a record in this library's own writing that continues `previous`; None to look closer.

    Values within it may look like links: the one that is the record's own is the one whose hash comes out right.
    """
    head, signature, tail = record.rpartition(_UNSIGNED)
    for found in _LINKS.finditer(head) if signature else ():
        link, digest = found[1], found[3].decode()
        hashed = hashlib.sha256(head[: found.start(2)] + head[found.end(2) :] + tail).hexdigest()
        if hashed == digest and (link.decode() if link else None) == previous:
            return digest
    return None
