"""A gateway that is killed while an approved command runs: the command ends with it, and its run asks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import Client, environment, port_of, serve
from tests.tools.test_commands import is_gone
from tests.tools.test_in_gateway import CALLING


def follow_to(client: Client, run_id: str, after: int, status: str, effect: str) -> tuple[int, Any]:
    """Return the next record of a run with a status and an effect, and its cursor."""
    for cursor, record in client.follow(run_id, after):
        if record["status"] == status and (record["effect"] or {}).get("type") == effect:
            return cursor, record
    raise AssertionError(f"run {run_id} ended without {status} {effect}")


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_command_that_was_killed_with_its_gateway_is_in_doubt(tmp_path: Path, backend: str) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/calls.json").write_text(json.dumps(CALLING))
    (tmp_path / "work").mkdir()
    os.mkfifo(tmp_path / "work/begun")
    env = environment(
        tmp_path / "data",
        backend,
        FLOWS_DIR=tmp_path / "flows",
        WORKFLOW_SOURCE="visualflow",
        WORKSPACE_DIR=tmp_path / "work",
    )
    command = {"command": "sleep 600 & echo $$ $! > begun; wait", "shell": True}
    call = {"name": "execute_command", "arguments": command, "call_id": "c1"}
    with serve(env=env) as first:
        client = Client(port_of(first))
        run_id = client.start(flow_id="calls", input_data={"tool_calls": [call], "workspace_root": "."})
        cursor, record = follow_to(client, run_id, 0, "waiting", "tool_calls")
        resume = {"wait_key": record["result"]["wait"]["wait_key"], "payload": {"approved": True}}
        client.call(
            "/api/gateway/commands", {"command_id": "c1", "run_id": run_id, "type": "resume", "payload": resume}
        )
        pids = [int(pid) for pid in (tmp_path / "work/begun").read_text().split()]
        first.end(signal.SIGKILL)
    assert all(map(is_gone, pids))

    with serve(env=env) as second:
        client = Client(port_of(second))
        cursor, record = follow_to(client, run_id, cursor + 2, "waiting", "tool_calls")
        wait = record["result"]["wait"]
        assert wait["choices"] == ["retry", "fail"]
        assert wait["details"]["kind"] == "in_doubt"
        client.answer(run_id, wait["wait_key"], "fail", "c2")
        follow_to(client, run_id, cursor, "completed", "emit_event")
        run, records = client.run(run_id), client.ledger(run_id)

    assert run["status"] == "failed" and "interrupted" in run["error"]
    begun = [item for item in records if item["status"] == "started"]
    assert [item["effect"]["type"] for item in begun] == ["tool_calls", "tool_calls"]
    assert len({item["idempotency_key"] for item in begun}) == 1
