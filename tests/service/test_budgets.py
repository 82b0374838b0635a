"""Budgets as a user meets them: limits of the settings and of a start, questions, answers, and what a run has used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Conflict, Invalid
from abstractgateway.testing import ScriptedModel
from tests.service.waiting import wait_for, wait_for_status
from tests.visualflow.conftest import flow, node

Json = dict[str, Any]
Open = Callable[..., GatewayService]

NAMED = {"provider": "p", "model": "m"}
AGENT = flow(
    [
        node("s", "on_flow_start", "", "> unused"),
        node("a", "agent", "> prompt", "> response", defaults={**NAMED, "prompt": "1+2?", "tools": ["add"]}),
        node("e", "on_flow_end", "> response"),
    ],
    ["s > a", "a > e", "a/response -> e/response"],
    "adds",
)
LISTENING = flow(
    [
        node("s", "on_flow_start", "", "> unused"),
        node("on", "on_event", "", "> payload", eventConfig={"name": "ping"}),
        node("w", "wait_event", "> event_key", "> event_data", defaults={"event_key": "go"}),
        node("e", "on_flow_end", "> "),
    ],
    ["s > w", "w > e"],
    "listens",
)


def call(a: int) -> Json:
    return {"content": "", "tool_calls": [{"name": "add", "arguments": {"a": a, "b": 2}, "call_id": f"c{a}"}]}


def answers(request: Json) -> Any:
    """Ask for two sums, one after the other, and then say the result; each answer costs 100 tokens."""
    made = sum(message["role"] == "tool" for message in request["messages"])
    said = call(made) if made < 2 else {"content": "three"}
    return {**said, "usage": {"input_tokens": 90, "output_tokens": 10}}


@pytest.fixture(params=["file", "memory", "sqlite"])
def open_gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """A function that opens a gateway on the same data directory, with settings of one's own."""
    (tmp_path / "flows").mkdir()
    for drawn in (AGENT, LISTENING):
        (tmp_path / "flows" / f"{drawn['id']}.json").write_text(json.dumps(drawn))
    opened: list[GatewayService] = []

    def open_one(**settings: Any) -> GatewayService:
        chosen = {"data_dir": tmp_path / "runtime", "flows_dir": tmp_path / "flows", "workflow_source": "visualflow"}
        config = GatewayConfig(**{**chosen, "store_backend": request.param, **settings})
        tools = {"add": lambda a, b: a + b}
        opened.append(GatewayService.open(config, model=ScriptedModel(answers), tools=tools))
        return opened[-1]

    yield open_one
    for gateway in opened:
        gateway.close()


def wait_for_question(gateway: GatewayService, run_id: str) -> Json:
    """Wait until a run says that one below it asks, and return what is asked."""

    def asks() -> Any:
        blocked = gateway.runs.get(run_id)["blocked_by"] or {}
        return (blocked.get("details") or {}).get("asks")

    wait_for(gateway, lambda: asks() is not None)
    found: Json = asks()
    return found


def reply(gateway: GatewayService, asked: Json, payload: Json) -> Any:
    """Answer a question, wait until the command is dealt with, and return what became of it."""
    told = {"wait_key": asked["wait_key"], "payload": payload}
    gateway.commands.submit(run_id=asked["run_id"], type="resume", payload=told, command_id="reply")
    next_one = gateway.runs.start(flow_id="listens")
    gateway.commands.submit(run_id=next_one, type="cancel")
    wait_for_status(gateway, next_one, "cancelled")
    return gateway.commands.outcome("reply")


@pytest.mark.parametrize(
    ("limits", "prompt"),
    [
        ({"model_calls": 2}, "This run has made 2 of 2 model calls. Raise the limit, or stop?"),
        ({"tokens": 150}, "This run has used 200 of 150 tokens. Raise the limit, or stop?"),
        (
            {"tool_calls": 1},
            "This run has made 1 of 1 tool calls and is about to make 1 more. Raise the limit, or stop?",
        ),
    ],
)
def test_an_agent_that_has_used_its_budget_asks_and_goes_on(open_gateway: Open, limits: Json, prompt: str) -> None:
    gateway = open_gateway()
    run_id = gateway.runs.start(flow_id="adds", limits=limits)

    asked = wait_for_question(gateway, run_id)
    waiting = gateway.runs.get(asked["run_id"])
    outcome = reply(gateway, asked, {"response": "raise"})
    run = wait_for_status(gateway, run_id, "completed")

    assert asked["prompt"] == waiting["waiting"]["prompt"] == prompt
    assert (waiting["blocked_by"]["kind"], waiting["parent_run_id"]) == ("user", run_id)
    assert waiting["blocked_by"]["explanation"] == prompt
    assert (outcome["status"], run["output"]) == ("applied", {"success": True, "response": "three"})
    assert run["usage"] == {"tokens": 300, "model_calls": 3, "tool_calls": 2, "wall_s": None}
    (name,) = limits
    assert run["budget"][name]["used"] == run["usage"][name]


def test_the_limits_of_the_settings_hold_for_every_run(open_gateway: Open) -> None:
    gateway = open_gateway(max_run_model_calls=1, max_run_wall_s=3600.0)
    run_id = gateway.runs.start(flow_id="adds")

    asked = wait_for_question(gateway, run_id)
    reply(gateway, asked, {"decision": "raise", "limit": 3})
    run = wait_for_status(gateway, run_id, "completed")

    assert run["budget"]["model_calls"] == {"limit": 3, "used": 3}
    assert run["budget"]["wall_s"]["limit"] == 3600.0
    assert 0 < run["usage"]["wall_s"] == run["budget"]["wall_s"]["used"] < 60


def test_a_client_may_ask_for_less_than_the_settings_and_not_for_more(open_gateway: Open) -> None:
    gateway = open_gateway(max_run_tokens=5000)

    with pytest.raises(Invalid, match=r"limits.tokens: 9,000 is more than the 5,000 allowed here"):
        gateway.runs.start(flow_id="adds", limits={"tokens": 9000})
    with pytest.raises(Invalid, match=r"_limits.budget.tokens: 9,000 is more"):
        gateway.runs.start(flow_id="adds", input_data={"_limits": {"budget": {"tokens": 9000}}})
    forged = {"_runtime": {"budget": {"limits": {"tokens": 10**9}}}}
    lower = gateway.runs.start(flow_id="adds", input_data=forged, limits={"tokens": 4000})

    assert [run["run_id"] for run in gateway.runs.list(root_only=True)["items"]] == [lower]
    assert gateway.runs.get(lower)["budget"]["tokens"]["limit"] == 4000


@pytest.mark.parametrize("settings", [{"max_run_tokens": -1}, {"max_run_wall_s": float("inf")}])
def test_a_setting_that_is_no_limit_is_refused(tmp_path: Path, settings: Json) -> None:
    with pytest.raises(Invalid, match="max_run"):
        GatewayService.open(GatewayConfig(store_backend="memory", flows_dir=tmp_path, data_dir=tmp_path, **settings))


def test_the_same_key_with_other_limits_is_another_start(open_gateway: Open) -> None:
    gateway = open_gateway()
    first = gateway.runs.start(flow_id="listens", idempotency_key="k", limits={"tokens": 5})

    assert gateway.runs.start(flow_id="listens", idempotency_key="k", limits={"tokens": 5}) == first
    with pytest.raises(Conflict):
        gateway.runs.start(flow_id="listens", idempotency_key="k", limits={"tokens": 6})


def test_a_bad_answer_is_rejected_and_the_question_stays(open_gateway: Open) -> None:
    gateway = open_gateway()
    run_id = gateway.runs.start(flow_id="adds", limits={"model_calls": 2})
    asked = wait_for_question(gateway, run_id)

    outcome = reply(gateway, asked, {"decision": "raise", "limit": 1})

    assert (outcome["status"], outcome["reason"]) == (
        "rejected",
        "payload.limit: 1 is too low; the run needs at least 3",
    )
    assert wait_for_question(gateway, run_id) == asked


def test_stop_cancels_the_run_and_says_why(open_gateway: Open) -> None:
    gateway = open_gateway()
    run_id = gateway.runs.start(flow_id="adds", limits={"model_calls": 2})
    asked = wait_for_question(gateway, run_id)

    reply(gateway, asked, {"response": "stop"})
    run = wait_for_status(gateway, run_id, "cancelled")

    assert run["error"] == gateway.runs.get(asked["run_id"])["error"] == "stopped: this run has made 2 of 2 model calls"


@pytest.mark.parametrize("open_gateway", ["file", "sqlite"], indirect=True)
def test_a_question_is_still_there_after_a_restart(open_gateway: Open) -> None:
    gateway = open_gateway()
    run_id = gateway.runs.start(flow_id="adds", limits={"model_calls": 2})
    asked = wait_for_question(gateway, run_id)
    gateway.close()

    gateway = open_gateway()
    again = wait_for_question(gateway, run_id)
    reply(gateway, again, {"decision": "raise"})
    run = wait_for_status(gateway, run_id, "completed")

    assert again == asked
    assert (run["output"]["response"], run["usage"]["model_calls"]) == ("three", 3)


def test_what_listens_for_a_flow_shares_its_budget(open_gateway: Open) -> None:
    gateway = open_gateway(max_run_tokens=5000)

    run_id = gateway.runs.start(flow_id="listens", limits={"tokens": 70})

    (listener,) = gateway.stores.runs.children_of(run_id)
    assert gateway.runs.get(listener)["budget"] == {"tokens": {"limit": 70, "used": 0}}
