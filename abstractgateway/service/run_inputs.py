"""What a run was given, as far as its variables still show it."""

from __future__ import annotations

from typing import Any

from ..errors import NotFound
from ..hosts.base import WorkflowHost
from ..jsonvalue import JsonObject
from ..runtime.models import RunState
from ..runtime.offloading import vars_of
from ..stores.base import ArtifactStore, RunStore

_WORKSPACE = ("workspace_root", "workspace_access_mode", "workspace_allowed_paths", "workspace_ignored_paths")


class RunInputs:
    """The use case around the inputs of runs."""

    def __init__(self, *, runs: RunStore, artifacts: ArtifactStore, host: WorkflowHost) -> None:
        self._runs = runs
        self._artifacts = artifacts
        self._host = host

    def get(self, run_id: str) -> JsonObject:
        """Return `{run_id, workflow_id, bundle_id, bundle_version?, flow_id, pin_ids, input_data, workspace}`.

        `input_data` has the inputs that the flow declares, as they are now; all public variables where the flow is
        not known. For a schedule it is about what it starts. Raises `NotFound` for an unknown run.
        """
        stored = self._runs.open(run_id)
        if stored is None:
            raise NotFound(f"Run '{run_id}' not found", code="run_not_found")
        state = stored.state
        workflow_id, vars = _target(state, vars_of(state, self._artifacts, is_lenient=True))
        pin_ids = self._pin_ids(workflow_id)
        public = {name: value for name, value in vars.items() if not name.startswith("_")}
        return {
            "run_id": run_id,
            "workflow_id": state.workflow_id,
            **_names(workflow_id, is_loaded=pin_ids is not None),
            "pin_ids": pin_ids or [],
            "input_data": {name: public[name] for name in pin_ids if name in public} if pin_ids else public,
            "workspace": {name: vars[name] for name in _WORKSPACE if name in vars},
        }

    def _pin_ids(self, workflow_id: str) -> list[str] | None:
        """Return the inputs that a flow declares; None when there is no such flow."""
        try:
            return [str(pin["id"]) for pin in self._host.start_pins(workflow_id)]
        except NotFound:
            return None


def _target(state: RunState, vars: JsonObject) -> tuple[str, JsonObject]:
    """Return the workflow that a run is about and the variables that are its inputs."""
    schedule = _object(_object(vars.get("_meta")).get("schedule"))
    target = schedule.get("target_workflow_id")
    if isinstance(target, str) and target:
        return target, _object(vars.get("vars"))
    return state.workflow_id, vars


def _names(workflow_id: str, *, is_loaded: bool) -> JsonObject:
    ref, colon, flow_id = workflow_id.partition(":")
    if not colon or ref == "scheduled":
        return {"bundle_id": None, "flow_id": None}
    if not is_loaded:
        return {"bundle_id": ref, "flow_id": flow_id}
    bundle_id, _, version = ref.partition("@")
    return {"bundle_id": bundle_id, "bundle_version": version or None, "flow_id": flow_id}


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}
