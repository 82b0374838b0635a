from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway_llm import ModelError, ProviderModel
from tests.llm.conftest import Open
from tests.llm.provider import KEY, Provider, Reply, chat, chat_chunks, failed, message, said, streamed, text
from tests.service.waiting import wait_for_status

SAMPLES = Path(__file__).resolve().parents[2] / "docs" / "samples"
ECHO = f"Incorrect API key provided: {KEY}. Header was 'Authorization: Bearer {KEY}'"


def everything_about(error: BaseException) -> str:
    """Return what any logging of an error could show, the local variables of this code's frames apart."""
    seen: list[str] = []
    while error is not None:
        seen += [str(error), repr(error), repr(error.__dict__), repr(error.args)]
        seen += traceback.format_exception(type(error), error, error.__traceback__)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return "\n".join(seen)


@pytest.mark.parametrize("name", ["openai", "anthropic", "openai-compatible"])
@pytest.mark.parametrize(
    "reply",
    [
        *(failed(status, ECHO) for status in (400, 401, 403, 404, 422, 429, 500, 503)),
        Reply([ECHO.encode()], 401),
        Reply([f'{{"detail": ["{KEY}"]}}'.encode()], 401),
        Reply([], 307, {"Location": f"http://{KEY}/v1"}),
        Reply([ECHO.encode()]),
        Reply([f'{{"choices": [{KEY}'.encode()]),
        Reply([KEY.encode()], is_cut=True),
        streamed([{"type": "error", "error": {"type": KEY, "message": ECHO}}]),
        Reply([f"data: {ECHO}\n\n".encode()], headers={"Content-Type": "text/event-stream"}),
        None,
    ],
)
def test_no_failure_shows_the_key(
    model_of: Open, caplog: pytest.LogCaptureFixture, name: str, reply: Reply | None
) -> None:
    caplog.set_level(logging.DEBUG)
    with Provider(reply) as provider:
        model = model_of(provider, name)
        with pytest.raises(ModelError) as caught:
            model.generate({"prompt": "p"}, on_delta=lambda delta: None)

    assert KEY in str(provider.requests[0].headers)
    assert KEY not in everything_about(caught.value)
    assert KEY not in caplog.text
    assert KEY not in repr(model)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_answer_that_says_the_key_is_shown_without_it(model_of: Open, is_streamed: bool) -> None:
    deltas: list[Any] = []
    content = f"your key is {KEY}"
    reply = streamed(chat_chunks(content)) if is_streamed else said(chat(content))
    with Provider(reply) as provider:
        answer = model_of(provider).generate({"prompt": "p"}, on_delta=deltas.append if is_streamed else None)

    assert answer["content"] == "your key is [key]"
    assert KEY not in repr((answer, deltas))


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_a_key_that_comes_in_pieces_is_hidden_in_them_and_in_the_answer(model_of: Open, size: int) -> None:
    said_by_it = f"keys: {KEY}, s{KEY}{KEY}, {KEY[:-1]} and sk-"
    parts = [said_by_it[at : at + size] for at in range(0, len(said_by_it), size)]
    deltas: list[Any] = []
    with Provider(streamed(chat_chunks(*parts))) as provider:
        answer = model_of(provider).generate({"prompt": "p"}, on_delta=deltas.append)

    assert answer["content"] == f"keys: [key], s[key][key], {KEY[:-1]} and sk-"
    assert "".join(delta["content"] for delta in deltas) == answer["content"]


@pytest.mark.parametrize("key", ["sk with blanks", "sk-line\nbreak", "sk-é"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key: str) -> None:
    model = ProviderModel(GatewayConfig(provider="openai", model="m", openai_api_key=key))

    with pytest.raises(ModelError, match="the key of provider 'openai' has characters") as caught:
        model.generate({"prompt": "p"})

    assert "sk" not in str(caught.value)


def test_an_address_with_a_password_is_refused_without_being_shown() -> None:
    model = ProviderModel(GatewayConfig(provider="vllm", model="m", vllm_base_url="http://me:secret@127.0.0.1/v1"))

    with pytest.raises(ModelError, match="VLLM_BASE_URL has a user name in it") as caught:
        model.generate({"prompt": "p"})

    assert "secret" not in str(caught.value)


def test_settings_do_not_show_keys() -> None:
    config = GatewayConfig.from_env({"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "VLLM_API_KEY": KEY})

    assert config.openai_api_key == KEY
    assert KEY not in repr(config)


@pytest.fixture
def gateway_with(tmp_path: Path) -> Iterator[Any]:
    opened: list[GatewayService] = []

    def open_one(provider: Provider) -> GatewayService:
        config = GatewayConfig(
            data_dir=tmp_path / "data",
            flows_dir=SHARED if SHARED.is_dir() else SAMPLES,
            provider="openai",
            model="m",
            openai_base_url=provider.url,
            openai_api_key=KEY,
            llm_retries=0,
        )
        opened.append(GatewayService.open(config))
        return opened[-1]

    yield open_one
    for gateway in opened:
        gateway.close()


SHARED = Path(__file__).resolve().parents[3] / "shared" / "flows" / "bundles"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared bundles are not next to the checkout")
@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (said(chat(f"your key is {KEY}")), "completed"),
        (failed(401, ECHO), "failed"),
        (failed(503, ECHO), "failed"),
        (Reply([ECHO.encode()]), "failed"),
        (None, "failed"),
    ],
)
def test_nothing_that_is_stored_or_logged_has_the_key(
    gateway_with: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, reply: Reply | None, status: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with Provider(reply) as provider:
        gateway = gateway_with(provider)
        run_id = gateway.runs.start(
            bundle_id="basic-llm-test", input_data={"prompt": "hi", "provider": "openai", "model": "m"}
        )
        run = wait_for_status(gateway, run_id, "completed", "failed")
        gateway.close()

    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert run["status"] == status, run
    assert KEY in str(provider.requests[0].headers)
    assert any(run_id in path.name for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY not in caplog.text


def test_anthropic_answers_are_shown_without_the_key_too(model_of: Open) -> None:
    with Provider(said(message(text(KEY)))) as provider:
        answer = model_of(provider, "anthropic").generate({"prompt": "p"})

    assert answer["content"] == "[key]"
