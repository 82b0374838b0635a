"""How long effects may take and what becomes of interrupted ones, as set for a gateway."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Invalid
from abstractgateway.runtime import EffectOutcome, EffectType, RunState
from abstractgateway.testing import GatewayHarness
from tests.service.waiting import PATIENCE_S, wait_for, wait_for_status
from tests.visualflow.conftest import flow, node

PAYING = flow(
    [
        node("s", "on_flow_start", "", ">"),
        node("c", "call_tool", "> tool_call", "> result", defaults={"tool_call": {"name": "pay", "arguments": {}}}),
        node("e", "on_flow_end", "> result"),
    ],
    ["s > c", "c > e", "c/result -> e/result"],
    "pays",
)


class Crash(BaseException):
    """The process ends here: nothing of the gateway catches it."""


class Till:
    """A tool that takes a payment when it may."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()

    def pay(self) -> str:
        self.begun.release()
        assert self.may_end.wait(PATIENCE_S)
        return "paid"

    def wait_until_begun(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE_S)


@pytest.fixture
def till() -> Iterator[Till]:
    opened = Till()
    yield opened
    opened.may_end.set()


@pytest.fixture
def shop(tmp_path: Path, till: Till) -> Iterator[Callable[..., GatewayService]]:
    """A function that opens a gateway on the same files, with settings and reconcilers of one's own."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "pays.json").write_text(json.dumps(PAYING))
    opened: list[GatewayService] = []

    def open_one(reconcilers: Any = None, **settings: Any) -> GatewayService:
        chosen = {"data_dir": tmp_path / "runtime", "flows_dir": tmp_path / "flows", "workflow_source": "visualflow"}
        config = GatewayConfig(**{**chosen, **settings})
        opened.append(GatewayService.open(config, tools={"pay": till.pay}, reconcilers=reconcilers))
        return opened[-1]

    yield open_one
    for gateway in opened:
        gateway.close()


def interrupted(gateway: GatewayService, till: Till) -> str:
    """Start a run, end the process in the middle of its payment, and return its id."""
    run_id = gateway.runs.start(flow_id="pays")
    till.wait_until_begun()
    assert gateway.runner is not None
    gateway.runner.stop(timeout_s=0.05)
    gateway.close()
    return run_id


def test_an_effect_that_takes_longer_than_the_gateway_allows_fails_its_run(
    shop: Callable[..., GatewayService], till: Till
) -> None:
    gateway = shop(effect_timeout_s=0.05)

    run = wait_for_status(gateway, gateway.runs.start(flow_id="pays"), "failed")

    assert "timed out after the 0.05 s it may take" in run["error"]


def test_a_run_says_what_it_performs_and_what_it_waits_for_a_thread_with(
    shop: Callable[..., GatewayService], till: Till
) -> None:
    gateway = shop(effect_workers=1, effect_timeout_s=60.0)
    first = gateway.runs.start(flow_id="pays")
    till.wait_until_begun()
    second = gateway.runs.start(flow_id="pays")
    wait_for(gateway, lambda: gateway.runs.get(second)["ledger_len"] > 0)
    third = gateway.runs.start(flow_id="pays")  # once this is stored, the commit before it has been acted upon

    performing, queued = (gateway.runs.get(run_id)["blocked_by"] for run_id in (first, second))

    since, until = performing["since"], performing["times_out_at"]
    assert (performing["kind"], performing["effect_type"], since < until) == ("effect", "tool_calls", True)
    assert performing["explanation"] == f"performing tool_calls of node 'c' since {since}, times out at {until}"
    assert queued["kind"] == "gateway"
    assert "until one of the effect workers is free" in queued["reason"]
    till.may_end.set()
    for run_id in (first, second, third):
        assert wait_for_status(gateway, run_id, "completed")["blocked_by"] is None


def test_a_gateway_asks_its_reconciler_about_an_interrupted_effect(
    shop: Callable[..., GatewayService], till: Till
) -> None:
    run_id = interrupted(shop(), till)
    keys: list[str] = []

    def ask_provider(run: RunState, effect: Any, idempotency_key: str) -> EffectOutcome:
        keys.append(idempotency_key)
        call = effect.payload["tool_calls"][0]
        found = {"call_id": call["call_id"], "name": "pay", "success": True, "output": "paid before", "error": None}
        return EffectOutcome.completed({"mode": "executed", "results": [found]})

    gateway = shop(reconcilers={EffectType.TOOL_CALLS: ask_provider})
    run = wait_for_status(gateway, run_id, "completed")

    assert "paid before" in json.dumps(run["output"])
    assert len(keys) == 1


def test_an_interrupted_tool_call_is_asked_about_or_not_as_the_settings_say(
    shop: Callable[..., GatewayService], till: Till
) -> None:
    run_id = interrupted(shop(), till)
    asking = shop()
    blocked = wait_for_status(asking, run_id, "waiting")["blocked_by"]
    asking.close()

    assert (blocked["kind"], blocked["explanation"].startswith("in doubt: The effect tool_calls")) == ("user", True)


def test_the_rule_of_a_tool_is_a_setting() -> None:
    calls: list[str] = []

    def pay() -> str:
        calls.append("pay")
        if len(calls) == 1:
            raise Crash
        return "paid"

    config = GatewayConfig(store_backend="memory", in_doubt_tools=(("pay", "retry"),))
    harness = GatewayHarness(flows={"pays": PAYING}, tools={"pay": pay}, config=config)
    with pytest.raises(Crash):
        harness.run("pays")
    (run,) = harness.stores.runs.list_runs()

    state = harness.runtime.tick(workflow=harness.host.workflow(run.workflow_id), run_id=run.run_id)

    assert (state.status.value, calls) == ("completed", ["pay", "pay"])


@pytest.mark.parametrize(
    ("text", "rules"),
    [("", ()), ("pay=fail, read = Retry,a=b=ask", (("pay", "fail"), ("read", "retry"), ("a=b", "ask")))],
)
def test_the_rules_of_tools_are_a_list_in_the_environment(text: str, rules: Any) -> None:
    assert GatewayConfig.from_env({"ABSTRACTGATEWAY_IN_DOUBT_TOOLS": text}).in_doubt_tools == rules


@pytest.mark.parametrize("text", ["pay", "pay=perhaps", "=ask", "pay=ask,read"])
def test_a_rule_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="IN_DOUBT_TOOLS.* is not name=retry, name=ask or name=fail"):
        GatewayConfig.from_env({"ABSTRACTGATEWAY_IN_DOUBT_TOOLS": text})


def test_a_rule_that_is_none_is_refused_when_the_gateway_opens(tmp_path: Path) -> None:
    config = GatewayConfig(data_dir=tmp_path, store_backend="memory", in_doubt_tools=(("pay", "perhaps"),))

    with pytest.raises(Invalid, match="'perhaps' is not one of retry, ask, fail"):
        GatewayService.open(config)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_a_time_limit_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="EFFECT_TIMEOUT_S"):
        GatewayConfig.from_env({"ABSTRACTGATEWAY_EFFECT_TIMEOUT_S": text})


@pytest.mark.parametrize("number", [-1.0, float("nan"), float("inf")])
def test_a_time_limit_that_is_none_is_refused(number: float) -> None:
    with pytest.raises(Invalid, match="effect_timeout_s"):
        GatewayConfig(effect_timeout_s=number)
