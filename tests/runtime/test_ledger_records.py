from __future__ import annotations

import pytest

from abstractgateway.runtime import EffectOutcome, EffectType, RunStatus, StepPlan, WaitReason, WaitState
from abstractgateway.runtime.chain import verify_chain
from tests.runtime.workflows import Calls, Json, World, ask_then_end, call_then_end, effect, end, outline, spec

FIELDS = {
    *("run_id", "step_id", "node_id", "status", "effect", "result", "error", "started_at", "ended_at", "actor_id"),
    *("session_id", "attempt", "idempotency_key", "prev_hash", "record_hash", "signature"),
}


def without_links(record: Json) -> Json:
    return {name: value for name, value in record.items() if name not in ("prev_hash", "record_hash", "signature")}


def finished(world: World, handler: Calls, **options: object) -> tuple[str, list[Json]]:
    workflow = call_then_end()
    runtime = world.runtime({EffectType.LLM_CALL: handler}, workflow, **options)
    run_id = runtime.start(workflow=workflow, actor_id="ar_1", session_id="s-1")
    runtime.tick(workflow=workflow, run_id=run_id)
    return run_id, world.ledger(run_id)


def test_every_record_has_the_fields_of_abstractruntime_and_continues_the_chain(world: World) -> None:
    _, records = finished(world, Calls())

    assert all(set(record) == FIELDS for record in records)
    assert verify_chain(records).ok
    assert {record["signature"] for record in records} == {None}


def test_an_effect_leaves_an_intent_and_an_outcome_of_one_step(world: World) -> None:
    handler = Calls(EffectOutcome.completed({"content": "hello"}))

    run_id, (started, completed, *_) = finished(world, handler)

    step = {
        "run_id": run_id,
        "step_id": started["step_id"],
        "node_id": "call",
        "effect": {"type": "llm_call", "payload": {"prompt": "hi"}, "result_key": "said"},
        "error": None,
        "started_at": "2026-01-01T00:00:00+00:00",
        "actor_id": "ar_1",
        "session_id": "s-1",
        "attempt": 1,
        "idempotency_key": started["idempotency_key"],
    }
    assert without_links(started) == {**step, "status": "started", "result": None, "ended_at": None}
    assert without_links(completed) == {
        **step,
        "status": "completed",
        "result": {"content": "hello"},
        "ended_at": "2026-01-01T00:00:00+00:00",
    }
    assert len(started["idempotency_key"]) == 32


def test_the_times_of_an_effect_are_when_it_began_and_when_it_was_over(world: World) -> None:
    def slow(run: object) -> EffectOutcome:
        world.clock.move(2.5)
        return EffectOutcome.completed({"ok": True})

    run_id, (_, completed, *_) = finished(world, Calls(slow))

    assert completed["started_at"] == "2026-01-01T00:00:00+00:00"
    assert completed["ended_at"] == "2026-01-01T00:00:02.500000+00:00"
    (entry,) = world.state(run_id).vars["_runtime"]["node_traces"]["call"]["steps"]
    assert entry["duration_ms"] == 2500


def test_a_run_that_ends_with_an_output_records_it_and_then_its_status(world: World) -> None:
    handler = Calls(EffectOutcome.completed({"content": "hello"}))

    run_id, records = finished(world, handler)

    *_, completed, status = records
    common = {
        "run_id": run_id,
        "node_id": "end",
        "status": "completed",
        "error": None,
        "started_at": "2026-01-01T00:00:00+00:00",
        "ended_at": "2026-01-01T00:00:00+00:00",
        "actor_id": "ar_1",
        "session_id": "s-1",
        "attempt": 1,
    }
    assert without_links(completed) == {
        **common,
        "step_id": completed["step_id"],
        "effect": None,
        "result": {"completed": True, "output": {"said": {"content": "hello"}}},
        "idempotency_key": None,
    }
    event = {"name": "abstract.status", "scope": "session", "payload": {"text": "completed"}}
    assert without_links(status) == {
        **common,
        "step_id": status["step_id"],
        "effect": {"type": "emit_event", "payload": event, "result_key": None},
        "result": {"emitted": True, "name": "abstract.status", "payload": {"text": "completed"}},
        "idempotency_key": "system:terminal_status:completed",
    }
    assert len({record["step_id"] for record in records}) == 3


def test_an_effect_without_a_next_node_ends_the_run_without_a_completion_record(world: World) -> None:
    workflow = spec("last", call=effect("call", EffectType.ANSWER_USER, {"message": "bye"}, key="said"))
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.output == {"success": True, "result": {"message": "bye", "level": "message"}}
    assert state.vars["said"] == {"message": "bye", "level": "message"}
    assert outline(world.ledger(run_id)) == [
        ("call", "started", "answer_user"),
        ("call", "completed", "answer_user"),
        ("call", "completed", "emit_event"),
    ]


def test_a_wait_is_recorded_whole_and_so_is_its_answer(world: World) -> None:
    workflow = ask_then_end({"prompt": "Continue?", "choices": ["yes", "no"], "allow_free_text": False})
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    runtime.tick(workflow=workflow, run_id=run_id)
    key = f"user:{run_id}:ask"

    runtime.resume(workflow=workflow, run_id=run_id, wait_key=key, payload={"text": "yes"}, max_steps=0)

    started, waiting, resumed = world.ledger(run_id)
    assert waiting["step_id"] == started["step_id"] != resumed["step_id"]
    assert waiting["status"] == "waiting"
    assert waiting["result"] == {
        "wait": {
            "reason": "user",
            "wait_key": key,
            "until": None,
            "resume_to_node": "end",
            "result_key": "answer",
            "prompt": "Continue?",
            "choices": ["yes", "no"],
            "allow_free_text": False,
            "details": None,
        }
    }
    assert resumed["effect"] == {
        "type": "resume",
        "payload": {
            "wait_reason": "user",
            "wait_key": key,
            "resume_to_node": "end",
            "result_key": "answer",
            "payload": {"text": "yes"},
        },
        "result_key": None,
    }
    assert (resumed["node_id"], resumed["status"], resumed["result"]) == ("ask", "completed", {"resumed": True})
    assert resumed["idempotency_key"] is None


def test_an_answer_that_ends_the_run_says_so_in_its_completion_record(world: World) -> None:
    workflow = spec("asks", ask=effect("ask", EffectType.ASK_USER, {"prompt": "?"}))
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    runtime.tick(workflow=workflow, run_id=run_id)

    state = runtime.resume(workflow=workflow, run_id=run_id, wait_key=None, payload={"a": 1}, max_steps=0)

    assert (state.status, state.output) == (RunStatus.COMPLETED, {"success": True, "result": {"a": 1}})
    *_, resumed, completed, status = world.ledger(run_id)
    assert resumed["result"] == {"resumed": True}
    assert completed["result"] == {
        "completed": True,
        "output": {"success": True, "result": {"a": 1}},
        "via": "resume",
        "wait_reason": "user",
        "wait_key": f"user:{run_id}:ask",
    }
    assert status["effect"]["payload"]["name"] == "abstract.status"


def test_a_failed_effect_is_recorded_with_its_reason_and_fails_the_run(world: World) -> None:
    run_id, records = finished(world, Calls(EffectOutcome.failed("no credit")))

    assert outline(records) == [
        ("call", "started", "llm_call"),
        ("call", "failed", "llm_call"),
        ("call", "completed", "emit_event"),
    ]
    assert records[1]["error"] == "no credit"
    assert records[1]["step_id"] == records[0]["step_id"]
    assert records[2]["idempotency_key"] == "system:terminal_status:failed"
    state = world.state(run_id)
    assert (state.status, state.error) == (RunStatus.FAILED, "Effect failed after 1 attempts: no credit (node 'call')")


def test_an_effect_nobody_performs_fails_with_its_type(world: World) -> None:
    workflow = call_then_end()
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.error == "Effect failed after 1 attempts: No effect handler registered for llm_call (node 'call')"
    assert [record["status"] for record in world.ledger(run_id)] == ["started", "failed", "completed"]


def test_a_run_cancelled_before_its_first_step_has_one_record(world: World) -> None:
    workflow = call_then_end()
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)

    runtime.cancel_run(run_id)

    (record,) = world.ledger(run_id)
    assert record["effect"]["payload"] == {
        "name": "abstract.status",
        "scope": "session",
        "payload": {"text": "cancelled"},
    }
    assert record["idempotency_key"] == "system:terminal_status:cancelled"


def test_start_pause_resume_transitions_and_timers_leave_no_record(world: World) -> None:
    until = "2026-01-01T00:00:10+00:00"
    workflow = spec(
        "quiet",
        move=lambda run, ctx: StepPlan("move", next_node="wait"),
        wait=effect("wait", EffectType.WAIT_UNTIL, {"until": until}, then="again"),
        again=effect("again", EffectType.WAIT_EVENT, {"name": "never"}, then="end"),
        end=end(),
    )
    runtime = world.runtime()
    run_id = runtime.start(workflow=workflow)
    runtime.pause_run(run_id)
    runtime.resume_run(run_id)
    runtime.tick(workflow=workflow, run_id=run_id)
    world.clock.move(10)

    runtime.tick(workflow=workflow, run_id=run_id)

    assert outline(world.ledger(run_id)) == [
        ("wait", "started", "wait_until"),
        ("wait", "waiting", "wait_until"),
        ("again", "started", "wait_event"),
        ("again", "waiting", "wait_event"),
    ]


def test_a_handler_may_make_the_run_wait_for_a_job(world: World) -> None:
    wait = WaitState(WaitReason.JOB, wait_key="job:7", resume_to_node="end", result_key="said", details={"mode": "x"})
    run_id, records = finished(world, Calls(EffectOutcome.waiting(wait)))

    state = world.runtime().resume(
        workflow=call_then_end(), run_id=run_id, wait_key="job:7", payload={"mode": "executed", "results": []}
    )

    assert [record["status"] for record in records] == ["started", "waiting"]
    assert state.output == {"said": {"mode": "executed", "results": []}}


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_the_last_record_of_every_run_is_its_status_and_there_is_one(world: World, status: str) -> None:
    workflow = call_then_end()
    outcome = EffectOutcome.completed({}) if status == "completed" else EffectOutcome.failed("no")
    runtime = world.runtime({EffectType.LLM_CALL: Calls(outcome)})
    run_id = runtime.start(workflow=workflow)
    if status == "cancelled":
        runtime.cancel_run(run_id)

    runtime.tick(workflow=workflow, run_id=run_id)

    keys = [record["idempotency_key"] for record in world.ledger(run_id)]
    assert keys[-1] == f"system:terminal_status:{status}"
    assert sum(str(key).startswith("system:terminal_status") for key in keys) == 1
