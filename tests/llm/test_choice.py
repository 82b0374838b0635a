from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from abstractgateway import GatewayConfig, Invalid
from abstractgateway_llm import ModelError, ProviderModel
from tests.llm.conftest import Open
from tests.llm.provider import KEY, Provider, chat, said


@pytest.mark.parametrize(
    ("base", "path"),
    [("", "/v1/chat/completions"), ("/v1/", "/v1/chat/completions"), ("/api/v3", "/api/v3/chat/completions")],
)
@pytest.mark.parametrize("name", ["openai", "openrouter", "ollama", "lmstudio", "vllm", "openai-compatible"])
def test_every_compatible_provider_is_asked_at_its_address(model_of: Open, name: str, base: str, path: str) -> None:
    with Provider(said(chat())) as provider:
        setting = f"{name.replace('-', '_')}_base_url"
        answer = model_of(provider, name, **{setting: provider.url + base}).generate({"prompt": "p"})

    assert provider.requests[0].path == path
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert answer["provider"] == name


@pytest.mark.parametrize("base", ["", "/v1"])
def test_the_address_of_anthropic_may_have_its_version(model_of: Open, base: str) -> None:
    with Provider(said({"content": [], "stop_reason": "end_turn"})) as provider:
        model_of(provider, "anthropic", anthropic_base_url=provider.url + base).generate({"prompt": "p"})

    assert provider.requests[0].path == "/v1/messages"


@pytest.mark.parametrize("name", ["OpenAI_Compatible", "openai-compatible", " OPENAI-COMPATIBLE "])
def test_a_call_names_another_provider_and_model(model_of: Open, name: str) -> None:
    with Provider(said(chat())) as default, Provider(said(chat())) as other:
        model = model_of(default, openai_compatible_base_url=other.url)
        model.generate({"prompt": "p", "provider": name, "model": "special"})

    assert default.requests == []
    assert other.bodies[0]["model"] == "special"
    assert "authorization" not in other.requests[0].headers


def test_the_default_model_is_one_of_the_default_provider(model_of: Open) -> None:
    with Provider(said(chat())) as provider:
        model = model_of(provider)
        with pytest.raises(ModelError, match="no model is named for provider 'vllm'"):
            model.generate({"prompt": "p", "provider": "vllm"})
        model.generate({"prompt": "p", "provider": "OpenAI"})

    assert provider.bodies[0]["model"] == "m"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "set ABSTRACTGATEWAY_PROVIDER and ABSTRACTGATEWAY_MODEL"),
        ({"provider": "openai"}, "no model is named for provider 'openai'"),
        ({"provider": "openai", "model": "m"}, "needs a key; set OPENAI_API_KEY"),
        ({"provider": "anthropic", "model": "m"}, "needs a key; set ANTHROPIC_API_KEY"),
        ({"provider": "openrouter", "model": "m"}, "needs a key; set OPENROUTER_API_KEY"),
        ({"provider": "openai-compatible", "model": "m"}, "has no address; set OPENAI_COMPATIBLE_BASE_URL"),
        ({"provider": "vllm", "model": "m", "vllm_base_url": "gpu:8000"}, "VLLM_BASE_URL is no address"),
        ({"provider": "mlx", "model": "m"}, "'mlx' is not known here; known: openai, anthropic, .*abstractcore"),
    ],
)
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], why: str) -> None:
    monkeypatch.setitem(sys.modules, "abstractcore", None)
    with pytest.raises(ModelError, match=why):
        ProviderModel(GatewayConfig(**settings)).generate({"prompt": "p"})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, None),
        ({"provider": "ollama", "model": "m"}, None),
        ({"provider": "ollama"}, None),
        ({"provider": "openai", "model": "m"}, "needs a key"),
        ({"provider": "mlx", "model": "m"}, "is not known here"),
    ],
)
def test_a_problem_with_the_settings_is_seen_before_any_call(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], problem: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "abstractcore", None)

    found = ProviderModel(GatewayConfig(**settings)).problem()

    assert found is None if problem is None else problem in str(found)


def test_the_environment_gives_addresses_and_keys() -> None:
    config = GatewayConfig.from_env(
        {
            "ABSTRACTGATEWAY_PROVIDER": "openai-compatible",
            "ABSTRACTFLOW_MODEL": "m",
            "OPENAI_COMPATIBLE_BASE_URL": "http://gpu:9000/v1/",
            "OPENAI_COMPATIBLE_API_KEY": "k",
            "OPENAI_BASE_URL": "https://proxy.example/openai",
            "LMSTUDIO_BASE_URL": " ",
        }
    )

    assert (config.provider, config.model) == ("openai-compatible", "m")
    assert (config.openai_compatible_base_url, config.openai_compatible_api_key) == ("http://gpu:9000/v1", "k")
    assert config.openai_base_url == "https://proxy.example/openai"
    assert config.lmstudio_base_url == "http://127.0.0.1:1234/v1"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("gpu", "http://gpu:11434"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("https://ollama.example/v1/", "https://ollama.example/v1"),
    ],
)
def test_the_variable_of_ollama_may_be_what_its_server_listens_on(text: str, url: str) -> None:
    assert GatewayConfig.from_env({"OLLAMA_HOST": text}).ollama_base_url == url


@pytest.mark.parametrize("text", ["localhost:8000", "ftp://host", "http://", "http://host:99999", "http://[::1"])
def test_an_address_that_is_none_is_refused_by_its_variable(text: str) -> None:
    with pytest.raises(Invalid, match="VLLM_BASE_URL"):
        GatewayConfig.from_env({"VLLM_BASE_URL": text})


@dataclass
class CoreAnswer:
    content: str = "from the core"
    tool_calls: Any = None
    usage: Any = field(default_factory=lambda: {"input_tokens": 1})
    model: str = "core-model"
    finish_reason: str = "stop"
    gen_time: float | None = None
    metadata: Any = field(default_factory=lambda: {"reasoning": "hm"})


class Core:
    """AbstractCore, as far as it is used."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.asked: list[dict[str, Any]] = []

    def create_llm(self, provider: str, *, model: str) -> Core:
        self.made.append((provider, model))
        return self

    def generate(self, **call: Any) -> CoreAnswer:
        self.asked.append(call)
        return CoreAnswer()


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    found = Core()
    module = ModuleType("abstractcore")
    module.create_llm = found.create_llm  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "abstractcore", module)
    return found


def test_other_providers_are_those_of_abstractcore(core: Core) -> None:
    model = ProviderModel(GatewayConfig(provider="mlx", model="m"))
    call = {"prompt": "p", "system_prompt": "s", "params": {"temperature": 0.1, "colour": "red"}}

    answer = model.generate({**call, "tools": [{"name": "add"}], "max_output_tokens": 9})
    model.generate({"prompt": "q", "response_schema": {"type": "object"}})

    first, second = core.asked
    assert core.made == [("mlx", "m")]
    assert first["messages"] == [{"role": "user", "content": "p"}]
    assert (first["system_prompt"], first["temperature"], first["max_output_tokens"]) == ("s", 0.1, 9)
    assert first["tools"][0]["name"] == "add"
    assert "JSON schema" in second["system_prompt"]
    assert (answer["content"], answer["reasoning"], answer["provider"]) == ("from the core", "hm", "mlx")
    assert answer["metadata"] == {"unused_params": ["colour"]}
    assert model.problem() is None


def test_abstractcore_is_not_asked_about_providers_that_are_known(core: Core, model_of: Open) -> None:
    with Provider(said(chat())) as provider:
        model_of(provider, "ollama").generate({"prompt": "p"})

    assert core.made == []


def test_attachments_are_not_lost_on_the_way_to_abstractcore(core: Core) -> None:
    model = ProviderModel(GatewayConfig(provider="mlx", model="m"))

    with pytest.raises(ModelError, match="attachments"):
        model.generate({"prompt": "p", "media": [{"url": "https://example.org/a.png"}]})

    assert core.asked == []


def test_an_answer_that_no_ledger_can_keep_is_a_failure(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CoreAnswer, "__init__", lambda self: self.__dict__.update({"content": object()}))

    with pytest.raises(ModelError, match="cannot be stored"):
        ProviderModel(GatewayConfig(provider="mlx", model="m")).generate({"prompt": "p"})


@pytest.mark.parametrize(
    "asked",
    [{"output": "image"}, {"outputs": ["text", "audio"]}, {"params": {"output": {"modality": "image", "size": "1x1"}}}],
)
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_output_other_than_text_is_refused(model_of: Open, name: str, asked: dict[str, Any]) -> None:
    with Provider() as provider, pytest.raises(ModelError, match="models are asked for text only"):
        model_of(provider, name).generate({"prompt": "p", **asked})

    assert provider.requests == []


def test_output_may_be_said_to_be_text(model_of: Open) -> None:
    with Provider(said(chat())) as provider:
        answer = model_of(provider).generate({"prompt": "p", "output": {"type": "text"}, "params": {"output": "text"}})

    assert answer["metadata"] == {}
