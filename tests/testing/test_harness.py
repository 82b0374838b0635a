from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Invalid, NotFound
from abstractgateway.testing import GatewayHarness, ManualClock, ScriptedModel

SAMPLES = Path(__file__).resolve().parents[2] / "docs" / "samples"
ASK, HELLO = SAMPLES / "ask@0.1.0.flow", SAMPLES / "hello@0.1.0.flow"


def drawn(*nodes: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """Return a flow of nodes in a row, each with the values of its pins."""
    ids = ["start", *(node_id for node_id, _, _ in nodes), "end"]
    kinds = {"start": "on_flow_start", "end": "on_flow_end", **{node_id: kind for node_id, kind, _ in nodes}}
    values = {node_id: given for node_id, _, given in nodes}
    return {
        "id": "f",
        "nodes": [_node(node_id, kinds[node_id], values.get(node_id, {})) for node_id in ids],
        "edges": [
            {"source": left, "sourceHandle": "exec-out", "target": right, "targetHandle": "exec-in"}
            for left, right in zip(ids, ids[1:], strict=False)
        ],
    }


def _node(node_id: str, kind: str, values: dict[str, Any]) -> dict[str, Any]:
    execution = {"type": "execution"}
    inputs = [{"id": "exec-in", **execution}, *({"id": name, "type": "any"} for name in values)]
    outputs = [{"id": "exec-out", **execution}]
    data = {"inputs": inputs, "outputs": outputs, "pinDefaults": values}
    return {"id": node_id, "type": kind, "data": data}


def test_a_question_is_answered_in_the_order_of_the_answers() -> None:
    outcome = GatewayHarness(bundles=[ASK]).run("ask", {"prompt": "who?"}, answers=["Bob"])

    assert outcome.status == "completed"
    assert "Bob" in str(outcome.output)
    assert outcome.error is None
    assert outcome.waiting is None
    assert outcome.records[-1]["idempotency_key"] == "system:terminal_status:completed"
    assert [run.run_id for run in outcome.runs] == [outcome.run_id]


def test_a_run_that_nobody_answers_is_left_waiting() -> None:
    outcome = GatewayHarness(bundles=[ASK]).run("ask", {"prompt": "who?"})

    assert outcome.status == "waiting"
    assert outcome.waiting is not None
    assert outcome.waiting.prompt == "who?"


def test_an_answer_may_be_an_object() -> None:
    outcome = GatewayHarness(bundles=[ASK]).run("ask", answers=[{"response": "Bob", "more": 1}])

    assert "Bob" in str(outcome.output)


@pytest.mark.parametrize("name", ["hello", "hello:hello", "hello@0.1.0:hello"])
def test_a_flow_is_found_by_bundle_and_flow(name: str) -> None:
    outcome = GatewayHarness(bundles=[ASK, HELLO]).run(name, {"prompt": "Ada"})

    assert "Ada" in str(outcome.output)


def test_an_unknown_flow_is_not_found() -> None:
    with pytest.raises(NotFound):
        GatewayHarness(bundles=[ASK]).run("nope")


def test_a_bundle_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.flow"
    broken.write_bytes(b"no zip")

    with pytest.raises(Invalid, match="'broken.flow' cannot be used"):
        GatewayHarness(bundles=[broken])


def test_a_flow_that_does_not_compile_is_refused() -> None:
    with pytest.raises(Invalid, match="'f' does not compile"):
        GatewayHarness(flows={"f": drawn(("odd", "no_such_node", {}))})


def test_a_model_answers_from_a_list_and_remembers_its_calls() -> None:
    model = ScriptedModel(["first", {"content": "second"}])
    flow = drawn(("a", "llm_call", {"prompt": "1"}), ("b", "llm_call", {"prompt": "2"}))

    outcome = GatewayHarness(flows={"f": flow}, model=model).run("f")

    assert outcome.status == "completed", outcome.error
    assert [call["prompt"] for call in model.calls] == ["1", "2"]


def test_a_model_without_answers_left_fails_the_run_with_the_reason() -> None:
    flow = drawn(("a", "llm_call", {"prompt": "1"}))

    outcome = GatewayHarness(flows={"f": flow}, model=ScriptedModel([])).run("f")

    assert outcome.status == "failed"
    assert "the script has 0 answers; this is call 1" in str(outcome.error)


def test_without_a_model_a_call_says_how_to_give_one() -> None:
    outcome = GatewayHarness(flows={"f": drawn(("a", "llm_call", {"prompt": "1"}))}).run("f")

    assert "no language model is configured" in str(outcome.error)


def test_timers_fire_by_moving_the_clock() -> None:
    harness = GatewayHarness(flows={"f": drawn(("w", "wait_until", {"duration": 90}))})

    outcome = harness.run("f")

    assert outcome.status == "completed", outcome.error
    assert harness.clock.now() == datetime(2026, 1, 1, 0, 1, 30, tzinfo=timezone.utc)


def test_a_paused_run_is_no_question() -> None:
    harness = GatewayHarness(bundles=[ASK])
    run_id = harness.start("ask")
    harness.runtime.pause_run(run_id)
    harness.runner.run_until_idle()

    other = harness.run("ask", answers=["Bob"])

    assert (harness.outcome(run_id).status, other.status) == ("waiting", "completed")


def test_a_clock_stands_still_until_it_is_moved_or_set() -> None:
    clock = ManualClock()
    start = clock.now()

    clock.move(1.5)
    moved = (clock.now() - start).total_seconds()
    clock.set(start)

    assert (moved, clock.now(), clock.monotonic()) == (1.5, start, 1.5)
