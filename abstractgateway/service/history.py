"""The history of a run as one document: what it is, what it was given, its ledgers, and the session it belongs to."""

from __future__ import annotations

from collections.abc import Iterable

from ..clock import Clock, SystemClock, parse_iso, to_iso
from ..errors import Invalid, NotFound
from ..jsonvalue import JsonObject, loads
from ..runtime.models import RunState
from ..runtime.offloading import offload_large_values, vars_of
from ..stores.base import ArtifactStore, LedgerStore, RunStore
from .turns import session_turns

RUN_HISTORY_BUNDLE_VERSION_V1 = 1
MAX_RUNS = 5000
"""How many runs of a tree a bundle shows; the nearest to the root come first."""

MAX_RECORDS = 50_000
"""How many ledger records one request may have decoded, which takes some hundred megabytes and seconds."""

_RUN_FIELDS = (
    "run_id",
    "workflow_id",
    "status",
    "current_node",
    "created_at",
    "updated_at",
    "actor_id",
    "session_id",
    "parent_run_id",
    "error",
    "waiting",
)


def export_run_history_bundle(
    *,
    run_id: str,
    run_store: RunStore,
    ledger_store: LedgerStore,
    artifact_store: ArtifactStore | None = None,
    include_subruns: bool = True,
    include_session: bool = False,
    session_turn_limit: int = 200,
    ledger_mode: str = "tail",
    ledger_max_items: int = 2000,
    clock: Clock | None = None,
) -> JsonObject:
    """Return the history bundle of a run, version 1; docs/history.md has its fields.

    `ledger_mode` `tail` shows the last `ledger_max_items` records of each run (0: all), `full` shows all. With an
    artifact store, inputs of more than 256 KiB are replaced by references to artifacts. Of last records, there are
    `MAX_RECORDS` at most in all, those of the runs nearest to the root. Raises `Invalid` for a blank id, and where all
    records are more than that; `NotFound` for an unknown run.
    """
    if not run_id or not run_id.strip():
        raise Invalid("run_id", "is blank; name a run")
    stored = run_store.open(run_id)
    if stored is None:
        raise NotFound(f"Run '{run_id}' not found", code="run_not_found")
    state = stored.state
    run_ids = run_tree(run_store, run_id) if include_subruns else [run_id]
    limit = 0 if ledger_mode == "full" else max(0, ledger_max_items)
    ledgers = _ledgers(ledger_store, run_ids, limit)
    own = state.vars.get("_runtime")
    return {
        "version": RUN_HISTORY_BUNDLE_VERSION_V1,
        "generated_at": to_iso((clock or SystemClock()).now()),
        "root_run_id": run_id,
        "run": _outline(state),
        "workflow_snapshot": own.get("workflow_snapshot") if isinstance(own, dict) else None,
        "input_data": _input_data(state, artifact_store),
        "ledgers": ledgers,
        "timeline": [moment for ledger in ledgers.values() for moment in _moments(ledger)],
        "session": _session(state, run_store, ledger_store, artifact_store, session_turn_limit)
        if include_session
        else None,
    }


def check_records(count: int, cure: str) -> None:
    """Raise `Invalid` where a request would have more than `MAX_RECORDS` records decoded."""
    if count > MAX_RECORDS:
        why = f"this needs {count:,} ledger records, more than the {MAX_RECORDS:,} that one request may read; {cure}"
        raise Invalid("", why, code="too_many_records")


def run_tree(run_store: RunStore, run_id: str) -> list[str]:
    """Return a run and everything below it, breadth first, at most `MAX_RUNS` of them."""
    found = {run_id: None}
    queue = [run_id]
    for parent in queue:
        for child in run_store.children_of(parent):
            if child not in found and len(found) < MAX_RUNS:
                found[child] = None
                queue.append(child)
    return list(found)


def _outline(state: RunState) -> JsonObject:
    data = state.to_dict()
    return {name: data[name] for name in _RUN_FIELDS}


def _input_data(state: RunState, artifact_store: ArtifactStore | None) -> JsonObject:
    vars = vars_of(state, artifact_store, is_lenient=True)
    public: JsonObject = {name: value for name, value in vars.items() if not name.startswith("_")}
    if artifact_store is None:
        return public
    tags = {"source": "history_bundle", "kind": "input_data"}
    small: JsonObject = offload_large_values(
        public, artifact_store=artifact_store, run_id=state.run_id, base_tags=tags, root_path="input_data"
    )
    return small


def _ledgers(ledger_store: LedgerStore, run_ids: list[str], limit: int) -> dict[str, JsonObject]:
    """Return the ledgers of runs: the last `limit` records of each, as long as they are not too many, or all for 0."""
    if not limit:
        check_records(sum(map(ledger_store.count, run_ids)), "ask for the last ones, or read the ledgers in pages")
    left, ledgers = MAX_RECORDS, {}
    for run_id in run_ids:
        ledgers[run_id] = _ledger(ledger_store, run_id, min(limit or left, left))
        left -= len(ledgers[run_id]["items"])
    return ledgers


def _ledger(ledger_store: LedgerStore, run_id: str, limit: int) -> JsonObject:
    """Return a run's last records with their cursors."""
    total = ledger_store.count(run_id)
    start = max(1, total - limit + 1)
    records = ledger_store.read(run_id, start - 1, max(0, total - start + 1)).records
    items = [{"cursor": cursor, "record": loads(body, field="record")} for cursor, body in enumerate(records, start)]
    return {
        "run_id": run_id,
        "total": total,
        "cursor_start": start,
        "cursor_end": start + len(items) - 1,
        "items": items,
    }


def _moments(ledger: JsonObject) -> Iterable[JsonObject]:
    for item in ledger["items"]:
        record = item["record"]
        started, ended = record.get("started_at"), record.get("ended_at") or record.get("started_at")
        yield {
            "run_id": ledger["run_id"],
            "cursor": item["cursor"],
            "node_id": record.get("node_id"),
            "status": record.get("status"),
            "effect_type": (record.get("effect") or {}).get("type"),
            "started_at": started,
            "ended_at": ended,
            "duration_ms": _duration_ms(started, ended),
        }


def _duration_ms(started: str | None, ended: str | None) -> float | None:
    if not started or not ended:
        return None
    try:
        return round(1000 * (parse_iso(ended) - parse_iso(started)).total_seconds(), 2)
    except Invalid:
        return None


def _session(
    state: RunState,
    run_store: RunStore,
    ledger_store: LedgerStore,
    artifact_store: ArtifactStore | None,
    limit: int,
) -> JsonObject | None:
    if not state.session_id:
        return None
    turns = session_turns(state.session_id, run_store, ledger_store, artifact_store, limit=limit, tree_of=run_tree)
    return {"session_id": state.session_id, "turns": turns}
