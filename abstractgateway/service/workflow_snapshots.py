"""The flow a run started with: kept once per content, named in each run by its hash."""

from __future__ import annotations

import hashlib

from ..clock import Clock, SystemClock
from ..errors import NotFound
from ..hosts.base import WorkflowHost
from ..jsonvalue import JsonObject, dumps_canonical
from ..runtime.draft import Draft
from ..runtime.paths import namespace
from ..runtime.runtime import transact
from ..stores.base import ArtifactStore, Stores

FORMAT = "visualflow_json"


def store_workflow_snapshot(
    *, artifact_store: ArtifactStore, workflow_id: str, snapshot: JsonObject, format: str = FORMAT
) -> JsonObject:
    """Keep a flow durably and return its reference `{workflow_id, format, sha256, artifact_id, created_at}`.

    The same content has the same artifact, whoever starts it and however often; `created_at` is when it was first kept.
    """
    body = dumps_canonical(snapshot, field="snapshot")
    digest = hashlib.sha256(body).hexdigest()
    tags = {"kind": "workflow_snapshot", "workflow_id": workflow_id, "format": format, "sha256": digest}
    stored = artifact_store.store(body, content_type="application/json", tags=tags)
    return {
        "workflow_id": workflow_id,
        "format": format,
        "sha256": digest,
        "artifact_id": stored.artifact_id,
        "created_at": stored.created_at,
    }


def persist_workflow_snapshot(
    *,
    stores: Stores,
    run_id: str,
    workflow_id: str,
    snapshot: JsonObject,
    format: str = FORMAT,
    clock: Clock | None = None,
) -> JsonObject:
    """Name the flow of a run that exists already, and return the reference; one that is there stays.

    The reference is at `vars._runtime.workflow_snapshot`. A run that is advanced meanwhile is not overwritten. Raises
    `NotFound` for an unknown run.
    """
    ref = store_workflow_snapshot(
        artifact_store=stores.artifacts, workflow_id=workflow_id, snapshot=snapshot, format=format
    )

    def name(draft: Draft) -> JsonObject:
        run = draft.open(run_id)
        own = namespace(run.state.vars, "_runtime")
        known = own.get("workflow_snapshot")
        if isinstance(known, dict):
            return known
        own["workflow_snapshot"] = ref
        run.touch(draft.now_iso())
        return ref

    return transact(stores, clock or SystemClock(), name)


class WorkflowSnapshots:
    """The references of a host's flows; each distinct flow is written once per process."""

    def __init__(self, *, artifacts: ArtifactStore, host: WorkflowHost) -> None:
        self._artifacts = artifacts
        self._host = host
        self._known: dict[str, tuple[JsonObject, JsonObject]] = {}  # workflow id -> its document, its reference

    def ref(self, workflow_id: str) -> JsonObject | None:
        """Return the reference of a workflow's flow as it is now; None for a workflow that was not drawn."""
        try:
            document = self._host.document(workflow_id)
        except NotFound:
            return None
        known = self._known.get(workflow_id)
        if known is None or known[0] is not document:
            known = self._known[workflow_id] = (document, self._store(workflow_id, document))
        return dict(known[1])

    def _store(self, workflow_id: str, document: JsonObject) -> JsonObject:
        bundle_ref, colon, flow_id = workflow_id.partition(":")
        snapshot = {
            "kind": FORMAT,
            "bundle_ref": bundle_ref if colon else None,
            "flow_id": flow_id if colon else workflow_id,
            "visualflow": document,
        }
        return store_workflow_snapshot(artifact_store=self._artifacts, workflow_id=workflow_id, snapshot=snapshot)
