from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.testing import ScriptedModel
from tests.cli.processes import Client, Process, environment, port_of
from tests.llm.provider import KEY, Provider, Reply, Request, chat, failed, said, tool_call
from tests.service.waiting import wait_for_status

SHARED = Path(__file__).resolve().parents[3] / "shared" / "flows" / "bundles"
needs_bundles = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared bundles are not next to the checkout")

CITIES = {"Paris": "18 degrees"}


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return CITIES[city]


def last(call: dict[str, Any]) -> str:
    return str(call.get("prompt") or call["messages"][-1]["content"])


def talk(call: dict[str, Any]) -> dict[str, Any]:
    """Ask for the weather once, badly at first, then answer with what the tools said."""
    results = [item["content"] for item in call.get("messages", []) if item["role"] == "tool"]
    if not call.get("tools") or len(results) >= 2:
        return {"content": f"answer to {last(call)}"}
    arguments = "{broken" if not results else '{"city": "Paris"}'
    return {"content": None, "tool_calls": [{"name": "weather", "arguments": arguments, "call_id": f"c{len(results)}"}]}


def as_chat(request: Request) -> Reply:
    """The same conversation as a provider of chat completions leads it."""
    answer = talk({**request.body, "tools": request.body.get("tools")})
    calls = [tool_call(call["name"], call["arguments"], call["call_id"]) for call in answer.get("tool_calls", [])]
    return said(chat(answer["content"], tool_calls=calls) if calls else chat(answer["content"]))


def run_bundle(gateway: GatewayService, bundle: str, **input_data: Any) -> dict[str, Any]:
    asked = {"prompt": "the weather?", "provider": "openai", "model": "m", **input_data}
    run_id = gateway.runs.start(bundle_id=bundle, input_data=asked)
    return wait_for_status(gateway, run_id, "completed", "failed")


def settings(directory: Path, **more: Any) -> GatewayConfig:
    return GatewayConfig(data_dir=directory, flows_dir=SHARED, provider="openai", model="m", **more)


def without_ids(value: Any) -> Any:
    """Return an output without what differs between any two runs, and what only a provider can say."""
    varies = ("sub_run_id", "trace", "usage", "gen_time", "model", "provider", "scratchpad")
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in varies}
    return value


@needs_bundles
@pytest.mark.parametrize("bundle", ["basic-agent", "basic", "basic-llm-test"])
def test_a_bundle_ends_with_a_provider_as_with_a_scripted_model(tmp_path: Path, bundle: str) -> None:
    more = {"tools": ["weather"]}
    with GatewayService.open(
        settings(tmp_path / "a"), model=ScriptedModel(talk), tools={"weather": weather}
    ) as gateway:
        expected = run_bundle(gateway, bundle, **more)
    with Provider(script=as_chat) as provider:
        config = settings(tmp_path / "b", openai_base_url=provider.url, openai_api_key=KEY)
        with GatewayService.open(config, tools={"weather": weather}) as gateway:
            run = run_bundle(gateway, bundle, **more)

    assert run["status"] == expected["status"] == "completed"
    assert without_ids(run["output"]) == without_ids(expected["output"])


@needs_bundles
def test_an_agent_calls_tools_and_is_told_of_arguments_that_it_got_wrong(tmp_path: Path) -> None:
    with Provider(script=as_chat) as provider:
        config = settings(tmp_path, openai_base_url=provider.url, openai_api_key=KEY)
        with GatewayService.open(config, tools={"weather": weather}) as gateway:
            run = run_bundle(gateway, "basic-agent", tools=["weather"])

    told = [message for message in provider.bodies[-1]["messages"] if message["role"] == "tool"]
    assert provider.bodies[0]["tools"][0]["function"]["name"] == "weather"
    assert [message["tool_call_id"] for message in told] == ["c0", "c1"]
    assert "not valid JSON" in told[0]["content"]
    assert told[1]["content"] == "18 degrees"
    assert run["output"]["response"] == "answer to 18 degrees"


@needs_bundles
def test_the_provider_is_told_the_key_that_the_ledger_has(tmp_path: Path) -> None:
    with Provider(said(chat("hello"))) as provider:
        config = settings(tmp_path, openai_base_url=provider.url, openai_api_key=KEY)
        with GatewayService.open(config) as gateway:
            run = run_bundle(gateway, "basic-llm-test")
            records = [entry.record for entry in gateway.ledger.follow(run["run_id"])]

    (key,) = {item["idempotency_key"] for item in records if (item["effect"] or {}).get("type") == "llm_call"}
    assert provider.requests[0].headers["idempotency-key"] == key


@needs_bundles
def test_a_run_says_why_its_model_did_not_answer(tmp_path: Path) -> None:
    with Provider(failed(401, "no such key")) as provider:
        config = settings(tmp_path, openai_base_url=provider.url, openai_api_key=KEY)
        with GatewayService.open(config) as gateway:
            run = run_bundle(gateway, "basic-llm-test")

    assert run["status"] == "failed"
    assert "401: no such key" in str(run["error"])


@needs_bundles
def test_without_the_extra_a_run_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("urllib3", "abstractgateway_llm")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with GatewayService.open(settings(tmp_path)) as gateway:
        run = run_bundle(gateway, "basic-llm-test", provider="openai")

    assert "provider 'openai' needs the extra llm: pip install 'abstractgateway[llm]'" in str(run["error"])


def test_a_gateway_loads_no_adapter_before_it_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys; from abstractgateway import GatewayConfig, GatewayService\n"
        "with GatewayService.open(GatewayConfig(data_dir=sys.argv[1], provider='openai', model='m')): pass\n"
        "assert not {'urllib3', 'abstractgateway_llm'} & set(sys.modules)"
    )
    with Process(
        "-c", code, str(tmp_path / "data"), env=environment(tmp_path, "memory", FLOWS_DIR=tmp_path)
    ) as process:
        assert process.wait() == 0, process.output


def serve_with(tmp_path: Path, **variables: str) -> Process:
    env = environment(tmp_path / "data", "file", FLOWS_DIR=SHARED, PROVIDER="openai-compatible", MODEL="local")
    kept = {name: value for name, value in env.items() if not name.endswith(("_BASE_URL", "_API_KEY"))}
    return Process("-m", "abstractgateway", "serve", "--port", "0", env={**kept, **variables})


@needs_bundles
def test_serve_answers_model_calls_with_the_provider_of_the_environment(tmp_path: Path) -> None:
    with (
        Provider(script=as_chat) as provider,
        serve_with(tmp_path, OPENAI_COMPATIBLE_BASE_URL=f"{provider.url}/v1") as process,
    ):
        client = Client(port_of(process))
        run_id = client.start(bundle_id="basic-llm-test", input_data={"prompt": "hi"})
        ledger = [record for _, record in client.follow(run_id)]

    result = next(record["result"] for record in ledger if record["result"] and "usage" in record["result"])
    assert (result["content"], result["provider"], result["model"]) == ("answer to hi", "openai-compatible", "m-2026")
    assert provider.bodies[0]["model"] == "local"


@needs_bundles
def test_serve_says_at_once_what_its_provider_lacks(tmp_path: Path) -> None:
    with serve_with(tmp_path) as process:
        port_of(process)
        process.end()

    said_at_start = "".join(process.output)
    assert "warning: model calls will fail" in said_at_start
    assert "provider 'openai-compatible' has no address; set OPENAI_COMPATIBLE_BASE_URL" in said_at_start
