"""The workflow that drives a schedule: wait for the next time, start the target, and again.

It is one and the same for all schedules; what differs is in the run. Its nodes have the names that clients draw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..clock import to_iso
from ..errors import GatewayError
from ..jsonvalue import JsonObject
from ..runtime.context import StepContext
from ..runtime.models import Effect, EffectType, NodeHandler, RunState, StepPlan, WorkflowSpec
from ..runtime.paths import copied, namespace
from .agenda import PREFIX, Agenda, Skipped

WAIT_START, RUN_TARGET, WAIT_INTERVAL, END = "wait_start", "run_target", "wait_interval", "end"
_WOKEN, _STARTED = "woken", "started"

SeedOf = Callable[[str], JsonObject]
"""Returns what an execution of a workflow finds in its `_runtime`; raises when the workflow may not be started."""


def is_schedule_id(workflow_id: str) -> bool:
    """Say whether a workflow id is that of a schedule."""
    return workflow_id.startswith(PREFIX)


def schedule_workflow(workflow_id: str, seed_of: SeedOf) -> WorkflowSpec:
    """Return the workflow of a schedule.

    The nodes that only AbstractGateway's drawings have lead to those of ours, for schedules that it began.
    """
    fire, wait_again = _fire(seed_of), _wait(WAIT_INTERVAL)
    nodes: dict[str, NodeHandler] = {
        "start": lambda run, context: StepPlan("start", next_node=WAIT_START),
        WAIT_START: _wait(WAIT_START),
        RUN_TARGET: fire,
        WAIT_INTERVAL: wait_again,
        END: _end,
        "set_child_sid": fire,
        "repeat": wait_again,
        "pick_wait": wait_again,
    }
    return WorkflowSpec(workflow_id, "start", nodes)


def _wait(node_id: str) -> NodeHandler:
    def handle(run: RunState, context: StepContext) -> StepPlan:
        agenda = Agenda(run, context.now())
        agenda.previous = _started(run) or agenda.previous
        skipped = agenda.settle_overlap()
        agenda.save()
        if skipped is not None:
            return _skip(node_id, skipped, then=node_id)
        if agenda.next is None or agenda.is_over:
            return StepPlan(node_id, next_node=END)
        if agenda.has_backlog:
            return StepPlan(node_id, next_node=RUN_TARGET)
        payload = {"until": to_iso(agenda.due_at(agenda.next)), "nominal_time": to_iso(agenda.next)}
        effect = Effect(EffectType.WAIT_UNTIL, payload, f"_temp.schedule.{_WOKEN}")
        return StepPlan(node_id, effect=effect, next_node=RUN_TARGET)

    return handle


def _fire(seed_of: SeedOf) -> NodeHandler:
    def handle(run: RunState, context: StepContext) -> StepPlan:
        agenda = Agenda(run, context.now())
        if _is_woken_by_hand(run):
            return _start_target(run, agenda, seed_of, is_manual=True)
        if agenda.is_over:
            return StepPlan(RUN_TARGET, next_node=END)
        if not agenda.has_backlog:
            if not agenda.is_due:
                return StepPlan(RUN_TARGET, next_node=WAIT_INTERVAL)
            skipped = agenda.settle_missed()
            agenda.save()
            if skipped is not None:
                return _skip(RUN_TARGET, skipped, then=RUN_TARGET)
        return _start_target(run, agenda, seed_of, is_manual=False)

    return handle


def _start_target(run: RunState, agenda: Agenda, seed_of: SeedOf, *, is_manual: bool) -> StepPlan:
    target = str(agenda.definition["target_workflow_id"])
    try:
        seed = seed_of(target)
    except (GatewayError, OSError) as error:
        return _refuse(agenda, str(error), is_manual=is_manual)
    firing = agenda.fire(is_manual=is_manual)
    payload = _request(run, agenda, firing, seed)
    agenda.is_busy = bool(payload["wait"])
    agenda.save()
    key = None if payload["wait"] else f"_temp.schedule.{_STARTED}"
    return StepPlan(RUN_TARGET, effect=Effect(EffectType.START_SUBWORKFLOW, payload, key), next_node=WAIT_INTERVAL)


def _request(run: RunState, agenda: Agenda, firing: JsonObject, seed: JsonObject) -> JsonObject:
    """Return what starts an execution; the schedule waits for it unless the next one may begin meanwhile."""
    given = run.vars.get("vars")
    vars: JsonObject = copied(given) if isinstance(given, dict) else {}
    own = vars.get("_runtime")
    vars["_runtime"] = {**seed, **(own if isinstance(own, dict) else {}), "firing": firing}
    overlap = agenda.timing.overlap
    payload: JsonObject = {
        "workflow_id": agenda.definition["target_workflow_id"],
        "vars": vars,
        "async": True,
        "wait": agenda.is_over or overlap in ("skip", "queue"),
        "firing": firing,
    }
    if agenda.definition.get("limits"):
        payload["limits"] = agenda.definition["limits"]
    if agenda.definition.get("share_context") is False:
        payload["session_id"] = f"{run.workflow_id}:{firing['number'] - 1}"
    if overlap == "cancel_previous" and agenda.previous is not None:
        payload["cancel_runs"] = [agenda.previous]
    return payload


def _refuse(agenda: Agenda, detail: str, *, is_manual: bool) -> StepPlan:
    """Go on without an execution whose workflow may not, or cannot, be started now."""
    if is_manual:
        payload = {"skipped": [], "refused": detail}
        return StepPlan(RUN_TARGET, effect=Effect(EffectType.SKIP_FIRINGS, payload), next_node=WAIT_INTERVAL)
    skipped = agenda.skip_next("not_startable", detail)
    agenda.save()
    return _skip(RUN_TARGET, skipped, then=WAIT_INTERVAL)


def _skip(node_id: str, skipped: Skipped, *, then: str) -> StepPlan:
    return StepPlan(node_id, effect=Effect(EffectType.SKIP_FIRINGS, {"skipped": [skipped.to_dict()]}), next_node=then)


def _end(run: RunState, context: StepContext) -> StepPlan:
    agenda = Agenda(run, context.now())
    output = {"success": True, "executions": agenda.executions, "skipped": agenda.skipped}
    return StepPlan(END, complete_output=output)


def _is_woken_by_hand(run: RunState) -> bool:
    """Say whether somebody answered the wait instead of its time coming, and forget it."""
    answer = _take(run, _WOKEN)
    return isinstance(answer, dict) and not answer.get("ready")


def _started(run: RunState) -> str | None:
    """Return the execution that has just been started without waiting for it, and forget it."""
    result = _take(run, _STARTED)
    return str(result["sub_run_id"]) if isinstance(result, dict) and result.get("sub_run_id") else None


def _take(run: RunState, name: str) -> Any:
    return namespace(namespace(run.vars, "_temp"), "schedule").pop(name, None)
