"""Models and tools that say every secret they were given, in runs: none of it is kept or told."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.target import API, Target, attacked
from tests.cli.processes import PATIENCE_S, TOKEN
from tests.llm.provider import Provider, Reply, Request, chat, failed, said
from tests.mcp.test_gateway import calling
from tests.visualflow.conftest import flow, node

OPENAI = "canary-of-openai-4711-key"
HEADER = "canary-of-header-4711"
VARIABLE = "canary/of-variable+4711="
ARGUMENT = "canary-of-argument-4711"
OUTSIDE = "canary-of-outside-4711"
MARKS = (OPENAI, HEADER, VARIABLE, ARGUMENT, OUTSIDE, TOKEN)
TOOLS = ("telling__tell", "telling__structure", "telling__refuse", "telling__missing", "far__x", "dying__x")


def servers() -> dict[str, Any]:
    """A server that says what it was given wherever it can, one that dies saying it, and one that is not there."""
    told = [str(Path(__file__).with_name("telling_server.py")), "--token", ARGUMENT]
    return {
        "telling": {
            "command": sys.executable,
            "args": ["-I", "-S", *told],
            "env": {"API_KEY": VARIABLE, "FROM_OUTSIDE": "${CANARY}"},
        },
        "dying": {"command": "sh", "args": ["-c", 'echo "$API_KEY" >&2; exit 1'], "env": {"API_KEY": VARIABLE}},
        "far": {"url": "http://127.0.0.1:1/mcp", "headers": {"Authorization": f"Bearer {HEADER}"}},
    }


def asking() -> dict[str, Any]:
    """A flow that ends with what a model says."""
    return flow(
        [
            node("s", "on_flow_start", "", ">"),
            node("m", "llm_call", "> prompt", "> response", defaults={"prompt": "What is my key?"}),
            node("e", "on_flow_end", "> response"),
        ],
        ["s > m", "m > e", "m/response -> e/response"],
        "asks",
    )


def echo(request: Request) -> Reply:
    """Answer with the head of the request and every secret, or refuse it so."""
    told = f"the request had {request.headers}; {' '.join(MARKS)}"
    return failed(401, told) if request.path.startswith("/refused") else said(chat(told))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with flows and a file of servers, and room for a gateway."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "gateway").mkdir()
    (tmp_path / "flows" / "asks.json").write_text(json.dumps(asking()))
    for name in TOOLS:
        (tmp_path / "flows" / f"{name}.json").write_text(json.dumps({**calling(name, {}), "id": name}))
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers()}))
    return tmp_path


def run_all(target: Target) -> Iterator[tuple[str, bytes]]:
    """Run every flow to its end, and return all that can be read about each run."""
    for flow_id in ("asks", *TOOLS):
        run_id = target.ask(f"{API}/runs/start", {"flow_id": flow_id})[1]["run_id"]
        one = f"{API}/runs/{run_id}"
        yield flow_id, answer_of(target, f"{one}/ledger/stream")  # which ends with the run
        for path in (one, f"{one}/ledger", f"{one}/history_bundle", f"{one}/artifacts", f"{one}/input_data"):
            yield flow_id, answer_of(target, path)


def answer_of(target: Target, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        return str(response.headers).encode() + response.read()
    finally:
        connection.close()


def found_in(said: dict[str, bytes]) -> dict[str, list[str]]:
    found = {name: [mark for mark in MARKS if mark.encode() in text] for name, text in said.items()}
    return {name: marks for name, marks in found.items() if marks}


@pytest.mark.parametrize("case", ["refused", "answered"])
def test_no_secret_that_models_and_tools_say_is_kept_or_told(place: Path, case: str) -> None:
    settings = {
        "STORE_BACKEND": "sqlite" if case == "refused" else "file",
        "FLOWS_DIR": place / "flows",
        "WORKFLOW_SOURCE": "visualflow",
        "MCP_SERVERS": place / "mcp.json",
        "MCP_CONNECT_TIMEOUT_S": "10",
        "TOOL_MODE": "local",
        "LOG_LEVEL": "debug",
        "AUDIT_LOG": "1",
        "PROVIDER": "openai",
        "MODEL": "m",
    }
    told: dict[str, bytes] = {}
    with Provider(script=echo) as provider:
        keys = {"OPENAI_API_KEY": OPENAI, "OPENAI_BASE_URL": f"{provider.url}/{case}", "CANARY": OUTSIDE}
        with attacked(place / "gateway", env=keys, **settings) as target:
            for name, text in run_all(target):
                told[name] = told.get(name, b"") + text
            for path in (f"{API}/discovery/tools", "/metrics", f"{API}/audit/tail"):
                told[path] = answer_of(target, path)
            told["the process"] = target.output.encode()
        assert any(OPENAI in request.headers["authorization"] for request in provider.requests)

    written = {str(path): path.read_bytes() for path in (place / "gateway").rglob("*") if path.is_file()}
    assert found_in({**told, **written}) == {}
    assert all(
        b"[redacted]" in told[name] for name in ("telling__tell", "telling__structure", f"{API}/discovery/tools")
    )
    assert (b"[redacted]" in told["asks"]) or b"[key]" in told["asks"]
