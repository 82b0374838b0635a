"""Run by an interpreter that has AbstractRuntime 0.4.9 installed: writes offloaded values, or reads artifacts."""

from __future__ import annotations

import json
import sys
from typing import Any

LIMIT = 1000


def make(directory: str) -> Any:
    """Write an ended run and a record, both with large values."""
    from abstractruntime.core.models import Effect, EffectType, RunState, RunStatus, StepRecord
    from abstractruntime.storage.artifacts import FileArtifactStore
    from abstractruntime.storage.json_files import JsonFileRunStore, JsonlLedgerStore
    from abstractruntime.storage.offloading import OffloadingLedgerStore, OffloadingRunStore

    artifacts = FileArtifactStore(directory)
    runs = OffloadingRunStore(JsonFileRunStore(directory), artifact_store=artifacts, max_inline_bytes=LIMIT)
    ledger = OffloadingLedgerStore(JsonlLedgerStore(directory), artifact_store=artifacts, max_inline_bytes=LIMIT)
    state = RunState.new(workflow_id="w", entry_node="n")
    state.run_id, state.status = "old", RunStatus.COMPLETED
    state.output = {"text": "o" * 3000, "list": list(range(1000))}
    mine = artifacts.store(b"mine", artifact_id="mine", tags={"source": "upload"})
    payload = {"prompt": "p" * 3000, "media": {"$artifact": mine.artifact_id}}
    record = StepRecord.start(run=state, node_id="n", effect=Effect(type=EffectType.LLM_CALL, payload=payload))
    ledger.append(record.finish_success({"content": "c" * 2000, "list": list(range(1000))}))
    runs.save(state)
    return None


def look(directory: str) -> Any:
    """Read what the references of a run's file and ledger stand for."""
    from abstractruntime.storage.artifacts import FileArtifactStore, resolve_artifact
    from abstractruntime.storage.json_files import JsonFileRunStore, JsonlLedgerStore

    artifacts = FileArtifactStore(directory)
    record = JsonlLedgerStore(directory).list("new")[0]
    prompt = resolve_artifact(record["effect"]["payload"]["prompt"], artifacts)
    state = JsonFileRunStore(directory).load("new")
    output = resolve_artifact(state.output["said"], artifacts) if "said" in state.output else b""
    content = getattr(output, "content", output)
    return {
        "prompt": getattr(prompt, "content", prompt).decode(),
        "output": content.decode(),
        "listed": len(artifacts.list_by_run("new")),
        "reclaimed": artifacts.gc(dry_run=False)["blobs_deleted"],
    }


if __name__ == "__main__":
    print(json.dumps({"make": make, "look": look}[sys.argv[1]](sys.argv[2])))
