from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.service.contracts import Facts, contracts
from abstractgateway_http.route import API
from abstractgateway_http.route_tree import RouteTree
from abstractgateway_http.routes import ROUTES
from tests.http.conftest import LiveGateway, echo_flow, packed
from tests.llm.provider import Provider, Reply, failed, said

Json = dict[str, Any]
FACTS = Facts(
    has_bundles=True,
    has_speech=True,
    has_transcripts=True,
    has_images=True,
    voices=("alloy",),
    knowledge={"backend": "sqlite", "path": "kg.sqlite3"},
    max_attachment_bytes=1000,
    max_image_bytes=2000,
)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(inner)


def objects(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(inner)


def test_every_endpoint_of_the_contracts_is_a_route() -> None:
    endpoints = {text for text in texts(contracts(FACTS)) if text.startswith("/")}

    assert endpoints - {route.path for route in ROUTES} == set()
    assert len(endpoints) > 50
    assert all(path.startswith(API) for path in endpoints)


def test_the_verbs_of_the_contracts_are_those_of_the_routes() -> None:
    table = RouteTree(ROUTES)
    tree = contracts(FACTS)
    runs, cache = tree["common"]["runs"], tree["common"]["prompt_cache"]
    posts = [runs["start"]["endpoint"], runs["schedule"]["endpoint"], runs["commands"]["endpoint"]]
    posts += [tree["assistant"]["voice"][name]["endpoint"] for name in ("tts", "stt")]
    posts += [path for name, path in cache["endpoints"].items() if name not in ("capabilities", "stats")]
    gets = [runs[name]["endpoint"] for name in ("summary", "list", "input_data", "history_bundle")]
    gets += [*tree["common"]["discovery"].values(), cache["session_endpoints"]["status"]]

    for method, paths in (("POST", posts), ("GET", gets)):
        for path in paths:
            route, _ = table.find(method, re.sub(r"\{\w+\}", "x", path))
            assert route.method == method


def test_the_readiness_gate_of_the_editor_is_passed(live: LiveGateway) -> None:
    tree = live.ask("GET", "/discovery/capabilities").json["capabilities"]["contracts"]
    editor, common = tree["flow_editor"], tree["common"]

    assert tree["version"] >= 1
    assert editor["available"] is True
    assert editor["visualflows"]["crud"]["available"] is True
    assert editor["visualflows"]["crud"]["collection_endpoint"] == "/api/gateway/visualflows"
    assert editor["visualflows"]["publish"]["available"] is True
    assert editor["run_input_schema"]["available"] is True
    needed = ("start", "summary", "list", "input_data", "history_bundle", "commands")
    assert all(common["runs"][name]["available"] and common["runs"][name]["endpoint"] for name in needed)
    assert common["ledger"]["stream"]["transport"] == "sse"
    assert all(common["artifacts"][name]["available"] for name in ("list", "metadata", "content"))
    assert common["runs"]["commands"]["types"] == [
        "pause",
        "resume",
        "cancel",
        "emit_event",
        "update_schedule",
        "compact_memory",
    ]


def test_what_is_not_configured_is_not_available(live: LiveGateway) -> None:
    told = live.ask("GET", "/discovery/capabilities").json["capabilities"]
    assistant = told["contracts"]["assistant"]

    assert assistant["voice"]["tts"]["available"] is False
    assert "ABSTRACTGATEWAY_SPEECH_PROVIDER" in assistant["voice"]["tts"]["config_hint"]
    assert assistant["voice"]["stt"]["available"] is False
    assert assistant["media"]["generated_image"]["direct_endpoint"]["available"] is False
    assert assistant["media"]["generated_image"]["workflow"]["available"] is False
    assert told["multimodal"] == {
        "installed": False,
        "capabilities": {"voice": False, "audio": False, "vision": False, "music": False},
    }
    assert told["contracts"]["common"]["memory"]["available"] is True
    assert told["contracts"]["common"]["memory"]["persistent"] is False
    assert told["abstractvoice"]["installed"] is False


def test_what_is_configured_is_available_and_named(go_live: Callable[..., LiveGateway]) -> None:
    live = go_live(
        speech_provider="openai",
        speech_model="tts",
        speech_voices=("amy", "bob"),
        image_provider="openai",
        image_model="i",
    )
    told = live.ask("GET", "/discovery/capabilities").json["capabilities"]
    speech = told["contracts"]["assistant"]["voice"]["tts"]

    assert (speech["available"], speech["voices"], speech["formats"]) == (True, ["amy", "bob"], ["wav", "mp3"])
    assert told["multimodal"]["capabilities"] == {"voice": True, "audio": False, "vision": True, "music": False}
    voices = live.ask("GET", "/voice/voices").json
    assert (voices["available"], [voice["id"] for voice in voices["voices"]]) == (True, ["amy", "bob"])
    assert live.ask("GET", "/audio/speech/models").json["models"] == [
        {"id": "tts", "name": "tts", "provider": "openai"}
    ]
    assert live.ask("GET", "/vision/provider_models").json["models"] == [{"id": "i", "name": "i", "provider": "openai"}]
    other = live.ask("GET", "/vision/provider_models?task=text_to_video").json
    assert (other["available"], other["models"]) == (False, [])


def test_the_program_that_keeps_the_statements_is_told_of(go_live: Callable[..., LiveGateway]) -> None:
    class Graph:
        def assert_statements(self, **given: Any) -> Json:
            raise AssertionError

        query = resolve = assert_statements

    live = go_live({"knowledge": Graph()})

    memory = live.ask("GET", "/discovery/capabilities").json["capabilities"]["contracts"]["common"]["memory"]
    assert (memory["available"], memory["backend"]) == (False, None)


def test_where_single_flows_are_served_no_bundle_is_promised(go_live: Callable[..., LiveGateway]) -> None:
    live = go_live(workflow_source="visualflow")

    editor = live.ask("GET", "/discovery/capabilities").json["capabilities"]["contracts"]["flow_editor"]
    assert editor["bundles"]["upload"]["available"] is False
    assert editor["visualflows"]["publish"]["available"] is False
    assert live.ask("GET", "/discovery/providers").status == 200


@pytest.mark.parametrize("path", ["/vision/provider_models?task=sing", "/vision/provider_models?task="])
def test_an_unknown_task_is_refused(live: LiveGateway, path: str) -> None:
    answer = live.ask("GET", path)

    assert (answer.status, answer.json["code"]) == (400, "invalid")


def test_tools_are_listed_as_they_are_offered(go_live: Callable[..., LiveGateway]) -> None:
    def weather(city: str) -> str:
        """Tell the weather of a city."""
        return city

    live = go_live({"tools": {"weather": weather}}, tool_mode="passthrough", tools=("read_file",))

    answer = live.ask("GET", "/discovery/tools").json
    items = {item["name"]: item for item in answer["items"]}
    assert answer["tool_mode"] == "passthrough"
    assert list(items) == ["read_file", "weather"]
    assert items["weather"]["description"] == "Tell the weather of a city."
    assert (items["weather"]["required_args"], items["weather"]["toolset"]) == (["city"], "program")
    assert items["read_file"]["required_args"] == ["file_path"]
    assert {"when_to_use", "parameters", "examples", "toolset"} <= items["read_file"].keys()


def models(*names: str) -> Reply:
    return said({"object": "list", "data": [{"id": name} for name in names]})


def at(provider: Provider, name: str = "lmstudio", **settings: Any) -> Json:
    unused = "http://127.0.0.1:1"
    elsewhere = {f"{other}_base_url": unused for other in ("openai", "anthropic", "openrouter", "ollama", "vllm")}
    keys = {f"{other}_api_key": "key-" + "x" * 20 for other in ("openai", "anthropic", "openrouter")}
    return {**elsewhere, **keys, f"{name}_base_url": f"{provider.url}/v1", **settings}


def test_a_provider_is_asked_for_its_models_once_a_minute(go_live: Callable[..., LiveGateway]) -> None:
    with Provider(models("b", "a", "b")) as provider:
        live = go_live(**at(provider))
        answers = [live.ask("GET", "/discovery/providers/lmstudio/models").json for _ in range(3)]
        named = live.ask("GET", "/discovery/providers/LM-Studio/models").json

    assert answers == [{"provider": "lmstudio", "models": ["a", "b"]}] * 3
    assert named["models"] == ["a", "b"]
    assert [(request.method, request.path) for request in provider.requests] == [("GET", "/v1/models")]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (failed(401, "wrong key key-xxxxxxxxxxxxxxxxxxxx"), "401: wrong key [key]"),
        (Reply([b"<html>"]), "the answer cannot be read"),
        (said([1]), "not an object"),
        (Reply([b"x" * 1_000_000] * 5), "more than 4000000 bytes"),
        (None, "the connection broke"),
        (Reply([], 302, {"Location": "http://169.254.169.254/"}), "302: no reason given"),
    ],
)
def test_a_provider_that_does_not_answer_well_is_told_of(
    go_live: Callable[..., LiveGateway], reply: Reply | None, why: str
) -> None:
    with Provider(reply) as provider:
        live = go_live(**at(provider, "openai"))
        answer = live.ask("GET", "/discovery/providers/openai/models")

    assert (answer.status, answer.json["models"]) == (200, [])
    assert why in answer.json["error"]
    assert "xxxxxxxx" not in answer.json["error"]


def test_a_provider_nobody_knows_and_one_nobody_answers_for(go_live: Callable[..., LiveGateway]) -> None:
    with Provider(models()) as provider:
        live = go_live(**at(provider))
        unknown = live.ask("GET", "/discovery/providers/nope/models")
        silent = live.ask("GET", "/discovery/providers/vllm/models")
        nowhere = live.ask("GET", "/discovery/providers/openai-compatible/models")

    assert (unknown.status, unknown.json["models"]) == (200, [])
    assert "provider 'nope' is not known here; known: openai, anthropic" in unknown.json["error"]
    assert "no connection" in silent.json["error"]
    assert "set OPENAI_COMPATIBLE_BASE_URL" in nowhere.json["error"]


def test_providers_are_listed_with_what_is_known_of_them(go_live: Callable[..., LiveGateway]) -> None:
    with Provider(models("one", "two")) as provider:
        live = go_live(**at(provider), provider="lmstudio", model="one")
        plain = live.ask("GET", "/discovery/providers").json
        asked_before = len(provider.requests)
        full = live.ask("GET", "/discovery/providers?include_models=true").json

    rows = {item["name"]: item for item in full["items"]}
    assert [item["name"] for item in plain["items"]] == sorted(rows)
    assert asked_before == 0
    assert {item["model_count"] for item in plain["items"]} == {None}
    assert (plain["default_provider"], plain["default_model"], plain["default_source"]) == (
        "lmstudio",
        "one",
        "gateway_env",
    )
    assert (rows["lmstudio"]["status"], rows["lmstudio"]["model_count"]) == ("available", 2)
    assert rows["lmstudio"]["models"] == ["one", "two"]
    assert (rows["vllm"]["status"], rows["vllm"]["model_count"]) == ("unreachable", None)
    assert rows["openai-compatible"]["status"] == "not_configured"
    assert (rows["ollama"]["local_provider"], rows["openai"]["authentication_required"]) == (True, True)


def test_without_a_default_model_the_reason_is_given(live: LiveGateway) -> None:
    answer = live.ask("GET", "/discovery/providers").json

    assert (answer["default_provider"], answer["default_model"]) == (None, None)
    assert "ABSTRACTGATEWAY_PROVIDER" in answer["default_error"]


def test_the_default_may_come_from_a_flow(go_live: Callable[..., LiveGateway]) -> None:
    flow = echo_flow()
    flow["nodes"][0]["data"]["pinDefaults"] = {"provider": "ollama", "model": "m"}
    live = go_live()
    live.upload(packed(flow=flow))

    answer = live.ask("GET", "/discovery/providers").json
    assert (answer["default_provider"], answer["default_model"], answer["default_source"]) == (
        "ollama",
        "m",
        "flow_defaults",
    )


def test_the_model_of_a_program_has_no_catalogue(go_live: Callable[..., LiveGateway]) -> None:
    class Own:
        def generate(self, call: Json) -> Json:
            raise AssertionError

    live = go_live({"model": Own()})

    assert live.ask("GET", "/discovery/providers").json["items"] == []
    assert "own" in live.ask("GET", "/discovery/providers/openai/models").json["error"]


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("gpt-4o-mini", 128_000),
        ("openai/gpt-4.1-nano", 1_047_576),
        ("Qwen3:4b", 32_768),
        ("claude-3-5-sonnet", 200_000),
    ],
)
def test_well_known_models_are_described(live: LiveGateway, name: str, most: int) -> None:
    answer = live.ask("GET", f"/discovery/models/capabilities?model_name={name}").json

    assert answer["model"] == name
    assert (answer["capabilities"]["known"], answer["capabilities"]["max_tokens"]) == (True, most)


def test_of_an_unknown_model_nothing_is_made_up(live: LiveGateway) -> None:
    told = live.ask("GET", "/discovery/models/capabilities?model_name=mine").json["capabilities"]

    assert told.pop("known") is False
    assert set(told.values()) == {None}


@pytest.mark.parametrize("path", ["/discovery/models/capabilities", "/discovery/providers?include_models=perhaps"])
def test_missing_and_wrong_inputs_are_refused(live: LiveGateway, path: str) -> None:
    answer = live.ask("GET", path)

    assert (answer.status, answer.json["code"]) == (422, "validation_failed")


SMI = """#!/bin/sh
echo run >> "$0.log"
{body}
"""


def smi(directory: Path, body: str) -> Path:
    program = directory / "nvidia-smi"
    program.write_text(SMI.format(body=body))
    program.chmod(0o755)
    return program


def test_a_machine_without_graphics_processors_says_so(go_live: Callable[..., LiveGateway], tmp_path: Path) -> None:
    live = go_live(command_path=str(tmp_path))

    answer = live.ask("GET", "/host/metrics/gpu")
    assert (answer.status, answer.json["supported"]) == (200, False)
    assert answer.json["reason"] == "nvidia-smi is not installed"


def test_graphics_processors_are_asked_once_for_many_requests(
    go_live: Callable[..., LiveGateway], tmp_path: Path
) -> None:
    rows = "0, Big GPU, 30, 100, 24000, 50\n1, Big GPU, 50, 200, 24000, [N/A]"
    program = smi(tmp_path, f"printf '{rows}\\n'")
    live = go_live(command_path=str(tmp_path))

    first, again = (live.ask("GET", "/host/metrics/gpu").json for _ in range(2))

    assert (first["supported"], first["source"], first["utilization_gpu_pct"]) == (True, "nvidia-smi", 40.0)
    assert first["gpus"][1] == {
        "index": 1,
        "name": "Big GPU",
        "utilization_gpu_pct": 50.0,
        "memory_used_mb": 200.0,
        "memory_total_mb": 24000.0,
        "temperature_c": None,
    }
    assert again == first
    assert Path(f"{program}.log").read_text() == "run\n"


@pytest.mark.parametrize("body", ["exit 9", "echo nonsense", "printf '\\377'"])
def test_a_program_that_tells_nothing_is_no_support(
    go_live: Callable[..., LiveGateway], tmp_path: Path, body: str
) -> None:
    smi(tmp_path, body)
    live = go_live(command_path=str(tmp_path))

    assert live.ask("GET", "/host/metrics/gpu").json["supported"] is False


@pytest.mark.parametrize("path", ["/voice/voices", "/audio/speech/models", "/vision/provider_models"])
def test_no_server_is_asked_that_a_client_names(live: LiveGateway, path: str) -> None:
    with Provider(models("x")) as provider:
        answer = live.ask("GET", f"{path}?base_url={provider.url}")

    assert (answer.status, answer.json["code"]) == (400, "invalid")
    assert provider.requests == []
    assert live.ask("GET", f"{path}?base_url=").status == 200
