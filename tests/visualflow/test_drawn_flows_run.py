"""Flows that people drew with the editor, run with stand-ins: restarting before every step must change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.runtime.models import EffectType
from abstractgateway.visualflow.nodes.registry import REGISTRY

VISUALFLOWS = Path(__file__).resolve().parents[2].parent / "shared" / "flows" / "visualflows"


def _documents() -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted(VISUALFLOWS.glob("*.json"))]
    return {item["id"]: item for item in found if all(node["type"] in REGISTRY for node in item["nodes"])}


MOST_STEPS = 150
"""Some drawings go on for ever; what they have done by then is compared."""

DOCUMENTS = _documents() if VISUALFLOWS.is_dir() else {}
IDS = sorted(DOCUMENTS) or [pytest.param("", marks=pytest.mark.skip(reason="the shared drawings are not here"))]


def _example(schema: Any) -> Any:
    """Make a value that a schema allows."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "object":
        return {name: _example(inner) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [_example(schema.get("items"))]
    return {"number": 1, "integer": 1, "boolean": True}.get(str(kind), "text")


def _model(call: dict[str, Any]) -> dict[str, Any]:
    if call.get("response_schema"):
        return {"data": _example(call["response_schema"])}
    return {"content": '{"answer": "text", "items": ["a", "b"]}', "provider": "p", "model": "m"}


@pytest.mark.parametrize("flow_id", IDS)
def test_a_drawn_flow_gives_the_same_when_it_is_restarted_before_every_step(make_driver: Any, flow_id: str) -> None:
    ends = []
    for is_restarted in (False, True):
        driver = make_driver(
            is_restarted_each_step=is_restarted,
            max_steps=MOST_STEPS,
            llm=_model,
            answers=["yes", "stop"],
            events=[{"response": "Blue"}] * 3,
        )
        for document in DOCUMENTS.values():
            driver.add(document)
        result = driver.run(flow_id, {"prompt": "p", "request": "r", "_runtime": {"provider": "p", "model": "m"}})
        ends.append((result.status, result.output, result.error, driver.effects, driver.visited))

    assert ends[0] == ends[1]
    assert ends[0][0] in ("completed", "waiting", "failed", "stopped")
    assert ends[0][0] != "failed" or ends[0][2].startswith("node '")


def test_a_question_by_event_is_answered_and_reported(driver: Any) -> None:
    if "acagent_ask_demo" not in DOCUMENTS:
        pytest.skip("the shared drawings are not here")
    driver.add(DOCUMENTS["acagent_ask_demo"])
    driver.events = [{"response": "Blue"}]

    result = driver.run("acagent_ask_demo")

    assert result.output == {
        "response": "You answered: Blue",
        "result": None,
        "meta": None,
        "scratchpad": None,
        "success": True,
    }
    asked = driver.payloads(EffectType.WAIT_EVENT)[0]
    assert (asked["wait_key"], asked["prompt"], asked["choices"], asked["allow_free_text"]) == (
        "abstract.ask",
        "What is your favorite color?",
        ["Red", "Green", "Blue"],
        False,
    )
    emitted = driver.payloads(EffectType.EMIT_EVENT)[0]
    assert (emitted["name"], emitted["scope"]) == ("abstract.message", "run")
