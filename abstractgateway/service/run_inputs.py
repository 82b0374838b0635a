"""What a run was given, as far as its variables still show it."""

from __future__ import annotations

from typing import Any

from ..errors import NotFound
from ..hosts.base import WorkflowHost
from ..jsonvalue import JsonObject
from ..runtime.models import RunState
from ..runtime.offloading import vars_of
from ..security.workspace import ALLOWED_KEY, IGNORED_KEY, ROOT_KEY, WORKSPACE_KEYS
from ..stores.base import ArtifactStore, RunStore
from .workspace_view import relative_to_base


class RunInputs:
    """The use case around the inputs of runs.

    Paths inside `workspace_base`, an absolute directory, are shown relative to it: that is what they mean when another
    run is started with them.
    """

    def __init__(
        self, *, runs: RunStore, artifacts: ArtifactStore, host: WorkflowHost, workspace_base: str = ""
    ) -> None:
        self._runs = runs
        self._artifacts = artifacts
        self._host = host
        self._base = workspace_base

    def get(self, run_id: str) -> JsonObject:
        """Return `{run_id, workflow_id, bundle_id, bundle_version?, flow_id, pin_ids, input_data, workspace}`.

        `input_data` has the inputs that the flow declares, as they are now; all public variables where it declares none
        or is not known. A flow without a bundle has a `flow_id` only. For a schedule it is about what it starts. Raises
        `NotFound` for an unknown run.
        """
        stored = self._runs.open(run_id)
        if stored is None:
            raise NotFound(f"Run '{run_id}' not found", code="run_not_found")
        state = stored.state
        workflow_id, vars = _target(state, vars_of(state, self._artifacts, is_lenient=True))
        pin_ids = self._pin_ids(workflow_id)
        workspace = self._shown_workspace(vars)
        public = {name: value for name, value in vars.items() if not name.startswith("_")} | workspace
        return {
            "run_id": run_id,
            "workflow_id": state.workflow_id,
            **_names(workflow_id, is_loaded=pin_ids is not None),
            "pin_ids": pin_ids or [],
            "input_data": {name: public[name] for name in pin_ids if name in public} if pin_ids else public,
            "workspace": workspace,
        }

    def _shown_workspace(self, vars: JsonObject) -> JsonObject:
        """Return the workspace of a run without the directories of this machine, as far as they are the gateway's."""
        found = {name: vars[name] for name in WORKSPACE_KEYS if name in vars}
        root = vars.get(ROOT_KEY)
        # What is ignored is relative to the workspace itself, everything else to the base.
        bases = {ROOT_KEY: self._base, ALLOWED_KEY: self._base, IGNORED_KEY: root if isinstance(root, str) else ""}
        return {name: _relative(value, bases.get(name, "")) for name, value in found.items()}

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
        return {"bundle_id": None, "flow_id": workflow_id if is_loaded else None}
    if not is_loaded:
        return {"bundle_id": ref, "flow_id": flow_id}
    bundle_id, _, version = ref.partition("@")
    return {"bundle_id": bundle_id, "bundle_version": version or None, "flow_id": flow_id}


def _relative(value: Any, base: str) -> Any:
    """Return a path, the lines of a text, or a list of paths, relative to a directory where they are inside of it."""
    if not base:
        return value
    if isinstance(value, list):
        return [_relative(item, base) for item in value]
    if not isinstance(value, str):
        return value
    return "\n".join(relative_to_base(line, base) for line in value.split("\n"))


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}
