"""Shared bundles driven by a provider over HTTP: what their agents and model calls do, and what becomes of failures."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.agents import Gateway, gateway, needs_bundles
from tests.acceptance.strict_provider import Answer, by_rule, call, in_turn, tools_said
from tests.cli.processes import PATIENCE_S, question_in
from tests.llm.provider import KEY, Provider, Reply, Request, failed, streamed

pytestmark = needs_bundles

HELLO = Answer("hello there")
SOON_S = 1.0
"""An idle machine takes a hundredth of it; a busy one may take longer, and the model hangs longer still."""
WEATHER = {"tools": ["weather"], "prompt": "the weather?"}


def keys(provider: Provider) -> list[str]:
    return [request.headers["idempotency-key"] for request in provider.requests]


@pytest.mark.parametrize("stream", ["true", "false"])
def test_bundles_answer_with_what_the_provider_says(tmp_path: Path, stream: str) -> None:
    with Provider(script=in_turn(HELLO)) as provider, gateway(tmp_path, provider, LLM_STREAM=stream) as running:
        ended = {name: running.run(name, prompt="hi") for name in ("basic", "basic-agent", "basic-llm-test")}

    assert {name: run["status"] for name, run in ended.items()} == dict.fromkeys(ended, "completed")
    assert {run["output"]["response"] for run in ended.values()} == {"hello there"}
    assert ended["basic-agent"]["output"]["success"] is True
    assert ended["basic-llm-test"]["output"]["meta"]["usage"]["output_tokens"] == 7
    assert [body["model"] for body in provider.bodies] == ["gpt-5-mini", "qwen/qwen3-next-80b", "local"]
    assert {request.headers["authorization"] for request in provider.requests} == {f"Bearer {KEY}"}
    assert [bool(body.get("stream")) for body in provider.bodies] == [stream == "true"] * 3


def test_an_agent_uses_a_tool_and_its_ledger_tells_each_step(tmp_path: Path) -> None:
    script = in_turn(call("weather", city="Paris"), Answer("it is warm"))
    with Provider(script=script) as provider, gateway(tmp_path, provider, is_program=True) as running:
        run_id = running.client.start(bundle_id="basic-agent", input_data=WEATHER)
        loop = running.loop_of(run_id)
        run = running.finish(run_id)
        told = [(item["effect"]["type"], item["status"]) for item in running.client.ledger(loop) if item["effect"]]
        model_calls = running.effects(loop, "llm_call")

    output = run["output"]
    assert (output["response"], output["success"]) == ("it is warm", True)
    assert output["meta"]["iterations"] == 2
    assert output["scratchpad"]["tool_results"][0]["output"] == "18 degrees"
    assert provider.bodies[0]["tools"][0]["function"]["name"] == "weather"
    assert tools_said(provider.bodies[1]) == ["18 degrees"]
    steps = ["llm_call", "tool_calls", "llm_call"]
    assert told[:6] == [(step, status) for step in steps for status in ("started", "completed")]
    assert keys(provider) == [item["idempotency_key"] for item in model_calls if item["status"] == "started"]
    assert len(set(keys(provider))) == 2


BAD_CALLS = Answer(
    calls=(
        ("weather", "{broken", "c1"),
        ("weather", '{"town": "Paris"}', "c1"),
        ("weather", '{"city": "Atlantis"}', ""),
        ("weather", '["Paris"]', "c3"),
        ("no such tool!", "{}", "c4"),
        ("post", '{"text": "not allowed here"}', "c5"),
        ("weather", '{"city": "Paris"}', "c6"),
    )
)


@pytest.mark.parametrize("stream", ["true", "false"])
def test_what_a_model_does_wrong_with_its_tools_is_told_to_it(tmp_path: Path, stream: str) -> None:
    script = in_turn(BAD_CALLS, Answer("it is warm"))
    settings = {"LLM_STREAM": stream}
    with Provider(script=script) as provider, gateway(tmp_path, provider, is_program=True, **settings) as running:
        run = running.run("basic-agent", **WEATHER)

    said = tools_said(provider.bodies[1])
    assert (run["output"]["response"], run["output"]["success"]) == ("it is warm", True)
    assert [text.startswith("Error: ") for text in said] == [True] * 6 + [False]
    assert said[-1] == "18 degrees"
    assert [item["success"] for item in run["output"]["scratchpad"]["tool_results"]] == [False] * 6 + [True]
    assert not (tmp_path / "outside.txt").exists()


def test_an_agent_that_keeps_calling_a_failing_tool_ends(tmp_path: Path) -> None:
    script = by_rule(lambda request: call("weather", city="Atlantis"))
    with Provider(script=script) as provider, gateway(tmp_path, provider, is_program=True) as running:
        run = running.run("basic-agent", **WEATHER, max_iterations=3)

    assert run["status"] == "completed"
    assert (run["output"]["success"], run["output"]["response"]) == (False, "")
    assert run["output"]["meta"]["error"] == "no answer after 3 iterations"
    assert len(provider.requests) == 3


def test_a_provider_that_is_busy_is_asked_again_under_the_same_key(tmp_path: Path) -> None:
    script = in_turn(failed(429, "slow down", Retry_After="0"), failed(503, "later", Retry_After="0"), HELLO)
    with Provider(script=script) as provider, gateway(tmp_path, provider) as running:
        run_id = running.client.start(bundle_id="basic", input_data={"prompt": "hi"})
        loop, run = running.loop_of(run_id), running.finish(run_id)
        (started, _) = running.effects(loop, "llm_call")

    assert run["output"]["response"] == "hello there"
    assert keys(provider) == [started["idempotency_key"]] * 3


def test_an_agent_whose_provider_stays_down_did_not_succeed(tmp_path: Path) -> None:
    script = by_rule(lambda request: failed(429, "no quota left", Retry_After="0"))
    with Provider(script=script) as provider, gateway(tmp_path, provider, LLM_RETRIES=1) as running:
        agent, plain = (running.run(name, prompt="hi") for name in ("basic-agent", "basic-llm-test"))

    assert (agent["status"], agent["output"]["success"]) == ("completed", False)
    assert "429: no quota left" in agent["output"]["meta"]["error"]
    assert plain["status"] == "failed"
    assert "429: no quota left" in plain["error"]
    assert len(provider.requests) == 4


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a reply waits for that comes too late; it is opened when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def late(gate: threading.Event, *parts: bytes) -> Reply:
    """A reply that sends its parts, and the rest when nobody wants it any more."""

    def chunks() -> Iterator[bytes]:
        yield from parts
        gate.wait(PATIENCE_S)
        yield b"\n"

    return Reply(chunks())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"LLM_READ_TIMEOUT_S": 0.3}, "silent for 0.3 s"),
        ({"EFFECT_TIMEOUT_S": 0.5}, "0.5 s"),
    ],
    ids=["silence", "time"],
)
def test_a_call_that_takes_too_long_fails_the_agent(
    tmp_path: Path, gate: threading.Event, settings: dict[str, Any], reason: str
) -> None:
    with Provider(script=in_turn(late(gate, b" "))) as provider, gateway(tmp_path, provider, **settings) as running:
        run = running.run("basic-agent", prompt="hi")

    assert (run["status"], run["output"]["success"]) == ("completed", False)
    assert reason in run["output"]["meta"]["error"]


def test_a_stream_that_breaks_off_is_read_anew(tmp_path: Path) -> None:
    begun = Answer("hello the").events()[:3]
    script = in_turn(streamed(begun, is_cut=True), streamed(begun, has_end=False), HELLO)
    with Provider(script=script) as provider, gateway(tmp_path, provider) as running:
        run = running.run("basic", prompt="hi")

    assert run["output"]["response"] == "hello there"
    assert len(provider.requests) == 3


def test_an_answer_that_was_cut_off_is_asked_for_with_more_tokens(tmp_path: Path) -> None:
    script = in_turn(Answer("hello", finish_reason="length"), HELLO)
    with Provider(script=script) as provider, gateway(tmp_path, provider) as running:
        run = running.run("basic-llm-test", prompt="hi")

    assert run["output"]["response"] == "hello there"
    assert [body.get("max_tokens") for body in provider.bodies] == [None, 507]


SCHEMA = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}


def test_a_structured_answer_is_repaired_until_it_fits(tmp_path: Path) -> None:
    script = in_turn(Answer("one"), Answer('{"a": "one"}'), Answer('{"a": 1}'))
    with Provider(script=script) as provider, gateway(tmp_path, provider) as running:
        run = running.run("basic-agent", prompt="how many?", resp_schema=SCHEMA)

    assert (run["output"]["response"], run["output"]["success"]) == ('{"a":1}', True)
    assert run["output"]["meta"]["output_mode"] == "structured"
    assert "response_format" not in provider.bodies[0]
    assert provider.bodies[1]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "a: is string, not number" in provider.bodies[2]["messages"][-1]["content"]


def test_a_conversation_goes_on_after_a_turn_with_tools(tmp_path: Path) -> None:
    def rule(request: Request) -> Answer:
        task = request.body["messages"][-1]
        if task["role"] == "user":
            return call("weather", city="Paris") if "weather" in task["content"] else Answer(task["content"].upper())
        return Answer("it is warm")

    tools = [{"name": "weather", "description": "", "parameters": {"city": {"type": "string"}}}]
    with Provider(script=by_rule(rule)) as provider, gateway(tmp_path, provider, is_program=True) as running:
        client = running.client
        run_id = client.start(bundle_id="basic-followup", input_data={"prompt": "the weather?", "tools": tools})
        cursor, key = client.question(run_id)
        client.answer(run_id, key, "shorter", "c-1")
        for _, record in client.follow(run_id, after=cursor):
            wait = (record.get("result") or {}).get("wait") or {}
            if wait.get("reason") == "user":
                client.answer(run_id, wait["wait_key"], "stop", "c-2")
        run = client.run(run_id)

    assert run["output"]["response"] == "SHORTER"
    roles = [message["role"] for message in provider.bodies[-1]["messages"]]
    assert roles[0] == "system"
    assert roles[-1] == "user"
    assert "it is warm" in json.dumps(provider.bodies[-1])


WRITE = call("write_file", file_path="note.txt", content="by the agent")


@pytest.mark.parametrize(
    ("answer", "said", "is_written"),
    [
        ({"approved": True}, "wrote 12 bytes", True),
        ({"approved": False, "reason": "not now"}, "Error: not now", False),
        ({"approved": False}, "Error: Denied by user", False),
    ],
    ids=["approved", "denied with a reason", "denied"],
)
def test_a_guarded_tool_waits_for_a_yes(tmp_path: Path, answer: dict[str, Any], said: str, is_written: bool) -> None:
    note = tmp_path / "work" / "note.txt"
    note.parent.mkdir()
    script = in_turn(WRITE, Answer("done"))
    with Provider(script=script) as provider, gateway(tmp_path, provider, WORKSPACE_DIR=note.parent) as running:
        given = {"prompt": "write a note", "workspace_root": str(tmp_path / "work")}
        run_id = running.client.start(bundle_id="basic-agent", input_data=given)
        loop = running.loop_of(run_id)
        _, key = running.client.question(loop)
        wait = running.client.run(loop)["waiting"]
        assert not note.exists()
        running.resume(loop, key, answer)
        run = running.finish(run_id)

    assert key.startswith("tool_approval:")
    assert wait["details"]["tool_calls"][0]["arguments"] == {"file_path": "note.txt", "content": "by the agent"}
    assert (run["output"]["response"], run["output"]["success"]) == ("done", True)
    (told,) = tools_said(provider.bodies[1])
    assert told.startswith(said)
    assert note.exists() == is_written


def test_calls_that_need_no_yes_are_run_beside_those_that_do(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "here.txt").write_text("x")
    listed = ("list_files", "{}", "c0")
    script = in_turn(Answer(calls=(listed, *WRITE.calls, ("list_files", '{"sauce": 1}', "c2"))), Answer("done"))
    settings = {"WORKSPACE_DIR": tmp_path / "work"}
    with Provider(script=script) as provider, gateway(tmp_path, provider, **settings) as running:
        given = {"prompt": "write a note", "workspace_root": str(tmp_path / "work")}
        run_id = running.client.start(bundle_id="basic-agent", input_data=given)
        loop = running.loop_of(run_id)
        _, key = running.client.question(loop)
        running.resume(loop, key, {"approved": False})
        run = running.finish(run_id)

    said = tools_said(provider.bodies[1])
    assert run["output"]["success"] is True
    assert "here.txt" in said[0]
    assert said[1] == "Error: Denied by user"
    assert "sauce" in said[2]


def test_an_agent_asks_its_user_over_http(tmp_path: Path) -> None:
    question = call("ask_user", question="Which city?", choices=["Paris", "Rome"])
    script = in_turn(question, Answer("Paris it is"))
    with Provider(script=script) as provider, gateway(tmp_path, provider) as running:
        run_id = running.client.start(
            bundle_id="basic-agent", input_data={"prompt": "the weather?", "tools": ["ask_user"]}
        )
        loop = running.loop_of(run_id)
        _, key = running.client.question(loop)
        wait = running.client.run(loop)["waiting"]
        running.client.answer(loop, key, "Paris", "c-1")
        run = running.finish(run_id)

    assert (wait["prompt"], wait["choices"]) == ("Which city?", ["Paris", "Rome"])
    assert run["output"]["response"] == "Paris it is"
    assert tools_said(provider.bodies[1]) == ["Paris"]


def test_a_conversation_within_a_run_goes_on_until_its_user_stops(tmp_path: Path) -> None:
    script, replies = in_turn(Answer("a poem"), Answer("a better poem")), iter(["Make it better", "stop"])
    with Provider(script=script) as provider, gateway(tmp_path, provider) as running:
        run_id = running.client.start(bundle_id="basic-followup", input_data={"prompt": "write a poem"})
        for cursor, record in running.client.follow(run_id):
            key = question_in(record)
            if key is not None:
                running.client.answer(run_id, key, next(replies), f"c-{cursor}")
        run = running.client.run(run_id)

    said = [message["content"] for message in provider.bodies[1]["messages"] if message["role"] != "system"]
    assert run["status"] == "completed"
    assert said == ["write a poem", "a poem", "Make it better"]


def test_a_cancel_ends_a_run_whose_model_hangs(tmp_path: Path, gate: threading.Event) -> None:
    asked: queue.SimpleQueue[Request] = queue.SimpleQueue()
    took: list[float] = []

    def rule(request: Request) -> Reply:
        asked.put(request)
        return late(gate, b" ")

    with Provider(script=by_rule(rule)) as provider, gateway(tmp_path, provider) as running:
        for number in range(3):
            run_id = running.client.start(bundle_id="basic-agent", input_data={"prompt": "hi"})
            loop = running.loop_of(run_id)
            asked.get(timeout=PATIENCE_S)
            began = time.monotonic()
            command = {"command_id": f"c-{number}", "run_id": run_id, "type": "cancel", "payload": {}}
            running.client.call("/api/gateway/commands", command)
            run = running.finish(run_id)
            took.append(time.monotonic() - began)
            assert (run["status"], running.client.run(loop)["status"]) == ("cancelled", "cancelled")
        gate.set()
        outcome = wait_for_discarded(running, loop)

    assert min(took) < SOON_S, took
    assert outcome["result"]["run_status"] == "cancelled"


def wait_for_discarded(running: Gateway, loop: str) -> dict[str, Any]:
    """Return the record of an outcome that nobody wanted any more."""
    until, after = time.monotonic() + PATIENCE_S, 0
    while time.monotonic() < until:
        page = running.client.call(f"/api/gateway/runs/{loop}/ledger?after={after}&limit=100&wait=5")
        after = page["next_after"]
        for record in page["items"]:
            if (record["result"] or {}).get("discarded"):
                found: dict[str, Any] = record
                return found
    raise AssertionError("no outcome was recorded as discarded")
