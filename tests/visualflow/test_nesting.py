from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig
from abstractgateway.errors import Invalid
from abstractgateway.testing import GatewayHarness
from tests.visualflow.conftest import flow, node

Json = dict[str, Any]


def counting_down() -> Json:
    """Draw a flow that runs itself with a number one less, as long as the number is above zero."""
    nodes = [
        node("s", "on_flow_start", "", "> number"),
        node("compare", "compare", "a b op", "result", defaults={"b": 0, "op": ">"}),
        node("if", "if", "> condition", ">true >false"),
        node("less", "subtract", "a b", "result", defaults={"b": 1}),
        node("again", "subflow", "> number", "> said", subflowId="down"),
        node("end", "on_flow_end", "> said"),
        node("stop", "on_flow_end", "> said", defaults={"said": "ground"}),
    ]
    edges = ["s > if", "if/true > again", "if/false > stop", "again > end", "again/said -> end/said"]
    edges += [
        "s/number -> compare/a",
        "compare/result -> if/condition",
        "s/number -> less/a",
        "less/result -> again/number",
    ]
    return flow(nodes, edges, "down")


def harness(tmp_path: Path, **settings: Any) -> GatewayHarness:
    config = GatewayConfig(store_backend="memory", data_dir=tmp_path, **settings)
    return GatewayHarness(flows={"down": counting_down()}, config=config)


def test_runs_may_be_nested_as_deep_as_the_setting_says(tmp_path: Path) -> None:
    outcome = harness(tmp_path, max_subflow_depth=3).run("down", {"number": 3})

    assert (outcome.status, outcome.output) == ("completed", {"said": "ground", "success": True})


def test_a_run_that_would_be_nested_deeper_is_not_started_and_the_reason_names_the_setting(tmp_path: Path) -> None:
    outcome = harness(tmp_path, max_subflow_depth=3).run("down", {"number": 4})

    last = outcome.runs[-1]
    assert (len(outcome.runs), last.status.value) == (4, "failed")
    assert "nested 3 deep, which is as much as ABSTRACTGATEWAY_MAX_SUBFLOW_DEPTH allows" in str(last.error)


def test_without_the_setting_hundreds_of_levels_are_fine(tmp_path: Path) -> None:
    outcome = harness(tmp_path).run("down", {"number": 300})

    assert (outcome.output, len(outcome.runs)) == ({"said": "ground", "success": True}, 301)


def test_a_flow_that_runs_itself_without_end_comes_to_an_end(tmp_path: Path) -> None:
    outcome = harness(tmp_path, max_subflow_depth=20).run("down", {"number": 10**9})

    assert (outcome.status, len(outcome.runs)) == ("completed", 21)


@pytest.mark.parametrize("text", ["0", "-1", "deep"])
def test_a_depth_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="ABSTRACTGATEWAY_MAX_SUBFLOW_DEPTH"):
        GatewayConfig.from_env({"ABSTRACTGATEWAY_MAX_SUBFLOW_DEPTH": text})
