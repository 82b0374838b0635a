from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import StaleWrite
from abstractgateway.runtime import Commit, EffectType, RunState, RunStatus, StepPlan, WorkflowSpec
from abstractgateway.runtime.draft import Draft
from abstractgateway.runtime.effects.events import Event, deliver
from abstractgateway.runtime.mailbox import MAX_AGE, MAX_BYTES, MAX_EVENTS, mailbox_id
from tests.runtime.remembering import BACKENDS, opened
from tests.runtime.workflows import Json, World, effect, end, spec

GO = "evt:session:s1:go"


def listener(payload: Json | None = None, *, then: str | None = "end") -> WorkflowSpec:
    heard = effect("wait", EffectType.WAIT_EVENT, payload or {"name": "go"}, then=then, key="heard")
    return spec("hears", wait=heard, end=end("end", "heard"))


def listen(world: World, payload: Json | None = None, *, session_id: str = "s1", **options: Any) -> RunState:
    workflow = listener(payload, **options)
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow, session_id=session_id)
    return runtime.tick(workflow=workflow, run_id=run_id)


def emit(world: World, *numbers: int, session_id: str = "s1", **payload: Any) -> Json:
    """Emit events one after the other in one run and return the result of the last."""

    def again(run: RunState, ctx: Any) -> StepPlan:
        at = run.vars["at"] = run.vars.get("at", -1) + 1
        if at == len(numbers):
            return StepPlan("again", complete_output={"sent": run.vars.get("sent")})
        own = {"name": "go", "payload": {"n": numbers[at]}, **payload}
        return effect("again", EffectType.EMIT_EVENT, own, then="again", key="sent")(run, ctx)

    workflow = spec("emits", again=again)
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow, session_id=session_id)
    state = runtime.tick(workflow=workflow, run_id=run_id, max_steps=1000)
    assert state.output is not None, state.error
    sent: Json = state.output["sent"]
    return sent


def heard(state: RunState) -> Any:
    assert state.output is not None, (state.status, state.error)
    return state.output["heard"]["payload"]["n"]


def box(world: World, key: str = GO) -> RunState:
    return world.state(mailbox_id(key))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_event_that_came_too_early_is_delivered_once(backend: str, tmp_path: Path) -> None:
    world = World(opened(backend, tmp_path))
    sent = emit(world, 1)

    first, second = listen(world), listen(world)

    assert (sent["delivered"], sent["kept"]) == (0, True)
    assert first.output is not None
    assert first.output["heard"]["emitter"]["workflow_id"] == "emits"
    assert heard(first) == 1
    assert second.status is RunStatus.WAITING
    world.stores.close()


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_an_early_event_outlives_the_process(backend: str, tmp_path: Path) -> None:
    before = opened(backend, tmp_path)
    emit(World(before), 1)
    before.close()

    world = World(opened(backend, tmp_path))

    assert heard(listen(world)) == 1
    assert box(world).vars["events"] == []
    world.stores.close()


def test_early_events_are_delivered_in_their_order(world: World) -> None:
    emit(world, 1, 2)
    emit(world, 3)

    assert [heard(listen(world)) for _ in range(3)] == [1, 2, 3]


def test_a_run_may_hear_what_it_emitted_itself(world: World) -> None:
    workflow = spec(
        "both",
        emit=effect("emit", EffectType.EMIT_EVENT, {"name": "go", "payload": {"n": 7}}, then="wait"),
        wait=effect("wait", EffectType.WAIT_EVENT, {"name": "go"}, then="end", key="heard"),
        end=end("end", "heard"),
    )
    runtime = world.runtime()

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert heard(state) == 7


def test_a_wait_that_is_over_at_once_leads_where_it_would_have_led(world: World) -> None:
    emit(world, 1)

    state = listen(world, {"name": "go", "resume_to_node": "end"}, then=None)

    assert heard(state) == 1


def test_a_wait_that_is_over_at_once_is_one_completed_step(world: World) -> None:
    emit(world, 1)

    records = world.ledger(listen(world).run_id)

    assert [record["status"] for record in records[:2]] == ["started", "completed"]
    assert records[1]["result"]["payload"] == {"n": 1}


def test_an_event_that_somebody_takes_is_not_kept(world: World) -> None:
    waiting = listen(world)

    sent = emit(world, 1)

    assert "kept" not in sent
    assert heard_after(world, waiting) == 1
    assert world.stores.runs.load(mailbox_id(GO)) is None


def heard_after(world: World, waiting: RunState) -> Any:
    return heard(world.runtime().tick(workflow=listener(), run_id=waiting.run_id))


def test_of_two_events_in_one_commit_the_second_is_kept(world: World) -> None:
    waiting = listen(world)

    emit(world, 1, 2)

    assert heard_after(world, waiting) == 1
    assert heard(listen(world)) == 2


@pytest.mark.parametrize(
    ("payload", "session_id"),
    [
        ({"name": "went"}, "s1"),
        ({"name": "go"}, "s2"),
        ({"name": "go", "scope": "global"}, "s1"),
        ({"name": "*"}, "s1"),
        ({"wait_key": "go"}, "s1"),
        ({"name": "go", "choices": ["yes"], "allow_free_text": False}, "s1"),
    ],
)
def test_an_early_event_is_for_its_own_key_only(world: World, payload: Json, session_id: str) -> None:
    emit(world, 1)

    assert listen(world, payload, session_id=session_id).status is RunStatus.WAITING
    assert heard(listen(world)) == 1


@pytest.mark.parametrize(
    ("sent", "awaited"),
    [
        ({"scope": "global"}, {"name": "go", "scope": "global"}),
        ({"scope": "session", "session_id": "other"}, {"name": "go", "session_id": "other"}),
        ({}, {"wait_key": GO}),
    ],
)
def test_events_of_every_scope_are_kept(world: World, sent: Json, awaited: Json) -> None:
    emit(world, 4, **sent)

    assert heard(listen(world, awaited)) == 4


def test_an_event_of_the_workflow_is_kept_for_its_other_runs(world: World) -> None:
    key = "evt:workflow:hears:go"
    world.runtime().transact(lambda draft: deliver(draft, Event(key, "go", "workflow", {"n": 2}, {})))

    assert heard(listen(world, {"name": "go", "scope": "workflow"})) == 2


def test_an_event_for_a_run_is_kept_while_the_run_goes_on(world: World) -> None:
    waiting = listen(world, {"name": "first"})

    for name in ("go", "late"):
        key = f"evt:run:{waiting.run_id}:{name}"
        world.runtime().transact(lambda draft, key=key, name=name: deliver(draft, Event(key, name, "run", {}, {})))
        world.runtime().cancel_run(waiting.run_id)

    assert len(box(world, f"evt:run:{waiting.run_id}:go").vars["events"]) == 1
    assert world.stores.runs.load(mailbox_id(f"evt:run:{waiting.run_id}:late")) is None


@pytest.mark.parametrize("name", ["abstract.status", "*"])
def test_events_for_whoever_watches_just_now_are_not_kept(world: World, name: str) -> None:
    sent = emit(world, 1, name=name)

    assert "kept" not in sent
    assert world.stores.runs.load(mailbox_id(f"evt:session:s1:{name}")) is None


def test_a_hundred_events_are_kept_and_the_oldest_make_room(world: World) -> None:
    emit(world, *range(MAX_EVENTS + 5))

    state = box(world)
    assert [event["event"]["payload"]["n"] for event in state.vars["events"]] == list(range(5, MAX_EVENTS + 5))
    assert (state.vars["dropped"], state.vars["key"]) == (5, GO)


def test_large_events_make_room_by_their_size(world: World) -> None:
    third = "x" * (MAX_BYTES // 3)
    for number in range(4):
        emit(world, 1, payload={"n": number, "text": third})

    state = box(world)
    assert [event["event"]["payload"]["n"] for event in state.vars["events"]] == [2, 3]
    assert len(json.dumps(state.vars)) < MAX_BYTES + 1000


def test_one_event_is_kept_at_any_size(world: World) -> None:
    emit(world, 1, payload={"n": 9, "text": "x" * (2 * MAX_BYTES)})

    assert heard(listen(world)) == 9


def test_an_event_does_not_wait_for_ever(world: World) -> None:
    emit(world, 1)
    world.clock.move(MAX_AGE.total_seconds() - 1)
    emit(world, 2)
    world.clock.move(2)

    assert heard(listen(world)) == 2


def test_an_event_that_came_while_its_listener_was_paused_is_taken_afterwards(world: World) -> None:
    waiting = listen(world)
    runtime = world.runtime()
    runtime.pause_run(waiting.run_id)

    sent = emit(world, 5)
    runtime.resume_run(waiting.run_id)

    assert (sent["delivered"], sent["kept"]) == (0, True)
    assert heard_after(world, waiting) == 5


def test_a_mailbox_is_an_internal_run_that_has_ended(world: World) -> None:
    emit(world, 1)

    state = box(world)
    assert (state.status, state.workflow_id) == (RunStatus.COMPLETED, "__mailbox__")
    assert state.run_id.startswith("mailbox_")


def test_an_event_nobody_waits_for_costs_one_small_write(world: World) -> None:
    draft = Draft(world.stores, world.clock)
    deliver(draft, Event(GO, "go", "session", {"n": 1}, {}))

    commit = draft.to_commit()

    assert len(commit.runs) == 1
    assert len(commit.runs[0].body) < 1000


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wait_that_missed_an_event_is_refused(backend: str, tmp_path: Path) -> None:
    world = World(opened(backend, tmp_path))
    workflow = listener()
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow, session_id="s1")
    execution = runtime.open_execution(workflow, run_id)
    execution.advance(5)

    emit(world, 1)

    with pytest.raises(StaleWrite):
        world.stores.commit(execution.to_commit())
    assert heard(runtime.tick(workflow=workflow, run_id=run_id)) == 1
    world.stores.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_emission_that_missed_a_listener_is_refused(backend: str, tmp_path: Path) -> None:
    world = World(opened(backend, tmp_path))
    draft = Draft(world.stores, world.clock)
    deliver(draft, Event(GO, "go", "session", {"n": 1}, {}))

    waiting = listen(world)

    with pytest.raises(StaleWrite):
        world.stores.commit(draft.to_commit())
    emit(world, 2)
    assert heard_after(world, waiting) == 2
    world.stores.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_emission_that_missed_the_end_of_a_pause_is_refused(backend: str, tmp_path: Path) -> None:
    world = World(opened(backend, tmp_path))
    runtime = world.runtime()
    waiting = listen(world)
    runtime.pause_run(waiting.run_id)
    draft = Draft(world.stores, world.clock)
    deliver(draft, Event(GO, "go", "session", {"n": 1}, {}))

    runtime.resume_run(waiting.run_id)

    with pytest.raises(StaleWrite):
        world.stores.commit(draft.to_commit())
    world.stores.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_runs_that_wait_for_the_same_event_do_not_hinder_each_other(backend: str, tmp_path: Path) -> None:
    world = World(opened(backend, tmp_path))
    workflow = listener()
    runtime = world.runtime()
    commits: list[Commit] = []
    for _ in range(5):
        execution = runtime.open_execution(workflow, runtime.start(workflow=workflow, session_id="s1"))
        execution.advance(5)
        commits.append(execution.to_commit())

    for commit in commits:
        world.stores.commit(commit)

    assert len(world.stores.runs.waiting_on([GO])) == 5
    world.stores.close()


def test_what_was_relied_on_is_forgotten_with_the_commit(world: World) -> None:
    workflow = spec(
        "emits",
        emit=effect("emit", EffectType.EMIT_EVENT, {"name": "go", "payload": {"n": 1}}, then="next"),
        next=effect("next", EffectType.ANSWER_USER, {"message": "m"}, then="end"),
        end=end(),
    )
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow, session_id="s1")
    execution = runtime.open_execution(workflow, run_id)
    execution.advance(1)
    world.stores.commit(execution.to_commit())
    execution.settle_commit()
    took, waits = listen(world), listen(world)

    execution.advance(5)
    world.stores.commit(execution.to_commit())

    assert (took.status, waits.status) == (RunStatus.COMPLETED, RunStatus.WAITING)
    assert world.state(run_id).status is RunStatus.COMPLETED


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_event_is_heard_or_kept_once_while_threads_emit_and_listen(backend: str, tmp_path: Path) -> None:
    world = World(opened(backend, tmp_path))
    runtime, hearing, sending = world.runtime(), listener(), emits(3)
    listening: list[str] = []

    def work() -> None:
        for _ in range(5):
            sent = runtime.start(workflow=sending, session_id="s1")
            runtime.tick(workflow=sending, run_id=sent, max_steps=4)
            for _ in range(2):
                listening.append(runtime.start(workflow=hearing, session_id="s1"))
                runtime.tick(workflow=hearing, run_id=listening[-1])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = [runtime.tick(workflow=hearing, run_id=run_id) for run_id in listening]

    taken = [state.output["heard"]["payload"]["n"] for state in states if state.output is not None]
    left = [event["event"]["payload"]["n"] for event in box(world).vars["events"]]
    assert (len(listening), len({*taken, *left})) == (30, 45)
    assert len(left) == 45 - len(set(taken))
    world.stores.close()


def emits(times: int) -> WorkflowSpec:
    """Return a workflow that emits so many events, each with a number of its own."""

    def again(run: RunState, ctx: Any) -> StepPlan:
        at = run.vars["at"] = run.vars.get("at", -1) + 1
        if at == times:
            return StepPlan("again", complete_output={})
        own = {"name": "go", "payload": {"n": f"{run.run_id}:{at}"}}
        return effect("again", EffectType.EMIT_EVENT, own, then="again")(run, ctx)

    return spec("sends", again=again)
