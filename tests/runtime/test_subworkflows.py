from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime import (
    Effect,
    EffectOutcome,
    EffectType,
    RunState,
    RunStatus,
    Runtime,
    StepPlan,
    WorkflowSpec,
)
from tests.runtime.workflows import Calls, Json, World, effect, end, outline, spec


def parent_of(child: str, payload: Json | None = None, workflow_id: str = "parent") -> WorkflowSpec:
    request = {"workflow_id": child, **(payload or {})}
    started = effect("start", EffectType.START_SUBWORKFLOW, request, then="end", key="got")
    return spec(workflow_id, start=started, end=end("end", "got"))


def adder() -> WorkflowSpec:
    def add(run: RunState, ctx: Any) -> StepPlan:
        return StepPlan("add", complete_output={"answer": run.vars.get("a", 0) + 1})

    return spec("child", add=add)


def asker() -> WorkflowSpec:
    asked = effect("ask", EffectType.ASK_USER, {"prompt": "?"}, then="end", key="answer")
    return spec("child", ask=asked, end=end("end", "answer"))


def raiser() -> WorkflowSpec:
    def broken(run: RunState, ctx: Any) -> StepPlan:
        raise ValueError("bad child")

    return spec("child", broken=broken)


def started(world: World, child: WorkflowSpec, payload: Json | None = None) -> tuple[Runtime, WorkflowSpec, str]:
    parent = parent_of("child", payload)
    runtime = world.runtime({}, parent, child)
    run_id = runtime.start(workflow=parent, session_id="s1", actor_id="ar_1")
    runtime.tick(workflow=parent, run_id=run_id)
    return runtime, parent, run_id


def child_of(world: World, run_id: str) -> RunState:
    (child_id,) = world.stores.runs.children_of(run_id)
    return world.state(child_id)


def test_a_child_that_completes_gives_its_output_to_its_parent(world: World) -> None:
    _, _, run_id = started(world, adder(), {"vars": {"a": 41}})

    child = child_of(world, run_id)
    state = world.state(run_id)
    assert state.output == {"got": {"sub_run_id": child.run_id, "output": {"answer": 42}}}
    assert (child.parent_run_id, child.session_id, child.actor_id) == (run_id, "s1", "ar_1")


def test_the_traces_of_a_child_are_given_where_they_are_asked_for(world: World) -> None:
    said = effect("say", EffectType.ANSWER_USER, {"message": "hi"})
    _, _, run_id = started(world, spec("child", say=said), {"include_traces": True})

    got = world.state(run_id).vars["got"]

    assert [entry["status"] for entry in got["node_traces"]["say"]["steps"]] == ["completed"]


def test_three_levels_end_from_the_innermost_outwards(world: World) -> None:
    middle = parent_of("child", {"vars": {"a": 1}}, "middle")
    outer = parent_of("middle", None, "outer")
    runtime = world.runtime({}, outer, middle, adder())
    run_id = runtime.start(workflow=outer)

    state = runtime.tick(workflow=outer, run_id=run_id)

    assert state.output is not None
    assert state.output["got"]["output"]["got"]["output"] == {"answer": 2}


def test_a_parent_waits_as_long_as_its_child_does(world: World) -> None:
    runtime, _, run_id = started(world, asker())
    child = child_of(world, run_id)
    waiting = world.state(run_id).waiting

    runtime.resume(workflow=asker(), run_id=child.run_id, wait_key=None, payload={"text": "x"})

    assert waiting is not None
    assert (waiting.reason.value, waiting.wait_key) == ("subworkflow", f"subworkflow:{child.run_id}")
    assert waiting.details is not None
    assert waiting.details["sub_run_id"] == child.run_id
    assert waiting.details["sub_workflow_id"] == "child"
    assert world.state(run_id).status is RunStatus.RUNNING
    assert world.state(run_id).vars["got"]["output"] == {"answer": {"text": "x"}}


def test_a_child_that_fails_fails_the_parent_that_waits_in_line(world: World) -> None:
    _, _, run_id = started(world, raiser())

    state = world.state(run_id)

    assert state.status is RunStatus.FAILED
    assert "'child' failed: node 'broken': ValueError: bad child" in str(state.error)
    assert outline(world.ledger(run_id))[-1] == ("start", "completed", "emit_event")


def test_a_child_that_fails_is_a_result_for_a_parent_that_waits_aside(world: World) -> None:
    runtime, parent, run_id = started(world, raiser(), {"async": True, "wait": True})
    child = child_of(world, run_id)

    runtime.tick(workflow=raiser(), run_id=child.run_id)
    state = runtime.tick(workflow=parent, run_id=run_id)

    error = "node 'broken': ValueError: bad child"
    assert state.output == {"got": {"sub_run_id": child.run_id, "output": {"success": False, "error": error}}}


def test_a_cancelled_child_tells_a_parent_that_waits_aside(world: World) -> None:
    runtime, parent, run_id = started(world, asker(), {"async": True, "wait": True})
    child = child_of(world, run_id)

    runtime.cancel_run(child.run_id)
    state = runtime.tick(workflow=parent, run_id=run_id)

    assert state.output is not None
    assert state.output["got"]["output"] == {"success": False, "error": "Cancelled", "cancelled": True}


def test_a_cancelled_child_fails_the_parent_that_waits_in_line(world: World) -> None:
    runtime, _, run_id = started(world, asker())

    runtime.cancel_run(child_of(world, run_id).run_id, reason="enough")

    state = world.state(run_id)
    assert (state.status, state.error) == (RunStatus.FAILED, "subworkflow 'child' cancelled: enough")


def test_a_parent_that_does_not_wait_goes_on_at_once(world: World) -> None:
    _, _, run_id = started(world, adder(), {"async": True})

    child = child_of(world, run_id)
    state = world.state(run_id)
    assert state.output == {"got": {"sub_run_id": child.run_id, "async": True}}
    assert (child.status, world.ledger(child.run_id)) == (RunStatus.RUNNING, [])


def test_a_parent_that_waits_aside_is_resumed_with_the_end_of_its_child(world: World) -> None:
    runtime, parent, run_id = started(world, adder(), {"async": True, "wait": True})
    child = child_of(world, run_id)
    waiting = world.state(run_id).waiting

    runtime.tick(workflow=adder(), run_id=child.run_id)
    state = runtime.tick(workflow=parent, run_id=run_id)

    assert waiting is not None
    assert waiting.details == {
        "sub_run_id": child.run_id,
        "sub_workflow_id": "child",
        "async": True,
        "include_traces": False,
    }
    assert state.output == {"got": {"sub_run_id": child.run_id, "output": {"answer": 1}}}


def test_the_end_of_a_child_and_the_news_for_its_parent_are_one_commit(world: World) -> None:
    runtime, _, run_id = started(world, adder(), {"async": True, "wait": True})
    child = child_of(world, run_id)
    commits: list[set[str]] = []
    world.stores.subscribe(lambda changes: commits.append({row.run_id for row in changes.runs}))

    runtime.tick(workflow=adder(), run_id=child.run_id)

    assert commits == [{run_id, child.run_id}]


def test_a_parent_that_is_paused_while_its_child_ends_hears_of_it_afterwards(world: World) -> None:
    runtime, parent, run_id = started(world, asker())
    child = child_of(world, run_id)
    runtime.pause_run(run_id)

    runtime.resume(workflow=asker(), run_id=child.run_id, wait_key=None, payload={"text": "x"})
    paused = world.state(run_id)
    runtime.resume_run(run_id)
    state = runtime.tick(workflow=parent, run_id=run_id)

    assert paused.status is RunStatus.WAITING
    assert state.output == {"got": {"sub_run_id": child.run_id, "output": {"answer": {"text": "x"}}}}


def test_a_parent_that_was_forced_on_is_not_told_again(world: World) -> None:
    runtime, parent, run_id = started(world, asker(), {"async": True, "wait": True})
    child = runtime.tick(workflow=asker(), run_id=child_of(world, run_id).run_id)

    forced = runtime.resume(
        workflow=parent, run_id=run_id, wait_key=f"subworkflow:{child.run_id}", payload={"by": "hand"}
    )
    runtime.resume(workflow=asker(), run_id=child.run_id, wait_key=None, payload={"text": "x"})

    assert forced.output == {"got": {"by": "hand"}}
    assert world.state(run_id) == forced


def test_cancelling_a_parent_leaves_its_child_alone(world: World) -> None:
    runtime, _, run_id = started(world, asker())

    runtime.cancel_run(run_id)

    assert child_of(world, run_id).status is RunStatus.WAITING


def test_a_child_inherits_the_workspace_and_the_model_and_nothing_of_the_kernel(world: World) -> None:
    parent = parent_of("child", {"async": True, "vars": {"_runtime": {"steps": 9, "in_flight": {"cursor": 1}}}})
    runtime = world.runtime({}, parent, asker())
    given = {"workspace_root": "w", "other": 1, "_runtime": {"provider": "p", "model": "m"}}
    run_id = runtime.start(workflow=parent, vars=given)

    runtime.tick(workflow=parent, run_id=run_id)

    child = child_of(world, run_id)
    assert child.vars["workspace_root"] == "w"
    assert "other" not in child.vars
    assert child.vars["_runtime"] == {"provider": "p", "model": "m"}
    assert child.vars["_limits"]["max_iterations"] == 50


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({}, "payload.workflow_id"),
        ({"workflow_id": " "}, "payload.workflow_id"),
        ({"workflow_id": "nope"}, "'nope' not found"),
    ],
)
def test_a_child_that_cannot_be_started_fails_its_parent(world: World, payload: Json, text: str) -> None:
    workflow = spec("parent", start=effect("start", EffectType.START_SUBWORKFLOW, payload, then="end"), end=end())
    runtime = world.runtime({}, workflow)

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert text in str(state.error)
    assert world.stores.runs.children_of(state.run_id) == []


def test_a_kernel_without_a_registry_says_that_it_needs_one(world: World) -> None:
    workflow = parent_of("child")
    runtime = Runtime(stores=world.stores, clock=world.clock)

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert "workflow_registry" in str(state.error)


def test_a_child_as_a_tool_answers_in_the_form_of_one(world: World) -> None:
    payload = {"wrap_as_tool_result": True, "tool_name": "sub", "call_id": "c9", "vars": {"a": 41}}
    _, _, run_id = started(world, adder(), payload)

    got = world.state(run_id).vars["got"]

    (result,) = got["results"]
    assert got["mode"] == "executed"
    assert (result["call_id"], result["name"], result["success"], result["error"]) == ("c9", "sub", True, None)
    assert result["output"]["answer"] == "42"


@pytest.mark.parametrize("child", ["child", "nope"])
def test_a_child_as_a_tool_that_fails_is_a_failed_call_and_not_a_failed_run(world: World, child: str) -> None:
    parent = parent_of(child, {"wrap_as_tool_result": True})
    runtime = world.runtime({}, parent, raiser())

    state = runtime.tick(workflow=parent, run_id=runtime.start(workflow=parent))

    assert state.status is RunStatus.COMPLETED
    assert state.output is not None
    (result,) = state.output["got"]["results"]
    assert result["success"] is False
    assert "bad child" in result["error"] or "'nope' not found" in result["error"]


def test_a_child_that_needs_many_steps_uses_the_budget_of_its_parent(world: World) -> None:
    def count(run: RunState, ctx: Any) -> StepPlan:
        run.vars["n"] = run.vars.get("n", 0) + 1
        if run.vars["n"] == 150:
            return StepPlan("count", complete_output={"n": 150})
        return StepPlan("count", next_node="count")

    parent = parent_of("child")
    runtime = world.runtime({}, parent, spec("child", count=count))
    run_id = runtime.start(workflow=parent)

    first = runtime.tick(workflow=parent, run_id=run_id)
    second = runtime.tick(workflow=parent, run_id=run_id)

    assert first.status is RunStatus.WAITING
    assert second.output is not None
    assert second.output["got"]["output"] == {"n": 150}


def test_an_effect_of_a_child_is_performed_in_line(world: World) -> None:
    called = effect("call", EffectType.LLM_CALL, {"prompt": "x"}, then="end", key="said")
    child, parent = spec("child", call=called, end=end("end", "said")), parent_of("child")
    handler = Calls(EffectOutcome.completed({"content": "hi"}))
    runtime = world.runtime({EffectType.LLM_CALL: handler}, parent, child)

    state = runtime.tick(workflow=parent, run_id=runtime.start(workflow=parent))

    assert state.output is not None
    assert state.output["got"]["output"] == {"said": {"content": "hi"}}
    assert len(handler) == 1


def test_an_effect_may_advance_other_runs_but_not_its_own(world: World) -> None:
    errors: list[str] = []

    def nosy(run: RunState, effect: Effect) -> EffectOutcome:
        try:
            runtime.tick(workflow=workflow, run_id=run.run_id)
        except ValueError as error:
            errors.append(str(error))
        other = runtime.start(workflow=adder())
        return EffectOutcome.completed(runtime.tick(workflow=adder(), run_id=other).output)

    workflow = spec(
        "nosy", call=effect("call", EffectType.LLM_CALL, {"prompt": "x"}, then="end", key="x"), end=end("end", "x")
    )
    runtime = world.runtime({EffectType.LLM_CALL: nosy}, workflow)

    state = runtime.tick(workflow=workflow, run_id=runtime.start(workflow=workflow))

    assert state.output == {"x": {"answer": 1}}
    assert len(errors) == 1
    assert "is being advanced by this thread" in errors[0]


def test_a_parent_says_what_the_child_waits_for_that_it_started_in_line(world: World) -> None:
    runtime, parent, run_id = started(world, asker())
    child = child_of(world, run_id)
    before = world.state(run_id)
    child_wait = child.waiting
    assert before.waiting is not None and before.waiting.details is not None and child_wait is not None

    runtime.resume(workflow=asker(), run_id=child.run_id, wait_key=None, payload={"text": "x"})
    state = runtime.tick(workflow=parent, run_id=run_id)

    assert before.waiting.details["sub_waiting"] == {"reason": "user", "wait_key": child_wait.wait_key}
    assert state.status is RunStatus.COMPLETED


def test_a_parent_forgets_what_its_child_waited_for_once_the_child_goes_on(world: World) -> None:
    runtime, _, run_id = started(world, asker())
    child = child_of(world, run_id)

    runtime.resume(workflow=asker(), run_id=child.run_id, wait_key=None, payload={"text": "x"}, max_steps=0)

    waiting = world.state(run_id).waiting
    assert waiting is not None and waiting.details is not None
    assert "sub_waiting" not in waiting.details
    assert waiting.details["sub_run_id"] == child.run_id


def test_a_parent_is_told_when_the_timer_of_its_child_is_over(world: World) -> None:
    timed = effect("sleep", EffectType.WAIT_UNTIL, {"until": "2026-01-01T00:01:00+00:00"}, then="work")
    child_spec = spec("child", sleep=timed, work=effect("work", EffectType.ASK_USER, {"prompt": "?"}, key="answer"))
    runtime, parent, run_id = started(world, child_spec)
    first = world.state(run_id).waiting
    world.clock.move(61)

    runtime.tick(workflow=parent, run_id=run_id)

    second = world.state(run_id).waiting
    assert first is not None and first.details is not None and second is not None and second.details is not None
    assert first.details["sub_waiting"] == {"reason": "until", "wait_key": None}
    assert second.details["sub_waiting"]["reason"] == "user"


def test_a_parent_that_waits_aside_is_not_told_what_its_child_waits_for(world: World) -> None:
    runtime, _, run_id = started(world, asker(), {"async": True, "wait": True})

    runtime.tick(workflow=asker(), run_id=child_of(world, run_id).run_id)

    waiting = world.state(run_id).waiting
    assert waiting is not None and waiting.details is not None
    assert "sub_waiting" not in waiting.details


def test_a_child_that_nobody_waits_for_can_be_told_of_as_a_tool_call(world: World) -> None:
    call = {"async": True, "wrap_as_tool_result": True, "tool_name": "delegate", "call_id": "c7"}
    _, _, run_id = started(world, adder(), call)

    output = world.state(run_id).output
    (child_id,) = world.stores.runs.children_of(run_id)
    assert output is not None
    (entry,) = output["got"]["results"]
    assert (entry["name"], entry["call_id"], entry["success"], entry["error"]) == ("delegate", "c7", True, None)
    assert entry["output"] == {"rendered": child_id, "answer": child_id, "sub_run_id": child_id}
