"""A flow as it is at one moment, with all flows that it runs: enough to go on with its runs when it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from ..bundles.namespace import namespaced_flow
from ..errors import Invalid, NotFound
from ..jsonvalue import JsonObject, dumps_canonical, loads
from ..runtime.models import WorkflowSpec
from ..visualflow.compiler import compile_flow
from ..visualflow.reach import referenced_flows
from ..visualflow.sandbox import CodeRunner
from .base import WorkflowHost

FORMAT = "visualflow_json"


@dataclass(frozen=True)
class Snapshot:
    """The drawings of a workflow and of those it runs, by workflow id, the workflow's own first."""

    workflow_id: str
    documents: Mapping[str, JsonObject]
    body: bytes
    sha256: str

    def is_of(self, host: WorkflowHost) -> bool:
        """Say whether the host still serves these very drawings."""
        return all(_document(host, flow_id) is document for flow_id, document in self.documents.items())


class Snapshots:
    """The present snapshots of a host's workflows; each is made once for as long as its drawings stay the same."""

    def __init__(self, host: WorkflowHost) -> None:
        self._host = host
        self._known: dict[str, Snapshot] = {}

    def of(self, workflow_id: str) -> Snapshot | None:
        """Return the snapshot of a workflow as it is now; None for one that is not there or was not drawn."""
        known = self._known.get(workflow_id)
        if known is None or not known.is_of(self._host):
            documents = _closure(self._host, workflow_id)
            if not documents:
                return None
            known = self._known[workflow_id] = _snapshot(workflow_id, documents)
        return known


def compile_snapshot(body: bytes, *, code_runner: CodeRunner | None = None) -> dict[str, WorkflowSpec]:
    """Return the workflows of a stored snapshot, by workflow id.

    Raises `Invalid` when it is none, or when one of its flows does not compile any more.
    """
    documents = _stored_documents(loads(body, field="snapshot"))
    compiled = (
        compile_flow(_full(workflow_id, documents), workflow_id=workflow_id, code_runner=code_runner)
        for workflow_id in documents
    )
    return {spec.workflow_id: spec for flow in compiled for spec in flow.all_workflows}


def _snapshot(workflow_id: str, documents: Mapping[str, JsonObject]) -> Snapshot:
    bundle_ref, flow_id = _split(workflow_id)
    content: JsonObject = {
        "kind": FORMAT,
        "bundle_ref": bundle_ref,
        "flow_id": flow_id,
        "visualflow": documents[workflow_id],
    }
    others = {other: document for other, document in documents.items() if other != workflow_id}
    if others:
        content["flows"] = others
    body = dumps_canonical(content, field="snapshot")
    return Snapshot(workflow_id, documents, body, hashlib.sha256(body).hexdigest())


def _closure(host: WorkflowHost, workflow_id: str) -> dict[str, JsonObject]:
    """Return the drawing of a workflow and, after it, of everything that its subflow nodes lead to."""
    found: dict[str, JsonObject] = {}
    waiting = [workflow_id]
    while waiting:
        current = waiting.pop(0)
        document = None if current in found else _document(host, current)
        if document is not None:
            found[current] = document
            waiting += [_sibling(host, current, flow_id) for flow_id in _references(document)]
    return found


def _references(document: JsonObject) -> list[str]:
    try:
        return referenced_flows(document)
    except Invalid:
        return []


def _sibling(host: WorkflowHost, workflow_id: str, flow_id: str) -> str:
    """Return the workflow id that a drawing means by a flow id: of its own bundle if that has such a flow."""
    bundle_ref, _ = _split(workflow_id)
    own = f"{bundle_ref}:{flow_id}"
    return own if bundle_ref is not None and _document(host, own) is not None else flow_id


def _document(host: WorkflowHost, workflow_id: str) -> JsonObject | None:
    try:
        return host.document(workflow_id)
    except NotFound:
        return None


def _split(workflow_id: str) -> tuple[str | None, str]:
    bundle_ref, colon, flow_id = workflow_id.partition(":")
    return (bundle_ref, flow_id) if colon else (None, workflow_id)


def _stored_documents(content: object) -> dict[str, JsonObject]:
    fields = content if isinstance(content, dict) else {}
    flow_id, document, others = fields.get("flow_id"), fields.get("visualflow"), fields.get("flows") or {}
    if not isinstance(flow_id, str) or not isinstance(document, dict) or not isinstance(others, dict):
        raise Invalid("snapshot", "is not a flow that a run was started with")
    bundle_ref = fields.get("bundle_ref")
    own_id = flow_id if bundle_ref is None else f"{bundle_ref}:{flow_id}"
    return {own_id: document, **others}


def _full(workflow_id: str, documents: Mapping[str, JsonObject]) -> JsonObject:
    """Return a drawing whose references to its siblings are workflow ids, as its bundle had them."""
    bundle_ref, flow_id = _split(workflow_id)
    if bundle_ref is None:
        return documents[workflow_id]
    siblings = {flow for ref, flow in map(_split, documents) if ref == bundle_ref}
    return namespaced_flow(documents[workflow_id], bundle_ref, flow_id, siblings)
