from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import Conflict, Invalid, NotFound
from tests.service.waiting import wait_for_status
from tests.visualflow.conftest import flow, node

Json = dict[str, Any]


def saying(text: str, flow_id: str) -> Json:
    nodes = [node("s", "on_flow_start", "", "> n"), node("end", "on_flow_end", "> said", defaults={"said": text})]
    return {**flow(nodes, ["s > end"], flow_id), "name": flow_id.title()}


def calling(child: str, flow_id: str) -> Json:
    nodes = [
        node("s", "on_flow_start", "", ">"),
        node("sub", "subflow", ">", "> said", subflowId=child),
        node("end", "on_flow_end", "> said"),
    ]
    return flow(nodes, ["s > sub", "sub > end", "sub/said -> end/said"], flow_id)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Json], Path]:
    (tmp_path / "flows").mkdir()

    def write(document: Json) -> Path:
        path = tmp_path / "flows" / f"{document['id']}.json"
        path.write_text(json.dumps(document))
        return path

    return write


@pytest.fixture
def gateway(tmp_path: Path, save: Any) -> Iterator[GatewayService]:
    save(saying("hello", "greet"))
    save(calling("greet", "main_flow"))
    environ = {
        "ABSTRACTGATEWAY_WORKFLOW_SOURCE": "VisualFlow",
        "ABSTRACTGATEWAY_FLOWS_DIR": str(tmp_path / "flows"),
        "ABSTRACTGATEWAY_DATA_DIR": str(tmp_path / "data"),
    }
    with GatewayService.open(GatewayConfig.from_env(environ)) as opened:
        yield opened


def output_of(gateway: GatewayService, flow_id: str) -> Any:
    run = wait_for_status(gateway, gateway.runs.start(flow_id=flow_id), "completed", "failed")
    return run["output"]


def test_a_flow_of_the_directory_runs_under_its_own_id(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(flow_id="greet")

    run = wait_for_status(gateway, run_id, "completed", "failed")

    assert (run["workflow_id"], run["output"]["said"]) == ("greet", "hello")


def test_flows_run_each_other_by_id(gateway: GatewayService) -> None:
    assert output_of(gateway, "main_flow")["said"] == "hello"


def test_a_flow_that_is_saved_anew_is_served_after_a_reload(gateway: GatewayService, save: Any) -> None:
    save(saying("good morning", "greet"))
    (save(saying("x", "broken"))).write_text("{")

    told = gateway.bundles.reload()

    assert (told["ok"], told["bundle_ids"], told["count"]) == (True, [], 2)
    assert [error["file"] for error in told["load_errors"]] == ["broken.json"]
    assert output_of(gateway, "greet")["said"] == "good morning"


def test_a_flow_that_is_new_can_be_started_at_once(gateway: GatewayService, save: Any) -> None:
    save(saying("me too", "late"))

    assert output_of(gateway, "late")["said"] == "me too"


def test_the_flows_are_listed_where_bundles_are(gateway: GatewayService) -> None:
    listed = gateway.bundles.list()

    assert (listed["items"], listed["default_bundle_id"], listed["load_errors"]) == ([], None, [])
    assert [(item["flow_id"], item["name"]) for item in listed["flows"]] == [
        ("greet", "Greet"),
        ("main_flow", "main_flow"),
    ]


def test_a_flow_can_be_read_as_it_is_drawn(gateway: GatewayService) -> None:
    found = gateway.bundles.workflow_flow("greet")

    assert found["flow"] == saying("hello", "greet")
    assert (found["bundle_id"], found["flow_id"], found["workflow_id"]) == (None, "greet", "greet")


@pytest.mark.parametrize(
    "ask",
    [
        lambda bundles: bundles.get("greet"),
        lambda bundles: bundles.flow("greet", "greet"),
        lambda bundles: bundles.input_schema("greet", "greet"),
        lambda bundles: bundles.workflow_flow("nope"),
    ],
)
def test_what_is_asked_of_a_bundle_is_not_found(gateway: GatewayService, ask: Callable[[Any], Any]) -> None:
    with pytest.raises(NotFound, match="not found"):
        ask(gateway.bundles)


@pytest.mark.parametrize(
    "change",
    [
        lambda bundles: bundles.upload(io.BytesIO(b"")),
        lambda bundles: bundles.remove("greet"),
        lambda bundles: bundles.deprecate("greet"),
        lambda bundles: bundles.undeprecate("greet"),
    ],
)
def test_bundles_cannot_be_managed_where_there_are_none(
    gateway: GatewayService, tmp_path: Path, change: Callable[[Any], Any]
) -> None:
    with pytest.raises(Conflict, match="ABSTRACTGATEWAY_WORKFLOW_SOURCE"):
        change(gateway.bundles)

    assert sorted(path.name for path in (tmp_path / "flows").iterdir()) == ["greet.json", "main_flow.json"]


def test_another_source_of_workflows_is_refused() -> None:
    with pytest.raises(Invalid, match="'files' is not one of 'bundle', 'visualflow'"):
        GatewayConfig.from_env({"ABSTRACTGATEWAY_WORKFLOW_SOURCE": "files"})
