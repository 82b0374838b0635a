"""The main job as a client does it over HTTP: start a shared bundle, answer it, replay, stream and reconnect."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.testing import ScriptedModel
from abstractgateway_http.server import GatewayServer

SHARED = Path(__file__).resolve().parents[3] / "shared" / "flows" / "bundles"
TOKEN = "acceptance-token-of-some-length"
TERMINAL = ("completed", "failed", "cancelled")


class Client:
    """What curl does, in a few lines."""

    def __init__(self, port: int) -> None:
        self._port = port

    def call(self, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        connection.request("POST" if body is not None else "GET", path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        content = json.loads(response.read())
        connection.close()
        assert response.status == 200, content
        return content

    def start(self, **request: Any) -> str:
        return str(self.call("/api/gateway/runs/start", request)["run_id"])

    def run(self, run_id: str) -> Any:
        return self.call(f"/api/gateway/runs/{run_id}")

    def page(self, run_id: str, after: int, limit: int) -> Any:
        return self.call(f"/api/gateway/runs/{run_id}/ledger?after={after}&limit={limit}")

    def answer(self, run_id: str, wait_key: str, response: str, command_id: str) -> Any:
        payload = {"wait_key": wait_key, "payload": {"response": response}}
        command = {"command_id": command_id, "run_id": run_id, "type": "resume", "payload": payload}
        return self.call("/api/gateway/commands", command)

    def stream(self, run_id: str, after: int = 0, last_event_id: int | None = None) -> Iterator[tuple[str, Any]]:
        """Yield the event name and the data of each frame until the server closes the stream."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = str(last_event_id)
        connection.request("GET", f"/api/gateway/runs/{run_id}/ledger/stream?after={after}", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        event = ""
        for line in response:
            text = line.decode().rstrip("\n")
            if text.startswith("event: "):
                event = text[7:]
            elif text.startswith("data: "):
                yield event, json.loads(text[6:])
        connection.close()

    def next_question(self, run_id: str, after: int) -> tuple[int, str]:
        """Follow the run until it asks its user; return the record's cursor and the key to answer with."""
        for event, data in self.stream(run_id, after):
            wait = (data.get("record", {}).get("result") or {}).get("wait") if event == "step" else None
            if wait and wait["reason"] == "user":
                return data["cursor"], wait["wait_key"]
        raise AssertionError("the run ended without a question")


@pytest.fixture
def bundles() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the shared bundles are not in {SHARED}")
    return SHARED


def open_gateway(directory: Path, bundles: Path, backend: str) -> GatewayService:
    config = GatewayConfig(
        data_dir=directory, flows_dir=bundles, store_backend=backend, auth_tokens=(TOKEN,), max_sse=100
    )
    model = ScriptedModel(lambda call: f"answer to {call.get('prompt') or call['messages'][-1]['content']}")
    return GatewayService.open(config, model=model)


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_client_starts_answers_replays_and_streams_a_real_bundle(tmp_path: Path, bundles: Path, backend: str) -> None:
    with open_gateway(tmp_path, bundles, backend) as gateway, GatewayServer(gateway, "127.0.0.1", 0) as server:
        client = Client(server.port)
        run_id = client.start(bundle_id="basic-followup", bundle_version="dev", input_data={"prompt": "a poem"})
        first, key = client.next_question(run_id, 0)
        assert client.answer(run_id, key, "make it shorter", "c-1") == {"accepted": True, "duplicate": False, "seq": 1}
        assert client.answer(run_id, key, "make it shorter", "c-1") == {"accepted": False, "duplicate": True, "seq": 1}
        second, key = client.next_question(run_id, first)
        client.answer(run_id, key, "stop", "c-2")

        streamed = list(client.stream(run_id))

        run = client.run(run_id)
        steps = [data for event, data in streamed if event == "step"]
        whole = client.page(run_id, 0, 2000)
        paged = [record for after in range(0, len(steps), 3) for record in client.page(run_id, after, 3)["items"]]
        done = {"run_id": run_id, "cursor": len(steps), "status": "terminal"}
        assert run["status"] == "completed"
        assert run["output"] == {"response": "answer to make it shorter", "success": True}
        assert streamed[-1] == ("done", done)
        assert [step["cursor"] for step in steps] == list(range(1, len(steps) + 1))
        assert [step["record"] for step in steps] == whole["items"] == paged
        assert whole["next_after"] == len(steps)
        assert list(client.stream(run_id, after=first)) == streamed[first:]
        assert list(client.stream(run_id, last_event_id=second)) == streamed[second:]
        assert list(client.stream(run_id, after=first, last_event_id=second)) == streamed[second:]

    with open_gateway(tmp_path, bundles, backend) as gateway, GatewayServer(gateway, "127.0.0.1", 0) as server:
        assert list(Client(server.port).stream(run_id)) == streamed


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_an_open_stream_shows_each_step_while_the_run_goes_on(tmp_path: Path, bundles: Path, backend: str) -> None:
    with open_gateway(tmp_path, bundles, backend) as gateway, GatewayServer(gateway, "127.0.0.1", 0) as server:
        client = Client(server.port)
        run_id = client.start(bundle_id="basic-followup@dev", input_data={"prompt": "a poem"})
        seen: list[int] = []

        for event, data in client.stream(run_id):
            if event == "step":
                seen.append(data["cursor"])
                wait = (data["record"]["result"] or {}).get("wait") or {}
                if wait.get("reason") == "user":
                    client.answer(run_id, wait["wait_key"], "good", "c-1")

        assert client.run(run_id)["status"] == "completed"
        assert seen == list(range(1, len(seen) + 1))


@pytest.mark.parametrize("backend", ["file", "sqlite"])
def test_a_late_copy_of_an_answer_is_rejected_and_says_why(tmp_path: Path, bundles: Path, backend: str) -> None:
    with open_gateway(tmp_path, bundles, backend) as gateway, GatewayServer(gateway, "127.0.0.1", 0) as server:
        client = Client(server.port)
        run_id = client.start(bundle_id="basic-followup", input_data={"prompt": "a poem"})
        first, key = client.next_question(run_id, 0)
        client.answer(run_id, key, "again", "c-1")
        second, _ = client.next_question(run_id, first)

        client.answer(run_id, key, "stop", "c-2")

        client.call("/api/gateway/commands", {"command_id": "c-3", "run_id": run_id, "type": "cancel"})
        list(client.stream(run_id))
        outcome = client.call("/api/gateway/commands/c-2")
        assert outcome["status"] == "rejected"
        assert "wait_key mismatch" in outcome["reason"]
        assert client.run(run_id)["status"] == "cancelled"
        assert [item["effect"]["type"] for item in client.page(run_id, second, 10)["items"]] == ["emit_event"]


def test_the_shared_bundles_load_and_end_as_they_should(bundles: Path, tmp_path: Path) -> None:
    answers = {"prompt": "hello", "provider": "p", "model": "m"}
    with open_gateway(tmp_path, bundles, "memory") as gateway, GatewayServer(gateway, "127.0.0.1", 0) as server:
        client = Client(server.port)
        listed = client.call("/api/gateway/bundles")
        names = [item["bundle_id"] for item in listed["items"]]

        ended = {}
        for name in ("basic", "basic-agent", "basic-llm-test", "yoda"):
            run_id = client.start(bundle_id=name, input_data=answers)
            list(client.stream(run_id))
            ended[name] = client.run(run_id)

        assert listed["load_errors"] == []
        assert names == ["basic", "basic-agent", "basic-followup", "basic-llm-test", "yoda"]
        assert {name: run["status"] for name, run in ended.items()} == dict.fromkeys(ended, "completed")
        assert ended["basic"]["output"] == {"response": "answer to hello", "success": True}
        assert ended["basic-agent"]["output"]["response"] == "answer to hello"
        assert ended["basic-agent"]["output"]["meta"]["schema"] == "abstractcode.agent.v1.meta"
        assert ended["yoda"]["output"] == {"success": True, "result": {"prompt": "hello"}}
