"""Plain VisualFlow documents as workflows, for programs that bring their own and for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import Invalid, NotFound
from ..jsonvalue import JsonObject
from ..runtime.models import WorkflowSpec
from ..visualflow.compiler import compile_flow
from ..visualflow.sandbox import CodeRunner
from .base import unknown_workflow
from .drawing import model_defaults, start_inputs


class FlowSet:
    """Serves documents under the ids that they are given with; subflow nodes name them by the same ids.

    Raises `Invalid("flow", …)` naming the flow when one of them does not compile.
    """

    def __init__(self, flows: Mapping[str, Any], *, code_runner: CodeRunner | None = None) -> None:
        self._documents: dict[str, JsonObject] = dict(flows)
        self._code_runner = code_runner
        self._workflows: dict[str, WorkflowSpec] = {}
        self._listeners: dict[str, tuple[WorkflowSpec, ...]] = {}
        for flow_id, document in self._documents.items():
            self._compile(flow_id, document)
        self._defaults = model_defaults(item for item in self._documents.values() if isinstance(item, dict))

    def _compile(self, flow_id: str, document: Any) -> None:
        try:
            compiled = compile_flow(document, workflow_id=flow_id, code_runner=self._code_runner)
        except Invalid as error:
            raise Invalid("flow", f"{flow_id!r} does not compile: {error.why}", code=error.code) from error
        self._listeners[flow_id] = compiled.listeners
        for spec in compiled.all_workflows:
            self._workflows[spec.workflow_id] = spec

    @property
    def workflow_ids(self) -> list[str]:
        """The ids of all workflows: of the flows, and of those that belong to them."""
        return list(self._workflows)

    def workflow(self, workflow_id: str) -> WorkflowSpec:
        """Return the workflow of an id. Raises `NotFound`, naming ids that exist."""
        found = self._workflows.get(workflow_id)
        if found is None:
            raise unknown_workflow(workflow_id, self._documents)
        return found

    def resolve(self, *, bundle_id: str | None, bundle_version: str | None, flow_id: str | None) -> str:
        """Return the flow id itself. Raises `NotFound` for an unknown one and for anything in a bundle."""
        wanted = (flow_id or "").strip()
        if wanted and not bundle_id and not bundle_version and wanted in self._documents:
            return wanted
        if not wanted and not bundle_id:
            raise Invalid("", "flow_id is required (or provide bundle_id to start a bundle entrypoint)")
        if wanted:
            raise NotFound(f"Flow {wanted!r} not found", code="flow_not_found")
        raise NotFound("Bundle not found", code="bundle_not_found")

    def listeners(self, workflow_id: str) -> tuple[WorkflowSpec, ...]:
        """Return the workflows that listen beside a flow."""
        return self._listeners.get(workflow_id, ())

    def document(self, workflow_id: str) -> JsonObject:
        """Return the drawing of a flow as it was given. Raises `NotFound` for an unknown one."""
        if workflow_id not in self._documents:
            raise unknown_workflow(workflow_id, self._documents)
        return self._documents[workflow_id]

    def runtime_defaults(self, workflow_id: str) -> JsonObject:
        """Return the first model pair of the documents, or an empty object."""
        return dict(self._defaults) if workflow_id in self._workflows else {}

    def start_pins(self, workflow_id: str) -> list[JsonObject]:
        """Return the inputs of a flow. Raises `NotFound` for an unknown one."""
        if workflow_id not in self._documents:
            raise unknown_workflow(workflow_id, self._documents)
        return start_inputs(self._documents[workflow_id])
