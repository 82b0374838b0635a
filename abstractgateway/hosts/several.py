"""Several hosts that answer as one."""

from __future__ import annotations

from ..errors import Invalid, NotFound
from ..jsonvalue import JsonObject
from ..runtime.models import WorkflowSpec
from .base import WorkflowHost


class Hosts:
    """Asks hosts in order; the first that knows an answer gives it, and the last refusal is the one that is raised."""

    def __init__(self, *hosts: WorkflowHost) -> None:
        self._hosts = hosts

    def workflow(self, workflow_id: str) -> WorkflowSpec:
        """Return the workflow of an id. Raises `NotFound` when no host has it."""
        return self._owner(workflow_id).workflow(workflow_id)

    def resolve(self, *, bundle_id: str | None, bundle_version: str | None, flow_id: str | None) -> str:
        """Return the workflow id of a request.

        Raises what the last host that was asked raised, and `Invalid` rather than `NotFound`.
        """
        refusal: NotFound | Invalid = NotFound(f"Flow {flow_id!r} not found" if flow_id else "Bundle not found")
        for host in self._hosts:
            try:
                return host.resolve(bundle_id=bundle_id, bundle_version=bundle_version, flow_id=flow_id)
            except Invalid as error:
                refusal = error
            except NotFound as error:
                refusal = refusal if isinstance(refusal, Invalid) else error
        raise refusal

    def listeners(self, workflow_id: str) -> tuple[WorkflowSpec, ...]:
        """Return the workflows that listen beside a workflow. Raises `NotFound` when no host has it."""
        return self._owner(workflow_id).listeners(workflow_id)

    def document(self, workflow_id: str) -> JsonObject:
        """Return the drawing of a workflow. Raises `NotFound` when no host has it."""
        return self._owner(workflow_id).document(workflow_id)

    def runtime_defaults(self, workflow_id: str) -> JsonObject:
        """Return the model pair that belongs to a workflow, or an empty object."""
        return next((found for host in self._hosts if (found := host.runtime_defaults(workflow_id))), {})

    def start_pins(self, workflow_id: str) -> list[JsonObject]:
        """Return the inputs of a workflow. Raises `NotFound` when no host has it."""
        return self._owner(workflow_id).start_pins(workflow_id)

    def _owner(self, workflow_id: str) -> WorkflowHost:
        refusal = NotFound(f"no workflow {workflow_id!r}; there is no host")
        for host in self._hosts:
            try:
                host.workflow(workflow_id)
            except NotFound as error:
                refusal = error
            else:
                return host
        raise refusal
