from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import NotFound
from abstractgateway.hosts import FlowSet
from abstractgateway.jsonvalue import dumps_canonical, loads
from abstractgateway.runtime import WorkflowSpec
from abstractgateway.runtime.runtime import Runtime
from abstractgateway.service.workflow_snapshots import WorkflowSnapshots, persist_workflow_snapshot
from abstractgateway.stores import open_file_stores, open_memory_stores
from abstractgateway.testing import GatewayHarness

Json = dict[str, Any]


def flow(label: str = "a") -> Json:
    node = {"id": "start", "type": "on_flow_start", "data": {"nodeType": "on_flow_start", "label": label}}
    return {"id": "f", "nodes": [node], "edges": []}


def test_a_run_names_the_flow_it_started_with() -> None:
    harness = GatewayHarness(flows={"f": flow()})

    run_id = harness.start("f", {"_runtime": {"workflow_snapshot": {"sha256": "forged"}}})

    ref = harness.runs.history_bundle(run_id)["workflow_snapshot"]
    content = harness.stores.artifacts.load(ref["artifact_id"])
    expected = {"kind": "visualflow_json", "bundle_ref": None, "flow_id": "f", "visualflow": flow()}
    metadata = harness.stores.artifacts.get_metadata(ref["artifact_id"])
    assert content is not None
    assert metadata is not None
    assert loads(content) == expected
    assert ref == {
        "workflow_id": "f",
        "format": "visualflow_json",
        "sha256": hashlib.sha256(dumps_canonical(expected)).hexdigest(),
        "artifact_id": metadata.artifact_id,
        "created_at": metadata.created_at,
    }
    assert metadata.tags == {
        "kind": "workflow_snapshot",
        "workflow_id": "f",
        "format": "visualflow_json",
        "sha256": ref["sha256"],
    }


class CountingArtifacts:
    def __init__(self, artifacts: Any) -> None:
        self._artifacts = artifacts
        self.stored = 0

    def store(self, content: bytes, **options: Any) -> Any:
        self.stored += 1
        return self._artifacts.store(content, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._artifacts, name)


def test_a_flow_is_written_once_per_process_and_content() -> None:
    artifacts = CountingArtifacts(open_memory_stores().artifacts)
    snapshots = WorkflowSnapshots(artifacts=artifacts, host=FlowSet({"f": flow(), "g": flow("b")}))

    refs = [snapshots.ref("f") for _ in range(3)] + [snapshots.ref("g")]

    assert artifacts.stored == 2
    assert refs[0] == refs[1] == refs[2] != refs[3]


def test_a_flow_that_changed_gets_another_reference() -> None:
    stores = open_memory_stores()
    documents = {"f": flow()}

    class Host:
        def document(self, workflow_id: str) -> Json:
            return documents[workflow_id]

    snapshots = WorkflowSnapshots(artifacts=stores.artifacts, host=Host())  # type: ignore[arg-type]
    before = snapshots.ref("f")
    documents["f"] = flow("changed")

    after = snapshots.ref("f")

    assert before is not None
    assert after is not None
    assert before["sha256"] != after["sha256"]


def test_the_artifact_is_the_same_after_a_restart(tmp_path: Path) -> None:
    refs = []
    for _ in range(2):
        stores = open_file_stores(tmp_path)
        refs.append(WorkflowSnapshots(artifacts=stores.artifacts, host=FlowSet({"f": flow()})).ref("f"))
        stores.close()

    assert refs[0] == refs[1]


def test_a_workflow_that_was_not_drawn_has_no_snapshot() -> None:
    snapshots = WorkflowSnapshots(artifacts=open_memory_stores().artifacts, host=FlowSet({"f": flow()}))

    assert snapshots.ref("written-by-hand") is None


def test_the_parts_of_a_bundle_are_named() -> None:
    stores = open_memory_stores()
    snapshots = WorkflowSnapshots(artifacts=stores.artifacts, host=FlowSet({"mail@1.0.0:send": flow()}))

    ref = snapshots.ref("mail@1.0.0:send")

    assert ref is not None
    content = loads(stores.artifacts.load(ref["artifact_id"]) or b"")
    assert (content["bundle_ref"], content["flow_id"]) == ("mail@1.0.0", "send")


def test_a_program_may_name_the_flow_of_its_run_once() -> None:
    stores = open_memory_stores()
    run_id = Runtime(stores=stores).start(workflow=WorkflowSpec("w", "n", {}))

    first = persist_workflow_snapshot(stores=stores, run_id=run_id, workflow_id="w", snapshot={"a": 1}, format="mine")
    second = persist_workflow_snapshot(stores=stores, run_id=run_id, workflow_id="w", snapshot={"a": 2})

    stored = stores.runs.load(run_id)
    assert stored is not None
    assert stored.vars["_runtime"]["workflow_snapshot"] == first == second
    assert first["format"] == "mine"


def test_the_flow_of_an_unknown_run_cannot_be_named() -> None:
    with pytest.raises(NotFound):
        persist_workflow_snapshot(stores=open_memory_stores(), run_id="nobody", workflow_id="w", snapshot={})
