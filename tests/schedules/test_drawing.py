from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.schedules import Timing, draw_schedule
from abstractgateway.visualflow.compiler import compile_flow

ONCE: dict[str, Any] = {"start_at": "2030-01-01T00:00:00+00:00"}
FOR_EVER: dict[str, Any] = {"interval": "1h"}
SO_OFTEN: dict[str, Any] = {"interval": "1h", "repeat_count": 3}


def drawn(timing: dict[str, Any], *, shares: bool = True) -> dict[str, Any]:
    definition = {"target_workflow_id": "b@1:flow", "share_context": shares, **Timing(**timing).to_dict()}
    return draw_schedule("scheduled:1", definition)


def ways(document: dict[str, Any]) -> set[str]:
    """Return the edges of execution as texts."""
    return {
        f"{edge['source']}.{edge['sourceHandle']} > {edge['target']}"
        for edge in document["edges"]
        if edge["targetHandle"] == "exec-in"
    }


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("timing", [ONCE, {**FOR_EVER, **ONCE}, {**SO_OFTEN, **ONCE}])
def test_a_drawing_is_a_flow_that_compiles_without_a_warning(timing: dict[str, Any], shares: bool) -> None:
    compiled = compile_flow(drawn(timing, shares=shares))

    assert compiled.warnings == ()


def test_the_shapes_are_those_that_clients_know() -> None:
    assert ways(drawn(ONCE)) == {
        "start.exec-out > wait_start",
        "wait_start.exec-out > run_target",
        "run_target.exec-out > end",
    }
    assert ways(drawn(FOR_EVER)) == {
        "start.exec-out > wait_start",
        "wait_start.exec-out > run_target",
        "run_target.exec-out > wait_interval",
        "wait_interval.exec-out > run_target",
    }
    assert ways(drawn(SO_OFTEN)) == {
        "start.exec-out > repeat",
        "repeat.loop > pick_wait",
        "pick_wait.true > wait_start",
        "pick_wait.false > wait_interval",
        "wait_start.exec-out > run_target",
        "wait_interval.exec-out > run_target",
        "repeat.done > end",
    }


def test_a_drawing_says_when_and_what() -> None:
    nodes = {node["id"]: node["data"] for node in drawn({**SO_OFTEN, **ONCE})["nodes"]}

    assert nodes["wait_start"]["eventConfig"] == {"schedule": "2030-01-01T00:00:00+00:00", "recurrent": False}
    assert nodes["wait_interval"]["eventConfig"] == {"schedule": "1h", "recurrent": False}
    assert nodes["run_target"]["subflowId"] == "b@1:flow"
    assert nodes["repeat"]["pinDefaults"] == {"start": 0, "end": 3, "step": 1}


def test_a_calendar_is_drawn_with_its_expression_and_zone() -> None:
    nodes = {node["id"]: node["data"] for node in drawn({"cron": "@daily", "timezone": "Asia/Tokyo"})["nodes"]}

    told = nodes["wait_interval"]["eventConfig"]
    assert (told["cron"], told["timezone"]) == ("@daily", "Asia/Tokyo")
