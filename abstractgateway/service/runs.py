"""Starting runs and looking at them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from ..clock import parse_iso
from ..errors import Invalid, LeaseLost, NotFound, StaleWrite
from ..hosts.base import WorkflowHost
from ..jsonvalue import JsonObject, dumps
from ..runner.driver import ACTOR
from ..runtime import budgets
from ..runtime.commit import StoredRun
from ..runtime.draft import Draft
from ..runtime.journal import without_kernel_keys
from ..runtime.models import RunState, RunStatus, WaitReason, WorkflowSpec
from ..runtime.offloading import is_offloaded, output_json_of, output_of, rehydrate
from ..runtime.registry import kernel_workflow
from ..runtime.runtime import Runtime, transact
from ..stores.base import PageKey, RunQuery, RunRow, Stores
from .history import check_records, export_run_history_bundle
from .resting_runs import RestingRuns
from .start_once import StartOnce
from .summaries import blocked_by, run_summary
from .workflow_snapshots import WorkflowSnapshots


class Drives(Protocol):
    """Whoever drives runs, as far as it matters here."""

    def create(self, state: RunState) -> bool:
        """Make a new run durable with its first steps; False when that is left to somebody else."""

    def explain(self, run_id: str) -> str | None:
        """Return the reason, or None when the run is driven as it should be."""


class RunService:
    """The use cases around runs."""

    def __init__(
        self,
        *,
        stores: Stores,
        runtime: Runtime,
        host: WorkflowHost,
        runner: Drives | None,
        check_start: Callable[[str], None] = lambda workflow_id: None,
        find_workflow: Callable[[RunState], WorkflowSpec] | None = None,
        clamp: Callable[[JsonObject], JsonObject] = dict,
    ) -> None:
        self._stores = stores
        self._runtime = runtime
        self._host = host
        self._runner = runner
        self._check_start = check_start
        self._clamp = clamp
        self._find_workflow = find_workflow or (lambda run: host.workflow(run.workflow_id))
        self._resting = RestingRuns()
        self._snapshots = WorkflowSnapshots(artifacts=stores.artifacts, host=host)

    def start(
        self,
        *,
        bundle_id: str | None = None,
        bundle_version: str | None = None,
        flow_id: str | None = None,
        input_data: JsonObject | None = None,
        session_id: str | None = None,
        idempotency_key: str | None = None,
        limits: JsonObject | None = None,
    ) -> str:
        """Start a run durably and return its id. Where this process drives it, its first steps are taken already.

        Without `flow_id` the bundle's only or default entrypoint is started. Raises `NotFound` for an unknown bundle
        or flow, `Invalid` for a request that names no flow or data that is not a JSON object, `Conflict` for a
        deprecated workflow. The same `idempotency_key` again returns the run of the first start; with another request
        it is a `Conflict`. `limits` is the run's budget, `{tokens, model_calls, tool_calls, wall_s}`; more than the
        settings allow is `Invalid`.
        """
        if not flow_id and not bundle_id:
            raise Invalid(
                "", "flow_id is required (or provide bundle_id to start a bundle entrypoint)", code="flow_id_required"
            )
        request = [bundle_id, bundle_version, flow_id, input_data or {}, session_id, *([limits] if limits else [])]
        once = StartOnce.of(idempotency_key, request) if idempotency_key else None
        if once is not None and once.is_done(self._stores.runs):
            return once.run_id
        workflow_id = self._host.resolve(bundle_id=bundle_id, bundle_version=bundle_version, flow_id=flow_id)
        self._check_start(workflow_id)
        make = partial(self._new, workflow_id, input_data, session_id or None, limits, once)
        listeners = self._host.listeners(workflow_id)
        run_id = (None if listeners else self._begin(make())) or self._create(make(), listeners)
        if once is not None:
            once.is_done(self._stores.runs)
        return run_id

    def _new(
        self,
        workflow_id: str,
        input_data: JsonObject | None,
        session_id: str | None,
        limits: JsonObject | None,
        once: StartOnce | None,
    ) -> RunState:
        workflow, vars = self._host.workflow(workflow_id), self._seeded(workflow_id, input_data)
        state = self._runtime.new_run(workflow, vars, actor_id=ACTOR, session_id=session_id, limits=limits)
        if once is not None:
            once.mark(state)
        state.session_id = state.session_id or state.run_id
        return state

    def _begin(self, state: RunState) -> str | None:
        """Start a run together with its first steps and return its id; None where that cannot be, or not here."""
        try:
            is_begun = self._runner is not None and self._runner.create(state)
        except (StaleWrite, LeaseLost, Invalid, NotFound):
            return None  # somebody was faster, or whoever drives it is to find out what is wrong
        return state.run_id if is_begun else None

    def _create(self, state: RunState, listeners: tuple[WorkflowSpec, ...]) -> str:
        """Make a run durable that stands before its first step, unless it is there already; return its id."""

        def change(draft: Draft) -> None:
            if draft.peek(state.run_id) is None:
                draft.create(state)
                for spec in listeners:
                    self._listen(draft, spec, state)

        transact(self._stores, self._runtime.clock, change, max_inline_bytes=self._runtime.max_inline_bytes)
        return state.run_id

    def _listen(self, draft: Draft, spec: WorkflowSpec, parent: RunState) -> None:
        """Start a child run that listens for the whole flow; it waits already, so that it misses nothing."""
        child = self._runtime.new_run(
            spec,
            parent.vars,
            actor_id=parent.actor_id,
            session_id=parent.session_id,
            parent_run_id=parent.run_id,
        )
        budgets.hand_down(parent.vars, child.vars)
        stored = StoredRun(child, revision=0, ledger_len=0, ledger_hash=None)
        self._runtime.execution_of(spec, stored, draft=draft).advance(1)

    def get(self, run_id: str) -> JsonObject:
        """Return a run's summary, with its `output`, `blocked_by`, `usage` and `budget`.

        Raises `NotFound` for an unknown run.
        """
        stored = self._open(run_id)
        output = output_of(stored.state, self._stores.artifacts, is_lenient=True)
        return {**self._described(stored), "output": output}

    def _open(self, run_id: str) -> StoredRun:
        stored = self._stores.runs.open(run_id)
        if stored is None:
            raise NotFound(f"Run '{run_id}' not found", code="run_not_found")
        return stored

    def _described(self, stored: StoredRun) -> JsonObject:
        """Return a run's summary and whatever else `get` returns besides its output."""
        summary = run_summary(stored.state, revision=stored.revision, ledger_len=stored.ledger_len)
        # Of a run that waits it is the wait, whoever drives it.
        explanation = self._explain(stored.state) if stored.state.waiting is None else None
        summary["blocked_by"] = blocked_by(stored.state, explanation=explanation)
        summary["usage"] = budgets.usage(stored.state.vars)
        summary["budget"] = budgets.budget(stored.state.vars)
        return summary

    def snapshot(self, run_id: str) -> tuple[bytes, int]:
        """Return what `get` returns as JSON, and the run's revision; that of a run that rests is made once."""
        row = self._stores.runs.row(run_id)
        is_resting = row is not None and (row.status.is_terminal or row.wait_reason is not None)
        kept = self._resting.get(row) if row is not None and is_resting else None
        if row is not None and kept is not None:
            return kept, row.revision
        stored = self._open(run_id)
        output = output_json_of(stored.state, self._stores.artifacts)
        body = b'%b,"output":%b}' % (dumps(self._described(stored), field="run")[:-1], output)
        if row is not None and is_resting and (stored.revision, stored.ledger_len) == (row.revision, row.ledger_len):
            self._resting.put(row, body)
        return body, stored.revision

    def is_settled(self, run_id: str) -> bool:
        """Say whether a run has ended, or waits for something else than a run below it; an unknown one has not."""
        row = self._stores.runs.row(run_id)
        if row is None:
            return False
        is_waiting = row.status is RunStatus.WAITING and row.wait_reason is not WaitReason.SUBWORKFLOW
        return row.status.is_terminal or is_waiting

    def session_of(self, run_id: str) -> str | None:
        """Return the session that a run belongs to; None for an unknown run."""
        row = self._stores.runs.row(run_id)
        return row.session_id if row is not None else None

    def list(
        self,
        *,
        limit: int = 50,
        status: str | None = None,
        workflow_id: str | None = None,
        session_id: str | None = None,
        parent_run_id: str | None = None,
        updated_from: str | None = None,
        updated_to: str | None = None,
        root_only: bool = False,
        include_ledger_len: bool = True,
        include_metrics: bool = False,
        cursor: str | None = None,
    ) -> JsonObject:
        """Return `{"items": [summary…]}`, the latest updated first, 1 to 500 of them.

        Where there are more, `next_cursor` is there as well: with it as `cursor` the next page follows. Internal runs
        are hidden unless their workflow is asked for. `updated_from` (inclusive) and `updated_to` (exclusive) are ISO
        8601 times. Raises `Invalid` for an unknown status, a text that is no time, a cursor that is none, and metrics
        that take too many records.
        """
        wanted = min(max(limit, 1), 500)
        query = RunQuery(
            statuses=_statuses(status),
            workflow_id=workflow_id or None,
            session_id=session_id or None,
            parent_run_id=parent_run_id or None,
            updated_from=_seconds("updated_from", updated_from),
            updated_to=_seconds("updated_to", updated_to),
            root_only=root_only,
            hide_internal=not workflow_id,
            before=PageKey.parse(cursor) if cursor else None,
            limit=wanted + 1,
        )
        rows = self._stores.runs.find(query)
        if include_metrics:
            check_records(sum(row.ledger_len for row in rows[:wanted]), "lower limit, or leave out include_metrics")
        items = (self._item(row, include_ledger_len, include_metrics) for row in rows[:wanted])
        page: JsonObject = {"items": [item for item in items if item is not None]}
        if len(rows) > wanted:
            page["next_cursor"] = str(PageKey.of(rows[wanted - 1]))
        return page

    def history_bundle(
        self,
        run_id: str,
        *,
        include_subruns: bool = True,
        include_session: bool = False,
        session_turn_limit: int = 200,
        ledger_mode: str = "tail",
        ledger_max_items: int = 2000,
    ) -> JsonObject:
        """Return the history of a run as one document, version 1; docs/history.md has its fields.

        Raises `NotFound` for an unknown run, `Invalid` for a mode that is neither `tail` nor `full`.
        """
        if ledger_mode not in ("tail", "full"):
            raise Invalid("", "ledger_mode must be 'tail' or 'full'")
        return export_run_history_bundle(
            run_id=run_id,
            run_store=self._stores.runs,
            ledger_store=self._stores.ledger,
            artifact_store=self._stores.artifacts,
            include_subruns=include_subruns,
            include_session=include_session,
            session_turn_limit=session_turn_limit,
            ledger_mode=ledger_mode,
            ledger_max_items=ledger_max_items,
            clock=self._runtime.clock,
        )

    def _item(self, row: RunRow, include_ledger_len: bool, include_metrics: bool) -> JsonObject | None:
        stored = self._stores.runs.open(row.run_id)
        if stored is None:
            return None
        summary = run_summary(stored.state, revision=stored.revision, ledger_len=stored.ledger_len)
        if not include_ledger_len:
            del summary["ledger_len"]
        if include_metrics:
            summary |= self._metrics(row.run_id)
        return summary

    def _metrics(self, run_id: str) -> JsonObject:
        """Count a run's completed steps, model calls and tool calls, and the tokens its models reported."""
        metrics = {"steps": 0, "llm_calls": 0, "tool_calls": 0, "tokens_total": 0}
        for record in self._stores.ledger.list(run_id):
            if record.get("status") != "completed":
                continue
            metrics["steps"] += 1
            effect = (record.get("effect") or {}).get("type")
            if effect == "llm_call":
                metrics["llm_calls"] += 1
                metrics["tokens_total"] += budgets.tokens_in((record.get("result") or {}).get("usage"))
            elif effect == "tool_calls":
                results = (record.get("result") or {}).get("results")
                if is_offloaded(results):
                    results = rehydrate(results, self._stores.artifacts, is_lenient=True)
                metrics["tool_calls"] += len(results or [])
        return metrics

    def _seeded(self, workflow_id: str, input_data: JsonObject | None) -> JsonObject:
        """Return the variables a run starts with: the client's data, and the model its bundle or gateway names."""
        if input_data is not None and not isinstance(input_data, dict):
            raise Invalid("input_data", f"must be an object, not {type(input_data).__name__}")
        data = self._clamp(input_data or {})
        given = data.get("_runtime")
        own = without_kernel_keys(given) if isinstance(given, dict) else {}
        own.pop("workflow_snapshot", None)
        config = self._runtime.config
        if not (config.provider and config.model):
            own = {**self._host.runtime_defaults(workflow_id), **own}
        snapshot = self._snapshots.ref(workflow_id)
        if snapshot is not None:
            own["workflow_snapshot"] = snapshot
        return {**data, "_runtime": own}

    def _explain(self, run: RunState) -> str | None:
        if run.status.is_terminal:
            return None
        told = self._runner.explain(run.run_id) if self._runner is not None else None
        if told is not None:
            return told
        if kernel_workflow(run.workflow_id) is not None:
            return None
        try:
            self._find_workflow(run)
        except NotFound as error:
            return str(error)
        return None


def _statuses(status: str | None) -> tuple[RunStatus, ...]:
    if not status:
        return ()
    try:
        return (RunStatus(status.strip().lower()),)
    except ValueError:
        known = "|".join(item.value for item in RunStatus)
        raise Invalid("", f"Invalid status (expected: {known})", code="invalid_status") from None


def _seconds(field: str, text: str | None) -> float | None:
    return parse_iso(text, field=field).timestamp() if text else None
