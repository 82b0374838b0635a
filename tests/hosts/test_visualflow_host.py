from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Invalid, NotFound
from abstractgateway.hosts import VisualflowHost

START = {
    "id": "s",
    "type": "on_flow_start",
    "data": {"outputs": [{"id": "exec-out", "type": "execution"}, {"id": "n"}]},
}
AGENT = {"id": "a", "type": "agent", "data": {"agentConfig": {"provider": "P", "model": "m"}}}
LISTEN = {"id": "on", "type": "on_event", "data": {"outputs": [{"id": "exec-out", "type": "execution"}]}}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(file: str, *nodes: Any, **fields: Any) -> Path:
        path = tmp_path / f"{file}.json"
        path.write_text(json.dumps({"id": file, "nodes": [START, *nodes], "edges": [], **fields}))
        return path

    return write


def asked(host: VisualflowHost, flow_id: str) -> str:
    return host.resolve(bundle_id=None, bundle_version=None, flow_id=flow_id)


def test_each_flow_of_a_directory_is_served_under_its_id(save: Any, tmp_path: Path) -> None:
    save("file name", id="inner", name="Shown")
    save("other", id=None)

    host = VisualflowHost(tmp_path)

    assert [(item["flow_id"], item["name"]) for item in host.list_flows()["items"]] == [
        ("inner", "Shown"),
        ("other", "other"),
    ]
    assert asked(host, "inner") == host.workflow("inner").workflow_id == "inner"
    assert (host.start_pins("other")[0]["id"], host.document("inner")["name"]) == ("n", "Shown")


def test_a_file_that_cannot_be_used_is_listed_and_affects_no_other(save: Any, tmp_path: Path) -> None:
    save("good")
    save("bad", {"id": "x", "type": "nope"})
    save("twin", id="good")
    (tmp_path / "broken.json").write_text("{")

    host = VisualflowHost(tmp_path)

    told = {item["file"]: item["error"] for item in host.list_flows()["load_errors"]}
    assert [item["flow_id"] for item in host.list_flows()["items"]] == ["good"]
    assert sorted(told) == ["bad.json", "broken.json", "twin.json"]
    assert "'x' has the type 'nope'" in told["bad.json"] and "already in another file" in told["twin.json"]


def test_a_flow_that_is_new_or_changed_is_noticed(save: Any, tmp_path: Path) -> None:
    first = save("first")
    host = VisualflowHost(tmp_path)
    kept = host.workflow("first")

    save("second")
    found = asked(host, "second")
    unchanged = host.workflow("first")
    save("first", name="New")
    os.utime(first, (1, 1))

    assert (found, unchanged is kept, host.refresh(), host.refresh()) == ("second", True, True, False)
    assert host.document("first")["name"] == "New"


def test_workflows_that_belong_to_a_flow_are_served(save: Any, tmp_path: Path) -> None:
    edge = {"source": "s", "sourceHandle": "exec-out", "target": "a", "targetHandle": "exec-in"}
    save("f", AGENT, LISTEN, edges=[edge])

    host = VisualflowHost(tmp_path)

    (listener,) = host.listeners("f")
    assert host.workflow(listener.workflow_id) is listener
    assert host.workflow("visual_react_agent_f_a").workflow_id == "visual_react_agent_f_a"
    assert host.runtime_defaults("visual_react_agent_f_a") == {"provider": "p", "model": "m"}
    assert (host.listeners("gone"), host.runtime_defaults("gone")) == ((), {})


def test_what_is_not_there_is_refused(save: Any, tmp_path: Path) -> None:
    save("f")
    host = VisualflowHost(tmp_path)

    with pytest.raises(NotFound, match="known: 'f'"):
        host.workflow("zz")
    with pytest.raises(NotFound):
        host.document("zz")
    with pytest.raises(NotFound, match="Flow 'zz' not found"):
        asked(host, "zz")
    with pytest.raises(NotFound):
        host.resolve(bundle_id="b", bundle_version=None, flow_id="f")
    with pytest.raises(Invalid, match="flow_id is required"):
        asked(host, "")


def test_a_directory_that_is_missing_has_no_flows(tmp_path: Path) -> None:
    host = VisualflowHost(tmp_path / "nowhere")

    assert host.list_flows() == {"items": [], "load_errors": []}
