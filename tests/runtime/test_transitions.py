from __future__ import annotations

from collections.abc import Callable

import pytest

from abstractgateway.errors import Conflict, Invalid
from abstractgateway.runtime import EffectType, RunState, RunStatus, Runtime, WaitReason, WaitState
from abstractgateway.runtime.transitions import TRANSITIONS, VERBS, next_status, to_mermaid
from tests.runtime.workflows import World, ask_then_end, effect, end, spec

TERMINAL = [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED]
PAUSABLE = spec("pausable", wait=effect("wait", EffectType.WAIT_EVENT, {"name": "go"}, then="end"), end=end())


@pytest.mark.parametrize("status", RunStatus)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_leads_where_the_table_says_or_is_refused(status: RunStatus, verb: str) -> None:
    target = TRANSITIONS[status].get(verb)

    if target is not None:
        assert next_status(status, verb) is target
    else:
        with pytest.raises(Conflict, match=f"a run that is {status.value} cannot {verb}"):
            next_status(status, verb)


@pytest.mark.parametrize("status", TERMINAL)
def test_nothing_leads_out_of_an_end(status: RunStatus) -> None:
    assert TRANSITIONS[status] == {}


def test_every_verb_of_the_table_is_explained() -> None:
    used = {verb for verbs in TRANSITIONS.values() for verb in verbs}

    assert used == set(VERBS)


def test_the_diagram_has_every_arrow_of_the_table() -> None:
    diagram = to_mermaid()

    arrows = [line for line in diagram.splitlines() if "-->" in line]
    assert len(arrows) == 1 + sum(max(len(verbs), 1) for verbs in TRANSITIONS.values())
    assert "    waiting --> running: resume" in arrows


def in_status(world: World, status: RunStatus) -> str:
    """Return a run that stands at `status`, stored by a program."""
    run = RunState.new(workflow_id="pausable", entry_node="wait", vars={})
    run.status = status
    if status is RunStatus.WAITING:
        run.waiting = WaitState(reason=WaitReason.EVENT, wait_key="evt:global:global:go", resume_to_node="end")
    world.stores.runs.save(run)
    return run.run_id


VERBS_OF_PROGRAMS: dict[str, Callable[[Runtime, str], RunState]] = {
    "tick": lambda runtime, run_id: runtime.tick(workflow=PAUSABLE, run_id=run_id),
    "pause": lambda runtime, run_id: runtime.pause_run(run_id, reason="hold"),
    "resume_run": lambda runtime, run_id: runtime.resume_run(run_id),
    "cancel": lambda runtime, run_id: runtime.cancel_run(run_id),
    "fail": lambda runtime, run_id: runtime.fail_run(run_id, "broken"),
}


@pytest.mark.parametrize("status", TERMINAL)
@pytest.mark.parametrize("verb", VERBS_OF_PROGRAMS)
def test_a_run_that_has_ended_is_left_as_it_is(world: World, status: RunStatus, verb: str) -> None:
    runtime = world.runtime()
    run_id = in_status(world, status)
    before = world.stores.runs.open(run_id)

    VERBS_OF_PROGRAMS[verb](runtime, run_id)

    assert world.stores.runs.open(run_id) == before
    assert world.ledger(run_id) == []


@pytest.mark.parametrize("status", [*TERMINAL, RunStatus.RUNNING])
def test_a_run_that_does_not_wait_takes_no_answer(world: World, status: RunStatus) -> None:
    runtime = world.runtime()
    run_id = in_status(world, status)

    with pytest.raises(ValueError, match="not waiting"):
        runtime.resume(workflow=PAUSABLE, run_id=run_id, wait_key=None, payload={})


@pytest.mark.parametrize(
    ("status", "verb", "target"),
    [
        (RunStatus.RUNNING, "tick", RunStatus.WAITING),
        (RunStatus.RUNNING, "pause", RunStatus.WAITING),
        (RunStatus.RUNNING, "resume_run", RunStatus.RUNNING),
        (RunStatus.RUNNING, "cancel", RunStatus.CANCELLED),
        (RunStatus.RUNNING, "fail", RunStatus.FAILED),
        (RunStatus.WAITING, "tick", RunStatus.WAITING),
        (RunStatus.WAITING, "pause", RunStatus.WAITING),
        (RunStatus.WAITING, "resume_run", RunStatus.WAITING),
        (RunStatus.WAITING, "cancel", RunStatus.CANCELLED),
        (RunStatus.WAITING, "fail", RunStatus.FAILED),
    ],
)
def test_a_verb_leads_a_live_run_where_the_table_says(
    world: World, status: RunStatus, verb: str, target: RunStatus
) -> None:
    runtime = world.runtime()
    run_id = in_status(world, status)

    state = VERBS_OF_PROGRAMS[verb](runtime, run_id)

    assert state.status is target


def test_a_waiting_run_survives_a_restart_and_is_answered_there(world: World) -> None:
    workflow = ask_then_end()
    run_id = world.runtime().start(workflow=workflow)
    waiting = world.runtime().tick(workflow=workflow, run_id=run_id).waiting
    assert waiting is not None

    state = world.runtime().resume(
        workflow=workflow, run_id=run_id, wait_key=waiting.wait_key, payload={"response": "yes"}
    )

    assert (state.status, state.output) == (RunStatus.COMPLETED, {"answer": {"response": "yes"}})


def test_an_unknown_run_is_not_found_by_any_verb(world: World) -> None:
    runtime = world.runtime()

    for verb in VERBS_OF_PROGRAMS.values():
        with pytest.raises(KeyError, match="Unknown run_id"):
            verb(runtime, "nobody")


def test_a_runtime_needs_stores_of_this_library() -> None:
    with pytest.raises(Invalid, match="give Runtime stores="):
        Runtime()
    with pytest.raises(Invalid, match="dict is not one of the stores"):
        Runtime(run_store={}, ledger_store={})
