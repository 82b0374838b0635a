"""Answers while they are written, from a provider on loopback to readers of the ledger's stream."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway_http import create_app
from abstractgateway_http.server import GatewayServer
from tests.http.conftest import TOKEN, Client
from tests.llm.flows import asking
from tests.llm.provider import KEY, PATIENCE_S, Provider, Reply, Request, chat, chat_chunks, chunk, said, streamed
from tests.llm.test_gateway import SHARED, needs_bundles
from tests.service.waiting import wait_for, wait_for_status

Open = Callable[..., GatewayService]


class Written:
    """A streamed answer whose pieces come when the test says so."""

    def __init__(self, *texts: str, is_cut: bool = False) -> None:
        self._texts = texts
        self._is_cut = is_cut
        self._allowed = threading.Semaphore(0)
        self.asked = threading.Event()

    def allow(self, count: int = 1) -> None:
        for _ in range(count):
            self._allowed.release()

    @property
    def reply(self) -> Reply:
        return Reply(self._parts(), headers={"Content-Type": "text/event-stream"}, is_cut=self._is_cut)

    def _parts(self) -> Iterator[bytes]:
        self.asked.set()
        for text in self._texts:
            assert self._allowed.acquire(timeout=PATIENCE_S)
            yield from streamed([chunk(content=text)], has_end=False).parts
        if not self._is_cut:
            yield from streamed(chat_chunks()).parts


@pytest.fixture
def open_gateway(tmp_path: Path) -> Iterator[Open]:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "asks.flow").write_bytes(asking())
    with ExitStack() as stack:

        def open_one(provider: Provider, **settings: Any) -> GatewayService:
            chosen = {
                "data_dir": tmp_path / "data",
                "flows_dir": tmp_path / "flows",
                "auth_tokens": (TOKEN,),
                "provider": "openai",
                "model": "m",
                "openai_base_url": provider.url,
                "openai_api_key": KEY,
                **settings,
            }
            return stack.enter_context(GatewayService.open(GatewayConfig(**chosen)))

        yield open_one


@pytest.fixture
def serve() -> Iterator[Callable[[GatewayService], GatewayServer]]:
    with ExitStack() as stack:
        yield lambda gateway: stack.enter_context(GatewayServer(gateway))


def ask(gateway: GatewayService) -> str:
    return gateway.runs.start(bundle_id="asks", input_data={"prompt": "hi"})


def events(sent: bytes) -> list[tuple[str, Any]]:
    """Return name and data of the events of a stream, in order, chunked or not."""
    lines = sent.decode().replace("\r", "").split("\n")
    names = [line[7:] for line in lines if line.startswith("event: ")]
    return list(zip(names, (json.loads(line[6:]) for line in lines if line.startswith("data: ")), strict=True))


def kinds(sent: bytes) -> list[str]:
    """Return what a stream showed of the model call: its records by status, and its deltas."""
    found = [
        data["record"]["status"]
        if name == "step" and (data["record"]["effect"] or {}).get("type") == "llm_call"
        else name
        for name, data in events(sent)
    ]
    return [kind for kind in found if kind not in ("step", "done")]


def text_of(deltas: list[Any]) -> str:
    """Return what a client shows that follows the deltas."""
    shown = ""
    for delta in deltas:
        shown = "" if delta.get("restart") else shown + delta.get("content", "")
    return shown


def deltas_in(sent: bytes) -> list[Any]:
    return [data for name, data in events(sent) if name == "delta"]


def test_readers_see_an_answer_being_written_between_the_records_of_its_intent_and_its_outcome(
    open_gateway: Open, serve: Callable[[GatewayService], GatewayServer]
) -> None:
    written = Written("Hel", "lo ", "there")
    with Provider(written.reply) as provider:
        gateway = open_gateway(provider)
        server = serve(gateway)
        run_id = ask(gateway)
        with closing(Client(server.port)) as reader, closing(Client(server.port)) as other:
            reader.stream(run_id, query="?deltas=1")
            other.stream(run_id)
            written.allow()
            first = reader.read_until(b'"content": "Hel", "offset": 0}\n\n')
            is_asked_still = gateway.runs.get(run_id)["status"]
            written.allow(2)
            sent, plain = first + reader.read_to_end(), other.read_to_end()

    (outcome,) = [
        data["record"]
        for name, data in events(sent)
        if name == "step" and (data["record"]["result"] or {}).get("usage")
    ]
    assert is_asked_still == "running"
    assert kinds(sent) == ["started", "delta", "delta", "delta", "completed"]
    assert text_of(deltas_in(sent)) == outcome["result"]["content"] == "Hello there"
    assert [delta["offset"] for delta in deltas_in(sent)] == [0, 3, 6]
    assert {(delta["run_id"], delta["node_id"], delta["step_id"]) for delta in deltas_in(sent)} == {
        (run_id, "m", outcome["step_id"])
    }
    assert kinds(plain) == ["started", "completed"]
    assert b"id: " not in sent[sent.index(b"event: delta") - 20 : sent.index(b"event: delta")]


def test_who_joins_late_gets_the_later_pieces_and_the_record(
    open_gateway: Open, serve: Callable[[GatewayService], GatewayServer]
) -> None:
    written = Written("Hel", "lo")
    with Provider(written.reply) as provider:
        gateway = open_gateway(provider)
        server = serve(gateway)
        seen = threading.Event()
        run_id = ask(gateway)
        gateway.deltas.subscribe(run_id, lambda delta: seen.set())
        written.allow()
        assert seen.wait(PATIENCE_S)
        with closing(Client(server.port)) as reader:
            reader.stream(run_id, query="?deltas=1&after=1")
            written.allow()
            sent = reader.read_to_end()

    assert [(delta["content"], delta["offset"]) for delta in deltas_in(sent)] == [("lo", 3)]
    assert kinds(sent)[-1] == "completed"


def test_a_lost_answer_begins_again_with_a_restart(
    open_gateway: Open, serve: Callable[[GatewayService], GatewayServer]
) -> None:
    lost, whole = Written("Helli", is_cut=True), Written("Hello")
    with Provider(lost.reply, whole.reply) as provider:
        gateway = open_gateway(provider)
        server = serve(gateway)
        run_id = ask(gateway)
        with closing(Client(server.port)) as reader:
            reader.stream(run_id, query="?deltas=1")
            lost.allow()
            whole.allow()
            sent = reader.read_to_end()

    found = deltas_in(sent)
    assert [delta.get("content", "restart") for delta in found] == ["Helli", "restart", "Hello"]
    assert text_of(found) == gateway.runs.get(run_id)["output"]["response"] == "Hello"
    assert found[-1]["offset"] == 0


@needs_bundles
def test_the_reader_of_a_run_sees_what_the_model_writes_in_the_runs_below_it(
    open_gateway: Open, serve: Callable[[GatewayService], GatewayServer]
) -> None:
    written = Written("An", "swer")
    with Provider(written.reply) as provider:
        gateway = open_gateway(provider, flows_dir=SHARED)
        server = serve(gateway)
        asked = {"prompt": "hi", "provider": "openai", "model": "m"}
        run_id = gateway.runs.start(bundle_id="basic-agent", input_data=asked)
        with closing(Client(server.port)) as reader:
            reader.stream(run_id, query="?deltas=1")
            written.allow(2)
            sent = reader.read_to_end()

    assert text_of(deltas_in(sent)) == "Answer"
    assert run_id not in {delta["run_id"] for delta in deltas_in(sent)}


def environ_of(run_id: str, query: str) -> dict[str, Any]:
    """What a WSGI server without a door for streams gives the app for a stream."""
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": f"/api/gateway/runs/{run_id}/ledger/stream",
        "QUERY_STRING": query,
        "HTTP_HOST": "127.0.0.1",
        "HTTP_AUTHORIZATION": f"Bearer {TOKEN}",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }


def test_another_server_streams_them_as_well(open_gateway: Open) -> None:
    written = Written("Hel", "lo")
    with Provider(written.reply) as provider:
        gateway = open_gateway(provider)
        app = create_app(gateway)
        run_id = ask(gateway)
        parts = app(environ_of(run_id, "deltas=1"), lambda *head: None)  # type: ignore[arg-type, return-value]
        iterator = iter(parts)
        sent = next(iterator)
        written.allow(2)
        sent += b"".join(iterator)
        parts.close()  # type: ignore[attr-defined]

    assert kinds(sent) == ["started", "delta", "delta", "completed"]


def test_answers_are_not_streamed_where_the_settings_say_so(open_gateway: Open) -> None:
    with Provider(said(chat("Hello"))) as provider:
        gateway = open_gateway(provider, llm_stream=False)
        seen: list[Any] = []
        run_id = ask(gateway)
        gateway.deltas.subscribe(run_id, seen.append)
        run = wait_for_status(gateway, run_id, "completed", "failed")

    assert run["output"]["response"] == "Hello"
    assert "stream" not in provider.bodies[0]
    assert seen == []


def test_a_listener_that_fails_and_nobody_who_listens_cost_the_answer_nothing(open_gateway: Open) -> None:
    def fail(delta: Any) -> None:
        raise RuntimeError("no")

    written = Written("Hel", "lo")
    with Provider(written.reply) as provider:
        gateway = open_gateway(provider)
        run_id = ask(gateway)
        stop = gateway.deltas.subscribe(run_id, fail)
        written.allow(2)
        run = wait_for_status(gateway, run_id, "completed", "failed")
        stop()

    assert run["output"]["response"] == "Hello"
    assert not gateway.deltas.has_listeners


def outcomes(gateway: GatewayService, run_id: str) -> list[Any]:
    """Return the discarded outcomes of a run."""
    records = [json.loads(record) for record in gateway.ledger.read(run_id).records]
    return [item for item in records if isinstance(item["result"], dict) and item["result"].get("discarded")]


@pytest.mark.parametrize("is_streamed", [True, False])
def test_cancelling_ends_a_call_whose_provider_is_silent(open_gateway: Open, is_streamed: bool) -> None:
    asked, released = threading.Event(), threading.Event()

    def hang(request: Request) -> Reply:
        asked.set()
        released.wait(PATIENCE_S)
        return said(chat("late"))

    with Provider(script=hang) as provider:
        gateway = open_gateway(provider, llm_stream=is_streamed)
        run_id = ask(gateway)
        assert asked.wait(PATIENCE_S)
        gateway.commands.submit(command_id="c", run_id=run_id, type="cancel", payload={})
        run = wait_for_status(gateway, run_id, "cancelled")
        wait_for(gateway, lambda: bool(outcomes(gateway, run_id)))
        is_silent_still = not released.is_set()
        released.set()

    (late,) = outcomes(gateway, run_id)
    assert is_silent_still
    assert run["status"] == "cancelled"
    assert "the call was cancelled" in late["error"]
    assert len(provider.requests) == 1


def test_cancelling_in_the_middle_of_an_answer_ends_its_deltas(open_gateway: Open) -> None:
    written = Written("Hel", "lo")
    with Provider(written.reply) as provider:
        gateway = open_gateway(provider)
        seen: list[Any] = []
        first = threading.Event()
        run_id = ask(gateway)
        gateway.deltas.subscribe(run_id, lambda delta: (seen.append(delta.piece), first.set()))
        written.allow()
        assert first.wait(PATIENCE_S)
        gateway.commands.submit(command_id="c", run_id=run_id, type="cancel", payload={})
        wait_for(gateway, lambda: bool(outcomes(gateway, run_id)))
        written.allow()

    assert seen == [{"content": "Hel", "offset": 0}]


def test_a_paused_run_keeps_its_call(open_gateway: Open) -> None:
    written = Written("Hello")
    with Provider(written.reply) as provider:
        gateway = open_gateway(provider)
        run_id = ask(gateway)
        assert written.asked.wait(PATIENCE_S)
        gateway.commands.submit(command_id="p", run_id=run_id, type="pause", payload={})
        wait_for(gateway, lambda: gateway.commands.outcome("p")["status"] == "applied")
        written.allow()
        gateway.commands.submit(command_id="r", run_id=run_id, type="resume", payload={})
        run = wait_for_status(gateway, run_id, "completed", "failed")

    assert run["output"]["response"] == "Hello"
    assert len(provider.requests) == 1


def test_a_gateway_that_closes_ends_its_calls_and_makes_them_again_when_it_opens(open_gateway: Open) -> None:
    asked, released, gone = threading.Event(), threading.Event(), threading.Event()

    def silent() -> Iterator[bytes]:
        yield b": begun\n\n"
        asked.set()
        while not released.is_set():
            try:
                yield b": still here\n\n" * 100
            except GeneratorExit:
                gone.set()
                raise

    replies = [Reply(silent(), headers={"Content-Type": "text/event-stream"}), said(chat("Hello"))]
    with Provider(*replies) as provider:
        gateway = open_gateway(provider)
        run_id = ask(gateway)
        assert asked.wait(PATIENCE_S)
        gateway.close(grace_s=0.0)
        again = open_gateway(provider)
        run = wait_for_status(again, run_id, "completed", "failed")
        released.set()

    keys = [request.headers["idempotency-key"] for request in provider.requests]
    assert run["output"]["response"] == "Hello"
    assert len(keys) == 2 and keys[0] == keys[1]


def step_ids(sent: bytes) -> list[str]:
    return [line[4:] for line in sent.decode().replace("\r", "").split("\n") if line.startswith("id: ")]


@needs_bundles
def test_one_stream_has_the_records_of_a_run_and_of_those_below_it(
    open_gateway: Open, serve: Callable[[GatewayService], GatewayServer]
) -> None:
    written = Written("An", "swer")
    with Provider(written.reply) as provider:
        gateway = open_gateway(provider, flows_dir=SHARED)
        server = serve(gateway)
        run_id = gateway.runs.start(
            bundle_id="basic-agent", input_data={"prompt": "hi", "provider": "openai", "model": "m"}
        )
        with closing(Client(server.port)) as reader:
            reader.stream(run_id, query="?include=children&deltas=1&heartbeat_s=60")
            written.allow(2)
            sent = reader.read_to_end()
        below = [run_id, *gateway.stores.runs.children_of(run_id)]
        stored = {
            (one, cursor): json.loads(record)
            for one in below
            for cursor, record in enumerate(gateway.ledger.read(one).records, 1)
        }
        ids = step_ids(sent)
        again = []
        for last in ids:
            with closing(Client(server.port)) as reader:
                reader.stream(run_id, f"Last-Event-ID: {last}", query="?include=children")
                again.append(reader.read_to_end())

    steps = [data for name, data in events(sent) if name == "step"]
    keys = [(data["run_id"], data["cursor"]) for data in steps]
    assert len(below) > 1
    assert {key: data["record"] for key, data in zip(keys, steps, strict=True)} == stored
    assert len(keys) == len(stored)
    assert kinds(sent) == ["started", "delta", "delta", "completed"]
    assert events(sent)[-1] == (
        "done",
        {"run_id": run_id, "cursor": len(gateway.ledger.read(run_id).records), "status": "terminal"},
    )
    assert [step_ids(rest) for rest in again] == [ids[number:] for number in range(1, len(ids) + 1)]


@needs_bundles
def test_another_server_streams_a_run_and_those_below_it_as_well(open_gateway: Open) -> None:
    with Provider(said(chat("Hello"))) as provider:
        gateway = open_gateway(provider, flows_dir=SHARED)
        run_id = gateway.runs.start(
            bundle_id="basic-agent", input_data={"prompt": "hi", "provider": "openai", "model": "m"}
        )
        parts = create_app(gateway)(environ_of(run_id, "include=children"), lambda *head: None)  # type: ignore[arg-type, return-value]
        sent = b"".join(parts)
        parts.close()  # type: ignore[attr-defined]
        lengths = [len(gateway.ledger.read(one).records) for one in (run_id, *gateway.stores.runs.children_of(run_id))]

    assert len(step_ids(sent)) == sum(lengths)
    assert len({data["run_id"] for name, data in events(sent) if name == "step"}) == len(lengths) > 1
