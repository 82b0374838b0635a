from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from abstractgateway.testing import ScriptedModel
from tests.http.conftest import LiveGateway, packed
from tests.llm.provider import KEY, Provider, chat, said

Json = dict[str, Any]
OPENAI = {"provider": "OpenAI", "model": "gpt-x"}
OLLAMA = {"provider": "ollama", "model": "m"}
CONTROLS = ["set", "update", "fork", "clear", "prepare_modules", "save", "load"]


def query(fields: Json) -> str:
    return "&".join(f"{name}={value}" for name, value in fields.items())


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("model", [OPENAI, OLLAMA])
def test_a_cache_that_cannot_be_controlled_is_said_to_be_none(live: LiveGateway, name: str, model: Json) -> None:
    answer = live.ask("POST", f"/prompt_cache/{name}", body={**model, "key": "k", "modules": []})

    assert answer.status == 200
    assert answer.json == {
        "supported": False,
        "operation": name,
        **model,
        "key": "k",
        "code": "prompt_cache_unavailable",
        "error": answer.json["error"],
        "capabilities": {"supported": False, "mode": "none"},
    }


def test_statistics_and_saved_caches_are_none(live: LiveGateway) -> None:
    stats = live.ask("GET", f"/prompt_cache/stats?{query(OPENAI)}").json
    saved = live.ask("GET", f"/prompt_cache/saved?{query(OPENAI)}").json

    assert (stats["supported"], stats["operation"], stats["code"]) == (False, "stats", "prompt_cache_unavailable")
    assert (saved["items"], saved["supported"]) == ([], False)


def test_who_takes_a_key_is_said(live: LiveGateway) -> None:
    keyed = live.ask("GET", f"/prompt_cache/capabilities?{query(OPENAI)}").json
    none = live.ask("GET", f"/prompt_cache/capabilities?{query(OLLAMA)}").json

    assert (keyed["supported"], keyed["capabilities"]) == (True, {"supported": True, "mode": "keyed"})
    assert (none["supported"], none["capabilities"]) == (False, {"supported": False, "mode": "none"})
    assert none["code"] == "prompt_cache_unavailable"


def test_a_session_has_a_key_that_stays_the_same(live: LiveGateway) -> None:
    fields = {**OPENAI, "bundle_id": "ask", "flow_id": "root"}

    status = live.ask("GET", f"/sessions/S%201/prompt_cache/status?{query(fields)}").json
    prepared = live.ask("POST", "/sessions/S%201/prompt_cache/prepare", body=fields).json

    pattern = r"agw\.pc\.v1\.s-S-1\.b-ask\.v-latest\.f-root\.t-template\.p-openai\.m-gpt-x\.h-[0-9a-f]{16}"
    assert re.fullmatch(pattern, status["namespace"])
    assert status["prompt_cache_key"] == f"{status['namespace']}:session"
    assert (status["supported"], status["mode"], status["ok"], status["operation"]) == (True, "keyed", True, "status")
    assert prepared == {**status, "operation": "prepare"}
    assert status["identity"] == {
        "session_id": "S 1",
        "bundle_id": "ask",
        "bundle_version": None,
        "flow_id": "root",
        "template_id": None,
        "provider": "openai",
        "model": "gpt-x",
        "version": 1,
    }
    hint = status["runtime_hint"]
    assert hint["prompt_cache_key"] == status["prompt_cache_key"]
    cache = hint["_runtime"]["prompt_cache"]
    assert (cache["key"], cache["namespace"]) == (status["prompt_cache_key"], status["namespace"])
    assert (cache["mode"], cache["version"]) == ("keyed", 1)


def test_what_differs_has_another_key_and_long_names_stay_short(live: LiveGateway) -> None:
    def namespace(session: str = "s", **fields: Any) -> str:
        found: str = live.ask("GET", f"/sessions/{session}/prompt_cache/status?{query({**OPENAI, **fields})}").json[
            "namespace"
        ]
        return found

    plain = namespace()
    others = [
        namespace("t"),
        namespace(model="y"),
        namespace(version=2),
        namespace(bundle_version="1"),
        namespace("s."),
    ]

    assert len({plain, *others}) == 6
    assert namespace(version=2).startswith("agw.pc.v2.")
    assert len(namespace("s" * 500, bundle_id="b" * 500)) < 400
    assert ".b-" + "b" * 36 + ".v-" in namespace(bundle_id="b" * 500)


def test_what_is_blank_has_a_name_too(live: LiveGateway) -> None:
    body = {"provider": " ", "model": "", "bundle_id": ""}

    answer = live.ask("POST", "/sessions/%20/prompt_cache/prepare", body=body).json

    assert answer["namespace"].startswith("agw.pc.v1.s-x.b-bundle.v-latest.f-flow.t-template.p-provider.m-model.h-")
    assert answer["supported"] is False


@pytest.mark.parametrize("name", ["clear", "rebuild"])
def test_a_cache_that_the_provider_keeps_cannot_be_emptied(live: LiveGateway, name: str) -> None:
    answer = live.ask("POST", f"/sessions/s/prompt_cache/{name}", body=OPENAI).json

    assert (answer["ok"], answer["supported"], answer["mode"]) == (False, False, "keyed")
    assert (answer["code"], answer["operation"]) == ("prompt_cache_unavailable", name)
    assert "version" in answer["error"]


def test_without_a_key_a_session_has_a_name_and_no_support(live: LiveGateway) -> None:
    answer = live.ask("POST", "/sessions/s/prompt_cache/prepare", body=OLLAMA).json

    assert (answer["supported"], answer["mode"], answer["runtime_hint"]) == (False, "unsupported", {})
    assert answer["namespace"].startswith("agw.pc.v1.s-s.")


def test_what_has_no_effect_is_named(live: LiveGateway) -> None:
    body = {**OPENAI, "modules": [{"id": "m"}], "system_prompt": "Be kind.", "ttl_s": 60, "make_default": True}

    answer = live.ask("POST", "/sessions/s/prompt_cache/prepare", body=body).json

    assert answer["unused"] == ["make_default", "modules", "system_prompt", "ttl_s"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/prompt_cache/stats?model=m", None),
        ("GET", "/prompt_cache/saved?provider=openai", None),
        ("GET", "/sessions/s/prompt_cache/status?provider=openai", None),
        ("GET", "/sessions/s/prompt_cache/status?provider=a&model=b&version=11", None),
        ("POST", "/prompt_cache/set", {"provider": "openai"}),
        ("POST", "/prompt_cache/set", {**OPENAI, "key": 5}),
        ("POST", "/sessions/s/prompt_cache/prepare", {"model": "m"}),
        ("POST", "/sessions/s/prompt_cache/clear", {**OPENAI, "version": 0}),
        ("POST", "/sessions/s/prompt_cache/rebuild", {**OPENAI, "make_default": "perhaps"}),
    ],
)
def test_missing_and_wrong_inputs_are_refused(live: LiveGateway, method: str, path: str, body: Json | None) -> None:
    answer = live.ask(method, path, body=body)

    assert (answer.status, answer.json["code"]) == (422, "validation_failed")


def test_the_key_of_a_session_reaches_the_calls_of_its_runs(go_live: Callable[..., LiveGateway]) -> None:
    model = ScriptedModel(lambda call: "hi")
    live = go_live({"model": model})
    live.upload(packed(flow=asking_flow()))
    hint = live.ask("GET", f"/sessions/s/prompt_cache/status?{query(OPENAI)}").json["runtime_hint"]

    run_id = live.start(bundle_id="echo", session_id="s", input_data={"_runtime": hint["_runtime"]})
    live.finish(run_id)

    assert [call["params"]["prompt_cache_key"] for call in model.calls] == [hint["prompt_cache_key"]]


def test_a_key_that_is_too_long_for_a_provider_is_sent_as_its_hash(go_live: Callable[..., LiveGateway]) -> None:
    with Provider(said(chat("hi"))) as provider:
        live = go_live(provider="openai", model="m", openai_base_url=provider.url, openai_api_key=KEY, llm_stream=False)
        live.upload(packed(flow=asking_flow()))
        hint = live.ask("GET", f"/sessions/s/prompt_cache/status?{query(OPENAI)}").json["runtime_hint"]
        for _ in range(2):
            live.finish(live.start(bundle_id="echo", session_id="s", input_data={"_runtime": hint["_runtime"]}))

    sent = hashlib.sha256(hint["prompt_cache_key"].encode()).hexdigest()
    assert [body["prompt_cache_key"] for body in provider.bodies] == [sent, sent]


def asking_flow() -> Json:
    nodes = [
        {"id": "s", "type": "on_flow_start", "data": {"outputs": [{"id": "exec-out", "type": "execution"}]}},
        {"id": "l", "type": "llm_call", "data": {"pinDefaults": {"prompt": "hello"}}},
        {"id": "e", "type": "on_flow_end", "data": {"inputs": []}},
    ]
    edges = [
        {"id": "1", "source": "s", "sourceHandle": "exec-out", "target": "l", "targetHandle": "exec-in"},
        {"id": "2", "source": "l", "sourceHandle": "exec-out", "target": "e", "targetHandle": "exec-in"},
    ]
    return {"id": "root", "name": "root", "nodes": nodes, "edges": edges}


def test_a_token_of_one_session_is_told_of_that_session_only(go_live: Callable[..., LiveGateway]) -> None:
    live = go_live(store_backend="file")
    _, text = live.service.access.tokens.create("visitor", ["read"], session_id="s1")
    bearer = f"Authorization: Bearer {text}"

    own = live.ask("GET", f"/sessions/s1/prompt_cache/status?{query(OPENAI)}", bearer)
    foreign = live.ask("GET", f"/sessions/s2/prompt_cache/status?{query(OPENAI)}", bearer)
    changed = live.ask("POST", "/sessions/s2/prompt_cache/prepare", bearer, body=OPENAI)

    assert own.status == 200
    assert [(answer.status, answer.json["code"]) for answer in (foreign, changed)] == [(403, "session_not_allowed")] * 2
