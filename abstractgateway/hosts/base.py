"""What the rest of the gateway wants to know about workflows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..errors import NotFound
from ..jsonvalue import JsonObject
from ..runtime.models import WorkflowSpec

_HINTS = 10


class WorkflowHost(Protocol):
    """Finds workflows by id, and the workflow that a request to start a run means."""

    def workflow(self, workflow_id: str) -> WorkflowSpec:
        """Return the workflow that drives the runs of this id. Raises `NotFound`, naming ids that exist."""

    def resolve(self, *, bundle_id: str | None, bundle_version: str | None, flow_id: str | None) -> str:
        """Return the workflow id that a request means.

        Raises `NotFound` for unknown bundles, versions and flows, and `Invalid` when the parts contradict each other
        or leave a choice.
        """

    def listeners(self, workflow_id: str) -> tuple[WorkflowSpec, ...]:
        """Return the workflows that listen for events beside each run of this one, as its drawing says."""

    def document(self, workflow_id: str) -> JsonObject:
        """Return the drawing of a workflow, the same object as long as it is the same drawing.

        Raises `NotFound` for an unknown one, and for one that was not drawn.
        """

    def runtime_defaults(self, workflow_id: str) -> JsonObject:
        """Return the `provider` and `model` that the drawings around a workflow suggest, or an empty object."""

    def start_pins(self, workflow_id: str) -> list[JsonObject]:
        """Return the inputs of a workflow: `id`, `label`, `type` and, where there is one, `default`."""


def unknown_workflow(workflow_id: str, known: Iterable[str]) -> NotFound:
    """Return the error for a workflow that is not there, with a few ids that are."""
    return NotFound(f"no workflow {workflow_id!r}; known: {some_of(known)}")


def some_of(known: Iterable[str]) -> str:
    """Return a few names that exist, for a message that says what could have been meant."""
    names = sorted(known)
    hint = ", ".join(repr(name) for name in names[:_HINTS]) + (", …" if len(names) > _HINTS else "")
    return hint or "none"
