"""What one of two processes on a data directory makes, the other one has."""

from __future__ import annotations

import http.client
import io
import json
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import PATIENCE_S, TOKEN, Client, Process, environment, port_of, serve
from tests.cli.test_split import runner

RUNNER = "/api/gateway/runner"
TWICE = {"bundle_id": "talk", "flow_id": "talk", "start_at": "now", "interval": "1s", "repeat_count": 2}


@pytest.fixture(params=["file", "sqlite"])
def env(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "flows").mkdir()
    return environment(tmp_path / "data", str(request.param), FLOWS_DIR=tmp_path / "flows")


@pytest.fixture
def split(env: dict[str, str]) -> Iterator[Client]:
    with serve("--no-runner", env=env) as api, runner(env):
        yield Client(port_of(api))


def a_bundle(name: str, version: str, flows: dict[str, Any]) -> bytes:
    manifest = {
        "bundle_format_version": "1",
        "bundle_id": name,
        "bundle_version": version,
        "created_at": "2026-01-01T00:00:00+00:00",
        "entrypoints": [
            {"flow_id": flow_id, "name": flow_id, "description": "", "interfaces": []} for flow_id in flows
        ],
        "flows": {flow_id: f"flows/{flow_id}.json" for flow_id in flows},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for flow_id, flow in flows.items():
            archive.writestr(f"flows/{flow_id}.json", json.dumps({"id": flow_id, "name": flow_id, **flow}))
    return buffer.getvalue()


def pins(text: str) -> list[dict[str, str]]:
    return [{"id": word.lstrip(">"), "type": "execution" if word.startswith(">") else "any"} for word in text.split()]


def node(node_id: str, kind: str, inputs: str, outputs: str, **data: Any) -> dict[str, Any]:
    return {"id": node_id, "type": kind, "data": {"inputs": pins(inputs), "outputs": pins(outputs), **data}}


def edge(source: str, source_pin: str, target: str, target_pin: str) -> dict[str, str]:
    return {"source": source, "sourceHandle": source_pin, "target": target, "targetHandle": target_pin}


def saying(text: str) -> dict[str, Any]:
    nodes = [
        node("start", "on_flow_start", "", ">exec-out"),
        node("end", "on_flow_end", ">exec-in said", "", pinDefaults={"said": text}),
    ]
    return {"nodes": nodes, "edges": [edge("start", "exec-out", "end", "exec-in")]}


def calling(workflow_id: str) -> dict[str, Any]:
    nodes = [
        node("start", "on_flow_start", "", ">exec-out"),
        node("sub", "subflow", ">exec-in", ">exec-out said", subflowId=workflow_id),
        node("end", "on_flow_end", ">exec-in said", ""),
    ]
    edges = [
        edge("start", "exec-out", "sub", "exec-in"),
        edge("sub", "exec-out", "end", "exec-in"),
        edge("sub", "said", "end", "said"),
    ]
    return {"nodes": nodes, "edges": edges}


def upload(client: Client, content: bytes, *, overwrite: bool = False) -> Any:
    boundary = "a-boundary"
    fields = f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\n{str(overwrite).lower()}\r\n'
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="b.flow"\r\n\r\n'
    body = fields.encode() + head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": f"multipart/form-data; boundary={boundary}"}
    try:
        connection.request("POST", "/api/gateway/bundles/upload", body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    assert response.status == 200, answer
    return answer


def said(client: Client, **request: Any) -> Any:
    run_id = client.start(**request)
    list(client.follow(run_id))
    run = client.run(run_id)
    assert run["status"] == "completed", run
    return run["output"]["said"]


def test_bundles_that_come_and_change_are_those_that_are_run(split: Client) -> None:
    upload(split, a_bundle("talk", "1.0.0", {"talk": saying("one")}))
    first = said(split, bundle_id="talk")
    upload(split, a_bundle("talk", "1.0.0", {"talk": saying("another one")}), overwrite=True)
    second = said(split, bundle_id="talk")
    upload(split, a_bundle("talk", "2.0.0", {"talk": saying("two")}))
    third = said(split, bundle_id="talk")

    assert [first, second, third] == ["one", "another one", "two"]


def test_a_child_is_of_the_latest_version_that_is_there(split: Client) -> None:
    upload(split, a_bundle("talk", "1.0.0", {"talk": saying("one")}))
    upload(split, a_bundle("caller", "1.0.0", {"caller": calling("talk:talk")}))
    before = said(split, bundle_id="caller")
    upload(split, a_bundle("talk", "2.0.0", {"talk": saying("two")}))
    after = said(split, bundle_id="caller")

    assert [before, after] == ["one", "two"]


def test_schedules_fire_in_the_other_process(split: Client) -> None:
    upload(split, a_bundle("talk", "1.0.0", {"talk": saying("one")}))
    schedule = split.call("/api/gateway/runs/schedule", TWICE)["run_id"]
    list(split.follow(schedule))

    children = split.call(f"/api/gateway/runs?parent_run_id={schedule}")["items"]

    assert split.run(schedule)["status"] == "completed"
    assert len(children) >= 2


def test_a_schedule_runs_what_was_put_in_the_place_of_its_bundle(split: Client) -> None:
    upload(split, a_bundle("talk", "1.0.0", {"talk": saying("one")}))
    schedule = split.call("/api/gateway/runs/schedule", {**TWICE, "interval": "1h"})["run_id"]
    wait_until(lambda: executions(split, schedule) == ["one"])
    upload(split, a_bundle("talk", "1.0.0", {"talk": saying("another one")}), overwrite=True)
    now = {"command_id": "c-1", "run_id": schedule, "type": "resume", "payload": {"payload": {"mode": "run_now"}}}
    split.call("/api/gateway/commands", now)

    wait_until(lambda: len(executions(split, schedule)) == 2)
    assert executions(split, schedule) == ["another one", "one"]


def executions(client: Client, schedule: str) -> list[str]:
    """Return what the ended runs of a schedule said, the latest first."""
    children = client.call(f"/api/gateway/runs?parent_run_id={schedule}")["items"]
    ended = [client.run(child["run_id"]) for child in children if child["status"] == "completed"]
    return [run["output"]["said"] for run in ended]


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until


def test_a_server_comes_back_without_a_run_noticing(env: dict[str, str]) -> None:
    with runner(env):
        with serve("--no-runner", env=env) as api:
            client = Client(port_of(api))
            upload(client, a_bundle("talk", "1.0.0", {"talk": saying("one")}))
            schedule = client.call("/api/gateway/runs/schedule", TWICE)["run_id"]
            owner = client.call(RUNNER)["owner"]
            api.end(signal.SIGKILL)
        with serve("--no-runner", env=env) as api:
            client = Client(port_of(api))
            list(client.follow(schedule))
            run, same = client.run(schedule), client.call(RUNNER)["owner"]

    assert run["status"] == "completed"
    assert same == owner


def test_who_drives_the_runs_is_told_and_a_second_one_takes_over_within_two_seconds(env: dict[str, str]) -> None:
    with serve("--no-runner", env=env) as api:
        client = Client(port_of(api))
        nobody = client.call(RUNNER)
        with runner(env) as first:
            alone = told_when(client, lambda told: told["owner"])
            with runner(env) as second:
                both = told_when(client, lambda told: told["standby"])
                begun = time.monotonic()
                first.end(signal.SIGKILL)
                after = told_when(client, lambda told: told["owner"] and told["owner"]["pid"] == second.pid)
                took = time.monotonic() - begun

    assert (nobody["owner"], nobody["standby"], nobody["last_seen"]) == (None, None, None)
    assert (alone["owner"]["pid"], alone["standby"]) == (first.pid, None)
    assert (both["owner"]["pid"], both["standby"]["pid"]) == (first.pid, second.pid)
    assert after["standby"] is None
    assert took <= 2.0


def told_when(client: Client, is_there: Any) -> Any:
    """Ask who drives the runs until the answer is as wanted."""
    until = time.monotonic() + PATIENCE_S
    while not is_there(told := client.call(RUNNER)):
        assert time.monotonic() < until, told
    return told


def test_what_is_deprecated_by_one_server_is_not_started_by_another(env: dict[str, str]) -> None:
    with serve("--no-runner", env=env) as one, serve("--no-runner", env=env) as other:
        here, there = Client(port_of(one)), Client(port_of(other))
        upload(here, a_bundle("talk", "1.0.0", {"talk": saying("one")}))
        there.start(bundle_id="talk")
        here.call("/api/gateway/bundles/talk/deprecate", {"reason": "old"})
        with pytest.raises(AssertionError, match="deprecated: old"):
            there.start(bundle_id="talk")
        here.call("/api/gateway/bundles/talk/undeprecate", {})
        there.start(bundle_id="talk")


def test_a_token_that_is_made_beside_a_server_is_accepted_and_revoked_at_once(env: dict[str, str]) -> None:
    with serve("--no-runner", env=env) as api:
        port = port_of(api)
        with Process("-m", "abstractgateway", "token", "create", "ci", "--scope", "read", env=env) as made:
            assert made.wait() == 0, made.output
        text = next(word for line in made.output for word in line.split() if word.startswith("agw_"))
        client = Client(port, token=text)
        client.call("/api/gateway/runs")
        with Process("-m", "abstractgateway", "token", "revoke", "ci", env=env) as revoked:
            assert revoked.wait() == 0, revoked.output
        with pytest.raises(AssertionError, match="unauthorized"):
            client.call("/api/gateway/runs")
