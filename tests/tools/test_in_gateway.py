"""The tools as flows of a gateway meet them: modes, approvals, settings, and what is said in the ledger."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Invalid
from abstractgateway.testing import GatewayHarness
from abstractgateway.testing.harness import RunOutcome
from tests.service.waiting import PATIENCE_S, wait_for_status
from tests.tools.test_commands import is_gone
from tests.visualflow.conftest import flow, node

Json = dict[str, Any]

CALLING = flow(
    [
        node("s", "on_flow_start", "", "> tool_calls"),
        node("c", "tool_calls", "> tool_calls", "> results"),
        node("e", "on_flow_end", "> results"),
    ],
    ["s > c", "c > e", "s/tool_calls -> c/tool_calls", "c/results -> e/results"],
    "calls",
)
WRITE = {"name": "write_file", "arguments": {"file_path": "a.txt", "content": "x"}}
READ = {"name": "read_file", "arguments": {"file_path": "a.txt"}}


def harness(
    directory: Path, *, tools: Any = None, builtin: tuple[str, ...] = ("all",), **settings: Any
) -> GatewayHarness:
    config = GatewayConfig(
        store_backend="memory", data_dir=directory, workspace_dir=directory, tools=builtin, **settings
    )
    return GatewayHarness(flows={"calls": CALLING}, tools=tools, config=config)


def call(found: GatewayHarness, *calls: Json, answers: list[Any] | None = None) -> RunOutcome:
    return found.run("calls", {"tool_calls": list(calls), "workspace_root": "."}, answers=answers or [])


def results(outcome: RunOutcome) -> list[Json]:
    assert outcome.status == "completed", outcome.error
    assert outcome.output is not None
    found: list[Json] = outcome.output["results"]
    return found


def test_a_guarded_tool_waits_for_approval_and_then_does_its_work(tmp_path: Path) -> None:
    outcome = call(harness(tmp_path), WRITE)
    assert outcome.waiting is not None and str(outcome.waiting.wait_key).startswith("tool_approval:")
    assert not (tmp_path / "a.txt").exists()

    found = results(call(harness(tmp_path), WRITE, READ, answers=[{"approved": True}]))

    assert found[0]["output"] == "wrote 1 bytes to a.txt"
    assert (tmp_path / "a.txt").read_text() == "x"
    assert [item["success"] for item in found] == [True, False]  # reading needed no approval, and came first


@pytest.mark.parametrize(
    ("mode", "waits_for"), [("approval", None), ("local", None), ("passthrough", "user"), ("delegated", "job")]
)
def test_a_function_of_the_program_is_guarded_where_everything_is(
    tmp_path: Path, mode: str, waits_for: str | None
) -> None:
    outcome = call(harness(tmp_path, tools={"add": lambda a, b: a + b}, tool_mode=mode), ADD)

    if waits_for is None:
        assert results(outcome)[0]["output"] == 3
    else:
        assert outcome.waiting is not None and outcome.waiting.reason.value == waits_for


ADD = {"name": "add", "arguments": {"a": 1, "b": 2}}


def test_in_the_mode_local_nobody_is_asked(tmp_path: Path) -> None:
    found = results(call(harness(tmp_path, tool_mode="local"), WRITE, READ))

    assert [item["success"] for item in found] == [True, True]


def test_a_tool_of_the_program_takes_the_place_of_a_built_in_one(tmp_path: Path) -> None:
    found = results(call(harness(tmp_path, tools={"write_file": lambda file_path, content: "mine"}), WRITE))

    assert found[0]["output"] == "mine"


def test_the_settings_say_which_tools_there_are(tmp_path: Path) -> None:
    for wanted, known in ((("none",), "none"), (("read_file",), "read_file")):
        found = results(call(harness(tmp_path, tools={}, builtin=wanted), WRITE))
        assert found[0]["error"] == f"there is no tool 'write_file'; known: {known}"
    with pytest.raises(Invalid, match="ABSTRACTGATEWAY_TOOLS: there is no tool 'nonsense'; known: all, none, analyze"):
        harness(tmp_path, builtin=("nonsense",))


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        *(("approval", "approval"), ("Local_Approval", "approval"), ("local-approval", "approval")),
        *(("local", "local"), ("local_all", "local"), ("passthrough", "passthrough")),
        *(("delegated", "delegated"), ("delegate", "delegated"), ("JOB", "delegated"), ("", "approval")),
    ],
)
def test_a_mode_has_the_names_that_people_know(text: str, mode: str) -> None:
    assert GatewayConfig.from_env({"ABSTRACTGATEWAY_TOOL_MODE": text}).tool_mode == mode


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Invalid, match="ABSTRACTGATEWAY_TOOL_MODE: 'aproval' cannot be read: use one of approval"):
        GatewayConfig.from_env({"ABSTRACTGATEWAY_TOOL_MODE": "aproval"})


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        ({"name": "read_file", "arguments": {"file_path": "../../etc/passwd"}}, "path escapes workspace root"),
        ({"name": "read_file", "arguments": {"file_path": "link/passwd"}}, "leads through a link"),
        ({"name": "execute_command", "arguments": {"command": "ls; cat /etc/passwd"}}, "only a shell understands"),
        ({"name": "execute_command", "arguments": {"command": "yes"}}, "wrote more than"),
        ({"name": "fetch_url", "arguments": {"url": "http://169.254.169.254/"}}, "is not a public address"),
        ({"name": "read_file", "arguments": {"file_path": "a", "extra": 1}}, "extra: is not known"),
        ({"name": "read_file", "arguments": {"file_path": 5}}, "file_path: is integer, not string"),
        ({"name": "execute_command", "arguments": '{"command": "ls"'}, "is not valid JSON"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else None,
)
def test_a_hostile_call_is_refused_with_a_reason_in_the_ledger(tmp_path: Path, hostile: Json, reason: str) -> None:
    (tmp_path / "link").symlink_to("/etc")

    outcome = call(harness(tmp_path, tool_mode="local"), hostile)

    assert reason in results(outcome)[0]["error"]
    assert any(reason in json.dumps(record["result"] or {}) for record in outcome.records)


@pytest.fixture
def open_gateway(tmp_path: Path) -> Iterator[Callable[..., GatewayService]]:
    opened: list[GatewayService] = []
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "calls.json").write_text(json.dumps(CALLING))

    def open_one(tools: Any, **settings: Any) -> GatewayService:
        config = GatewayConfig(
            data_dir=tmp_path / "data",
            flows_dir=tmp_path / "flows",
            workflow_source="visualflow",
            **settings,
        )
        opened.append(GatewayService.open(config, tools=tools))
        return opened[-1]

    yield open_one
    for gateway in opened:
        gateway.close()


def start(gateway: GatewayService, *calls: Json) -> str:
    return gateway.runs.start(flow_id="calls", input_data={"tool_calls": list(calls)})


def answer(gateway: GatewayService, run_id: str, payload: Json, command_id: str) -> None:
    waiting = gateway.runs.get(run_id)["waiting"]
    command = {"wait_key": waiting["wait_key"], "payload": payload}
    gateway.commands.submit(run_id=run_id, type="resume", payload=command, command_id=command_id)


def test_a_slow_approved_tool_delays_no_other_run_and_no_command(
    open_gateway: Callable[..., GatewayService],
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert may_end.wait(PATIENCE_S)
        return "slow"

    gateway = open_gateway({"slow": slow, "quick": lambda: "quick"}, tool_mode="passthrough", effect_workers=2)
    slow_run = start(gateway, {"name": "slow"})
    wait_for_status(gateway, slow_run, "waiting")

    answer(gateway, slow_run, {"approved": True}, "c1")
    assert begun.wait(PATIENCE_S)
    quick_run = start(gateway, {"name": "quick"})
    wait_for_status(gateway, quick_run, "waiting")
    answer(gateway, quick_run, {"approved": True}, "c2")
    quick = wait_for_status(gateway, quick_run, "completed")

    assert quick["output"]["results"][0]["output"] == "quick"
    assert gateway.runs.get(slow_run)["status"] == "running"
    may_end.set()
    assert wait_for_status(gateway, slow_run, "completed")["output"]["results"][0]["output"] == "slow"


def test_an_answer_that_decides_nothing_is_rejected_and_the_right_one_still_counts(
    open_gateway: Callable[..., GatewayService],
) -> None:
    gateway = open_gateway({"quick": lambda: "quick"}, tool_mode="passthrough")
    run_id = start(gateway, {"name": "quick"})
    wait_for_status(gateway, run_id, "waiting")

    answer(gateway, run_id, {"response": "ok"}, "c1")
    answer(gateway, run_id, {"approved": False, "reason": "no"}, "c2")

    found = wait_for_status(gateway, run_id, "completed")["output"]["results"]
    assert [(item["success"], item["error"]) for item in found] == [(False, "no")]
    refused = gateway.commands.outcome("c1")
    assert refused["status"] == "rejected" and "says nothing about the call" in str(refused["reason"])


def test_a_command_of_a_run_that_is_cancelled_is_killed(
    open_gateway: Callable[..., GatewayService], tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    os.mkfifo(tmp_path / "work/begun")
    gateway = open_gateway({}, tool_mode="local", workspace_dir=tmp_path / "work")
    command = {"command": "echo $$ > begun; exec sleep 600", "shell": True}
    call = {"name": "execute_command", "arguments": command}
    run_id = gateway.runs.start(flow_id="calls", input_data={"tool_calls": [call], "workspace_root": "."})
    pid = int((tmp_path / "work/begun").read_text())

    gateway.commands.submit(run_id=run_id, type="cancel", payload={}, command_id="stop")

    wait_for_status(gateway, run_id, "cancelled")
    assert is_gone(pid)


def test_a_wait_for_approval_outlives_a_restart(open_gateway: Callable[..., GatewayService]) -> None:
    calls: list[int] = []
    first = open_gateway({"quick": lambda: calls.append(1) or "quick"}, tool_mode="passthrough")
    run_id = start(first, {"name": "quick"})
    wait_for_status(first, run_id, "waiting")
    key = first.runs.get(run_id)["waiting"]["wait_key"]
    first.close()

    second = open_gateway({"quick": lambda: calls.append(2) or "quick"}, tool_mode="passthrough")
    assert second.runs.get(run_id)["waiting"]["wait_key"] == key
    answer(second, run_id, {"approved": True}, "c1")
    wait_for_status(second, run_id, "completed")

    assert calls == [2]
