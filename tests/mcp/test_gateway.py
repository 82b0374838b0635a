"""Tools of servers in a gateway: called by flows, and ended with it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.config import McpServers
from abstractgateway.errors import Invalid, Unavailable
from abstractgateway.testing import ScriptedModel
from tests.cli.processes import environment, serve
from tests.mcp.conftest import PATIENCE_S, PLAIN, STDIO, Pipe
from tests.service.waiting import wait_for, wait_for_status
from tests.visualflow.conftest import flow, node


@pytest.fixture(autouse=True, scope="module")
def loaded() -> None:
    """The client library takes a while at first, which is not the servers' fault."""
    importlib.import_module("abstractgateway_mcp.connection")


def calling(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A flow that calls one tool and ends with its result."""
    call = {"tool_call": {"name": name, "arguments": arguments}}
    return flow(
        [
            node("s", "on_flow_start", "", ">"),
            node("c", "call_tool", "> tool_call", "> result success", defaults=call),
            node("e", "on_flow_end", "> result success"),
        ],
        ["s > c", "c > e", "c/result -> e/result", "c/success -> e/success"],
        "calls",
    )


def gateway_on(
    directory: Path,
    drawn: dict[str, Any],
    entries: dict[str, Any],
    tool_mode: str = "local",
    mcp_connect_timeout_s: float = PATIENCE_S,
    **options: Any,
) -> GatewayService:
    flows = directory / "flows"
    flows.mkdir()
    (flows / "calls.json").write_text(json.dumps(drawn))
    settings = {"data_dir": directory / "runtime", "flows_dir": flows, "workflow_source": "visualflow"}
    servers = {"mcp_servers": McpServers.of(entries, os.environ), "mcp_connect_timeout_s": mcp_connect_timeout_s}
    config = GatewayConfig(**settings, **servers, tool_mode=tool_mode)
    return GatewayService.open(config, **options)


def test_a_flow_calls_a_tool_of_a_server_and_closing_ends_the_server(tmp_path: Path, pipe: Pipe) -> None:
    entry = {**STDIO, "env": {"ALIVE": pipe.path}}
    with gateway_on(tmp_path, calling("t__add", {"a": 1, "b": 2}), {"t": entry}) as gateway:
        run = wait_for_status(gateway, gateway.runs.start(flow_id="calls"), "completed", "failed")
        assert run["output"] == {"result": {"sum": 3}, "success": True}

    pipe.wait_for_end()


def test_a_person_is_asked_about_a_tool_even_if_its_server_says_that_it_only_reads(tmp_path: Path) -> None:
    drawn = calling("t__add", {"a": 1, "b": 2})
    with gateway_on(tmp_path, drawn, {"t": STDIO}, tool_mode="approval") as gateway:
        run_id = gateway.runs.start(flow_id="calls")
        wait_for(gateway, lambda: gateway.runs.get(run_id)["status"] in ("waiting", "completed", "failed"))
        waiting = gateway.runs.get(run_id)["waiting"]
        assert [call["name"] for call in waiting["details"]["tool_calls"]] == ["t__add"]

        answer = {"wait_key": waiting["wait_key"], "payload": {"approved": True}}
        gateway.commands.submit(run_id=run_id, type="resume", payload=answer)
        run = wait_for_status(gateway, run_id, "completed", "failed")

    assert run["output"] == {"result": {"sum": 3}, "success": True}


def test_a_server_that_hangs_delays_only_those_who_use_its_tools(tmp_path: Path) -> None:
    hanging = {"command": "sleep", "args": ["600"]}
    drawn = calling("t__add", {"a": 1, "b": 2})
    with gateway_on(tmp_path, drawn, {"t": PLAIN, "slow": hanging}, mcp_connect_timeout_s=3600.0) as gateway:
        run = wait_for_status(gateway, gateway.runs.start(flow_id="calls"), "completed", "failed")

    assert run["output"] == {"result": "3", "success": True}


def test_a_failing_tool_is_a_result_that_says_so(tmp_path: Path) -> None:
    with gateway_on(tmp_path, calling("t__fail", {}), {"t": STDIO}) as gateway:
        run = wait_for_status(gateway, gateway.runs.start(flow_id="calls"), "completed", "failed")

    assert run["output"]["success"] is False
    assert "no such file" in str(run["output"]["result"])


def test_a_model_is_offered_the_tools_of_servers_beside_those_of_the_program(tmp_path: Path) -> None:
    offered: list[list[str]] = []

    def answer(call: dict[str, Any]) -> dict[str, Any]:
        offered.append([spec["name"] for spec in call["tools"]])
        return {"content": "done"}

    asking = flow(
        [
            node("s", "on_flow_start", "", ">"),
            node("m", "llm_call", "> prompt tools", "> response", defaults={"prompt": "?", "tools": ["own", "t__add"]}),
            node("e", "on_flow_end", "> response"),
        ],
        ["s > m", "m > e", "m/response -> e/response"],
        "calls",
    )
    options = {"model": ScriptedModel(answer), "tools": {"own": lambda: 1}}
    with gateway_on(tmp_path, asking, {"t": PLAIN}, **options) as gateway:
        wait_for_status(gateway, gateway.runs.start(flow_id="calls"), "completed", "failed")

    assert offered == [["own", "t__add"]]


def test_cancelling_a_run_ends_its_call_and_tells_the_server(tmp_path: Path, pipe: Pipe) -> None:
    with gateway_on(tmp_path, calling("t__hang", {"pipe": pipe.path}), {"t": PLAIN}) as gateway:
        run_id = gateway.runs.start(flow_id="calls")
        pipe.wait_for("begun")

        gateway.commands.submit(run_id=run_id, type="cancel")

        assert wait_for_status(gateway, run_id, "cancelled", "completed", "failed")["status"] == "cancelled"
        pipe.wait_for("cancelled")


def test_without_the_extra_a_gateway_with_servers_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(Unavailable, match=r"pip install 'abstractgateway\[mcp\]'") as refused:
        gateway_on(tmp_path, calling("t__add", {}), {"t": PLAIN})

    assert refused.value.code == "mcp_extra_missing"


def test_a_gateway_with_a_wrong_entry_does_not_open_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"mcpServers\.t"):
        gateway_on(tmp_path, calling("t__add", {}), {"t": {}})

    assert not (tmp_path / "runtime").exists()


def test_no_server_outlives_a_gateway_that_is_killed(tmp_path: Path, pipe: Pipe) -> None:
    entries = {"mcpServers": {"t": {**PLAIN, "env": {"ALIVE": pipe.path}}}}
    with serve(env=environment(tmp_path, "file", MCP_SERVERS=json.dumps(entries))) as gateway:
        pipe.wait_for("begun")
        gateway.end(signal.SIGKILL)

        pipe.wait_for_end()
