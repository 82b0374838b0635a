"""Gateways that are killed while an agent's model or tool is at work: nothing is lost, and nothing doubled unseen."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.agents import Gateway, gateway, needs_bundles
from tests.acceptance.strict_provider import Answer, by_rule, call, tools_said
from tests.cli.processes import PATIENCE_S, question_in
from tests.llm.provider import Provider, Reply, Request

pytestmark = [needs_bundles, pytest.mark.parametrize("backend", ["file", "sqlite"])]

HELLO = Answer("hello there")


class Held:
    """An answer of which all bytes but the end are sent; `sent` says so, and `end` lets the end follow."""

    def __init__(self, whole: Reply) -> None:
        self.sent, self.end = threading.Event(), threading.Event()
        self.reply = Reply(self._parts(whole), whole.status, whole.headers)

    def _parts(self, whole: Reply) -> Iterator[bytes]:
        parts = list(whole.parts)
        yield b"".join(parts)[:-1]
        self.sent.set()
        self.end.wait(PATIENCE_S)
        yield b"".join(parts)[-1:]


@pytest.mark.parametrize("has_answered", [False, True], ids=["before the answer", "with the answer on its way"])
def test_a_model_call_that_was_killed_is_made_again_under_the_same_key(
    tmp_path: Path, backend: str, has_answered: bool
) -> None:
    held: list[Held] = []

    def rule(request: Request) -> Reply | Answer:
        if held:
            return HELLO
        held.append(Held(HELLO.reply(request) if has_answered else Reply([b" "])))
        asked.set()
        return held[0].reply

    asked = threading.Event()
    with Provider(script=by_rule(rule)) as provider:
        with gateway(tmp_path, provider, STORE_BACKEND=backend) as first:
            run_id = first.client.start(bundle_id="basic-agent", input_data={"prompt": "hi"})
            loop = first.loop_of(run_id)
            assert asked.wait(PATIENCE_S)
            assert held[0].sent.wait(PATIENCE_S)
            first.process.end(signal.SIGKILL)
        held[0].end.set()
        with gateway(tmp_path, provider, STORE_BACKEND=backend) as second:
            run = second.finish(run_id)
            records = second.effects(loop, "llm_call")

    assert run["output"]["response"] == "hello there"
    assert [(item["status"], item["attempt"]) for item in records] == [("started", 1), ("started", 2), ("completed", 2)]
    keys = {request.headers["idempotency-key"] for request in provider.requests}
    assert keys == {item["idempotency_key"] for item in records}
    assert len(provider.requests) == 2


def test_an_answer_is_used_once_whenever_the_kill_comes(tmp_path: Path, backend: str) -> None:
    """The kill comes when the whole answer has left: it may be committed, on its way, or in the memory of the dead."""
    answered: queue.SimpleQueue[int] = queue.SimpleQueue()

    def rule(request: Request) -> Reply:
        number = len(tools_said(request.body))
        answer = call("weather", f"c{number}", city="Paris") if number < 3 else HELLO
        whole = answer.reply(request)
        return Reply(_told(whole, answered, number), whole.status, whole.headers)

    with Provider(script=by_rule(rule)) as provider:
        with gateway(tmp_path, provider, is_program=True, STORE_BACKEND=backend) as running:
            run_id = running.client.start(bundle_id="basic-agent", input_data={"prompt": "hi", "tools": ["weather"]})
            loop = running.loop_of(run_id)
            _kill_at(running, answered, 0)
        for number in range(1, 3):
            with gateway(tmp_path, provider, is_program=True, STORE_BACKEND=backend) as running:
                _agree_to_everything(running, loop, answered, number)
        with gateway(tmp_path, provider, is_program=True, STORE_BACKEND=backend) as running:
            _answer_questions(running, loop)
            run = running.finish(run_id)
            records = running.effects(loop, "llm_call")

    assert run["output"]["success"] is True, run["output"]
    assert len(run["output"]["scratchpad"]["tool_results"]) == 3
    completed = [item["idempotency_key"] for item in records if item["status"] == "completed"]
    started = [item["idempotency_key"] for item in records if item["status"] == "started"]
    assert len(completed) == len(set(completed)) == 4
    assert set(started) == set(completed)
    sent = [request.headers["idempotency-key"] for request in provider.requests]
    assert set(sent) == set(started)
    assert all(sent.count(key) <= started.count(key) for key in sent)


def _told(whole: Reply, answered: queue.SimpleQueue[int], number: int) -> Iterator[bytes]:
    yield b"".join(whole.parts)
    answered.put(number)


def _kill_at(running: Gateway, answered: queue.SimpleQueue[int], number: int) -> None:
    while answered.get(timeout=PATIENCE_S) < number:
        pass
    running.process.end(signal.SIGKILL)


def _agree_to_everything(running: Gateway, loop: str, answered: queue.SimpleQueue[int], number: int) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=_until_gone, args=(running, loop, stop), daemon=True)
    thread.start()
    _kill_at(running, answered, number)
    stop.set()
    thread.join(PATIENCE_S)


def _until_gone(running: Gateway, loop: str, stop: threading.Event) -> None:
    try:
        _answer_questions(running, loop)
    except (OSError, ValueError, AssertionError):
        assert stop.wait(PATIENCE_S)


def _answer_questions(running: Gateway, loop: str) -> None:
    """Say `retry` whenever the loop asks about an effect in doubt."""
    for cursor, record in running.client.follow(loop):
        key = question_in(record)
        if key is not None:
            running.client.answer(loop, key, "retry", f"{loop}:{cursor}")


@pytest.mark.parametrize(("reply", "times"), [("retry", 2), ("fail", 1)])
def test_a_tool_that_was_killed_is_asked_about(tmp_path: Path, backend: str, reply: str, times: int) -> None:
    def rule(request: Request) -> Answer:
        return HELLO if tools_said(request.body) else call("post", text="the letter")

    outside = tmp_path / "outside.txt"
    given: dict[str, Any] = {"prompt": "post it", "tools": ["post"]}
    with Provider(script=by_rule(rule)) as provider:
        with gateway(tmp_path, provider, is_program=True, STORE_BACKEND=backend) as first:
            run_id = first.client.start(bundle_id="basic-agent", input_data=given)
            loop = first.loop_of(run_id)
            first.process.wait_for_line("posted")
            first.process.end(signal.SIGKILL)
        (tmp_path / "gate").touch()
        with gateway(tmp_path, provider, is_program=True, STORE_BACKEND=backend) as second:
            _, key = second.client.question(loop)
            assert outside.read_text().splitlines() == ["the letter"]
            assert key.startswith("in_doubt:")
            second.client.answer(loop, key, reply, "c-1")
            run = second.finish(run_id)
            records = second.effects(loop, "tool_calls")

    assert run["status"] == "completed"
    assert run["output"]["success"] is (reply == "retry")
    assert outside.read_text().splitlines() == ["the letter"] * times
    assert len({item["idempotency_key"] for item in records}) == 1
    assert [item["attempt"] for item in records if item["status"] == "started"] == list(range(1, times + 1))
    assert len(provider.requests) == times
