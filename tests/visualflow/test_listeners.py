from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.runtime.models import RunStatus
from abstractgateway.testing import GatewayHarness
from abstractgateway.visualflow import compile_flow
from abstractgateway.visualflow.nodes.listeners import read_schedule


def emitter(draw: Any, *, name: str = "ping", scope: str = "session", payload: Any = None, **data: Any) -> list[Any]:
    config = {"name": name, "scope": scope}
    return [
        draw.node("start", "on_flow_start", "", ">"),
        draw.node(
            "emit", "emit_event", "> payload", "> delivered", effectConfig=config, defaults={"payload": payload}, **data
        ),
        draw.node("end", "on_flow_end", "> delivered", ""),
    ]


EMITTING = ("start > emit", "emit > end", "emit/delivered -> end/delivered")


def listener(draw: Any, node_id: str = "on", **config: Any) -> list[Any]:
    return [
        draw.node(node_id, "on_event", "", "> event payload event_id name", eventConfig=config),
        draw.node(f"{node_id}_log", "add_message", "> content", ">", defaults={"role": "user"}),
        draw.node(f"{node_id}_text", "stringify_json", "value", "result"),
    ]


def listening(node_id: str = "on") -> tuple[str, ...]:
    return (
        f"{node_id} > {node_id}_log",
        f"{node_id}/payload -> {node_id}_text/value",
        f"{node_id}_text/result -> {node_id}_log/content",
    )


def heard(harness: GatewayHarness, run_id: str) -> list[str]:
    """Return what the listeners below a run have noted."""
    runs = [harness.runtime.get_state(child) for child in harness.stores.runs.children_of(run_id)]
    return [item["content"] for run in runs for item in run.vars.get("context", {}).get("messages", [])]


@pytest.mark.parametrize("scope", ["session", "workflow", "run", "global", "SESSION", "nonsense"])
def test_a_listener_hears_the_flow_it_is_drawn_in(draw: Any, scope: str) -> None:
    nodes = [*emitter(draw, scope=scope, payload={"a": 1}), *listener(draw, name="ping", scope=scope)]
    harness = GatewayHarness(flows={"f": draw.flow(nodes, [*EMITTING, *listening()])})

    outcome = harness.run("f")
    harness.runner.run_until_idle()

    assert outcome.output == {"delivered": 1, "success": True}
    assert [text.replace("\n", "").replace(" ", "") for text in heard(harness, outcome.run_id)] == ['{"a":1}']


def test_a_listener_waits_from_the_moment_its_run_is_there(draw: Any) -> None:
    nodes = [*emitter(draw), *listener(draw, name="ping")]
    harness = GatewayHarness(flows={"f": draw.flow(nodes, [*EMITTING, *listening()])})

    run_id = harness.start("f")
    (child,) = [harness.runtime.get_state(item) for item in harness.stores.runs.children_of(run_id)]

    assert child.status is RunStatus.WAITING
    assert child.waiting is not None and child.waiting.wait_key == f"evt:session:{run_id}:ping"
    assert (child.workflow_id, child.parent_run_id, child.session_id) == ("visual_event_listener_f_on", run_id, run_id)


def test_a_listener_without_a_name_hears_everything(draw: Any) -> None:
    nodes = [*emitter(draw, name="whatever"), *listener(draw)]
    harness = GatewayHarness(flows={"f": draw.flow(nodes, [*EMITTING, *listening()])})

    outcome = harness.run("f")

    assert outcome.output == {"delivered": 1, "success": True}


def test_a_listener_hears_only_its_event_and_its_session(draw: Any) -> None:
    named = draw.flow([*emitter(draw, name="other"), *listener(draw, name="ping")], [*EMITTING, *listening()])
    plain = draw.flow(emitter(draw, name="ping"), EMITTING)
    harness = GatewayHarness(flows={"named": named, "plain": plain})

    own = harness.run("named", session_id="s1")
    same = harness.run("plain", session_id="s1")
    elsewhere = harness.run("plain", session_id="s2")

    assert [item.output and item.output["delivered"] for item in (own, same, elsewhere)] == [0, 1, 0]


def test_a_listener_listens_again_after_each_event_and_across_restarts(draw: Any) -> None:
    named = draw.flow([*emitter(draw, name="none"), *listener(draw, name="ping")], [*EMITTING, *listening()])
    plain = draw.flow(emitter(draw, name="ping", payload="x"), EMITTING)
    harness = GatewayHarness(flows={"named": named, "plain": plain})
    first = harness.run("named", session_id="s")

    for _ in range(3):
        harness.run("plain", session_id="s")
        harness.runner.run_until_idle()

    assert len(heard(harness, first.run_id)) == 3


def test_events_that_come_faster_than_the_chain_are_all_heard(draw: Any) -> None:
    again = draw.node("again", "emit_event", "> payload", ">", effectConfig={"name": "ping"}, defaults={"payload": 2})
    nodes = [*emitter(draw, payload=1), again, *listener(draw, name="ping")]
    edges = [edge for edge in EMITTING if edge != "emit > end"]
    harness = GatewayHarness(flows={"f": draw.flow(nodes, [*edges, "emit > again", "again > end", *listening()])})

    outcome = harness.run("f")
    harness.runner.run_until_idle()

    assert len(heard(harness, outcome.run_id)) == 2


def test_what_a_chain_computes_does_not_change_what_is_listened_for(draw: Any) -> None:
    rename = draw.node(
        "rename", "code", "> name", "> name", code="def transform(_input):\n    return {'name': 'other'}\n"
    )
    nodes = [
        *emitter(draw, name="none"),
        draw.node("on", "on_event", "", "> payload", eventConfig={"name": "ping"}),
        rename,
    ]
    harness = GatewayHarness(
        flows={
            "f": draw.flow(nodes, [*EMITTING, "on > rename"]),
            "plain": draw.flow(emitter(draw, name="ping"), EMITTING),
        }
    )
    harness.run("f", session_id="s")

    delivered = []
    for _ in range(2):
        delivered.append(harness.run("plain", session_id="s").output)
        harness.runner.run_until_idle()

    assert delivered == [{"delivered": 1, "success": True}] * 2


def test_each_listener_of_a_flow_is_a_workflow_and_none_of_it_is_unreachable(draw: Any) -> None:
    nodes = [*emitter(draw), *listener(draw, "one", name="a"), *listener(draw, "two", name="b")]

    compiled = compile_flow(draw.flow(nodes, [*EMITTING, *listening("one"), *listening("two")]))

    assert [(spec.workflow_id, spec.entry_node) for spec in compiled.listeners] == [
        ("visual_event_listener_f_one", "one"),
        ("visual_event_listener_f_two", "two"),
    ]
    assert compiled.warnings == ()


def test_a_flow_that_begins_with_a_listener_listens_itself(draw: Any) -> None:
    flow = draw.flow(listener(draw, name="ping"), listening(), entry="on")
    harness = GatewayHarness(flows={"f": flow, "plain": draw.flow(emitter(draw, payload=1), EMITTING)})

    outcome = harness.run("f", session_id="s")
    harness.run("plain", session_id="s")
    harness.runner.run_until_idle()
    again = harness.outcome(outcome.run_id)

    assert (again.status, len(again.runs)) == ("waiting", 1)
    assert len(again.runs[0].vars["context"]["messages"]) == 1


def test_a_cancelled_run_takes_its_listeners_with_it(draw: Any) -> None:
    nodes = [
        draw.node("start", "on_flow_start", "", ">"),
        draw.node("ask", "ask_user", "> prompt", ">", defaults={"prompt": "?"}),
        *listener(draw, name="ping"),
    ]
    harness = GatewayHarness(flows={"f": draw.flow(nodes, ["start > ask", *listening()])})
    outcome = harness.run("f")

    states = [harness.runtime.cancel_run(state.run_id).status for state in outcome.runs]

    assert states == [RunStatus.CANCELLED, RunStatus.CANCELLED]


def scheduled(draw: Any, schedule: str | None, **config: Any) -> Any:
    given = {**config, "schedule": schedule}
    return draw.flow(
        [
            draw.node("at", "on_schedule", "", "> timestamp recurrent", eventConfig=given),
            draw.node("log", "add_message", "> content", ">", defaults={"role": "user"}),
        ],
        ["at > log", "at/timestamp -> log/content"],
    )


def contents(run: Any) -> list[str]:
    return [item["content"] for item in run.vars["context"]["messages"]]


def test_a_schedule_that_recurs_keeps_to_its_grid(draw: Any) -> None:
    harness = GatewayHarness(flows={"f": scheduled(draw, "15s")})
    began = harness.clock.now()

    outcome = harness.run("f", max_timers=4)
    harness.clock.move(100)
    harness.runner.run_until_idle()
    later = harness.outcome(outcome.run_id)

    seconds = [(_instant(text) - began).total_seconds() for text in contents(later.runs[0])]
    assert later.status == "waiting"
    assert seconds[:3] == [15, 30, 45]
    assert all(second % 15 == 0 for second in seconds) and len(set(seconds)) == len(seconds)


def _instant(text: str) -> Any:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(("schedule", "config"), [("2s", {"recurrent": False}), ("2026-11-21T07:00:00Z", {})])
def test_a_schedule_that_does_not_recur_ends_its_run(draw: Any, schedule: str, config: dict[str, Any]) -> None:
    harness = GatewayHarness(flows={"f": scheduled(draw, schedule, **config)})

    outcome = harness.run("f")

    assert outcome.status == "completed"
    assert len(contents(outcome.runs[0])) == 1


def test_a_time_that_is_past_does_not_wait(draw: Any) -> None:
    harness = GatewayHarness(flows={"f": scheduled(draw, "2001-01-01T00:00:00")})

    outcome = harness.run("f", max_timers=0)

    assert (outcome.status, contents(outcome.runs[0])) == ("completed", ["2001-01-01T00:00:00+00:00"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("1.5 h", 5400), ("250MS", 0.25), (" 2 d ", 172800), (".5m", 30), ("10 S", 10)],
)
def test_an_interval_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert read_schedule(text) == (seconds, None)


@pytest.mark.parametrize("schedule", [None, "", "0s", "*/5 * * * *", "15", "s", "-3s", "9" * 30 + "d", "tomorrow"])
def test_a_schedule_that_names_no_time_is_refused_when_the_flow_is_compiled(draw: Any, schedule: str | None) -> None:
    with pytest.raises(Invalid, match=r"node 'at' \(on_schedule\) cannot be scheduled"):
        compile_flow(scheduled(draw, schedule))


def test_a_chain_waits_for_an_event_of_another_chain(draw: Any) -> None:
    waiting = draw.flow(
        [
            draw.node("start", "on_flow_start", "", ">"),
            draw.node(
                "wait", "wait_event", "> event_key", "> event_data", defaults={"event_key": "evt:global:global:go"}
            ),
            draw.node("end", "on_flow_end", "> data", ""),
        ],
        ["start > wait", "wait > end", "wait/event_data -> end/data"],
    )
    harness = GatewayHarness(
        flows={"w": waiting, "plain": draw.flow(emitter(draw, name="go", scope="global", payload={"k": 1}), EMITTING)}
    )
    run_id = harness.run("w").run_id

    harness.run("plain")
    harness.runner.run_until_idle()
    outcome = harness.outcome(run_id)

    assert outcome.status == "completed"
    assert outcome.output is not None and outcome.output["data"]["payload"] == {"k": 1}
