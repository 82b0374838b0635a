from __future__ import annotations

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.runtime import (
    EffectOutcome,
    EffectType,
    RunState,
    RunStatus,
    Runtime,
    StepPlan,
    WaitReason,
    WaitState,
)
from tests.runtime.workflows import Calls, World, ask_then_end, call_then_end, effect, end, outline, spec

IN_TEN_SECONDS = "2026-01-01T00:00:10+00:00"
TIMER = spec("timer", wait=effect("wait", EffectType.WAIT_UNTIL, {"until": IN_TEN_SECONDS}, then="end"), end=end())


def test_a_pause_between_two_steps_is_a_wait_for_a_person(world: World) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=call_then_end())

    state = runtime.pause_run(run_id, reason="hold")

    assert state.waiting == WaitState(
        reason=WaitReason.USER,
        wait_key=f"pause:{run_id}",
        resume_to_node="call",
        prompt="Paused",
        allow_free_text=False,
        details={"kind": "pause"},
    )
    assert state.vars["_runtime"]["control"] == {
        "paused": True,
        "paused_at": "2026-01-01T00:00:00+00:00",
        "pause_reason": "hold",
    }


def test_a_paused_run_is_not_advanced_and_takes_no_answer(world: World) -> None:
    handler = Calls()
    workflow = call_then_end()
    runtime = world.runtime({EffectType.LLM_CALL: handler})
    run_id = runtime.start(workflow=workflow)
    runtime.pause_run(run_id)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert (state.status, len(handler)) == (RunStatus.WAITING, 0)
    with pytest.raises(ValueError, match="paused"):
        runtime.resume(workflow=workflow, run_id=run_id, wait_key=f"pause:{run_id}", payload={})


def test_a_run_that_is_unpaused_goes_on_where_it_was(world: World) -> None:
    workflow = call_then_end()
    runtime = world.runtime({EffectType.LLM_CALL: Calls()})
    run_id = runtime.start(workflow=workflow)
    runtime.pause_run(run_id, reason="hold")
    world.clock.move(5)

    unpaused = runtime.resume_run(run_id)
    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert (unpaused.status, unpaused.waiting) == (RunStatus.RUNNING, None)
    assert unpaused.vars["_runtime"]["control"] == {
        "paused_at": "2026-01-01T00:00:00+00:00",
        "resumed_at": "2026-01-01T00:00:05+00:00",
    }
    assert state.status is RunStatus.COMPLETED


def test_pausing_twice_and_resuming_twice_change_nothing_more(world: World) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=call_then_end())

    paused = runtime.pause_run(run_id, reason="first")
    again = runtime.pause_run(run_id, reason="second")
    runtime.resume_run(run_id)
    running = runtime.resume_run(run_id)

    assert again == paused
    assert running.status is RunStatus.RUNNING


def test_a_run_that_waits_for_a_person_is_not_paused(world: World) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=ask_then_end())
    before = runtime.tick(workflow=ask_then_end(), run_id=run_id)

    after = runtime.pause_run(run_id)

    assert after == before


def test_a_timer_does_not_fire_while_its_run_is_paused(world: World) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=TIMER)
    runtime.tick(workflow=TIMER, run_id=run_id)
    runtime.pause_run(run_id)
    world.clock.move(11)

    paused = runtime.tick(workflow=TIMER, run_id=run_id)
    runtime.resume_run(run_id)
    state = runtime.tick(workflow=TIMER, run_id=run_id)

    assert paused.waiting is not None
    assert (paused.status, paused.waiting.reason) == (RunStatus.WAITING, WaitReason.UNTIL)
    assert state.status is RunStatus.COMPLETED


def test_a_wait_for_an_event_goes_on_after_the_pause(world: World) -> None:
    workflow = spec("hears", wait=effect("wait", EffectType.WAIT_EVENT, {"name": "go"}, then="end"), end=end())
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    waiting = runtime.tick(workflow=workflow, run_id=run_id).waiting
    runtime.pause_run(run_id)

    state = runtime.resume_run(run_id)

    assert (state.status, state.waiting) == (RunStatus.WAITING, waiting)


@pytest.mark.parametrize("reason", [None, "no longer wanted"])
def test_a_cancelled_run_keeps_the_reason_and_nothing_to_wait_for(world: World, reason: str | None) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=TIMER)
    runtime.tick(workflow=TIMER, run_id=run_id)
    runtime.pause_run(run_id)

    state = runtime.cancel_run(run_id, reason=reason)

    assert (state.status, state.error, state.waiting) == (RunStatus.CANCELLED, reason or "Cancelled", None)
    assert "paused" not in state.vars["_runtime"]["control"]


def acting(runtime: Runtime, verb: str) -> Calls:
    """Return a handler during whose call somebody else acts on its run."""

    def act(run: RunState) -> EffectOutcome:
        if verb == "cancel":
            runtime.cancel_run(run.run_id)
        else:
            runtime.pause_run(run.run_id)
        if verb == "pause and resume":
            runtime.resume_run(run.run_id)
        return EffectOutcome.completed({"content": "late"})

    return Calls(act)


def test_an_outcome_that_comes_after_the_cancellation_is_recorded_as_discarded(world: World) -> None:
    workflow = call_then_end()
    other = world.runtime()
    runtime = world.runtime({EffectType.LLM_CALL: acting(other, "cancel")})
    run_id = runtime.start(workflow=workflow)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert (state.status, state.vars.get("said")) == (RunStatus.CANCELLED, None)
    started, status, late = world.ledger(run_id)
    assert status["idempotency_key"] == "system:terminal_status:cancelled"
    assert late["step_id"] == started["step_id"]
    assert late["result"] == {"discarded": True, "run_status": "cancelled", "result": {"content": "late"}}


def test_an_outcome_that_comes_during_a_pause_is_kept_and_used_afterwards(world: World) -> None:
    workflow = call_then_end()
    other = world.runtime()
    handler = acting(other, "pause")
    runtime = world.runtime({EffectType.LLM_CALL: handler})
    run_id = runtime.start(workflow=workflow)

    paused = runtime.tick(workflow=workflow, run_id=run_id)
    restarted = world.runtime({EffectType.LLM_CALL: handler})
    restarted.resume_run(run_id)
    state = restarted.tick(workflow=workflow, run_id=run_id)

    assert paused.waiting is not None
    assert (paused.status, paused.waiting.resume_to_node) == (RunStatus.WAITING, "end")
    assert paused.vars["said"] == {"content": "late"}
    assert (state.status, state.output, len(handler)) == (RunStatus.COMPLETED, {"said": {"content": "late"}}, 1)


def test_a_pause_that_is_over_before_the_outcome_comes_disturbs_nothing(world: World) -> None:
    workflow = call_then_end()
    handler = acting(world.runtime(), "pause and resume")
    runtime = world.runtime({EffectType.LLM_CALL: handler})
    run_id = runtime.start(workflow=workflow)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert (state.status, state.output, len(handler)) == (RunStatus.COMPLETED, {"said": {"content": "late"}}, 1)


def test_an_effect_that_waits_while_its_run_is_paused_waits_on_after_the_pause(world: World) -> None:
    def approval(run: RunState) -> EffectOutcome:
        world.runtime().pause_run(run.run_id)
        return EffectOutcome.waiting(WaitState(WaitReason.JOB, wait_key="job:1", resume_to_node="end"))

    workflow = call_then_end()
    runtime = world.runtime({EffectType.LLM_CALL: Calls(approval)})
    run_id = runtime.start(workflow=workflow)

    paused = runtime.tick(workflow=workflow, run_id=run_id)
    waiting = runtime.resume_run(run_id)
    state = runtime.resume(workflow=workflow, run_id=run_id, wait_key="job:1", payload={})

    assert paused.vars["_runtime"]["control"]["paused"] is True
    assert waiting.waiting is not None
    assert waiting.waiting.wait_key == "job:1"
    assert state.status is RunStatus.COMPLETED


def test_an_effect_that_ends_the_run_during_a_pause_ends_the_pause_as_well(world: World) -> None:
    workflow = spec("last", call=effect("call", EffectType.LLM_CALL, {"prompt": "x"}))
    runtime = world.runtime({EffectType.LLM_CALL: acting(world.runtime(), "pause")})
    run_id = runtime.start(workflow=workflow)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.status is RunStatus.COMPLETED
    assert state.waiting is None
    assert "paused" not in state.vars["_runtime"]["control"]


def test_what_a_stopped_clock_would_repeat_is_told_apart_by_the_step(world: World) -> None:
    seen: list[tuple[str, float]] = []

    def draw(run: RunState, ctx: object) -> StepPlan:
        seen.append((ctx.new_id(), ctx.random().random()))  # type: ignore[attr-defined]
        return StepPlan("draw", next_node="draw" if len(seen) < 3 else "end")

    workflow = spec("draws", draw=draw, end=end())
    runtime = world.runtime()
    runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert len({new_id for new_id, _ in seen}) == len({number for _, number in seen}) == 3


CHOICES = {"prompt": "Go on?", "choices": ["yes", "no"], "allow_free_text": False}


@pytest.mark.parametrize("payload", [{"response": "maybe"}, {"text": "Yes"}, {}, {"response": ["yes"]}])
def test_an_answer_that_is_none_of_the_choices_is_refused_and_changes_nothing(world: World, payload: dict) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=ask_then_end(CHOICES))
    before = runtime.tick(workflow=ask_then_end(CHOICES), run_id=run_id)

    with pytest.raises(Invalid, match="is not one of the choices"):
        runtime.resume(workflow=ask_then_end(CHOICES), run_id=run_id, wait_key=None, payload=payload)

    assert world.state(run_id) == before
    assert len(world.ledger(run_id)) == 2


@pytest.mark.parametrize("payload", [{"response": "no"}, {"text": "no"}])
def test_one_of_the_choices_is_taken(world: World, payload: dict) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=ask_then_end(CHOICES))
    runtime.tick(workflow=ask_then_end(CHOICES), run_id=run_id)

    state = runtime.resume(workflow=ask_then_end(CHOICES), run_id=run_id, wait_key=None, payload=payload)

    assert state.output == {"answer": payload}


def test_free_text_is_taken_beside_choices_where_it_is_allowed(world: World) -> None:
    payload = {"prompt": "Go on?", "choices": ["yes", "no"]}
    runtime = world.runtime()
    run_id = runtime.start(workflow=ask_then_end(payload))
    runtime.tick(workflow=ask_then_end(payload), run_id=run_id)

    state = runtime.resume(workflow=ask_then_end(payload), run_id=run_id, wait_key=None, payload={"response": "well"})

    assert state.status is RunStatus.COMPLETED


def test_an_answer_to_another_question_is_refused(world: World) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=ask_then_end())
    runtime.tick(workflow=ask_then_end(), run_id=run_id)

    with pytest.raises(ValueError, match="wait_key mismatch"):
        runtime.resume(workflow=ask_then_end(), run_id=run_id, wait_key="user:x:ask", payload={})


def test_a_late_copy_of_the_first_answer_does_not_answer_the_second_question(world: World) -> None:
    workflow = spec("twice", ask=effect("ask", EffectType.ASK_USER, {"prompt": "Again?"}, then="ask", key="answer"))
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    first = runtime.tick(workflow=workflow, run_id=run_id).waiting
    assert first is not None
    second = runtime.resume(workflow=workflow, run_id=run_id, wait_key=first.wait_key, payload={"text": "1"}).waiting

    with pytest.raises(ValueError, match="wait_key mismatch"):
        runtime.resume(workflow=workflow, run_id=run_id, wait_key=first.wait_key, payload={"text": "1"})

    assert first.wait_key == f"user:{run_id}:ask"
    assert second is not None
    assert second.wait_key == f"user:{run_id}:ask:2"


def test_an_answer_that_json_lacks_is_refused(world: World) -> None:
    runtime = world.runtime()
    run_id = runtime.start(workflow=ask_then_end())
    runtime.tick(workflow=ask_then_end(), run_id=run_id)

    with pytest.raises(Invalid):
        runtime.resume(workflow=ask_then_end(), run_id=run_id, wait_key=None, payload={"x": {1}})

    assert world.state(run_id).status is RunStatus.WAITING


def test_the_node_a_payload_names_is_where_a_wait_goes_on(world: World) -> None:
    asked = effect("ask", EffectType.ASK_USER, {"prompt": "?", "resume_to_node": "there"}, then="end", key="answer")
    workflow = spec("elsewhere", ask=asked, end=end(), there=end("there", "answer"))
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    runtime.tick(workflow=workflow, run_id=run_id)

    state = runtime.resume(workflow=workflow, run_id=run_id, wait_key=None, payload={"text": "x"})

    assert state.output == {"answer": {"text": "x"}}
    assert outline(world.ledger(run_id))[-2:] == [("there", "completed", None), ("there", "completed", "emit_event")]


@pytest.mark.parametrize("payload", [{}, {"prompt": ""}])
def test_a_question_without_words_fails(world: World, payload: dict) -> None:
    workflow = spec("mute", ask=effect("ask", EffectType.ASK_USER, payload, then="end"), end=end())
    runtime = world.runtime()

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert "ask_user requires payload.prompt" in str(state.error)
