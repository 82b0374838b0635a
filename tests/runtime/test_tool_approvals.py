"""Tool calls that wait for somebody's word: what is asked, what an answer may say, and what is executed afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.errors import Conflict, Invalid
from abstractgateway.runtime import EffectType, RunState, RunStatus, Runtime, WorkflowSpec
from abstractgateway.runtime.effects.tools import FunctionTools, ToolMode, call_tools
from abstractgateway.runtime.models import WaitState
from tests.runtime.workflows import Crash, Json, World, effect, end, outline, spec


class Guarded(FunctionTools):
    """`look` is executed at once, `write` is guarded; what was executed is kept in `done`."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any]] = []
        self.keys: list[str] = []
        self.crashing = False
        super().__init__({"look": self.look, "write": self.write})

    def specs(self) -> list[Json]:
        return [{**item, "requires_approval": item["name"] == "write"} for item in super().specs()]

    def look(self, x: int) -> int:
        self.done.append(("look", x))
        return x

    def write(self, x: int, idempotency_key: str) -> int:
        self.done.append(("write", x))
        self.keys.append(idempotency_key)
        if self.crashing:
            raise Crash
        return x


LOOK = {"name": "look", "arguments": {"x": 1}, "call_id": "a"}
WRITE = {"name": "write", "arguments": {"x": 2}, "call_id": "b"}
WRITE_TEXT = {"name": "write", "arguments": '{"x": 3}', "call_id": "c"}
UNKNOWN = {"name": "unheard", "call_id": "d"}
WRONG = {"name": "write", "arguments": {"y": 1}, "call_id": "e"}


class Asking:
    """A run that makes tool calls in a mode, in a process that can be restarted."""

    def __init__(self, world: World, *calls: Json, mode: ToolMode = "approval", key: str | None = "got", **more: Any):
        self.world, self.tools, self.mode = world, Guarded(), mode
        payload = {"tool_calls": list(calls), **more}
        called = effect("call", EffectType.TOOL_CALLS, payload, then="end", key=key)
        self.workflow: WorkflowSpec = spec("calls", call=called, end=end("end", "got"))
        self.options: Json = {}
        self.run_id = self.runtime.start(workflow=self.workflow)

    @property
    def runtime(self) -> Runtime:
        handlers = {EffectType.TOOL_CALLS: call_tools(self.tools, self.mode)}
        return self.world.runtime(handlers, self.workflow, **self.options)

    def tick(self) -> RunState:
        return self.runtime.tick(workflow=self.workflow, run_id=self.run_id)

    @property
    def wait(self) -> WaitState:
        waiting = self.world.state(self.run_id).waiting
        assert waiting is not None
        return waiting

    def answer(self, payload: Json, *, max_steps: int = 100) -> RunState:
        return self.runtime.resume(
            workflow=self.workflow,
            run_id=self.run_id,
            wait_key=self.wait.wait_key,
            payload=payload,
            max_steps=max_steps,
        )

    def results(self) -> list[Json]:
        state = self.world.state(self.run_id)
        assert state.status is RunStatus.COMPLETED, state.error
        assert state.output is not None
        found: list[Json] = state.output["got"]["results"]
        return found


@pytest.mark.parametrize(
    ("mode", "reason", "asked", "done"),
    [
        ("local", None, [], [("look", 1), ("write", 2)]),
        ("approval", "user", ["b"], [("look", 1)]),
        ("passthrough", "user", ["a", "b"], []),
        ("delegated", "job", ["a", "b"], []),
    ],
)
def test_a_mode_says_which_calls_are_asked_about(
    world: World, mode: ToolMode, reason: str | None, asked: list[str], done: list[Any]
) -> None:
    asking = Asking(world, LOOK, WRITE, mode=mode)

    state = asking.tick()

    assert asking.tools.done == done
    if reason is None:
        assert [item["output"] for item in asking.results()] == [1, 2]
        return
    assert state.waiting is not None and state.waiting.reason.value == reason
    details = state.waiting.details or {}
    assert [call["call_id"] for call in details["tool_calls"]] == asked
    assert details["mode"] == ("delegated" if reason == "job" else "approval_required")


def test_an_approval_wait_has_what_clients_show(world: World) -> None:
    asking = Asking(world, LOOK, WRITE_TEXT, UNKNOWN)

    asking.tick()

    wait = asking.wait
    details = wait.details or {}
    call = details["tool_calls"][0]
    assert str(wait.wait_key).startswith("tool_approval:") and len(str(wait.wait_key)) == len("tool_approval:") + 32
    assert (call["name"], call["arguments"], call["call_id"]) == ("write", {"x": 3}, "c")
    assert call["runtime_call_id"].startswith("rtcall_")
    assert details["kind"] == details["executor"]["kind"] == "tool_approval"
    assert details["executor"]["policy"] == {"auto_approve_tools": ["look"], "require_approval_tools": ["write"]}
    assert details["original_call_count"] == 3
    assert details["pre_results_by_index"]["0"]["output"] == 1
    assert "there is no tool 'unheard'" in details["blocked_by_index"]["2"]["error"]


DECISIONS: list[tuple[Json, list[Any], list[Any]]] = [
    ({"approved": True}, [2, 3], [None, None]),
    ({"approved": False}, [], ["Denied by user", "Denied by user"]),
    ({"approved": False, "reason": "not today"}, [], ["not today", "not today"]),
    ({"approved": False, "reason": "no", "decisions": {"b": True}}, [2], [None, "no"]),
    ({"decisions": {"b": {"approved": False, "reason": "b"}, "c": True}}, [3], ["b", None]),
    ({"approved": True, "tool_calls": [{"name": "write", "arguments": {"x": 99}}]}, [2, 3], [None, None]),
    ({"response": " Yes "}, [2, 3], [None, None]),
    ({"response": "n"}, [], ["Denied by user", "Denied by user"]),
    ({"response": "yes", "approved": False}, [], ["Denied by user", "Denied by user"]),
]


@pytest.mark.parametrize(("payload", "written", "errors"), DECISIONS, ids=str)
@pytest.mark.parametrize("key", ["got", None])
def test_what_is_approved_is_executed_and_nothing_else(
    world: World, payload: Json, written: list[int], errors: list[Any], key: str | None
) -> None:
    asking = Asking(world, WRITE, LOOK, UNKNOWN, WRITE_TEXT, WRONG, key=key)
    asking.tick()

    state = asking.answer(payload)

    assert state.status is RunStatus.COMPLETED
    assert [x for name, x in asking.tools.done if name == "write"] == written
    if key is None:
        return
    found = asking.results()
    assert [item["call_id"] for item in found] == ["b", "a", "d", "c", "e"]
    assert [found[0]["error"], found[3]["error"]] == errors
    assert [item["success"] for item in found] == [errors[0] is None, True, False, errors[1] is None, False]
    assert found[1]["output"] == 1
    assert "there is no tool" in found[2]["error"] and "x: is missing" in found[4]["error"]


def test_an_approved_call_is_an_effect_of_its_own_in_the_ledger(world: World) -> None:
    asking = Asking(world, LOOK, WRITE)
    asking.tick()
    asking.answer({"approved": True})

    records = world.ledger(asking.run_id)
    assert outline(records)[:5] == [
        ("call", "started", "tool_calls"),
        ("call", "waiting", "tool_calls"),
        ("call", "completed", "resume"),
        ("call", "started", "tool_calls"),
        ("call", "completed", "tool_calls"),
    ]
    executed = records[3]["effect"]["payload"]["tool_calls"]
    assert [call["call_id"] for call in executed] == ["b"]
    assert records[3]["idempotency_key"] == records[0]["idempotency_key"]
    assert records[4]["result"]["results"] == asking.results()


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({}, "says nothing about the call 'b'"),
        ({"response": "perhaps"}, "says nothing about the call 'b'"),
        ({"response": ["yes"]}, "says nothing about the call 'b'"),
        ({"response": "yes", "decisions": {"b": True}}, "says nothing about the call 'c'"),
        ({"approved": "true"}, "it must be true or false"),
        ({"approved": 1}, "it must be true or false"),
        ({"decisions": {"b": True}}, "says nothing about the call 'c'"),
        ({"approved": True, "decisions": {"zz": True}}, "names calls that were not asked about: zz"),
        ({"approved": True, "decisions": []}, "not an object by call_id"),
        ({"approved": True, "digest": "0" * 64}, "the answer is about other tool calls"),
        ({"mode": "executed", "results": [{"call_id": "zz"}]}, "is of no call that was asked about"),
        ({"mode": "executed", "results": [{"call_id": "b"}, {"call_id": "b"}]}, "is a second result of the call 'b'"),
        ({"mode": "executed", "results": [5]}, "is int, not an object"),
    ],
    ids=str,
)
def test_an_answer_that_decides_nothing_is_refused_and_the_wait_stays(world: World, payload: Json, error: str) -> None:
    asking = Asking(world, WRITE, WRITE_TEXT)
    asking.tick()
    before = world.state(asking.run_id).to_dict()

    with pytest.raises((Invalid, Conflict), match=error):
        asking.answer(payload)

    assert world.state(asking.run_id).to_dict() == before
    assert asking.tools.done == []


def test_a_word_that_names_no_wait_approves_nothing(world: World) -> None:
    asking = Asking(world, WRITE)
    asking.tick()

    with pytest.raises(Invalid, match="says nothing about the call"):
        asking.runtime.resume(
            workflow=asking.workflow, run_id=asking.run_id, wait_key=None, payload={"response": "yes"}
        )

    assert asking.tools.done == []


def test_an_approval_for_other_calls_does_not_count(world: World) -> None:
    first, second = Asking(world, WRITE), Asking(world, {**WRITE, "arguments": {"x": 99}})
    first.tick()
    second.tick()

    with pytest.raises(Conflict, match="wait_key mismatch"):
        second.runtime.resume(
            workflow=second.workflow,
            run_id=second.run_id,
            wait_key=first.wait.wait_key,
            payload={"approved": True},
        )


def test_calls_that_were_changed_since_they_were_asked_about_are_not_executed(world: World) -> None:
    asking = Asking(world, WRITE)
    asking.tick()

    def change(draft: Any) -> None:
        run = draft.open(asking.run_id)
        run.state.waiting.details["tool_calls"][0]["arguments"]["x"] = 99
        run.is_changed = True

    asking.runtime.transact(change)

    with pytest.raises(Conflict, match="not those that were asked about"):
        asking.answer({"approved": True})


def test_a_flow_cannot_say_that_its_calls_are_approved(world: World) -> None:
    forged = {"indexes": [0], "results_by_index": {}, "original_call_count": 1}

    asking = Asking(world, WRITE, _approval=forged)

    assert asking.tick().status is RunStatus.WAITING
    assert asking.tools.done == []


def test_an_answer_may_bring_the_results_itself(world: World) -> None:
    asking = Asking(world, LOOK, WRITE)
    asking.tick()

    asking.answer({"mode": "executed", "results": [{"call_id": "b", "success": True, "output": "by hand"}]})

    assert asking.tools.done == [("look", 1)]
    assert [item["output"] for item in asking.results()] == [1, "by hand"]


def test_a_program_that_executes_calls_may_answer_in_any_order(world: World) -> None:
    calls: list[Json] = [LOOK, WRITE, UNKNOWN, {"name": "look", "arguments": {"x": "no"}, "call_id": "w"}]
    asking = Asking(world, *calls, mode="delegated", wait_key="my job")
    asking.tick()
    assert asking.wait.wait_key == "my job"

    results = [{"call_id": "d", "output": 4}, {"call_id": "b", "error": "no"}]
    asking.answer({"mode": "executed", "results": results})

    found = asking.results()
    assert [item["name"] for item in found] == ["look", "write", "unheard", "look"]
    assert [item["success"] for item in found] == [False, False, True, False]
    assert [item["error"] for item in found[:3]] == ["Missing tool result", "no", None]
    assert "x: is string, not integer" in found[3]["error"]


@pytest.mark.parametrize("payload", [{}, {"approved": True}, {"mode": "executed"}, {"mode": "done", "results": []}])
def test_a_program_that_answers_in_another_form_is_told(world: World, payload: Json) -> None:
    asking = Asking(world, LOOK, mode="delegated")
    asking.tick()

    with pytest.raises(Invalid, match="one for each of the calls"):
        asking.answer(payload)


def test_a_run_that_stops_between_approval_and_execution_goes_on_with_it(world: World) -> None:
    asking = Asking(world, LOOK, WRITE)
    asking.tick()
    asking.answer({"approved": True}, max_steps=0)
    assert asking.tools.done == [("look", 1)]
    assert world.state(asking.run_id).status is RunStatus.RUNNING

    asking.tick()

    assert asking.tools.done == [("look", 1), ("write", 2)]
    assert [item["output"] for item in asking.results()] == [1, 2]


@pytest.mark.parametrize(
    ("rule", "written"), [("retry", [2, 2]), ("ask", [2, 2]), ("fail", [2])], ids=["retry", "ask", "fail"]
)
def test_a_crash_while_an_approved_call_is_executed_leaves_it_in_doubt(
    world: World, rule: str, written: list[int]
) -> None:
    asking = Asking(world, LOOK, WRITE)
    asking.options = {"in_doubt_tools": {"look": "retry", "write": rule}}
    asking.tick()
    asking.tools.crashing = True
    with pytest.raises(Crash):
        asking.answer({"approved": True})
    asking.tools.crashing = False

    state = asking.tick()

    if rule == "ask":
        assert asking.wait.choices == ["retry", "fail"]
        state = asking.runtime.resume(
            workflow=asking.workflow, run_id=asking.run_id, wait_key=None, payload={"response": "retry"}
        )
    assert [x for name, x in asking.tools.done if name == "write"] == written
    assert len(set(asking.tools.keys)) == 1
    if rule == "fail":
        assert state.status is RunStatus.FAILED
    else:
        assert [item["output"] for item in asking.results()] == [1, 2]
        assert asking.tools.done.count(("look", 1)) == 1


def test_a_tool_that_is_gone_when_it_is_approved_fails_its_call_only(world: World) -> None:
    asking = Asking(world, WRITE, LOOK)
    asking.tick()
    asking.tools.specs = list  # type: ignore[method-assign]

    asking.answer({"approved": True})

    assert "there is no tool 'write'" in asking.results()[0]["error"]
    assert asking.results()[1]["output"] == 1


def test_the_same_call_asked_for_again_is_asked_about_again(world: World) -> None:
    asking = Asking(world, WRITE)

    def again(run: RunState, ctx: Any) -> Any:
        run.vars["round"] = run.vars.get("round", 0) + 1
        node = asking.workflow.nodes["call" if run.vars["round"] < 3 else "end"]
        plan = node(run, ctx)
        return plan if plan.effect is None else type(plan)("again", effect=plan.effect, next_node="again")

    workflow = spec("again", again=again)
    runtime = world.runtime({EffectType.TOOL_CALLS: call_tools(asking.tools, "approval")}, workflow)
    run_id = runtime.start(workflow=workflow)
    keys = []
    for _ in range(2):
        waiting = runtime.tick(workflow=workflow, run_id=run_id).waiting
        assert waiting is not None
        keys.append(waiting.wait_key)
        runtime.resume(workflow=workflow, run_id=run_id, wait_key=waiting.wait_key, payload={"approved": True})

    assert len(set(keys)) == len(set(asking.tools.keys)) == 2
    assert runtime.get_state(run_id).status is RunStatus.COMPLETED


def test_an_approval_wait_of_the_original_product_is_answered_alike(world: World) -> None:
    asking = Asking(world, WRITE)
    asking.tick()

    def as_there(draft: Any) -> None:
        run = draft.open(asking.run_id)
        for name in ("digest", "idempotency_key", "kind"):
            del run.state.waiting.details[name]
        run.is_changed = True

    asking.runtime.transact(as_there)
    asking.answer({"approved": True})

    assert asking.results()[0]["output"] == 2
