"""Secrets of the settings, searched for in everything that a gateway writes and says."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.config import GatewayConfig
from tests.attacks.odd_requests import OddRequests
from tests.attacks.target import API, Target, attacked, head
from tests.cli.processes import PATIENCE_S, TOKEN, environment

DATABASE_URL = "postgresql://gateway:canary-of-database-4711@127.0.0.1:1/none"
KEYS = {
    "OPENAI_API_KEY": "canary-of-openai-4711-key",
    "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
    "ANTHROPIC_API_KEY": "canary-of-anthropic-4711-key",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
}
MCP_HEADER = "canary-of-mcp-4711-header"
WRONG = "canary-of-wrong-4711-token"
MARKS = ("canary-of-openai", "canary-of-anthropic", "canary-of-database", "canary-of-mcp", "canary-of-wrong", TOKEN)
ROUNDS = 2


def settings(place: Path) -> dict[str, Any]:
    servers = place / "mcp.json"
    headers = {"Authorization": f"Bearer {MCP_HEADER}"}
    servers.write_text(json.dumps({"mcpServers": {"far": {"url": "http://127.0.0.1:1/mcp", "headers": headers}}}))
    return {"STORE_BACKEND": "file", "MCP_SERVERS": servers, "AUDIT_LOG": "1", "DATABASE_URL": DATABASE_URL}


def everything_said(target: Target) -> list[tuple[str, bytes]]:
    """Ask every route for what it has, and odd things, and return all answers with their heads."""
    _, document = target.ask("/openapi.json")
    requests = OddRequests(document, seed=3)
    said = []
    for number in range(ROUNDS * len(requests.operations)):
        asked = requests.next(number % len(requests.operations))
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=PATIENCE_S)
        headers = {name: value.encode("latin-1", "replace") for name, value in asked.headers.items()}
        headers["Authorization"] = f"Bearer {TOKEN}".encode()
        connection.request(asked.method, asked.target, asked.body, headers)
        response = connection.getresponse()
        is_stream = "event-stream" in (response.headers["Content-Type"] or "")
        said.append((asked.route, str(response.headers).encode() + (b"" if is_stream else response.read())))
        connection.close()
    return said


def found_in(text: bytes) -> list[str]:
    return [mark for mark in MARKS if mark.encode() in text]


def test_no_secret_is_written_or_said(tmp_path: Path) -> None:
    place = tmp_path / "gateway"
    place.mkdir()
    with attacked(place, env=KEYS, **settings(tmp_path)) as target:
        for token in (WRONG, WRONG + "\xff"):
            target.exchange(head("GET", f"{API}/runs?token={WRONG}", "Connection: close", token=token))
        status, started = target.ask(f"{API}/runs/start", {"bundle_id": "hello", "input_data": {}})
        assert status == 200
        said = everything_said(target)
        for provider in ("openai", "anthropic"):
            said.append((provider, json.dumps(target.ask(f"{API}/discovery/providers/{provider}/models")).encode()))
        said.append(("ledger", json.dumps(target.ask(f"{API}/runs/{started['run_id']}/ledger")[1]).encode()))
        said.append(("the process", target.output.encode()))

    written = [(str(path.relative_to(place)), path.read_bytes()) for path in place.rglob("*") if path.is_file()]
    assert any("audit" in name for name, _ in written)
    assert {name: marks for name, text in (*said, *written) if (marks := found_in(text))} == {}


@pytest.mark.parametrize("text_of", [repr, str])
def test_the_text_of_the_settings_shows_no_secret(text_of: Any) -> None:
    config = GatewayConfig(auth_tokens=(TOKEN,), database_url=DATABASE_URL, openai_api_key="canary-of-openai")

    assert found_in(text_of(config).encode()) == []


@pytest.mark.parametrize("command", [["config", "status", "--all"], ["config", "status", "--json"], ["doctor"]])
def test_no_command_that_shows_settings_shows_a_secret(tmp_path: Path, command: list[str]) -> None:
    chosen = settings(tmp_path)
    given = environment(tmp_path / "data", chosen.pop("STORE_BACKEND"), **chosen) | KEYS
    given["OPENAI_BASE_URL"] = "http://somebody:canary-of-openai-4711-url@127.0.0.1:1/v1"
    run = [sys.executable, "-m", "abstractgateway", *command]

    finished = subprocess.run(run, env=given, capture_output=True, text=True, timeout=PATIENCE_S, check=True)

    assert found_in((finished.stdout + finished.stderr).encode()) == []
    assert len(finished.stdout) > 200
