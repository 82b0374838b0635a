from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.runtime import (
    Effect,
    EffectType,
    RunState,
    RunStatus,
    StepPlan,
    WorkflowSpec,
    build_event_wait_key,
)
from abstractgateway.stores import open_memory_stores
from tests.runtime.workflows import Json, World, effect, end, spec


def listener(payload: Json, workflow_id: str = "hears") -> WorkflowSpec:
    heard = effect("wait", EffectType.WAIT_EVENT, payload, then="end", key="heard")
    return spec(workflow_id, wait=heard, end=end("end", "heard"))


def emitter(payload: Json) -> WorkflowSpec:
    return spec(
        "emits", emit=effect("emit", EffectType.EMIT_EVENT, payload, then="end", key="sent"), end=end("end", "sent")
    )


def listening(world: World, payload: Json, *, session_id: str | None = "s1", workflow_id: str = "hears") -> str:
    workflow = listener(payload, workflow_id)
    runtime = world.runtime({}, workflow)
    run_id = runtime.start(workflow=workflow, session_id=session_id)
    runtime.tick(workflow=workflow, run_id=run_id)
    return run_id


def emit(world: World, payload: Json, *, session_id: str | None = "s1") -> Json:
    workflow = emitter(payload)
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow, session_id=session_id)
    state = runtime.tick(workflow=workflow, run_id=run_id)
    assert state.output is not None, state.error
    sent: Json = state.output["sent"]
    return sent


@pytest.mark.parametrize(
    ("scope", "ids", "key"),
    [
        ("session", {"session_id": "s1"}, "evt:session:s1:go"),
        ("workflow", {"workflow_id": "w"}, "evt:workflow:w:go"),
        ("run", {"run_id": "r"}, "evt:run:r:go"),
        ("global", {}, "evt:global:global:go"),
        (" Session ", {"session_id": "s1"}, "evt:session:s1:go"),
    ],
)
def test_the_key_of_an_event_names_its_scope(scope: str, ids: dict[str, str], key: str) -> None:
    assert build_event_wait_key(scope=scope, name=" go ", **ids) == key  # type: ignore[arg-type]


@pytest.mark.parametrize(("scope", "name"), [("session", "go"), ("galaxy", "go"), ("global", " "), ("", "go")])
def test_a_key_that_names_nothing_is_refused(scope: str, name: str) -> None:
    with pytest.raises(Invalid):
        build_event_wait_key(scope=scope, name=name)


def test_a_listener_gets_the_event_in_its_envelope(world: World) -> None:
    hearing = listening(world, {"name": "go"})

    sent = emit(world, {"name": "go", "payload": {"x": 1}, "event_id": "e-1"})

    (emitter_id,) = [run.run_id for run in world.stores.runs.list_runs(workflow_id="emits")]
    assert {name: sent[name] for name in ("wait_key", "name", "scope", "delivered", "delivered_to", "resumed")} == {
        "wait_key": "evt:session:s1:go",
        "name": "go",
        "scope": "session",
        "delivered": 1,
        "delivered_to": [hearing],
        "resumed": [{"run_id": hearing, "status": "running"}],
    }
    assert world.state(hearing).vars["heard"] == {
        "event_id": "e-1",
        "name": "go",
        "scope": "session",
        "session_id": "s1",
        "payload": {"x": 1},
        "emitted_at": "2026-01-01T00:00:00+00:00",
        "emitter": {"run_id": emitter_id, "workflow_id": "emits", "node_id": "emit"},
    }


@pytest.mark.parametrize(
    ("listens", "emits", "session_id", "is_heard"),
    [
        ({"name": "go"}, {"name": "go"}, "s1", True),
        ({"name": "go"}, {"name": "go"}, "s2", False),
        ({"name": "go"}, {"name": "stop"}, "s1", False),
        ({"name": "go"}, {"name": "go", "session_id": "s1"}, "s2", True),
        ({"name": "*"}, {"name": "anything"}, "s1", True),
        ({"name": "*"}, {"name": "anything"}, "s2", False),
        ({"name": "go", "scope": "global"}, {"name": "go", "scope": "global"}, "s2", True),
        ({"name": "*", "scope": "global"}, {"name": "go", "scope": "global"}, "s2", True),
        ({"name": "go", "scope": "global"}, {"name": "go"}, "s1", False),
        ({"event_name": "go"}, {"event_name": "go"}, "s1", True),
        ({"wait_key": "evt:session:s1:go"}, {"name": "go"}, "s1", True),
        ({"name": "go", "scope": "workflow"}, {"name": "go", "scope": "workflow"}, "s1", False),
    ],
)
def test_an_event_reaches_who_waits_for_it_in_its_scope(
    world: World, listens: Json, emits: Json, session_id: str, is_heard: bool
) -> None:
    hearing = listening(world, listens)

    sent = emit(world, emits, session_id=session_id)

    assert sent["delivered"] == int(is_heard)
    assert (world.state(hearing).status is RunStatus.RUNNING) is is_heard


def test_an_event_that_nobody_waits_for_is_sent_all_the_same(world: World) -> None:
    sent = emit(world, {"name": "go"})

    assert (sent["delivered"], sent["delivered_to"], sent["resumed"]) == (0, [], [])


def test_a_paused_listener_is_skipped_and_the_others_are_reached(world: World) -> None:
    first, paused, last = (listening(world, {"name": "go"}) for _ in range(3))
    world.runtime().pause_run(paused)

    sent = emit(world, {"name": "go"})

    assert sent["delivered_to"] == [first, last]
    assert {entry["run_id"]: entry["status"] for entry in sent["resumed"]} == {
        first: "running",
        paused: "skipped",
        last: "running",
    }
    assert ["paused" in entry["error"] for entry in sent["resumed"] if entry["run_id"] == paused] == [True]
    assert world.state(paused).status is RunStatus.WAITING


def test_an_event_sent_twice_in_a_row_reaches_its_listener_once(world: World) -> None:
    hearing = listening(world, {"name": "go"})
    send = effect("emit", EffectType.EMIT_EVENT, {"name": "go"}, then="again", key="first")
    again = effect("again", EffectType.EMIT_EVENT, {"name": "go"}, then="end", key="second")
    workflow = spec("twice", emit=send, again=again, end=end("end", "first", "second"))
    runtime = world.runtime()

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow, session_id="s1"))

    assert state.output is not None
    assert state.output["first"]["delivered_to"] == [hearing]
    assert state.output["second"]["resumed"] == []
    assert [record["effect"]["type"] for record in world.ledger(hearing)].count("resume") == 1


def test_a_listener_gets_the_event_as_it_was_when_it_was_sent(world: World) -> None:
    hearing = listening(world, {"name": "go"})

    def send(run: RunState, ctx: object) -> StepPlan:
        run.vars["list"] = [1]
        return StepPlan(
            "send", effect=Effect(EffectType.EMIT_EVENT, {"name": "go", "payload": run.vars["list"]}), next_node="grow"
        )

    def grow(run: RunState, ctx: object) -> StepPlan:
        run.vars["list"].append(2)
        return StepPlan("grow", complete_output={})

    workflow = spec("grows", send=send, grow=grow)
    runtime = world.runtime()
    runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow, session_id="s1"))

    assert world.state(hearing).vars["heard"]["payload"] == {"value": [1]}


@pytest.mark.parametrize(
    ("given", "got"), [(None, {}), ({"a": 1}, {"a": 1}), ("text", {"value": "text"}), ([1], {"value": [1]})]
)
def test_a_payload_that_is_no_object_becomes_one(world: World, given: object, got: Json) -> None:
    hearing = listening(world, {"name": "go"})

    emit(world, {"name": "go", "payload": given})

    assert world.state(hearing).vars["heard"]["payload"] == got


@pytest.mark.parametrize("type", [EffectType.EMIT_EVENT, EffectType.WAIT_EVENT])
@pytest.mark.parametrize("payload", [{}, {"name": " "}, {"name": "go", "scope": "galaxy"}])
def test_an_event_without_a_name_or_with_an_unknown_scope_fails(world: World, type: EffectType, payload: Json) -> None:
    workflow = spec("odd", node=effect("node", type, payload, then="end"), end=end())
    runtime = world.runtime()

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert state.status is RunStatus.FAILED
    assert type.value in str(state.error)


def test_a_wait_for_an_event_tells_a_person_what_it_is_about(world: World) -> None:
    hearing = listening(
        world,
        {"name": "go", "prompt": "Go?", "choices": [" yes ", "", 3], "allowFreeText": False, "details": {"a": 1}},
    )

    waiting = world.state(hearing).waiting

    assert waiting is not None
    assert (waiting.prompt, waiting.choices, waiting.allow_free_text, waiting.details) == (
        "Go?",
        ["yes"],
        False,
        {"a": 1},
    )


def test_a_run_without_a_session_has_its_own(world: World) -> None:
    hearing = listening(world, {"name": "go"}, session_id=None)

    waiting = world.state(hearing).waiting

    assert waiting is not None
    assert waiting.wait_key == f"evt:session:{hearing}:go"


def test_who_emits_an_event_that_nobody_waits_for_is_told_what_is_waited_for_in_the_session(world: World) -> None:
    listening(world, {"name": "stop"})
    listening(world, {"name": "begin"}, workflow_id="hears too")
    listening(world, {"name": "begin"}, workflow_id="hears as well")
    listening(world, {"name": "elsewhere"}, session_id="s2")
    listening(world, {"name": "everywhere", "scope": "global"})

    sent = emit(world, {"name": "go"})

    assert sent["available_listeners_in_session"] == ["begin", "stop"]


def test_no_more_than_fifteen_names_of_events_are_told(world: World) -> None:
    for number in range(20):
        listening(world, {"name": f"e{number:02}"}, workflow_id=f"hears {number}")

    sent = emit(world, {"name": "go"})

    assert sent["available_listeners_in_session"] == [f"e{number:02}" for number in range(15)]


def test_nothing_is_told_of_other_listeners_where_there_is_none_or_the_event_was_heard(world: World) -> None:
    unheard = emit(world, {"name": "go"}, session_id="s2")
    listening(world, {"name": "go"})
    listening(world, {"name": "stop"}, workflow_id="hears too")

    heard = emit(world, {"name": "go"})

    assert "available_listeners_in_session" not in unheard
    assert "available_listeners_in_session" not in heard


class BareRuns:
    """Runs of a store without the queries that programs of their own may ask."""

    def __init__(self, stores: Any) -> None:
        self.open, self.waiting_on = stores.runs.open, stores.runs.waiting_on
        self.children_of = stores.runs.children_of


class BareStores:
    def __init__(self) -> None:
        stores = open_memory_stores()
        self.runs, self.ledger, self.commit = BareRuns(stores), stores.ledger, stores.commit
        self.artifacts = stores.artifacts


def test_a_store_without_queries_tells_of_no_listeners() -> None:
    world = World(BareStores())
    listening(world, {"name": "stop"})

    sent = emit(world, {"name": "go"})

    assert (sent["delivered"], "available_listeners_in_session" in sent) == (0, False)
