"""Schedules: making them, what they start, and looking at what comes next."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from ..clock import to_iso
from ..errors import Conflict, GatewayError, Invalid, NotFound
from ..hosts.base import WorkflowHost
from ..ids import new_id
from ..jsonvalue import JsonObject
from ..runner.driver import ACTOR
from ..runtime import budgets
from ..runtime.draft import Draft
from ..runtime.lifecycle import is_paused
from ..runtime.models import RunState
from ..runtime.offloading import vars_of
from ..runtime.runtime import Runtime, transact
from ..schedules import (
    KIND,
    PREFIX,
    Agenda,
    Timing,
    check_timing,
    definition_of,
    draw_schedule,
    first_state,
    schedule_workflow,
)
from ..stores.base import RunQuery, Stores
from .start_once import StartOnce
from .workflow_snapshots import WorkflowSnapshots

_log = logging.getLogger(__name__)


class Drawings(Protocol):
    """Where the drawings of schedules are kept for other programs to read."""

    def write(self, workflow_id: str, document: JsonObject) -> None:
        """Keep a drawing durably, in place of an earlier one. Raises `Unavailable` when that cannot be done."""


class NoDrawings:
    """Keeps no drawings: where nothing survives the process."""

    def write(self, workflow_id: str, document: JsonObject) -> None:
        return None


class ScheduledStarts:
    """What an execution that a schedule starts finds in its `_runtime`."""

    def __init__(
        self,
        *,
        host: WorkflowHost,
        snapshots: WorkflowSnapshots,
        check_start: Callable[[str], None] = lambda workflow_id: None,
    ) -> None:
        self._host = host
        self._snapshots = snapshots
        self._check_start = check_start

    def seed(self, workflow_id: str) -> JsonObject:
        """Return the model and the snapshot of a workflow's flow.

        Raises `Conflict` for a deprecated workflow and `NotFound` for one that is not there any more.
        """
        self._check_start(workflow_id)
        self._host.workflow(workflow_id)
        snapshot = self._snapshots.ref(workflow_id)
        named = {"workflow_snapshot": snapshot} if snapshot is not None else {}
        return {**self._host.runtime_defaults(workflow_id), **named}


Clamp = Callable[[JsonObject], JsonObject]


class ScheduleService:
    """The use cases around schedules. `get_bundle` describes a bundle; without it there are none to schedule."""

    def __init__(
        self,
        *,
        stores: Stores,
        runtime: Runtime,
        host: WorkflowHost,
        starts: ScheduledStarts,
        get_bundle: Callable[[str], JsonObject] | None,
        check_start: Callable[[str], None] = lambda workflow_id: None,
        clamp: Clamp = dict,
        drawings: Drawings | None = None,
    ) -> None:
        self._stores = stores
        self._runtime = runtime
        self._host = host
        self._starts = starts
        self._get_bundle = get_bundle
        self._check_start = check_start
        self._clamp = clamp
        self._drawings = drawings or NoDrawings()

    def create(
        self,
        *,
        bundle_id: str,
        flow_id: str,
        bundle_version: str | None = None,
        input_data: JsonObject | None = None,
        start_at: str | None = None,
        interval: str | None = None,
        cron: str | None = None,
        timezone: str | None = None,
        repeat_count: int | None = None,
        repeat_until: str | None = None,
        overlap: str | None = None,
        catch_up: float | None = None,
        jitter: float | None = None,
        share_context: bool = True,
        session_id: str | None = None,
        limits: JsonObject | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Have a flow of a bundle run at times, durably, and return the id of the run that sees to it.

        docs/schedules.md says what the times and policies mean. `limits` is the budget of each execution. Raises
        `Invalid` for what makes no sense, `NotFound` for an unknown bundle or flow, `Conflict` for a deprecated one,
        and for an `idempotency_key` that stood for another schedule; the same one again returns the first's run.
        """
        given: JsonObject = {
            "start_at": _start_at(start_at),
            "interval": _text(interval),
            "cron": _text(cron),
            "timezone": _text(timezone) or "UTC",
            "repeat_count": repeat_count,
            "repeat_until": _text(repeat_until),
            "overlap": _text(overlap) or "skip",
            "catch_up": catch_up,
            "jitter": jitter or 0.0,
        }
        request = [bundle_id, bundle_version, flow_id, input_data or {}, session_id, given, share_context, limits]
        once = StartOnce.of(idempotency_key, ["schedule", *request]) if idempotency_key else None
        if once is not None and once.is_done(self._stores.runs):
            return once.run_id
        target = self._target(bundle_id, bundle_version, flow_id)
        now = self._runtime.clock.now()
        definition: JsonObject = {
            "kind": KIND,
            **_named(target),
            **check_timing(Timing(**given), now).to_dict(),
            "share_context": share_context,
        }
        state = self._new_run(definition, input_data, now, session_id=session_id, limits=limits)
        if once is not None:
            once.mark(state)
        state.session_id = state.session_id or state.run_id
        self._store(state, is_new=once is None)
        if once is not None:
            once.is_done(self._stores.runs)
        return state.run_id

    def next(self, run_id: str, *, count: int = 10) -> JsonObject:
        """Return what comes next, as if nothing were skipped: `{run_id, timezone, paused, items}`, 1 to 1,000 of them.

        An item has `nominal_time` and `due_at` in UTC, which differ by the jitter, and `local_time` with its offset.
        `run_id` may be any run of the schedule. Raises `NotFound` for an unknown run, `Conflict` for others.
        """
        state = self._schedule_of(run_id)
        agenda = Agenda(state, self._runtime.clock.now())
        items: list[JsonObject] = []
        nominal, executions = agenda.next, agenda.executions
        while not (state.status.is_terminal or nominal is None or len(items) >= min(max(count, 1), 1000)):
            if agenda.timing.is_over(nominal, executions):
                break
            items.append(_preview(agenda, nominal))
            nominal, executions = agenda.timing.series.following(nominal), executions + 1
        return {
            "run_id": state.run_id,
            "timezone": agenda.timing.timezone,
            "paused": is_paused(state),
            "items": items,
        }

    def flow(self, workflow_id: str) -> JsonObject | None:
        """Return `{workflow_id, flow, source}` for the workflow of a schedule; None when there is none of this id."""
        rows = self._stores.runs.find(RunQuery(workflow_id=workflow_id, limit=1))
        stored = self._stores.runs.open(rows[0].run_id) if rows else None
        definition = definition_of(stored.state) if stored is not None else None
        if definition is None:
            return None
        return {"workflow_id": workflow_id, "flow": draw_schedule(workflow_id, definition), "source": "dynamic"}

    def redraw(self, run_id: str) -> None:
        """Keep the drawing of a schedule again, which has been changed; `run_id` is any run of it.

        The change is durable already: a drawing that cannot be written now is only logged.
        """
        try:
            self._draw(self._schedule_of(run_id))
        except GatewayError as error:
            _log.warning("the drawing of the schedule of run %s is out of date: %s", run_id, error)

    def _store(self, state: RunState, *, is_new: bool) -> None:
        """Make a schedule durable. Its drawing comes first: one without a run does no harm."""

        def create(draft: Draft) -> None:
            if is_new or draft.peek(state.run_id) is None:
                draft.create(state)

        self._draw(state)
        transact(self._stores, self._runtime.clock, create, max_inline_bytes=self._runtime.max_inline_bytes)

    def _draw(self, state: RunState) -> None:
        self._drawings.write(state.workflow_id, draw_schedule(state.workflow_id, definition_of(state) or {}))

    def _new_run(
        self,
        definition: JsonObject,
        input_data: JsonObject | None,
        now: datetime,
        *,
        session_id: str | None,
        limits: JsonObject | None,
    ) -> RunState:
        if input_data is not None and not isinstance(input_data, dict):
            raise Invalid("input_data", f"must be an object, not {type(input_data).__name__}")
        workflow_id = f"{PREFIX}{new_id()}"
        data = self._clamp(input_data or {})
        prompt = data.get("prompt")
        is_isolated = not definition["share_context"]
        told = {
            **definition,
            "session_prefix": workflow_id if is_isolated else None,
            "created_at": now.strftime("%Y-%m-%dT%H:%M:%S+00:00"),
            "limits": self._budget_of_executions(data, limits),
        }
        vars: JsonObject = {
            "vars": data,
            "_meta": {"schedule": told},
            "_runtime": {"schedule": first_state(Timing.of(definition), now)},
        }
        if isinstance(prompt, str) and prompt.strip():
            vars["prompt"] = prompt.strip()
        if is_isolated:
            vars["session_prefix"] = workflow_id
        spec = schedule_workflow(workflow_id, self._starts.seed)
        state = self._runtime.new_run(spec, vars, actor_id=ACTOR, session_id=session_id or None)
        state.vars["_runtime"].pop(budgets.SLOT, None)  # what is limited is each execution, not the schedule
        return state

    def _budget_of_executions(self, data: JsonObject, limits: JsonObject | None) -> JsonObject | None:
        probe: JsonObject = {"_limits": data.get("_limits")} if "_limits" in data else {}
        budgets.begin(probe, ceiling=self._runtime.config.budget, wished=limits)
        found: JsonObject = probe.get("_runtime", {}).get(budgets.SLOT, {}).get("limits", {})
        return dict(found) or None

    def _target(self, bundle_id: str, bundle_version: str | None, flow_id: str) -> str:
        """Return the workflow that a request means, with the version that is the latest now."""
        bundle, flow, version = _text(bundle_id), _text(flow_id), _text(bundle_version)
        if not bundle or not flow:
            raise Invalid("", "bundle_id and flow_id are required", code="schedule_invalid")
        if self._get_bundle is None:
            raise Invalid(
                "",
                "Scheduling is not supported with ABSTRACTGATEWAY_WORKFLOW_SOURCE 'visualflow'; it needs bundles",
                code="schedule_invalid",
            )
        try:
            found = self._host.resolve(bundle_id=bundle, bundle_version=version, flow_id=flow)
        except NotFound:
            raise self._missing(bundle, version, flow) from None
        self._check_start(found)
        return found

    def _missing(self, bundle: str, version: str | None, flow: str) -> NotFound:
        name, _, own_version = bundle.partition("@")
        wanted = version or own_version
        assert self._get_bundle is not None
        try:
            ref = self._get_bundle(f"{name}@{wanted}" if wanted else name)["bundle_ref"]
        except GatewayError:
            return NotFound(
                f"Bundle '{name}' has no {'version ' + repr(wanted) if wanted else 'versions'} loaded",
                code="bundle_not_found",
            )
        chosen = flow.rpartition(":")[2]
        return NotFound(f"Target workflow '{ref}:{chosen}' not found", code="flow_not_found")

    def _schedule_of(self, run_id: str) -> RunState:
        """Return the schedule that a run is part of, its variables included."""
        stored = self._stores.runs.open(run_id)
        if stored is None:
            raise NotFound(f"Run '{run_id}' not found", code="run_not_found")
        while stored is not None and definition_of(stored.state) is None:
            parent = stored.state.parent_run_id
            stored = self._stores.runs.open(parent) if parent else None
        if stored is None:
            raise Conflict(f"run {run_id!r} is not part of a schedule", code="not_scheduled")
        stored.state.vars = vars_of(stored.state, self._stores.artifacts, is_lenient=True)
        return stored.state


def _preview(agenda: Agenda, nominal: datetime) -> JsonObject:
    return {
        "nominal_time": to_iso(nominal),
        "local_time": nominal.astimezone(agenda.timing.zone).isoformat(),
        "due_at": to_iso(agenda.due_at(nominal)),
    }


def _named(workflow_id: str) -> JsonObject:
    ref, _, flow_id = workflow_id.partition(":")
    bundle_id, _, version = ref.partition("@")
    return {
        "target_workflow_id": workflow_id,
        "target_bundle_id": bundle_id,
        "target_bundle_version": version,
        "target_bundle_ref": ref,
        "target_flow_id": flow_id,
    }


def _text(value: Any) -> str | None:
    return (value.strip() or None) if isinstance(value, str) else None


def _start_at(text: str | None) -> str | None:
    """Return when a schedule starts, if that is not now."""
    cleaned = _text(text)
    return None if cleaned is None or cleaned.lower() == "now" else cleaned
