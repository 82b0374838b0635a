from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from abstractgateway import GatewayConfig
from abstractgateway.testing import ManualClock
from abstractgateway_llm import ModelError, ProviderModel
from tests.llm.conftest import Open
from tests.llm.provider import PATIENCE_S, Provider, Reply, chat, chat_chunks, chunk, failed, said, streamed

CALL = {"prompt": "p", "idempotency_key": "k"}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_a_failure_that_may_pass_is_waited_out(model_of: Open, pauses: list[float], status: int) -> None:
    with Provider(failed(status), failed(status), said(chat("hello"))) as provider:
        answer = model_of(provider).generate(CALL)

    assert answer["content"] == "hello"
    assert pauses == [0.5, 1.0]
    assert [request.headers["idempotency-key"] for request in provider.requests] == ["k"] * 3
    assert provider.bodies[0] == provider.bodies[1] == provider.bodies[2]


@pytest.mark.parametrize(("retries", "requests"), [(2, 3), (0, 1)])
def test_a_failure_that_does_not_pass_is_reported(model_of: Open, retries: int, requests: int) -> None:
    with Provider(failed(503, "warming up")) as provider, pytest.raises(ModelError) as caught:
        model_of(provider, llm_retries=retries).generate(CALL)

    assert len(provider.requests) == requests
    assert str(caught.value).startswith(f"openai ({provider.url.removeprefix('http://')}): 503: warming up")


@pytest.mark.parametrize(
    ("header", "pause"),
    [("7", 7.0), ("0.25", 0.25), ("-3", 0.0), ("Thu, 01 Jan 2026 00:00:09 GMT", 9.0), ("soon", 0.5), ("nan", 0.5)],
)
def test_the_provider_says_when_to_come_back(
    model_of: Open, clock: ManualClock, pauses: list[float], header: str, pause: float
) -> None:
    clock.set(clock.now().replace(year=2026, month=1, day=1, hour=0, minute=0, second=0, microsecond=0))
    with Provider(failed(429, Retry_After=header), said(chat())) as provider:
        model_of(provider).generate(CALL)

    assert pauses == [pause]


@pytest.mark.parametrize("header", ["3600", "inf", "9e999"])
def test_a_provider_that_wants_to_be_left_alone_for_long_is_not_waited_for(
    model_of: Open, pauses: list[float], header: str
) -> None:
    with Provider(failed(429, Retry_After=header)) as provider, pytest.raises(ModelError, match="come back in"):
        model_of(provider).generate(CALL)

    assert (len(provider.requests), pauses) == (1, [])


def test_no_pause_is_made_that_the_time_does_not_allow(model_of: Open, pauses: list[float]) -> None:
    with Provider(failed(429, Retry_After="20")) as provider, pytest.raises(ModelError, match="429"):
        model_of(provider).generate(CALL, timeout_s=10)

    assert (len(provider.requests), pauses) == (1, [])


def test_an_exhausted_account_is_not_asked_again(model_of: Open) -> None:
    quota = said({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, 429)
    with Provider(quota) as provider, pytest.raises(ModelError, match="exceeded your quota"):
        model_of(provider).generate(CALL)

    assert len(provider.requests) == 1


def test_a_provider_may_say_that_asking_again_is_no_use(model_of: Open) -> None:
    with Provider(failed(500, X_Should_Retry="false")) as provider, pytest.raises(ModelError, match="500"):
        model_of(provider).generate(CALL)

    assert len(provider.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 413])
def test_a_failure_for_good_is_not_repeated(model_of: Open, status: int) -> None:
    with Provider(failed(status, "because")) as provider, pytest.raises(ModelError, match=f"{status}: because"):
        model_of(provider).generate(CALL)

    assert len(provider.requests) == 1


def test_a_redirection_is_not_followed(model_of: Open) -> None:
    with Provider(said(chat())) as other, Provider(Reply([], 307, {"Location": f"{other.url}/v1"})) as provider:
        with pytest.raises(ModelError, match="redirected to 127.0.0.1"):
            model_of(provider).generate(CALL)

        assert other.requests == []


@pytest.mark.parametrize("reply", [None, Reply([b'{"choices": ['], is_cut=True)])
def test_a_lost_connection_is_made_again(model_of: Open, pauses: list[float], reply: Reply | None) -> None:
    with Provider(reply, said(chat("hello"))) as provider:
        answer = model_of(provider).generate(CALL)

    assert (answer["content"], len(provider.requests), pauses) == ("hello", 2, [0.5])


def test_where_nothing_listens_the_error_says_so(pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model = ProviderModel(
        GatewayConfig(provider="vllm", model="m", vllm_base_url=f"http://127.0.0.1:{port}/v1"), sleep=pauses.append
    )

    with pytest.raises(
        ModelError, match=rf"vllm \(127.0.0.1:{port}\): no connection: Connection refused \(attempt 3\)"
    ):
        model.generate(CALL)

    assert pauses == [0.5, 1.0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<html>gateway</html>", "cannot be read"),
        (b'{"choices": [', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"choices": NaN}', "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[]", "not an object"),
        (b"{}", "no choices"),
        (b'{"choices": [null]}', "no choices"),
        (b'{"choices": [{"message": 5}]}', "no choices"),
        (b'{"error": {"message": "m"}}', "no choices"),
    ],
)
def test_an_answer_that_is_none_is_refused(model_of: Open, content: bytes, why: str) -> None:
    with Provider(Reply([content])) as provider, pytest.raises(ModelError, match=why):
        model_of(provider).generate(CALL)

    assert len(provider.requests) == 1


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_malformed_event_is_refused(model_of: Open, is_streamed: bool) -> None:
    events = Reply([b"data: {oops}\n\n"], headers={"Content-Type": "text/event-stream"})
    with Provider(events) as provider, pytest.raises(ModelError, match="cannot be read"):
        model_of(provider).generate(CALL, on_delta=(lambda delta: None) if is_streamed else None)


def endless() -> Iterator[bytes]:
    while True:
        yield b" " * 65_536


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
def test_an_answer_without_end_is_given_up(model_of: Open, content_type: str) -> None:
    with Provider(Reply(endless(), headers={"Content-Type": content_type})) as provider:
        model = model_of(provider, llm_max_response_bytes=1_000_000)
        with pytest.raises(ModelError, match="more than 1000000 bytes"):
            model.generate(CALL, on_delta=lambda delta: None)


def test_an_error_without_end_is_an_error(model_of: Open) -> None:
    with Provider(Reply(endless(), 401)) as provider, pytest.raises(ModelError, match="401"):
        model_of(provider).generate(CALL)


def test_a_provider_that_stays_silent_is_given_up(model_of: Open) -> None:
    released = threading.Event()

    def silent() -> Iterator[bytes]:
        released.wait(PATIENCE_S)
        yield b""

    with Provider(Reply(silent())) as provider:
        with pytest.raises(ModelError, match="silent for 0.05 s"):
            model_of(provider, llm_read_timeout_s=0.05).generate(CALL)
        released.set()

    assert len(provider.requests) == 1


def trickle(clock: ManualClock) -> Iterator[bytes]:
    for event in chat_chunks("a", "b", "c"):
        clock.move(4)
        (part, *_) = streamed([event]).parts
        yield part


def test_an_answer_that_takes_longer_than_it_may_is_given_up(model_of: Open, clock: ManualClock) -> None:
    reply = Reply(trickle(clock), headers={"Content-Type": "text/event-stream"})
    with Provider(reply) as provider, pytest.raises(ModelError, match="no complete answer within 10 s"):
        model_of(provider).generate(CALL, timeout_s=10, on_delta=lambda delta: None)


def test_a_cancelled_call_ends_at_its_next_piece(model_of: Open) -> None:
    stop = threading.Event()
    asked = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield from streamed([chunk(content="he")], is_cut=True).parts
        asked.wait(PATIENCE_S)
        yield from streamed([chunk(content="llo")], is_cut=True).parts
        yield from endless()

    def on_delta(delta: Any) -> None:
        stop.set()
        asked.set()

    reply = Reply(pieces(), headers={"Content-Type": "text/event-stream"})
    with Provider(reply) as provider, pytest.raises(ModelError, match="cancelled"):
        model_of(provider).generate(CALL, stop=stop, on_delta=on_delta)


def test_a_cancelled_call_is_not_made(model_of: Open) -> None:
    stop = threading.Event()
    stop.set()
    with Provider(said(chat())) as provider, pytest.raises(ModelError, match="cancelled"):
        model_of(provider).generate(CALL, stop=stop)

    assert provider.requests == []


def test_a_cancelled_call_does_not_wait_for_its_repetition() -> None:
    stop = threading.Event()

    def refuse(request: Any) -> Reply:
        stop.set()
        return failed(429, Retry_After="50")

    with Provider(script=refuse) as provider:
        model = ProviderModel(GatewayConfig(provider="vllm", model="m", vllm_base_url=provider.url))
        began = time.monotonic()
        with pytest.raises(ModelError, match="cancelled"):
            model.generate(CALL, stop=stop)
        model.close()

    assert time.monotonic() - began < PATIENCE_S


def test_connections_are_used_again(model_of: Open) -> None:
    with Provider(said(chat())) as provider:
        model = model_of(provider)
        model.generate(CALL)
        model.generate(CALL)
        pool = model._transport._pools.connection_from_url(provider.url)

    assert (pool.num_connections, pool.num_requests) == (1, 2)
