"""Child runs: started in the same commit as the step that asked for them, and awaited where wanted."""

from __future__ import annotations

from typing import Any

from ...jsonvalue import JsonObject, dumps, loads
from .. import lifecycle
from ..budgets import begin, hand_down
from ..context import derive_id
from ..journal import without_kernel_keys
from ..models import EffectOutcome, RunState, RunStatus, WaitReason, WaitState, WorkflowSpec
from ..paths import copied, namespace
from .request import EffectRequest

_INHERITED = ("workspace_root", "workspace_access_mode", "workspace_allowed_paths", "workspace_ignored_paths")


def start_subworkflow(request: EffectRequest) -> EffectOutcome:
    """Start a child run: payload `workflow_id`, `vars`, `async`, `wait`, `include_traces`, `session_id`.

    Without `async` the parent waits for the child and fails when it fails; with `async` and `wait` it waits and gets
    the failure as a result; with `async` alone it goes on at once. The runs that `cancel_runs` lists are cancelled in
    the same commit, with everything below them; with `limits` the child has a budget of its own.
    """
    workflow_id = str(request.first("workflow_id", default="")).strip()
    if not workflow_id:
        return _refused(request, "start_subworkflow requires payload.workflow_id")
    if request.registry is None:
        return _refused(request, "start_subworkflow needs a workflow_registry; give one to the Runtime")
    spec = request.registry.get(workflow_id)
    if spec is None:
        return _refused(request, f"workflow {workflow_id!r} not found; register it before it is started")
    for run_id in request.first("cancel_runs", default=()):
        _cancel_tree(request, str(run_id))
    child = _new_child(request, spec)
    request.draft.create(child)
    if request.payload.get("async") and not request.payload.get("wait"):
        return EffectOutcome.completed(_async_result(request, child))
    return EffectOutcome.waiting(_wait_for(request, child))


def _cancel_tree(request: EffectRequest, run_id: str) -> None:
    draft = request.draft
    for member in lifecycle.tree_of(draft, run_id):
        found = draft.find(member)
        if found is not None:
            lifecycle.cancel(draft, found, f"replaced by the next run of {request.state.run_id!r}")


def _new_child(request: EffectRequest, spec: WorkflowSpec) -> RunState:
    parent, now = request.state, request.draft.now_iso()
    given = request.payload.get("vars")
    vars: JsonObject = loads(dumps(given, field="vars")) if isinstance(given, dict) else {}
    for name in _INHERITED:
        if name in parent.vars and name not in vars:
            vars[name] = copied(parent.vars[name])
    inherit_model(parent, vars)
    if request.payload.get("limits"):
        begin(vars, ceiling={}, wished=request.payload["limits"])
    return RunState(
        run_id=derive_id(request.run.new_step_id(), "child"),
        workflow_id=spec.workflow_id,
        status=RunStatus.RUNNING,
        current_node=spec.entry_node,
        vars=vars,
        created_at=now,
        updated_at=now,
        actor_id=parent.actor_id,
        session_id=request.first("session_id", "sessionId", default=parent.session_id),
        parent_run_id=parent.run_id,
    )


def inherit_model(parent: RunState, vars: JsonObject) -> None:
    """A child's own limits start fresh, its budget is the parent's; so is its model unless it names one."""
    parent_own = parent.vars.get("_runtime")
    own = vars["_runtime"] = without_kernel_keys(namespace(vars, "_runtime"))
    for name in ("provider", "model"):
        value: Any = parent_own.get(name) if isinstance(parent_own, dict) else None
        if value and not own.get(name):
            own[name] = value
    hand_down(parent.vars, vars)
    parent_limits = parent.vars.get("_limits")
    if "_limits" not in vars and isinstance(parent_limits, dict):
        vars["_limits"] = {**parent_limits, "current_iteration": 0, "estimated_tokens_used": 0}


def _wait_for(request: EffectRequest, child: RunState) -> WaitState:
    payload = request.payload
    details: JsonObject = {"sub_run_id": child.run_id, "sub_workflow_id": child.workflow_id}
    details["async" if payload.get("async") else "sync"] = True
    details["include_traces"] = bool(payload.get("include_traces"))
    if payload.get("wrap_as_tool_result"):
        name, call_id = _tool_names(request)
        details |= {"wrap_as_tool_result": True, "tool_name": name, "call_id": call_id}
    return WaitState(
        reason=WaitReason.SUBWORKFLOW,
        wait_key=f"subworkflow:{child.run_id}",
        resume_to_node=request.resume_target,
        result_key=request.effect.result_key,
        details=details,
    )


def _async_result(request: EffectRequest, child: RunState) -> JsonObject:
    if not request.payload.get("wrap_as_tool_result"):
        return {"sub_run_id": child.run_id, "async": True}
    name, call_id = _tool_names(request)
    return lifecycle.tool_result_of_child({"answer": child.run_id}, child.run_id, name=name, call_id=call_id)


def _refused(request: EffectRequest, error: str) -> EffectOutcome:
    if not request.payload.get("wrap_as_tool_result"):
        return EffectOutcome.failed(error)
    name, call_id = _tool_names(request)
    output = {"success": False, "error": error}
    return EffectOutcome.completed(lifecycle.tool_result_of_child(output, "", name=name, call_id=call_id))


def _tool_names(request: EffectRequest) -> tuple[str, str]:
    name = str(request.first("tool_name", "toolName", default="start_subworkflow"))
    return name, str(request.first("call_id", "callId", default="subworkflow"))
