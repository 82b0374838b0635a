"""`Prefer: wait=N`: an answer that comes when there is something to say, and holds no worker thread until then."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from werkzeug.test import Client as WsgiClient

from abstractgateway_http import create_app
from tests.http.conftest import PATIENCE_S, TOKEN, packed

START, COMMANDS = "/api/gateway/runs/start", "/api/gateway/commands"
ASK = Path("docs/samples/ask@0.1.0.flow")
JSON = "Content-Type: application/json"


@pytest.fixture
def post(connect_to):
    """Send a JSON body and return the connection; HTTP/1.0 shows the body as it is."""

    def send(live, path, body, *headers):
        raw = json.dumps(body).encode()
        return connect_to(live.server).send("POST", path, JSON, *headers, body=raw, version="1.0")

    return send


@pytest.fixture
def idle(go_live):
    """A gateway whose runs nobody drives."""
    live = go_live(runner_enabled=False, store_backend="file")
    live.upload(packed())
    return live


def command(run_id, type="pause", **more):
    return {"command_id": "c1", "run_id": run_id, "type": type, **more}


def test_a_start_is_answered_with_the_run_that_ended(live, post):
    answer = post(live, START, {"bundle_id": "echo", "input_data": {"prompt": "hi"}}, "Prefer: wait=30").answer()

    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.headers["cache-control"] == "no-store"
    run = answer.json["run"]
    assert (run["run_id"], run["status"]) == (answer.json["run_id"], "completed")
    assert run == live.ask("GET", f"/runs/{run['run_id']}").json


def test_a_start_is_answered_with_the_run_that_asks_something(live, post):
    live.upload(ASK.read_bytes())

    answer = post(live, START, {"bundle_id": "ask", "input_data": {"prompt": "Who?"}}, "Prefer: wait=30").answer()

    assert (answer.json["run"]["status"], answer.json["run"]["waiting"]["reason"]) == ("waiting", "user")


def test_a_start_is_answered_when_the_time_is_over(idle, post):
    begun = time.monotonic()

    answer = post(idle, START, {"bundle_id": "echo"}, "Prefer: respond-async, wait=1").answer()

    assert answer.json["run"]["status"] == "running"
    assert 0.9 <= time.monotonic() - begun < PATIENCE_S


def test_many_that_wait_leave_the_worker_threads_free(idle, post):
    waiting = [post(idle, START, {"bundle_id": "echo"}, "Prefer: wait=30") for _ in range(20)]
    for client in waiting:
        client.read_until(b"\r\n\r\n")

    assert idle.ask("GET", "/runs?limit=100").status == 200
    assert idle.server.hub.open_streams == 20


def test_who_waits_is_answered_when_the_server_stops(idle, post):
    client = post(idle, START, {"bundle_id": "echo"}, "Prefer: wait=30")
    client.read_until(b"\r\n\r\n")
    assert idle.server.hub.wait_streams(1, PATIENCE_S)

    idle.server.stop()

    assert json.loads(client.read_to_end())["run"]["status"] == "running"


def test_a_command_is_answered_with_its_outcome(live, post):
    live.upload(ASK.read_bytes())
    run_id = (
        post(live, START, {"bundle_id": "ask", "input_data": {"prompt": "Who?"}}, "Prefer: wait=30")
        .answer()
        .json["run_id"]
    )

    answer = post(
        live, COMMANDS, command(run_id, "resume", payload={"payload": {"response": "Bob"}}), "Prefer: wait=30"
    ).answer()

    assert answer.headers["preference-applied"] == "wait=30"
    assert (answer.json["accepted"], answer.json["outcome"]["status"]) == (True, "applied")


def test_a_command_that_changes_nothing_is_answered_at_once_as_well(live, post):
    begun = time.monotonic()

    answers = [post(live, COMMANDS, command("nobody", command_id=name), "Prefer: wait=30").answer() for name in "ab "]

    assert [answer.json["outcome"]["status"] for answer in answers] == ["rejected"] * 3
    assert time.monotonic() - begun < PATIENCE_S


def test_a_repeated_command_tells_nothing_of_another_run(live, post):
    post(live, COMMANDS, command("theirs"), "Prefer: wait=30").answer()

    answer = post(live, COMMANDS, command("mine"), "Prefer: wait=1").answer()

    assert answer.json == {"accepted": False, "duplicate": True, "seq": 1}


@pytest.mark.parametrize("given", ["wait=0", "wait=-1", "wait=soon", "wait", "return=minimal", ";;,=", "wait=1.5"])
def test_a_preference_that_makes_no_sense_is_ignored(live, post, given):
    answer = post(live, START, {"bundle_id": "echo"}, f"Prefer: {given}").answer()

    assert (answer.status, list(answer.json)) == (200, ["run_id"])
    assert "preference-applied" not in answer.headers


def test_a_start_that_is_durable_is_not_refused_for_want_of_a_stream(go_live, post):
    live = go_live(max_client_sse=1, runner_enabled=False)
    live.upload(packed())
    post(live, START, {"bundle_id": "echo"}, "Prefer: wait=30").read_until(b"\r\n\r\n")

    answer = post(live, START, {"bundle_id": "echo"}, "Prefer: wait=30").answer()

    assert (answer.status, list(answer.json)) == (200, ["run_id"])
    assert "preference-applied" not in answer.headers


def test_another_server_waits_in_its_own_thread(live):
    client = WsgiClient(create_app(live.service))
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": "127.0.0.1", "Prefer": "wait=20"}

    answer = client.post(START, json={"bundle_id": "echo"}, headers=headers)

    assert answer.json["run"]["status"] == "completed"


def test_an_outcome_that_is_pending_is_awaited(idle, connect_to):
    idle.ask("POST", "/commands", body=command("r"))
    path = f"{COMMANDS}/c1"

    begun = time.monotonic()
    late = connect_to(idle.server).send("GET", path, "Prefer: wait=1", version="1.0").answer()
    plain = connect_to(idle.server).send("GET", path).answer()

    assert time.monotonic() - begun >= 0.9
    assert (late.headers["preference-applied"], late.json) == ("wait=1", plain.json)
    assert plain.json["status"] == "pending"


def test_whoever_awaits_an_outcome_hears_of_it_when_another_process_deals_with_it(idle, go_live, connect_to):
    idle.ask("POST", "/commands", body=command("r"))
    client = connect_to(idle.server).send("GET", f"{COMMANDS}/c1", "Prefer: wait=30", version="1.0")
    client.read_until(b"\r\n\r\n")

    go_live(store_backend="file")  # whose runner takes over what nobody drove

    assert json.loads(client.read_to_end())["status"] == "rejected"


def test_a_listener_hears_of_a_command_that_changed_no_run(live):
    heard = threading.Event()
    stop = live.service.subscribe(lambda ids: heard.set() if "c1" in ids else None)

    live.ask("POST", "/commands", body=command("nobody"))

    assert heard.wait(PATIENCE_S)
    stop()
    heard.clear()
    live.ask("POST", "/commands", body=command("nobody", command_id="c2"))
    assert live.ask("GET", "/commands/c2", "Prefer: wait=5").status == 200
    assert not heard.is_set()


def test_a_snapshot_that_takes_long_to_make_delays_no_stream(live, post, connect_to, monkeypatch):
    live.upload(ASK.read_bytes())
    asked = live.start(bundle_id="ask", input_data={"prompt": "Who?"})
    stream = connect_to(live.server).stream(asked, version="1.0")
    stream.read_until(b'"status":"waiting"')
    may_end = threading.Event()
    make = live.service.runs.snapshot

    def slowly(run_id):
        assert run_id == asked or may_end.wait(PATIENCE_S)
        return make(run_id)

    monkeypatch.setattr(live.service.runs, "snapshot", slowly)
    waiting = post(live, START, {"bundle_id": "echo"}, "Prefer: wait=30")
    waiting.read_until(b"\r\n\r\n ")

    live.ask("POST", "/commands", body=command(asked, "resume", payload={"payload": {"response": "Bob"}}))
    stream.read_until(b"event: done")

    assert not may_end.is_set()
    may_end.set()
    assert json.loads(waiting.read_to_end())["run"]["status"] == "completed"


def test_an_answer_that_cannot_be_made_is_what_is_known(live, post, monkeypatch):
    def fail(run_id):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(live.service.runs, "snapshot", fail)

    answer = post(live, START, {"bundle_id": "echo"}, "Prefer: wait=30").answer()

    assert list(answer.json) == ["run_id"]
