"""Values that are small in memory and without end as JSON, because a part of them occurs in them many times."""

from __future__ import annotations

import time
from typing import Any

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.jsonvalue import check_weight
from abstractgateway.runtime import Runtime, WorkflowSpec
from abstractgateway.runtime.models import StepPlan
from abstractgateway.stores import open_memory_stores

ENDLESS = "parts of it occur in it many times"


def doubled(times: int) -> Any:
    value: Any = "x"
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "is_refused"),
    [
        ([1] * 100, False),
        ({"a": "x" * 100}, False),
        ([1] * 1000, True),
        ({"a" * 1001: 1}, True),
        (["x" * 501] * 2, True),
        ([{"k" * 100: None}] * 10, True),
        ([[{"a": ["x" * 90]}]] * 10, True),
        (doubled(200), True),
    ],
)
def test_what_would_be_longer_than_is_allowed_is_refused(value: Any, is_refused: bool) -> None:
    if is_refused:
        with pytest.raises(Invalid, match=ENDLESS):
            check_weight(value, most=1000)
    else:
        check_weight(value, most=1000)


def loop(draw: Any, nodes: list[dict[str, Any]], edges: list[str], last: str) -> dict[str, Any]:
    """Return a flow that sets `v`, and sets it anew 1,000 times to what a node gives."""
    return draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("begin", "set_var", "> name value", "> value", defaults={"name": "v", "value": "seed"}),
            draw.node("for", "for", "> start end", ">loop >done i", defaults={"start": 0, "end": 1000}),
            draw.node("get", "get_var", "name", "value", defaults={"name": "v"}),
            draw.node("set", "set_var", "> name value", "> value", defaults={"name": "v"}),
            draw.node("end", "on_flow_end", "> ok", ""),
            *nodes,
        ],
        ["s > begin", "begin > for", "for/loop > set", "for/done > end", *edges, f"{last} -> set/value"],
    )


def test_a_value_that_is_doubled_in_a_loop_ends_its_run(driver: Any, draw: Any) -> None:
    twice = draw.node("twice", "make_array", "a b", "result")
    document = loop(draw, [twice], ["get/value -> twice/a", "get/value -> twice/b"], "twice/result")

    result = driver.run(driver.add(document), {})

    assert result.status == "failed"
    assert "node 'twice' (make_array)" in result.error
    assert ENDLESS in result.error


def test_a_value_that_is_doubled_by_nodes_in_a_row_ends_its_run(driver: Any, draw: Any) -> None:
    nodes = [draw.node(f"n{number}", "make_array", "a b", "result") for number in range(60)]
    wires = [f"n{number}/result -> n{number + 1}/{pin}" for number in range(59) for pin in "ab"]
    document = loop(draw, nodes, ["get/value -> n0/a", "get/value -> n0/b", *wires], "n59/result")

    result = driver.run(driver.add(document), {})

    assert result.status == "failed"
    assert ENDLESS in result.error


def test_a_variable_that_is_put_into_itself_ends_its_run(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("for", "for", "> start end", ">loop >done i", defaults={"start": 0, "end": 1000}),
            draw.node("get", "get_var", "name", "value", defaults={"name": "v"}),
            draw.node("a", "set_var", "> name value", "> value", defaults={"name": "v.a"}),
            draw.node("b", "set_var", "> name value", "> value", defaults={"name": "v.b"}),
            draw.node("end", "on_flow_end", "> ok", ""),
        ],
        ["s > for", "for/loop > a", "a > b", "for/done > end", "get/value -> a/value", "get/value -> b/value"],
    )

    result = driver.run(driver.add(document), {})

    assert result.status == "failed"
    assert ENDLESS in result.error


def test_a_run_whose_variables_are_without_end_together_fails_and_is_stored() -> None:
    def fill(run: Any, ctx: Any) -> StepPlan:
        run.vars["all"] = {str(number): doubled(60) for number in range(10)}
        return StepPlan("fill", complete_output={"ok": True})

    workflow = WorkflowSpec("w", "fill", {"fill": fill})
    runtime = Runtime(stores=open_memory_stores())
    run_id = runtime.start(workflow=workflow)
    begun = time.monotonic()

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.status.value == "failed"
    assert ENDLESS in str(state.error)
    assert time.monotonic() - begun < 120  # and not for ever


def test_a_long_list_that_grows_item_by_item_is_no_such_value(driver: Any, draw: Any) -> None:
    append = draw.node("append", "array_append", "array item", "result")
    document = loop(draw, [append], ["get/value -> append/array", "for/i -> append/item"], "append/result")

    result = driver.run(driver.add(document), {})

    assert result.status == "completed"
    assert len(result.vars["v"]) >= 1000
