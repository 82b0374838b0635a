"""Node traces: a bounded excerpt of the ledger inside the run, for agents' scratchpads and debuggers."""

from __future__ import annotations

from ..jsonvalue import JsonObject
from .models import StepRecord, StepStatus
from .paths import copied, namespace

MAX_ENTRIES = 100
"""AbstractRuntime's bound."""
MAX_BYTES = 16_384
"""Every entry is written with every checkpoint, so a node's trace may not grow with its prompts."""


def note_step(vars: JsonObject, record: StepRecord, size: int, duration_ms: float, *, is_reused: bool = False) -> None:
    """Add a closed step to its node's trace and drop the oldest ones beyond the bounds.

    `size` is the record's encoded size in bytes; an entry larger than the whole budget keeps its outline only.
    `is_reused` says that the result was found in the ledger, and nothing was performed.
    """
    traces = namespace(namespace(vars, "_runtime"), "node_traces")
    trace = traces.get(record.node_id)
    if not isinstance(trace, dict) or not isinstance(trace.get("steps"), list):
        trace = traces[record.node_id] = {"node_id": record.node_id, "steps": [], "bytes": 0}
    steps, total = trace["steps"], trace.get("bytes", 0) + min(size, MAX_BYTES)
    steps.append(_entry(record, size, duration_ms, is_reused))
    while len(steps) > MAX_ENTRIES or (total > MAX_BYTES and len(steps) > 1):
        total -= steps.pop(0).get("bytes", 0)
    trace["bytes"], trace["updated_at"] = total, record.ended_at


def traces_of(vars: JsonObject) -> JsonObject:
    """Return a copy of the traces of all nodes, `{node_id: {node_id, steps, …}}`."""
    own = vars.get("_runtime")
    found = own.get("node_traces") if isinstance(own, dict) else None
    traces: JsonObject = copied(found) if isinstance(found, dict) else {}
    return traces


def trace_of(vars: JsonObject, node_id: str) -> JsonObject:
    """Return a copy of one node's trace; one without steps for a node that did nothing yet."""
    found = traces_of(vars).get(node_id)
    return found if isinstance(found, dict) else {"node_id": node_id, "steps": []}


def _entry(record: StepRecord, size: int, duration_ms: float, is_reused: bool) -> JsonObject:
    entry: JsonObject = {
        "ts": record.ended_at,
        "node_id": record.node_id,
        "status": record.status.value,
        "idempotency_key": record.idempotency_key,
        "reused_prior_result": is_reused,
        "effect": {"type": (record.effect or {}).get("type")},
        "duration_ms": round(duration_ms, 3),
        "bytes": min(size, MAX_BYTES),
    }
    if size > MAX_BYTES:
        entry["truncated"] = True
        return entry
    entry["effect"] = copied(record.effect)
    if record.status is StepStatus.FAILED:
        entry["error"] = record.error
    elif record.status is StepStatus.WAITING:
        entry["wait"] = copied((record.result or {}).get("wait"))
    else:
        entry["result"] = copied(record.result)
    return entry
