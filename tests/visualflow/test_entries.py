from __future__ import annotations

from typing import Any

import pytest


def _from(draw: Any, kind: str, outputs: str, **data: Any) -> dict[str, Any]:
    names = outputs.split()
    return draw.flow(
        [draw.node("in", kind, "", "> " + outputs, **data), draw.node("e", "on_flow_end", "> " + outputs)],
        ["in > e", *(f"in/{name} -> e/{name}" for name in names)],
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"message": "hi", "context": {"k": 1}}, {"message": "hi", "context": {"k": 1}}),
        ({}, {"message": "", "context": {}}),
    ],
)
def test_a_users_request_begins_a_flow(driver: Any, draw: Any, given: dict[str, Any], expected: dict[str, Any]) -> None:
    result = driver.run(driver.add(_from(draw, "on_user_request", "message context")), given)

    assert result.output == {**expected, "success": True}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sender": "bob", "message": "hi"}, {"sender": "bob", "message": "hi", "channel": "c"}),
        ({}, {"sender": "unknown", "message": "", "channel": "c"}),
    ],
)
def test_an_agents_message_begins_a_flow(
    driver: Any, draw: Any, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    document = _from(draw, "on_agent_message", "sender message channel", eventConfig={"channel": "c"})

    result = driver.run(driver.add(document), given)

    assert result.output == {**expected, "success": True}


def test_a_drawn_join_tells_where_the_run_came_from_and_leaves_the_bus_alone(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> x"),
            draw.node("j", "join_exec", ">", "> which from"),
            draw.node("e", "on_flow_end", "> x from"),
        ],
        ["s > j", "j > e", "j/from -> e/from"],
    )

    result = driver.run(driver.add(document), {"x": 1})

    assert result.output == {"x": 1, "from": "s", "success": True}


def test_an_end_without_pins_ends_with_whatever_the_bus_carries(driver: Any, draw: Any) -> None:
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> array"),
            draw.node("n", "array_length", "> array", "> result"),
            draw.node("e", "on_flow_end", ">"),
        ],
        ["s > n", "n > e"],
    )

    assert driver.run(driver.add(document), {"array": [1, 2]}).output == {"response": 2, "success": True}
