from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime import (
    DefaultEffectPolicy,
    Effect,
    EffectOutcome,
    EffectType,
    NoRetryPolicy,
    RetryPolicy,
    RunState,
    RunStatus,
    WaitReason,
    create_scheduled_runtime,
)
from tests.runtime.workflows import Calls, Crash, World, call_then_end, effect, end, spec

MODEL = call_then_end()
BUSY = EffectOutcome.failed("busy")
AT_ONCE = DefaultEffectPolicy(default_max_attempts=3, default_backoff_base=0.0)


def begun(world: World, handler: Calls, policy: Any) -> tuple[str, RunState]:
    runtime = world.runtime({EffectType.LLM_CALL: handler}, effect_policy=policy)
    run_id = runtime.start(workflow=MODEL)
    return run_id, runtime.tick(workflow=MODEL, run_id=run_id)


@pytest.mark.parametrize(
    ("policy", "type", "attempts"),
    [
        (NoRetryPolicy(), EffectType.LLM_CALL, 1),
        (DefaultEffectPolicy(), EffectType.LLM_CALL, 1),
        (DefaultEffectPolicy(default_max_attempts=4), EffectType.ASK_USER, 4),
        (DefaultEffectPolicy(effect_max_attempts={EffectType.LLM_CALL: 2}), EffectType.LLM_CALL, 2),
        (RetryPolicy(), EffectType.LLM_CALL, 3),
        (RetryPolicy(), EffectType.TOOL_CALLS, 2),
        (RetryPolicy(), EffectType.EMIT_EVENT, 1),
        (RetryPolicy(llm_max_attempts=7, tool_max_attempts=5), EffectType.TOOL_CALLS, 5),
    ],
)
def test_a_policy_says_how_often_an_effect_is_tried(policy: Any, type: EffectType, attempts: int) -> None:
    assert policy.max_attempts(Effect(type)) == attempts


def test_the_back_off_doubles_up_to_its_limit() -> None:
    policy = DefaultEffectPolicy(default_backoff_base=1.0, default_backoff_max=10.0)

    rests = [policy.backoff_seconds(effect=Effect(EffectType.LLM_CALL), attempt=n) for n in (1, 2, 3, 4, 5, 5000)]

    assert rests == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_an_effect_is_tried_again_until_it_succeeds(world: World) -> None:
    handler = Calls(BUSY, ValueError("busy"))

    run_id, state = begun(world, handler, AT_ONCE)

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 3)
    effects = [record for record in world.ledger(run_id) if record["node_id"] == "call"]
    assert [(record["status"], record["attempt"]) for record in effects] == [
        ("started", 1),
        ("failed", 1),
        ("started", 2),
        ("failed", 2),
        ("started", 3),
        ("completed", 3),
    ]
    assert len({record["idempotency_key"] for record in effects}) == 1
    assert len({record["step_id"] for record in effects}) == 3


def test_an_effect_that_always_fails_fails_its_run_with_the_last_reason(world: World) -> None:
    handler = Calls(BUSY, BUSY, EffectOutcome.failed("still busy"))

    _, state = begun(world, handler, AT_ONCE)

    assert (state.status, len(handler)) == (RunStatus.FAILED, 3)
    assert state.error == "Effect failed after 3 attempts: still busy (node 'call')"


def test_between_two_attempts_the_run_rests_durably(world: World) -> None:
    handler = Calls(BUSY)

    run_id, state = begun(world, handler, RetryPolicy(backoff_base=4.0))
    early = world.runtime({EffectType.LLM_CALL: handler}).tick(workflow=MODEL, run_id=run_id)
    world.clock.move(4)
    state_later = world.runtime({EffectType.LLM_CALL: handler}).tick(workflow=MODEL, run_id=run_id)

    assert state.waiting is not None
    assert (state.waiting.reason, state.waiting.until) == (WaitReason.UNTIL, "2026-01-01T00:00:04+00:00")
    assert state.waiting.details == {"kind": "retry", "attempt": 2, "error": "busy"}
    assert early.status is RunStatus.WAITING
    assert (state_later.status, len(handler)) == (RunStatus.COMPLETED, 2)


def test_a_restart_does_not_begin_to_count_again(world: World) -> None:
    handler = Calls(then=BUSY)
    policy = RetryPolicy(llm_max_attempts=3, backoff_base=1.0)
    run_id, _ = begun(world, handler, policy)
    for _ in range(5):
        world.clock.move(30)
        state = world.runtime({EffectType.LLM_CALL: handler}, effect_policy=policy).tick(workflow=MODEL, run_id=run_id)

    assert (state.status, len(handler)) == (RunStatus.FAILED, 3)
    assert state.error == "Effect failed after 3 attempts: busy (node 'call')"


def test_an_attempt_that_a_crash_interrupted_counts(world: World) -> None:
    handler = Calls(Crash(), BUSY, BUSY)
    policy = DefaultEffectPolicy(default_max_attempts=3, default_backoff_base=0.0)
    runtime = world.runtime({EffectType.LLM_CALL: handler}, effect_policy=policy)
    run_id = runtime.start(workflow=MODEL)
    with pytest.raises(Crash):
        runtime.tick(workflow=MODEL, run_id=run_id)

    state = world.runtime({EffectType.LLM_CALL: handler}, effect_policy=policy).tick(workflow=MODEL, run_id=run_id)

    assert (state.status, len(handler)) == (RunStatus.FAILED, 3)


def test_who_answers_a_resting_run_starts_the_next_attempt_at_once(world: World) -> None:
    handler = Calls(BUSY)
    run_id, _ = begun(world, handler, RetryPolicy())
    runtime = world.runtime({EffectType.LLM_CALL: handler})

    state = runtime.resume(workflow=MODEL, run_id=run_id, wait_key=None, payload={})

    assert (state.status, len(handler), state.output) == (RunStatus.COMPLETED, 2, {"said": {"ok": True}})


def test_a_resting_run_can_be_paused_and_goes_on_afterwards(world: World) -> None:
    handler = Calls(BUSY)
    run_id, _ = begun(world, handler, RetryPolicy())
    runtime = world.runtime({EffectType.LLM_CALL: handler})
    runtime.pause_run(run_id)
    world.clock.move(60)

    paused = runtime.tick(workflow=MODEL, run_id=run_id)
    runtime.resume_run(run_id)
    state = runtime.tick(workflow=MODEL, run_id=run_id)

    assert paused.status is RunStatus.WAITING
    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 2)


@pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy(backoff_base=0.0)])
def test_an_effect_that_fails_while_its_run_is_paused_is_tried_again_afterwards(world: World, policy: Any) -> None:
    def pause(run: RunState) -> EffectOutcome:
        world.runtime().pause_run(run.run_id)
        return BUSY

    handler = Calls(pause)
    run_id, paused = begun(world, handler, policy)
    runtime = world.runtime({EffectType.LLM_CALL: handler}, effect_policy=policy)
    runtime.resume_run(run_id)
    world.clock.move(60)

    state = runtime.tick(workflow=MODEL, run_id=run_id)

    assert (paused.status, paused.vars["_runtime"]["control"]["paused"]) == (RunStatus.WAITING, True)
    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 2)


def test_a_resting_run_that_is_cancelled_is_not_tried_again(world: World) -> None:
    handler = Calls(BUSY)
    run_id, _ = begun(world, handler, RetryPolicy())
    runtime = world.runtime({EffectType.LLM_CALL: handler})

    runtime.cancel_run(run_id)
    world.clock.move(60)
    state = runtime.tick(workflow=MODEL, run_id=run_id)

    assert (state.status, len(handler)) == (RunStatus.CANCELLED, 1)


@pytest.mark.parametrize("rest_s", [0.0, 1.0])
def test_an_effect_of_the_kernel_is_tried_again_as_well(world: World, rest_s: float) -> None:
    started = effect("start", EffectType.START_SUBWORKFLOW, {"workflow_id": "late"}, then="end", key="got")
    parent = spec("parent", start=started, end=end("end", "got"))
    policy = DefaultEffectPolicy(default_max_attempts=2, default_backoff_base=rest_s)
    runtime = world.runtime({}, parent, effect_policy=policy)
    run_id = runtime.start(workflow=parent)

    first = runtime.tick(workflow=parent, run_id=run_id)
    world.registry.register(spec("late", end=end("end")))
    world.clock.move(rest_s)
    state = runtime.tick(workflow=parent, run_id=run_id)

    if rest_s:
        assert (first.status, state.status) == (RunStatus.WAITING, RunStatus.COMPLETED)
    else:
        assert first.status is RunStatus.FAILED
        assert "after 2 attempts" in str(first.error)


def test_the_second_visit_of_a_node_has_attempts_of_its_own(world: World) -> None:
    handler = Calls(BUSY, EffectOutcome.completed({}), BUSY)
    again = effect("call", EffectType.LLM_CALL, {"prompt": "x"}, then="once more")
    more = effect("once more", EffectType.LLM_CALL, {"prompt": "x"}, then="end")
    workflow = spec("two", **{"call": again, "once more": more, "end": end()})
    runtime = world.runtime({EffectType.LLM_CALL: handler}, effect_policy=AT_ONCE)

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert (state.status, len(handler)) == (RunStatus.COMPLETED, 4)


def test_the_key_of_a_policy_is_used_with_the_number_of_the_visit(world: World) -> None:
    class Named(DefaultEffectPolicy):
        def idempotency_key(self, *, run: RunState, node_id: str, effect: Effect) -> str:
            return f"mine-{node_id}"

    handler = Calls()
    workflow = spec("loops", call=effect("call", EffectType.LLM_CALL, {"prompt": "x"}, then="call"))
    runtime = world.runtime({EffectType.LLM_CALL: handler}, effect_policy=Named())
    run_id = runtime.start(workflow=workflow)
    runtime.tick(workflow=workflow, run_id=run_id, max_steps=2)

    keys = [record["idempotency_key"] for record in world.ledger(run_id) if record["status"] == "started"]

    assert keys[0] == "mine-call"
    assert keys[1] != keys[0]


def test_a_scheduled_runtime_takes_a_policy() -> None:
    policy = RetryPolicy()

    scheduled = create_scheduled_runtime(effect_policy=policy, auto_start=False)

    assert scheduled.runtime.effect_policy is policy


def test_a_handler_that_asks_is_told_the_same_key_for_every_attempt(world: World) -> None:
    told: list[str] = []

    def flaky(run: RunState, effect: Effect, idempotency_key: str) -> EffectOutcome:
        told.append(idempotency_key)
        return EffectOutcome.failed("busy") if len(told) % 2 else EffectOutcome.completed({"n": len(told)})

    runtime = world.runtime({EffectType.LLM_CALL: flaky}, effect_policy=AT_ONCE)
    workflow = spec(
        first=effect("first", EffectType.LLM_CALL, {"prompt": "a"}, then="second"),
        second=effect("second", EffectType.LLM_CALL, {"prompt": "a"}, then="end"),
        end=end(),
    )
    state = runtime.tick(workflow=workflow, run_id=(run_id := runtime.start(workflow=workflow)))

    assert state.status is RunStatus.COMPLETED
    assert told[0] == told[1] != told[2] == told[3]
    assert {record["idempotency_key"] for record in world.ledger(run_id) if record["status"] == "started"} == set(told)
