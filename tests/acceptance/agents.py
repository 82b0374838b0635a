"""Gateways in processes of their own whose models are a provider of the tests, and a client that follows agents."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import PATIENCE_S, Client, Process, environment, port_of, serve
from tests.llm.provider import KEY, Provider

SHARED = Path(__file__).resolve().parents[3] / "shared" / "flows" / "bundles"
PROGRAM = str(Path(__file__).with_name("agent_gateway.py"))
LOOP = "visual_react_agent_"
TERMINAL = ("completed", "failed", "cancelled")
needs_bundles = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared bundles are not next to the checkout")


@dataclass
class Gateway:
    """A gateway that runs, and what it may be asked."""

    process: Process
    client: Client

    def run(self, bundle: str, **input_data: Any) -> dict[str, Any]:
        """Start a bundle, follow it to its end, and return its run."""
        return self.finish(self.client.start(bundle_id=bundle, input_data=input_data))

    def finish(self, run_id: str) -> dict[str, Any]:
        """Follow a run to its end and return it; one that does not end in time fails the test."""
        until, after = time.monotonic() + PATIENCE_S, 0
        while True:
            run: dict[str, Any] = self.client.run(run_id)
            if run["status"] in TERMINAL:
                return run
            assert time.monotonic() < until, f"it does not end: {run}"
            page = self.client.call(f"/api/gateway/runs/{run_id}/ledger?after={after}&limit=2000&wait=5")
            after = page["next_after"]

    def loop_of(self, run_id: str) -> str:
        """Follow a run until it has started an agent, and return the run of the agent's loop."""
        for _, record in self.client.follow(run_id):
            wait = (record.get("result") or {}).get("wait") or {}
            if str((wait.get("details") or {}).get("sub_workflow_id")).startswith(LOOP):
                return str(wait["details"]["sub_run_id"])
        raise AssertionError(f"run {run_id} ended without an agent")

    def effects(self, run_id: str, effect: str) -> list[dict[str, Any]]:
        """Return the records of one type of effect, in order."""
        return [item for item in self.client.ledger(run_id) if (item["effect"] or {}).get("type") == effect]

    def resume(self, run_id: str, wait_key: str, payload: dict[str, Any], command_id: str = "c-1") -> Any:
        body = {"wait_key": wait_key, "payload": payload}
        return self.client.call(
            "/api/gateway/commands", {"command_id": command_id, "run_id": run_id, "type": "resume", "payload": body}
        )


@contextlib.contextmanager
def gateway(directory: Path, provider: Provider, *, is_program: bool = False, **settings: Any) -> Iterator[Gateway]:
    """Serve the shared bundles from a data directory: by the command, or by the program that has tools of its own."""
    settings = {"FLOWS_DIR": SHARED, "PROVIDER": "openai-compatible", "MODEL": "local", **settings}
    env = environment(directory / "data", settings.pop("STORE_BACKEND", "file"), **settings)
    for name in ("OPENAI", "OPENAI_COMPATIBLE", "LMSTUDIO"):
        env[f"{name}_BASE_URL"], env[f"{name}_API_KEY"] = provider.url, KEY
    env["OUTSIDE"], env["GATE"] = str(directory / "outside.txt"), str(directory / "gate")
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], *filter(None, [os.environ.get("PYTHONPATH")])])
    with Process(PROGRAM, env=env) if is_program else serve(env=env) as process:
        yield Gateway(process, Client(port_of(process)))
