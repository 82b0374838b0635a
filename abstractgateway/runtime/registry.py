"""The workflows a process knows, by id."""

from __future__ import annotations

from ..errors import Conflict, NotFound
from .models import WorkflowSpec


class WorkflowRegistry:
    """Maps a workflow id to its spec; ids are registered once."""

    def __init__(self) -> None:
        self._specs: dict[str, WorkflowSpec] = {}

    def register(self, workflow: WorkflowSpec) -> None:
        """Add a workflow. Raises `Conflict` when its id is taken."""
        if workflow.workflow_id in self._specs:
            raise Conflict(f"workflow {workflow.workflow_id!r} is already registered")
        self._specs[workflow.workflow_id] = workflow

    def unregister(self, workflow_id: str) -> None:
        """Remove a workflow. Raises `NotFound` for an unknown id."""
        if self._specs.pop(workflow_id, None) is None:
            raise self._unknown(workflow_id)

    def get(self, workflow_id: str) -> WorkflowSpec | None:
        """Return the workflow of an id, one of the kernel's own included; None for an unknown one."""
        return self._specs.get(workflow_id) or kernel_workflow(workflow_id)

    def get_or_raise(self, workflow_id: str) -> WorkflowSpec:
        """Return the workflow of an id. Raises `NotFound` naming the known ones."""
        spec = self.get(workflow_id)
        if spec is None:
            raise self._unknown(workflow_id)
        return spec

    def _unknown(self, workflow_id: str) -> NotFound:
        known = ", ".join(repr(name) for name in sorted(self._specs)[:10]) or "none"
        return NotFound(f"workflow {workflow_id!r} is not registered; known: {known}", code="unknown_workflow")

    def list_ids(self) -> list[str]:
        return list(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, workflow_id: object) -> bool:
        return isinstance(workflow_id, str) and self.get(workflow_id) is not None


def kernel_workflow(workflow_id: str) -> WorkflowSpec | None:
    """Return a workflow that the kernel brings along for its own effects, or None."""
    from .effects.memory.summary import COMPACT_WORKFLOW  # effects are given a registry, so they know this module

    return COMPACT_WORKFLOW if workflow_id == COMPACT_WORKFLOW.workflow_id else None
