"""The flows of a directory of `*.json`, as the visual editor saves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundles.catalogue import LoadError, file_stamp
from ..errors import Invalid, NotFound
from ..jsonvalue import JsonObject, loads_foreign
from ..runtime.models import WorkflowSpec
from ..visualflow.sandbox import CodeRunner
from .base import unknown_workflow
from .flow_set import FlowSet
from .watched import Watched

_Item = tuple[str, FlowSet] | LoadError


@dataclass(frozen=True)
class _Index:
    """All flows at one moment; a new one replaces it as a whole."""

    flows: Mapping[str, FlowSet]
    workflows: Mapping[str, FlowSet]
    load_errors: tuple[LoadError, ...]


class VisualflowHost:
    """Serves each flow under its own id, or the name of its file if it has none, and notices changes of the directory.

    A file that cannot be read or compiled is listed with its error and affects no other; of two with one id the first
    by name counts. Safe to use from many threads.
    """

    def __init__(self, flows_dir: str | Path, *, code_runner: CodeRunner | None = None) -> None:
        self.flows_dir = Path(flows_dir)
        self._watched = Watched(
            lambda: {path: file_stamp(path) for path in sorted(self.flows_dir.glob("*.json"))},
            lambda path: _load(path, code_runner),
            _build_index,
        )

    @property
    def _index(self) -> _Index:
        return self._watched.index

    def refresh(self) -> bool:
        """Read the directory again if anything in it changed; say whether it did. Unchanged flows are kept."""
        return self._watched.refresh()

    def look(self) -> None:
        """Notice flows that another process has put there or taken away, at the cost of one `stat`."""
        self._watched.look(self.flows_dir)

    def list_flows(self) -> JsonObject:
        """Return `{"items": [{flow_id, name, description, interfaces}], "load_errors": […]}`, by flow id."""
        index = self._index
        shown = ((flow_id, flow.document(flow_id)) for flow_id, flow in sorted(index.flows.items()))
        return {
            "items": [
                {
                    "flow_id": flow_id,
                    "name": document.get("name") or flow_id,
                    "description": document.get("description") or "",
                    "interfaces": document.get("interfaces") or [],
                }
                for flow_id, document in shown
            ],
            "load_errors": [error.to_dict() for error in index.load_errors],
        }

    def workflow(self, workflow_id: str) -> WorkflowSpec:
        """Return the workflow of an id, looking into the directory again when it is not known."""
        return self._owner(workflow_id).workflow(workflow_id)

    def resolve(self, *, bundle_id: str | None, bundle_version: str | None, flow_id: str | None) -> str:
        """Return the flow id itself. Raises `NotFound` for an unknown one and for anything in a bundle."""
        wanted = (flow_id or "").strip()
        flow = self._index.flows.get(wanted)
        if flow is None and wanted and self.refresh():
            flow = self._index.flows.get(wanted)
        served = flow or FlowSet({})
        return served.resolve(bundle_id=bundle_id, bundle_version=bundle_version, flow_id=flow_id)

    def listeners(self, workflow_id: str) -> tuple[WorkflowSpec, ...]:
        """Return the workflows that listen beside a flow."""
        flow = self._index.flows.get(workflow_id)
        return flow.listeners(workflow_id) if flow is not None else ()

    def document(self, workflow_id: str) -> JsonObject:
        """Return the drawing of a flow. Raises `NotFound` for an unknown one."""
        return self._flow(workflow_id).document(workflow_id)

    def runtime_defaults(self, workflow_id: str) -> JsonObject:
        """Return the first model pair of the flow that a workflow belongs to, or an empty object."""
        flow = self._index.workflows.get(workflow_id)
        return flow.runtime_defaults(workflow_id) if flow is not None else {}

    def start_pins(self, workflow_id: str) -> list[JsonObject]:
        """Return the inputs of a flow. Raises `NotFound` for an unknown one."""
        return self._flow(workflow_id).start_pins(workflow_id)

    def _flow(self, flow_id: str) -> FlowSet:
        found = self._index.flows.get(flow_id)
        if found is None:
            raise self._unknown(flow_id)
        return found

    def _owner(self, workflow_id: str) -> FlowSet:
        found = self._index.workflows.get(workflow_id)
        if found is None and self.refresh():
            found = self._index.workflows.get(workflow_id)
        if found is None:
            raise self._unknown(workflow_id)
        return found

    def _unknown(self, workflow_id: str) -> NotFound:
        return unknown_workflow(workflow_id, self._index.flows)


def _load(path: Path, code_runner: CodeRunner | None) -> _Item:
    try:
        document: Any = loads_foreign(path.read_bytes(), field="flow")
        flow_id = _id_of(document, path)
        return flow_id, FlowSet({flow_id: document}, code_runner=code_runner)
    except OSError as error:
        return LoadError(path.name, None, f"cannot be read: {error.strerror or error}")
    except Invalid as error:
        return LoadError(path.name, None, error.why)


def _id_of(document: Any, path: Path) -> str:
    value = document.get("id") if isinstance(document, dict) else None
    return str(value).strip() or path.stem if isinstance(value, (str, int)) else path.stem


def _build_index(items: Mapping[Path, _Item]) -> _Index:
    flows: dict[str, FlowSet] = {}
    errors: list[LoadError] = []
    for path, item in items.items():
        if isinstance(item, LoadError):
            errors.append(item)
        elif item[0] in flows:
            errors.append(LoadError(path.name, None, f"the flow id {item[0]!r} is already in another file"))
        else:
            flows[item[0]] = item[1]
    workflows = {workflow_id: flow for flow in flows.values() for workflow_id in flow.workflow_ids}
    return _Index(flows, workflows, tuple(errors))
