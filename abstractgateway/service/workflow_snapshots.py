"""The flow a run started with: kept once per content, named in each run by its hash."""

from __future__ import annotations

import hashlib

from ..clock import Clock, SystemClock
from ..hosts.base import WorkflowHost
from ..hosts.snapshots import FORMAT, Snapshots
from ..jsonvalue import JsonObject, dumps_canonical
from ..runtime.draft import Draft
from ..runtime.paths import namespace
from ..runtime.runtime import transact
from ..stores.base import ArtifactStore, Stores


def store_workflow_snapshot(
    *, artifact_store: ArtifactStore, workflow_id: str, snapshot: JsonObject, format: str = FORMAT
) -> JsonObject:
    """Keep a flow durably and return its reference `{workflow_id, format, sha256, artifact_id, created_at}`.

    The same content has the same artifact, whoever starts it and however often; `created_at` is when it was first kept.
    """
    return _keep(artifact_store, dumps_canonical(snapshot, field="snapshot"), workflow_id, format)


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
        self._present = Snapshots(host)
        self._stored: dict[str, JsonObject] = {}  # by the hash of what is stored

    def ref(self, workflow_id: str) -> JsonObject | None:
        """Return the reference of a workflow's flow as it is now; None for a workflow that was not drawn.

        What is stored holds the flows that it runs as well, so that the whole of a run can go on when they change.
        """
        snapshot = self._present.of(workflow_id)
        if snapshot is None:
            return None
        known = self._stored.get(snapshot.sha256)
        if known is None:
            known = self._stored[snapshot.sha256] = _keep(self._artifacts, snapshot.body, workflow_id, FORMAT)
        return dict(known)


def _keep(artifacts: ArtifactStore, body: bytes, workflow_id: str, format: str) -> JsonObject:
    digest = hashlib.sha256(body).hexdigest()
    tags = {"kind": "workflow_snapshot", "workflow_id": workflow_id, "format": format, "sha256": digest}
    stored = artifacts.store(body, content_type="application/json", tags=tags)
    return {
        "workflow_id": workflow_id,
        "format": format,
        "sha256": digest,
        "artifact_id": stored.artifact_id,
        "created_at": stored.created_at,
    }
