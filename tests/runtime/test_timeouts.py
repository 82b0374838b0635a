"""How long effects may take, as a program sees it that drives the kernel in its own thread."""

from __future__ import annotations

import math
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
    create_scheduled_runtime,
)
from abstractgateway.service.summaries import blocked_by
from tests.runtime.workflows import Calls, Crash, Json, World, call_then_end

MODEL = call_then_end()
TOOL = call_then_end(EffectType.TOOL_CALLS, {"tool_calls": [{"name": "pay", "arguments": {}}]})
TEN = DefaultEffectPolicy(effect_timeouts={EffectType.LLM_CALL: 10})


class Told:
    """A handler that remembers how long it was told that it may take."""

    def __init__(self) -> None:
        self.limits: list[float | None] = []

    def __call__(self, run: RunState, effect: Effect, next_node: str | None, *, timeout_s: float | None) -> Any:
        self.limits.append(timeout_s)
        return EffectOutcome.completed({})


class Plain:
    """A policy as programs written for AbstractRuntime have it: it knows of no timeouts."""

    def max_attempts(self, effect: Effect) -> int:
        return 1

    def backoff_seconds(self, *, effect: Effect, attempt: int) -> float:
        return 0.0

    def idempotency_key(self, *, run: RunState, node_id: str, effect: Effect) -> str:
        return f"{run.run_id}-{node_id}"


class Limited(Plain):
    """A policy that answers whatever it is told to."""

    def __init__(self, limit: Any) -> None:
        self._limit = limit

    def timeout_seconds(self, effect: Effect) -> Any:
        return self._limit


def ticked(world: World, handler: Any, policy: Any) -> RunState:
    runtime = world.runtime({EffectType.LLM_CALL: handler}, effect_policy=policy)
    return runtime.tick(workflow=MODEL, run_id=runtime.start(workflow=MODEL))


@pytest.mark.parametrize(
    ("policy", "limit"),
    [
        (None, 7200.0),
        (NoRetryPolicy(), 7200.0),
        (RetryPolicy(), 7200.0),
        (NoRetryPolicy(timeout=5), 5.0),
        (RetryPolicy(timeout=None), None),
        (DefaultEffectPolicy(default_timeout=30), 30.0),
        (TEN, 10.0),
        (DefaultEffectPolicy(effect_timeouts={EffectType.LLM_CALL: None}), None),
        (Plain(), 7200.0),
        (Limited(0.5), 0.5),
    ],
)
def test_a_handler_that_asks_is_told_how_long_it_may_take(world: World, policy: Any, limit: float | None) -> None:
    handler = Told()

    state = ticked(world, handler, policy)

    assert (state.status, handler.limits) == (RunStatus.COMPLETED, [limit])


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf, "10", True])
def test_a_policy_that_gives_no_time_fails_the_run_and_nothing_is_performed(world: World, limit: Any) -> None:
    handler = Told()

    state = ticked(world, handler, Limited(limit))

    assert (state.status, handler.limits) == (RunStatus.FAILED, [])
    assert "neither None nor a positive number" in str(state.error)


def two(run: RunState, effect: Effect) -> EffectOutcome:
    return EffectOutcome.completed({"got": [effect.type.value]})


def two_and_limit(run: RunState, effect: Effect, timeout_s: float | None) -> EffectOutcome:
    return EffectOutcome.completed({"got": [timeout_s]})


def three(run: RunState, effect: Effect, next_node: str | None) -> EffectOutcome:
    return EffectOutcome.completed({"got": [next_node]})


def three_and_limit(run: RunState, effect: Effect, next_node: str | None, timeout_s: Any = None) -> EffectOutcome:
    return EffectOutcome.completed({"got": [next_node, timeout_s]})


def whatever(*arguments: Any, **named: Any) -> EffectOutcome:
    return EffectOutcome.completed({"got": [len(arguments), len(named)]})


@pytest.mark.parametrize(
    ("handler", "got"),
    [
        (two, ["llm_call"]),
        (two_and_limit, [10.0]),
        (three, ["end"]),
        (three_and_limit, ["end", 10.0]),
        (whatever, [3, 0]),
    ],
)
def test_a_handler_gets_as_much_as_it_takes(world: World, handler: Any, got: list[Any]) -> None:
    assert ticked(world, handler, TEN).output == {"said": {"got": got}}


def test_in_the_thread_of_the_caller_a_success_that_comes_late_is_a_success(world: World) -> None:
    def slow(run: RunState) -> EffectOutcome:
        world.clock.move(3600)
        return EffectOutcome.completed({"content": "late"})

    state = ticked(world, Calls(slow), TEN)

    assert (state.status, state.output) == (RunStatus.COMPLETED, {"said": {"content": "late"}})


def test_while_an_effect_is_performed_its_run_says_since_when_and_until_when(world: World) -> None:
    seen: list[Json | None] = []

    def look(run: RunState) -> EffectOutcome:
        world.clock.move(3)
        world.runtime().pause_run(run.run_id)
        world.runtime().resume_run(run.run_id)
        seen.append(blocked_by(world.state(run.run_id), explanation=None))
        return EffectOutcome.completed({})

    state = ticked(world, Calls(look), TEN)

    since, until = "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:10+00:00"
    assert seen == [
        {
            "kind": "effect",
            "since": since,
            "node": "call",
            "effect_type": "llm_call",
            "times_out_at": until,
            "explanation": f"performing llm_call of node 'call' since {since}, times out at {until}",
        }
    ]
    assert blocked_by(state, explanation=None) is None


@pytest.mark.parametrize("limit", [None, 1e300])
def test_an_effect_without_end_in_sight_names_none(world: World, limit: float | None) -> None:
    seen: list[Json | None] = []

    def look(run: RunState) -> EffectOutcome:
        seen.append(blocked_by(world.state(run.run_id), explanation=None))
        return EffectOutcome.completed({})

    ticked(world, Calls(look), NoRetryPolicy(timeout=limit))

    assert seen[0] is not None
    assert (seen[0]["times_out_at"], "times out" in seen[0]["explanation"]) == (None, False)


def test_a_run_that_rests_before_another_attempt_says_why(world: World) -> None:
    state = ticked(world, Calls(EffectOutcome.failed("busy")), RetryPolicy(backoff_base=4.0))

    blocked = blocked_by(state, explanation=None)

    assert blocked is not None
    assert (blocked["kind"], blocked["reason"]) == ("until", "until")
    assert blocked["explanation"] == (
        "resting until 2026-01-01T00:00:04+00:00 before attempt 2 of node 'call' after: busy"
    )


def test_after_a_crash_the_time_limit_of_the_effect_does_not_matter(world: World) -> None:
    runtime = world.runtime({EffectType.TOOL_CALLS: Calls(Crash())}, effect_policy=NoRetryPolicy(timeout=10))
    run_id = runtime.start(workflow=TOOL)
    with pytest.raises(Crash):
        runtime.tick(workflow=TOOL, run_id=run_id)
    world.clock.move(3600)

    state = world.runtime().tick(workflow=TOOL, run_id=run_id)

    assert (state.status, state.waiting and state.waiting.choices) == (RunStatus.WAITING, ["retry", "fail"])
    blocked = blocked_by(state, explanation=None)
    assert blocked is not None
    assert blocked["explanation"].startswith("in doubt: The effect tool_calls of node 'call' was interrupted")


def test_an_effect_that_is_to_be_performed_again_blocks_nothing_by_itself(world: World) -> None:
    runtime = world.runtime({EffectType.TOOL_CALLS: Calls(Crash())})
    run_id = runtime.start(workflow=TOOL)
    with pytest.raises(Crash):
        runtime.tick(workflow=TOOL, run_id=run_id)
    runtime.tick(workflow=TOOL, run_id=run_id)

    state = runtime.resume(workflow=TOOL, run_id=run_id, wait_key=None, payload={"response": "retry"}, max_steps=0)

    assert (state.status, blocked_by(state, explanation=None)) == (RunStatus.RUNNING, None)


def test_a_scheduled_runtime_tells_its_handlers_as_well() -> None:
    handler = Told()
    scheduled = create_scheduled_runtime(
        effect_policy=TEN, effect_handlers={EffectType.LLM_CALL: handler}, auto_start=False
    )

    scheduled.run(MODEL)

    assert handler.limits == [10.0]
