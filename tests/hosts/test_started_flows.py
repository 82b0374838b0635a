from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.testing import ScriptedModel
from tests.service.waiting import wait_for, wait_for_status
from tests.visualflow.conftest import flow, node

Json = dict[str, Any]
Open = Callable[[], GatewayService]

ASK = [
    node("s", "on_flow_start", "", ">"),
    node("ask", "ask_user", "> prompt", "> response", defaults={"prompt": "Go on?"}),
]


def asking(answer: str, *, end: str = "end") -> Json:
    """Draw a flow that asks and then says one thing."""
    last = node(end, "on_flow_end", "> said", defaults={"said": answer})
    return flow([*ASK, last], ["s > ask", f"ask > {end}"], "root")


def asking_then(child: str) -> Json:
    """Draw a flow that asks, runs another one and gives what that said."""
    nodes = [*ASK, node("sub", "subflow", ">", "> said", subflowId=child), node("end", "on_flow_end", "> said")]
    return flow(nodes, ["s > ask", "ask > sub", "sub > end", "sub/said -> end/said"], "root")


def saying(text: str, *, entry: str = "s") -> Json:
    nodes = [node(entry, "on_flow_start", "", ">"), node("end", "on_flow_end", "> said", defaults={"said": text})]
    return flow(nodes, [f"{entry} > end"], "child")


def install(flows_dir: Path, **flows: Json) -> None:
    """Put the bundle `talk@1.0.0` there, or another one in its place."""
    manifest = {
        "bundle_format_version": "1",
        "bundle_id": "talk",
        "bundle_version": "1.0.0",
        "created_at": "2026-01-08T00:00:00+00:00",
        "entrypoints": [{"flow_id": "root"}],
        "flows": {name: f"flows/{name}.json" for name in flows},
    }
    flows_dir.mkdir(exist_ok=True)
    with zipfile.ZipFile(flows_dir / ".new", "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, document in flows.items():
            archive.writestr(f"flows/{name}.json", json.dumps({**document, "id": name}))
    os.replace(flows_dir / ".new", flows_dir / "talk.flow")


@pytest.fixture
def flows_dir(tmp_path: Path) -> Path:
    return tmp_path / "flows"


@pytest.fixture(params=["file", "sqlite"])
def open_gateway(request: pytest.FixtureRequest, tmp_path: Path, flows_dir: Path) -> Iterator[Open]:
    opened: list[GatewayService] = []

    def open_again() -> GatewayService:
        if opened:
            opened[-1].close()
        config = GatewayConfig(data_dir=tmp_path / "data", flows_dir=flows_dir, store_backend=request.param)
        opened.append(GatewayService.open(config, model=ScriptedModel(lambda call: "from the model")))
        return opened[-1]

    yield open_again
    opened[-1].close()


def asked(gateway: GatewayService) -> str:
    """Start a run and return its id when somebody in it asks."""
    run_id = gateway.runs.start(bundle_id="talk")
    wait_for(gateway, lambda: bool(_asking(gateway)))
    return run_id


def answered(gateway: GatewayService, run_id: str) -> Json:
    """Answer the run that asks and return the first one when it has ended."""
    payload = {"payload": {"response": "yes"}}
    asking_id = _asking(gateway)[0]
    gateway.commands.submit(run_id=asking_id, type="resume", payload=payload, command_id=f"answer-{asking_id}")
    return wait_for_status(gateway, run_id, "completed", "failed")


def _asking(gateway: GatewayService) -> list[str]:
    items = gateway.runs.list(status="waiting")["items"]
    return [item["run_id"] for item in items if item["waiting"]["reason"] == "user"]


def said(run: Json) -> Any:
    return (run["output"] or {}).get("said"), run["error"]


def test_a_waiting_run_goes_on_with_the_flow_it_started_with(open_gateway: Open, flows_dir: Path) -> None:
    install(flows_dir, root=asking("old"))
    run_id = asked(open_gateway())

    install(flows_dir, root=asking("new", end="other"))
    gateway = open_gateway()
    old = answered(gateway, run_id)

    assert said(old) == ("old", None)
    assert said(_fresh(gateway)) == ("new", None)


def _fresh(gateway: GatewayService) -> Json:
    return answered(gateway, asked(gateway))


def test_a_bundle_that_is_replaced_while_the_gateway_runs_changes_no_run(open_gateway: Open, flows_dir: Path) -> None:
    install(flows_dir, root=asking("old"))
    gateway = open_gateway()
    run_id = asked(gateway)

    install(flows_dir, root=asking("new", end="other"))
    gateway.bundles.reload()

    assert said(answered(gateway, run_id)) == ("old", None)


def test_a_run_outlives_its_bundle(open_gateway: Open, flows_dir: Path) -> None:
    install(flows_dir, root=asking_then("child"), child=saying("old"))
    run_id = asked(open_gateway())

    (flows_dir / "talk.flow").unlink()
    gateway = open_gateway()

    assert gateway.runs.get(run_id)["blocked_by"]["kind"] == "user"
    assert said(answered(gateway, run_id)) == ("old", None)


def test_the_flows_that_a_run_starts_later_are_those_of_its_start(open_gateway: Open, flows_dir: Path) -> None:
    install(flows_dir, root=asking_then("child"), child=saying("old"))
    run_id = asked(open_gateway())

    install(flows_dir, root=asking_then("child"), child=saying("new", entry="begin"))
    gateway = open_gateway()

    assert said(answered(gateway, run_id)) == ("old", None)


def test_a_child_that_waits_goes_on_with_its_old_flow(open_gateway: Open, flows_dir: Path) -> None:
    nodes = [node("s", "on_flow_start", "", ">"), node("sub", "subflow", ">", "> said", subflowId="child")]
    calling = flow([*nodes, node("end", "on_flow_end", "> said")], ["s > sub", "sub > end", "sub/said -> end/said"])
    install(flows_dir, root=calling, child=asking("old"))
    run_id = asked(open_gateway())

    install(flows_dir, root=saying("all new"), child=asking("new", end="other"))
    gateway = open_gateway()

    assert said(answered(gateway, run_id)) == ("old", None)


def test_an_agent_of_a_removed_bundle_still_answers(open_gateway: Open, flows_dir: Path) -> None:
    agent = node("agent", "agent", "> prompt", "> response", defaults={"prompt": "Hi"}, agentConfig=MODEL)
    nodes = [*ASK, agent, node("end", "on_flow_end", "> said")]
    document = flow(nodes, ["s > ask", "ask > agent", "agent > end", "agent/response -> end/said"])
    install(flows_dir, root=document)
    run_id = asked(open_gateway())

    (flows_dir / "talk.flow").unlink()
    gateway = open_gateway()

    assert said(answered(gateway, run_id)) == ("from the model", None)


MODEL = {"provider": "scripted", "model": "m"}


def test_without_its_stored_flow_a_run_waits_until_its_bundle_is_back(
    open_gateway: Open, flows_dir: Path, tmp_path: Path
) -> None:
    install(flows_dir, root=asking("old"))
    bundle = (flows_dir / "talk.flow").read_bytes()
    run_id = asked(open_gateway())
    install(flows_dir, root=asking("new"))
    gateway = open_gateway()
    reference = gateway.runs.history_bundle(run_id)["workflow_snapshot"]
    for stored in (tmp_path / "data" / "artifacts").glob(f"**/*{reference['artifact_id']}*"):
        stored.unlink()

    payload = {"payload": {"response": "yes"}}
    gateway.commands.submit(run_id=run_id, type="resume", payload=payload, command_id="c-1")
    wait_for_status(gateway, run_id, "running")
    blocked = gateway.runs.get(run_id)["blocked_by"]
    (flows_dir / "talk.flow").write_bytes(bundle)
    gateway.bundles.reload()

    assert "its stored copy is not there" in blocked["reason"]
    assert said(wait_for_status(gateway, run_id, "completed")) == ("old", None)


def test_what_is_stored_holds_the_flows_that_a_flow_runs(open_gateway: Open, flows_dir: Path) -> None:
    install(flows_dir, root=asking_then("child"), child=saying("old"), unused=saying("nothing"))
    gateway = open_gateway()
    run_id = asked(gateway)

    reference = gateway.runs.history_bundle(run_id)["workflow_snapshot"]
    content = json.loads(gateway.stores.artifacts.load(reference["artifact_id"]) or b"")

    assert (content["bundle_ref"], content["flow_id"]) == ("talk@1.0.0", "root")
    assert list(content["flows"]) == ["talk@1.0.0:child"]


def test_a_listener_of_a_removed_bundle_still_hears(open_gateway: Open, flows_dir: Path) -> None:
    nodes = [
        *ASK,
        node("end", "on_flow_end", ">"),
        node("on", "on_event", "", "> payload", eventConfig={"name": "go", "scope": "session"}),
        node("tell", "answer_user", "> message", ">"),
    ]
    edges = ["s > ask", "ask > end", "on > tell", "on/payload -> tell/message"]
    install(flows_dir, root=flow(nodes, edges))
    run_id = asked(open_gateway())
    (flows_dir / "talk.flow").unlink()
    gateway = open_gateway()

    listener = next(item for item in gateway.runs.list(parent_run_id=run_id)["items"])
    payload = {"name": "go", "session_id": run_id, "payload": {"value": "hello"}}
    gateway.commands.submit(run_id=run_id, type="emit_event", payload=payload, command_id="c-1")

    def said_hello() -> bool:
        records = [json.loads(record) for record in gateway.ledger.read(listener["run_id"]).records]
        effects = [record["effect"] for record in records if record.get("effect")]
        return any(effect["type"] == "answer_user" and "hello" in effect["payload"]["message"] for effect in effects)

    wait_for(gateway, said_hello)
    assert said_hello()
