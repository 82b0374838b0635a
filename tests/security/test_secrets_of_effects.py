"""What effects on the outside world give is kept without the secrets that the gateway knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.config import McpServers
from abstractgateway.runtime import Runtime
from abstractgateway.runtime.models import (
    Effect,
    EffectOutcome,
    EffectType,
    RunStatus,
    StepPlan,
    WaitReason,
    WaitState,
    WorkflowSpec,
)
from abstractgateway.security import Redactor
from abstractgateway.stores import open_memory_stores
from abstractgateway.testing import ScriptedModel
from tests.mcp.test_gateway import calling
from tests.service.waiting import wait_for_status
from tests.visualflow.conftest import flow, node

SECRET = 'canary "4711" of the operator/ü'
NAMED = "agw_0123abcd_" + "x" * 43


def asking(run: Any, context: Any) -> StepPlan:
    return StepPlan("ask", effect=Effect(EffectType.LLM_CALL, {"prompt": "?"}, "said"), next_node="end")


def ending(run: Any, context: Any) -> StepPlan:
    return StepPlan("end", complete_output={"said": run.vars.get("said")})


WORKFLOW = WorkflowSpec("asks", "ask", {"ask": asking, "end": ending})


def raising(run: Any, effect: Any) -> EffectOutcome:
    raise ValueError(f"cannot log in with {SECRET} or {NAMED}")


GIVEN = {
    "a text": lambda run, effect: EffectOutcome.completed(f"it is {SECRET}, {NAMED}"),
    "deep inside": lambda run, effect: EffectOutcome.completed({"a": [{"b": (SECRET, 1, None, True)}], SECRET: NAMED}),
    "a failure": lambda run, effect: EffectOutcome.failed(f"refused: {SECRET} {NAMED}", {"body": SECRET}),
    "an exception": raising,
    "a question": lambda run, effect: EffectOutcome.waiting(
        WaitState(
            reason=WaitReason.USER, wait_key="w", resume_to_node="end", prompt=f"{SECRET}?", details={"x": [NAMED]}
        )
    ),
    "no outcome": lambda run, effect: SECRET,
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_an_effect_gives_is_kept_without_secrets(name: str) -> None:
    stores = open_memory_stores()
    runtime = Runtime(stores=stores, effect_handlers={EffectType.LLM_CALL: GIVEN[name]}, secrets=Redactor([SECRET]))

    run_id = runtime.start(workflow=WORKFLOW)
    state = runtime.tick(workflow=WORKFLOW, run_id=run_id)

    kept = json.dumps([state.to_dict(), stores.ledger.list(run_id)], default=str, ensure_ascii=False)
    assert "canary" not in kept and NAMED not in kept
    assert "[redacted]" in kept or name == "no outcome"
    assert state.status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.WAITING)


def test_what_has_no_secret_is_the_very_same_value() -> None:
    value = {"a": [1, "agw_ is no token", {"b": None}], "c": 'canary "4711" of somebody else'}

    assert Redactor([SECRET]).value(value) is not None
    assert Redactor([SECRET]).value({"a": [1]}) == {"a": [1]}
    assert Redactor([SECRET]).value(value) == value


def test_a_secret_that_is_a_number_elsewhere_leaves_the_number() -> None:
    secret = "1234567890123456"

    assert Redactor([secret]).value({"n": int(secret), "t": secret}) == {"n": int(secret), "t": "[redacted]"}


@pytest.mark.parametrize("word", ["ollama", "lm-studio", "not-needed"])
def test_words_that_local_servers_take_for_keys_stay_in_results_and_leave_errors(word: str) -> None:
    redactor = Redactor([word])

    assert redactor.value({"text": f"I am {word}"}) == {"text": f"I am {word}"}
    assert redactor.error(f"wrong key {word}") == "wrong key [redacted]"


def test_what_is_nested_deeper_than_can_be_looked_at_is_taken_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(self: Redactor, value: Any) -> Any:
        raise RecursionError

    monkeypatch.setattr(Redactor, "_without", too_deep)

    assert Redactor([SECRET]).value([SECRET]) == "[redacted]"


@pytest.mark.parametrize(
    ("entry", "secret"),
    [
        ({"url": "https://x.example/mcp", "headers": {"X-Team": "canary-of-a-header"}}, "canary-of-a-header"),
        ({"url": "https://x.example/mcp?api_key=canary-of-a-query"}, "canary-of-a-query"),
        ({"command": "x", "args": ["--token", "canary-of-an-argument"]}, "canary-of-an-argument"),
        ({"command": "x", "args": ["--api-key=canary-of-an-argument"]}, "canary-of-an-argument"),
        ({"command": "x", "env": {"DB_PASS": "canary-of-a-variable"}}, "canary-of-a-variable"),
        ({"command": "x", "env": {"ANY": "${OUTSIDE}"}}, "canary-from-outside"),
        ({"command": "x", "env": {"ANY": "${OUTSIDE_TOKEN}"}}, "/canary/of/outside"),
    ],
)
def test_what_a_server_is_given_in_secret_leaves_results(entry: dict[str, Any], secret: str) -> None:
    environ = {"OUTSIDE": "canary-from-outside", "OUTSIDE_TOKEN": "/canary/of/outside"}
    servers = McpServers.of({"s": entry}, environ)

    assert Redactor.of(GatewayConfig(mcp_servers=servers)).value([secret]) == ["[redacted]"]


@pytest.mark.parametrize(
    "entry",
    [
        {"url": "https://x.example/mcp", "headers": {"Accept": "application/json"}},
        {"command": "x", "args": ["--root", "/srv/project/files"], "env": {"MODE": "production-like"}},
        {"command": "x", "args": ["${ROOT}"], "env": {"GIT_AUTHOR_NAME": "Somebody Somewhere"}},
    ],
)
def test_what_is_no_secret_of_a_server_stays_in_results(entry: dict[str, Any]) -> None:
    servers = McpServers.of({"s": entry}, {"ROOT": "/srv/project/files"})
    text = "application/json /srv/project/files production-like Somebody Somewhere"

    assert Redactor.of(GatewayConfig(mcp_servers=servers)).value(text) == text


def test_passwords_of_urls_are_known_in_every_spelling() -> None:
    config = GatewayConfig(
        database_url="postgresql://u:p%40ss-canary-4711@db/x?sslpassword=canary-of-the-key",
        openai_base_url="http://a:canary-of-url-4711@h",
    )

    cleaned = Redactor.of(config).known("p%40ss-canary-4711 p@ss-canary-4711 canary-of-the-key canary-of-url-4711")

    assert cleaned == " ".join(["[redacted]"] * 4)


def test_a_tool_of_the_program_that_raises_with_a_key_leaves_no_trace(tmp_path: Any) -> None:
    key = "canary-of-a-provider-key"

    def fail() -> None:
        raise RuntimeError(f"401 for {key}")

    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "calls.json").write_text(json.dumps(calling("fail", {})))
    asking_model = flow(
        [
            node("s", "on_flow_start", "", ">"),
            node("m", "llm_call", "> prompt", "> response", defaults={"prompt": "?"}),
            node("e", "on_flow_end", "> response"),
        ],
        ["s > m", "m > e", "m/response -> e/response"],
        "asks",
    )
    (flows / "asks.json").write_text(json.dumps(asking_model))
    config = GatewayConfig(
        data_dir=tmp_path / "data", flows_dir=flows, workflow_source="visualflow", openai_api_key=key, tool_mode="local"
    )
    model = ScriptedModel(lambda call: {"content": f"your key is {key}"})
    with GatewayService.open(config, tools={"fail": fail}, model=model) as gateway:
        run = wait_for_status(gateway, gateway.runs.start(flow_id="calls"), "completed", "failed")
        answered = wait_for_status(gateway, gateway.runs.start(flow_id="asks"), "completed", "failed")
        assert "401 for [redacted]" in json.dumps(run["output"])
        assert answered["output"]["response"] == "your key is [redacted]"

    written = {path.name for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()}
    assert written == set()


@pytest.mark.parametrize("value", [object(), float("nan"), {1: SECRET}, "\ud800 " + SECRET])
def test_what_is_no_json_is_left_to_whoever_stores_it(value: Any) -> None:
    kept = Redactor([SECRET]).value(value)

    assert kept is value or "canary" not in str(kept)
