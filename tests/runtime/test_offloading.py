from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Conflict, Invalid, Unavailable
from abstractgateway.jsonvalue import dumps, loads
from abstractgateway.runtime import (
    Effect,
    EffectOutcome,
    EffectType,
    RetryPolicy,
    RunState,
    RunStatus,
    Runtime,
    StepPlan,
    WorkflowSpec,
    lifecycle,
)
from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.offloading import (
    MARK,
    is_offloaded,
    is_owned_by_run,
    offload_large_values,
    output_json_of,
    output_of,
    rehydrate,
    rehydrate_record,
    vars_of,
)
from abstractgateway.stores import open_file_stores, open_memory_stores, open_sqlite_stores
from abstractgateway.stores.base import Commit, Stores
from tests.postgres.server import open_test_database
from tests.runtime.workflows import Calls, Crash, Json, World, ask_then_end, effect, end, spec

LIMIT = 1000
LONG = "wörter " * 1000
MANY = [{"n": number} for number in range(1000)]
LLM = EffectType.LLM_CALL

OPEN: dict[str, Callable[[Path], Stores]] = {
    "memory": lambda path: open_memory_stores(),
    "files": open_file_stores,
    "sqlite": open_sqlite_stores,
    "postgres": open_test_database,
}


@pytest.fixture(params=list(OPEN))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A kernel on each backend, whose ledgers and ended runs keep values of up to `LIMIT` bytes."""
    with closing(OPEN[request.param](tmp_path)) as stores:
        yield World(stores)


def runtime_of(world: World, handlers: dict[EffectType, Any], *workflows: WorkflowSpec, **options: Any) -> Runtime:
    return world.runtime(handlers, *workflows, **{"max_inline_bytes": LIMIT, **options})


def calls(payload: Json) -> WorkflowSpec:
    return spec("calls", call=effect("call", LLM, payload, then="end", key="said"), end=end("end", "said"))


def driven(world: World, workflow: WorkflowSpec, handler: Calls, **options: Any) -> str:
    runtime = runtime_of(world, {LLM: handler}, workflow, **options)
    run_id = runtime.start(workflow=workflow)
    runtime.tick(workflow=workflow, run_id=run_id)
    return run_id


def sizes(world: World, run_id: str) -> list[int]:
    return [len(body) for body in world.stores.ledger.read(run_id, 0, 100).records]


# -- ledgers ---------------------------------------------------------------------------------------------------------


def test_records_are_small_and_the_run_sees_everything(world: World) -> None:
    handler = Calls(EffectOutcome.completed({"content": LONG, "list": MANY, "usage": {"total_tokens": 5}}))

    run_id = driven(world, calls({"prompt": LONG}), handler)

    assert max(sizes(world, run_id)) < 2 * LIMIT
    started, completed, *_ = world.ledger(run_id)
    assert is_offloaded(started["effect"]["payload"]["prompt"])
    assert completed["result"]["usage"] == {"total_tokens": 5}
    assert world.stores.artifacts.load(completed["result"]["content"]["$artifact"]) == LONG.encode()
    assert rehydrate_record(completed, world.stores.artifacts)["result"]["list"] == MANY
    assert verify_chain(world.ledger(run_id)).ok
    assert handler.effects[0].payload["prompt"] == LONG
    state = runtime_of(world, {}).get_state(run_id)
    assert state.output == {"said": {"content": LONG, "list": MANY, "usage": {"total_tokens": 5}}}


def test_artifacts_of_a_ledger_say_what_they_are_and_stay(world: World) -> None:
    run_id = driven(world, calls({"prompt": LONG}), Calls())

    ref = world.ledger(run_id)[0]["effect"]["payload"]["prompt"]
    metadata = world.stores.artifacts.get_metadata(ref["$artifact"])

    assert metadata.run_id == run_id
    assert metadata.tags["source"] == "ledger_effect_offload"
    assert metadata.tags["path"] == "ledger.effect.payload.prompt"
    assert is_owned_by_run(metadata.tags)


def test_an_artifact_with_the_same_bytes_is_another_one(world: World) -> None:
    workflow = calls({"prompt": LONG})
    runtime = runtime_of(world, {LLM: Calls()}, workflow)
    run_id = runtime.start(workflow=workflow)
    own = world.stores.artifacts.store(LONG.encode(), run_id=run_id, tags={"kind": "upload"})

    runtime.tick(workflow=workflow, run_id=run_id)

    ref = world.ledger(run_id)[0]["effect"]["payload"]["prompt"]
    assert ref["$artifact"] != own.artifact_id
    assert world.stores.artifacts.delete(own.artifact_id)
    assert rehydrate(ref, world.stores.artifacts) == LONG


def test_artifacts_are_durable_before_the_commit_that_refers_to_them() -> None:
    class Watched:
        def __init__(self) -> None:
            self._stores = open_memory_stores()
            self.runs, self.ledger, self.artifacts = self._stores.runs, self._stores.ledger, self._stores.artifacts
            self.checked = 0

        def commit(self, commit: Commit) -> Any:
            for body in (part for write in commit.runs for part in (*write.records, write.body)):
                rehydrate(loads(body), self.artifacts)
                self.checked += b'"$offloaded"' in body
            return self._stores.commit(commit)

    stores = Watched()

    driven(World(stores), calls({"prompt": LONG}), Calls(EffectOutcome.completed(MANY)))

    assert stores.checked >= 3


@pytest.mark.parametrize(
    "result", [LONG, MANY, {"$artifact": "a", MARK: "text"}, {"a": {"$artifact": "a", MARK: "json"}}]
)
def test_any_result_is_given_back_as_it_was(world: World, result: Any) -> None:
    workflow = calls({"prompt": "hi"})
    run_id = driven(world, workflow, Calls(EffectOutcome.completed(result)))
    record = world.ledger(run_id)[1]

    assert rehydrate_record(record, world.stores.artifacts)["result"] == result
    assert runtime_of(world, {}).get_state(run_id).output == {"said": result}


def test_references_that_a_flow_made_are_left_alone(world: World) -> None:
    ref = world.stores.artifacts.store(b"mine", tags={"source": "upload"}).artifact_id
    handler = Calls()

    run_id = driven(world, calls({"prompt": LONG, "media": [{"$artifact": ref}]}), handler)

    assert world.ledger(run_id)[0]["effect"]["payload"]["media"] == [{"$artifact": ref}]
    effect = rehydrate_record(world.ledger(run_id)[0], world.stores.artifacts)["effect"]
    assert effect["payload"]["media"] == [{"$artifact": ref}]


def test_an_effect_in_doubt_is_performed_again_with_its_whole_payload(world: World) -> None:
    workflow = calls({"prompt": LONG, "messages": MANY})
    crashing = runtime_of(world, {LLM: Calls(Crash())}, workflow)
    run_id = crashing.start(workflow=workflow)
    with pytest.raises(Crash):
        crashing.tick(workflow=workflow, run_id=run_id)
    handler = Calls(EffectOutcome.completed({"content": "ok"}))

    state = runtime_of(world, {LLM: handler}).tick(workflow=workflow, run_id=run_id)

    assert state.output == {"said": {"content": "ok"}}
    payload = handler.effects[0].payload
    assert (payload["prompt"], payload["messages"]) == (LONG, MANY)
    attempts = [(record["status"], record["attempt"]) for record in world.ledger(run_id)[:3]]
    assert attempts == [("started", 1), ("started", 2), ("completed", 2)]
    assert verify_chain(world.ledger(run_id)).ok


def test_while_the_payload_in_doubt_cannot_be_read_nothing_is_performed(world: World) -> None:
    workflow = calls({"prompt": LONG})
    crashing = runtime_of(world, {LLM: Calls(Crash())}, workflow)
    run_id = crashing.start(workflow=workflow)
    with pytest.raises(Crash):
        crashing.tick(workflow=workflow, run_id=run_id)
    world.stores.artifacts.delete_by_run(run_id)
    handler = Calls()

    with pytest.raises(Unavailable, match="ledger.effect.payload.prompt"):
        runtime_of(world, {LLM: handler}).tick(workflow=workflow, run_id=run_id)

    assert len(handler) == 0
    assert (world.state(run_id).status, len(world.ledger(run_id))) == (RunStatus.RUNNING, 1)


def test_a_retry_has_the_whole_payload(world: World) -> None:
    workflow, handler = calls({"prompt": LONG}), Calls(EffectOutcome.failed("busy"))
    policy = {"effect_policy": RetryPolicy(llm_max_attempts=2)}
    run_id = driven(world, workflow, handler, **policy)
    world.clock.move(3600)

    runtime_of(world, {LLM: handler}, **policy).tick(workflow=workflow, run_id=run_id)

    assert [effect.payload["prompt"] for effect in handler.effects] == [LONG, LONG]
    assert world.state(run_id).status is RunStatus.COMPLETED


def reset(world: World, workflow: WorkflowSpec, run_id: str) -> None:
    """Put a run that has ended back to its start, as programs written for AbstractRuntime do."""
    state = world.state(run_id)
    state.status, state.current_node, state.output = RunStatus.RUNNING, workflow.entry_node, None
    world.stores.runs.save(state)


def test_a_run_that_is_put_back_finds_its_results_whole(world: World) -> None:
    workflow = calls({"prompt": LONG})
    run_id = driven(world, workflow, Calls(EffectOutcome.completed({"content": LONG, "list": MANY})))
    reset(world, workflow, run_id)
    handler = Calls()

    state = runtime_of(world, {LLM: handler}).tick(workflow=workflow, run_id=run_id)

    assert len(handler) == 0
    assert state.output == {"said": {"content": LONG, "list": MANY}}


def test_a_large_answer_reaches_the_run_and_leaves_the_ledger(world: World) -> None:
    workflow = ask_then_end()
    runtime = runtime_of(world, {}, workflow)
    run_id = runtime.start(workflow=workflow)
    waiting = runtime.tick(workflow=workflow, run_id=run_id).waiting
    assert waiting is not None

    state = runtime.resume(workflow=workflow, run_id=run_id, wait_key=waiting.wait_key, payload={"response": LONG})

    assert state.output == {"answer": {"response": LONG}}
    assert max(sizes(world, run_id)) < 2 * LIMIT


def test_traces_keep_the_outline_of_what_is_large(world: World) -> None:
    run_id = driven(world, calls({"prompt": "x" * 20_000}), Calls())

    (step,) = runtime_of(world, {}).get_node_trace(run_id, "call")["steps"]

    assert (step["truncated"], step["effect"]) == (True, {"type": "llm_call"})


def test_what_is_small_makes_no_artifact(world: World) -> None:
    run_id = driven(world, calls({"prompt": "hi"}), Calls())

    assert world.ledger(run_id)[0]["effect"]["payload"]["prompt"] == "hi"
    assert world.stores.artifacts.list_by_run(run_id) == []


@pytest.mark.parametrize("limit", [None, 0, -1])
def test_without_a_limit_everything_stays_inline(world: World, limit: int | None) -> None:
    run_id = driven(world, calls({"prompt": LONG}), Calls(EffectOutcome.completed(MANY)), max_inline_bytes=limit)

    assert world.ledger(run_id)[0]["effect"]["payload"]["prompt"] == LONG
    assert world.state(run_id).output == {"said": MANY}
    assert world.stores.artifacts.list_by_run(run_id) == []


# -- ended runs ------------------------------------------------------------------------------------------------------


def note_much(run: RunState, ctx: Any) -> StepPlan:
    run.vars["_temp"] = {"long": LONG, "small": 1}
    run.vars["seen"] = {"list": MANY}
    return StepPlan("note", next_node="end")


NOTES = spec("notes", note=note_much, end=end("end", "seen"))


def test_an_ended_run_is_small_and_reads_as_it_was(world: World) -> None:
    run_id = driven(world, NOTES, Calls())

    stored = world.state(run_id)

    assert len(dumps(stored.to_dict())) < 3 * LIMIT
    assert is_offloaded(stored.output["seen"]["list"] if not is_offloaded(stored.output) else stored.output)
    assert stored.vars["_temp"]["small"] == 1
    assert is_offloaded(stored.vars["_temp"]["long"])
    state = runtime_of(world, {}).get_state(run_id)
    assert state.output == {"seen": {"list": MANY}}
    assert (state.vars["_temp"]["long"], state.vars["seen"]) == (LONG, {"list": MANY})
    assert "offloaded" not in state.vars["_runtime"]
    assert output_of(stored, world.stores.artifacts) == state.output
    assert loads(output_json_of(stored, world.stores.artifacts)) == state.output
    assert vars_of(stored, world.stores.artifacts) == state.vars


def test_a_run_that_goes_on_keeps_everything_inline(world: World) -> None:
    workflow = spec("waits", note=lambda run, ctx: StepPlan("note", next_node="ask"), ask=ask_then_end().nodes["ask"])
    runtime = runtime_of(world, {}, workflow)
    run_id = runtime.start(workflow=workflow, vars={"long": LONG, "_own": {"list": MANY}})

    runtime.tick(workflow=workflow, run_id=run_id)

    stored = world.state(run_id)
    assert stored.status is RunStatus.WAITING
    assert (stored.vars["long"], stored.vars["_own"]["list"]) == (LONG, MANY)


def test_an_ended_run_that_is_put_back_has_its_variables(world: World) -> None:
    workflow = spec("sees", look=end("look", "long", "like"))
    like = {"$artifact": "0" * 32, MARK: "text"}
    runtime = runtime_of(world, {}, workflow)
    run_id = runtime.start(workflow=workflow, vars={"long": LONG, "like": like})
    runtime.tick(workflow=workflow, run_id=run_id)
    reset(world, workflow, run_id)

    state = runtime.tick(workflow=workflow, run_id=run_id)

    assert state.output == {"long": LONG, "like": like}
    assert world.state(run_id).vars["_runtime"]["offloaded"] is True


def test_an_ended_run_that_is_put_back_goes_on_with_its_large_variables(world: World) -> None:
    def grow(run: RunState, ctx: Any) -> StepPlan:
        run.vars.setdefault("list", []).append(LONG)
        if len(run.vars["list"]) % 3 == 0:
            return StepPlan("grow", complete_output={"length": len(run.vars["list"])})
        return StepPlan("grow", effect=Effect(LLM, {"round": len(run.vars["list"])}), next_node="grow")

    workflow = spec("grows", grow=grow)
    runtime = runtime_of(world, {LLM: Calls()}, workflow)
    run_id = runtime.start(workflow=workflow, vars={f"v{n}": "x" * 900 for n in range(50)})
    runtime.tick(workflow=workflow, run_id=run_id)

    for length in (6, 9):
        reset(world, workflow, run_id)
        runtime.tick(workflow=workflow, run_id=run_id, max_steps=1)
        assert runtime_of(world, {}).get_state(run_id).vars["list"] == [LONG] * (length - 2)
        state = runtime.tick(workflow=workflow, run_id=run_id)
        assert (state.output, state.vars["list"]) == ({"length": length}, [LONG] * length)


def test_a_change_of_an_ended_run_keeps_it_small_and_whole(world: World) -> None:
    run_id = driven(world, NOTES, Calls())
    runtime = runtime_of(world, {})

    runtime.update_limits(run_id, {"max_iterations": 7})

    assert len(dumps(world.state(run_id).to_dict())) < 3 * LIMIT
    state = runtime.get_state(run_id)
    assert (state.vars["_temp"]["long"], state.vars["_limits"]["max_iterations"]) == (LONG, 7)


def test_the_index_of_a_memory_leaves_no_copy_of_itself_with_every_note(world: World) -> None:
    payload = {"note": "n" * 400, "scope": "session", "tags": {"topic": "x" * 200}}
    noting = spec("notes", note=effect("note", EffectType.MEMORY_NOTE, payload, then="end"), end=end("end"))
    runtime = runtime_of(world, {}, noting)
    for _ in range(8):
        world.clock.move(1)
        run_id = runtime.start(workflow=noting, session_id="s1")
        runtime.tick(workflow=noting, run_id=run_id)

    spans = world.state("session_memory_s1").vars["_runtime"]["memory_spans"]

    assert len(spans) == 8
    assert len(dumps(spans)) > LIMIT
    kinds = {item.tags.get("kind") for item in world.stores.artifacts.list_by_run("session_memory_s1")}
    assert kinds == {"memory_note"}


def test_a_value_that_is_nested_too_deeply_is_refused(world: World) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]

    with pytest.raises(Invalid, match="nested too deeply"):
        rehydrate(deep, world.stores.artifacts, path="output")


def test_nobody_can_start_a_run_that_claims_to_be_offloaded(world: World) -> None:
    runtime = runtime_of(world, {}, NOTES)

    run_id = runtime.start(workflow=NOTES, vars={"_runtime": {"offloaded": True}})

    assert "offloaded" not in world.state(run_id).vars["_runtime"]


def family(**payload: Any) -> WorkflowSpec:
    def begin(run: RunState, ctx: Any) -> StepPlan:
        wanted = {"workflow_id": "child", "vars": {}, **payload}
        return StepPlan("begin", effect=Effect(EffectType.START_SUBWORKFLOW, wanted, "got"), next_node="end")

    return spec("family", begin=begin, end=end("end", "got"))


def quick_child() -> WorkflowSpec:
    return spec("child", tell=lambda run, ctx: StepPlan("tell", complete_output={"all": MANY, "text": LONG}))


@pytest.mark.parametrize("is_async", [False, True])
def test_a_parent_gets_the_real_output_of_its_child(world: World, is_async: bool) -> None:
    parent, child = family(**({"async": True, "wait": True} if is_async else {})), quick_child()
    runtime = runtime_of(world, {}, parent, child)
    run_id = runtime.start(workflow=parent)
    runtime.tick(workflow=parent, run_id=run_id)
    (child_id,) = world.stores.runs.children_of(run_id)
    if is_async:
        runtime.tick(workflow=child, run_id=child_id)

    state = runtime.tick(workflow=parent, run_id=run_id)

    assert state.status is RunStatus.COMPLETED
    assert state.output["got"]["output"] == {"all": MANY, "text": LONG}
    assert is_offloaded(world.state(child_id).output["all"])
    assert max(sizes(world, run_id)) < 2 * LIMIT


def test_a_parent_that_was_paused_gets_the_real_output_later(world: World) -> None:
    parent, child = family(**{"async": True, "wait": True}), quick_child()
    runtime = runtime_of(world, {}, parent, child)
    run_id = runtime.start(workflow=parent)
    runtime.tick(workflow=parent, run_id=run_id)
    runtime.pause_run(run_id)
    (child_id,) = world.stores.runs.children_of(run_id)
    runtime.tick(workflow=child, run_id=child_id)

    runtime.resume_run(run_id)
    state = runtime.tick(workflow=parent, run_id=run_id)

    assert state.output["got"]["output"] == {"all": MANY, "text": LONG}


def parent_of_a_lost_child(world: World) -> tuple[Runtime, str, str]:
    """Return a paused parent whose child ended with a large output that is gone."""
    parent, child = family(**{"async": True, "wait": True}), quick_child()
    runtime = runtime_of(world, {}, parent, child)
    run_id = runtime.start(workflow=parent)
    runtime.tick(workflow=parent, run_id=run_id)
    runtime.pause_run(run_id)
    (child_id,) = world.stores.runs.children_of(run_id)
    runtime.tick(workflow=child, run_id=child_id)
    world.stores.artifacts.delete_by_run(child_id)
    return runtime, run_id, child_id


def test_a_lost_output_is_told_and_holds_up_nobody_else(world: World) -> None:
    runtime, run_id, child_id = parent_of_a_lost_child(world)

    with pytest.raises(Conflict, match="is lost"):
        runtime.resume_run(run_id)
    with pytest.raises(Unavailable, match="cannot be read back"):
        runtime.get_state(child_id)

    assert world.state(run_id).status is RunStatus.WAITING
    runtime.transact(lambda draft: lifecycle.cancel(draft, draft.open(child_id)))
    assert runtime.cancel_run(run_id).status is RunStatus.CANCELLED


def test_a_run_with_lost_values_is_not_changed(world: World) -> None:
    run_id = driven(world, NOTES, Calls())
    world.stores.artifacts.delete_by_run(run_id)
    before = world.stores.runs.open(run_id)
    runtime = runtime_of(world, {})

    with pytest.raises(Unavailable):
        runtime.update_limits(run_id, {"max_iterations": 7})

    assert world.stores.runs.open(run_id) == before
    reset(world, NOTES, run_id)
    with pytest.raises(Unavailable):
        runtime.tick(workflow=NOTES, run_id=run_id)


# -- what AbstractRuntime wrote --------------------------------------------------------------------------------------


def foreign(world: World, content: bytes, *, run_id: str = "old", **tags: str) -> Json:
    """Return a reference as AbstractRuntime leaves it in a record."""
    known = {"source": "ledger_effect_offload", "path": "ledger.effect.payload.prompt", "kind": "text", **tags}
    return {"$artifact": world.stores.artifacts.store(content, run_id=run_id, tags=known).artifact_id}


def test_references_of_abstractruntime_are_read_back(world: World) -> None:
    ref, listed = foreign(world, LONG.encode()), foreign(world, b"[1]", source="run_output_offload", kind="json")
    record = {"run_id": "old", "effect": {"payload": {"prompt": ref}}, "result": {"list": listed}}

    found = rehydrate_record(record, world.stores.artifacts)

    assert (found["effect"], found["result"]) == ({"payload": {"prompt": LONG}}, {"list": [1]})


def test_an_output_of_abstractruntime_is_read_back(world: World) -> None:
    state = RunState.new(workflow_id="w", entry_node="n")
    ref = foreign(world, b'{"answer":1}', run_id=state.run_id, source="run_output_offload", kind="json")
    state.status, state.output = RunStatus.COMPLETED, ref
    world.stores.runs.save(state)

    assert runtime_of(world, {}).get_state(state.run_id).output == {"answer": 1}


def test_the_json_of_an_output_is_that_of_its_value(world: World) -> None:
    state = RunState.new(workflow_id="w", entry_node="n")
    old = foreign(world, b' {"a" : 1}\n', run_id=state.run_id, source="run_output_offload", kind="json")
    ours = {
        "text": LONG,
        "first": MANY,
        '\u0000 "quoted"': [MANY, 1, [LONG]],
        "alike": {"$artifact": "x", MARK: "json"},
    }
    left = offload_large_values(
        ours, artifact_store=world.stores.artifacts, run_id=state.run_id, max_inline_bytes=100, root_path="output"
    )
    state.status, state.output = (
        RunStatus.COMPLETED,
        {**left, "old": old, "gone": {"$artifact": "0" * 32, MARK: "json"}},
    )

    found = loads(output_json_of(state, world.stores.artifacts))

    assert found == {**ours, "old": {"a": 1}, "gone": {"$artifact": "0" * 32, MARK: "json"}}
    assert found == output_of(state, world.stores.artifacts, is_lenient=True)
    assert output_json_of(state, None) == dumps(state.output)


@pytest.mark.parametrize("fields", [{"source": "upload"}, {"run_id": "other"}, {"writer": "abstractgateway"}])
def test_other_references_are_not_taken_for_those_of_abstractruntime(world: World, fields: Json) -> None:
    record = {"run_id": "old", "effect": None, "result": {"x": foreign(world, b"text", **fields)}}

    assert rehydrate_record(record, world.stores.artifacts) == record


PYTHON = os.environ.get("ABSTRACTRUNTIME_PYTHON", "")
with_original = pytest.mark.skipif(
    not PYTHON, reason="ABSTRACTRUNTIME_PYTHON does not name an interpreter that has abstractruntime 0.4.9"
)


def original(action: str, directory: Path) -> Any:
    program = Path(__file__).with_name("original_offloading.py")
    finished = subprocess.run([PYTHON, program, action, directory], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@with_original
def test_what_abstractruntime_offloaded_is_read_whole(tmp_path: Path) -> None:
    original("make", tmp_path)

    with closing(open_file_stores(tmp_path)) as stores:
        record = rehydrate_record(stores.ledger.list("old")[0], stores.artifacts)
        state = Runtime(stores=stores).get_state("old")
        found = stores.artifacts.search(tags={"source": "upload"})

    assert record["effect"]["payload"] == {"prompt": "p" * 3000, "media": {"$artifact": "mine"}}
    assert record["result"] == {"content": "c" * 2000, "list": list(range(1000))}
    assert state.output == {"text": "o" * 3000, "list": list(range(1000))}
    assert [item.artifact_id for item in found] == ["mine"]


@with_original
def test_abstractruntime_reads_what_was_offloaded_here(tmp_path: Path) -> None:
    with closing(open_file_stores(tmp_path)) as stores:
        world = World(stores)
        state = RunState.new(workflow_id="calls", entry_node="call")
        state.run_id = "new"
        stores.runs.save(state)
        handler = Calls(EffectOutcome.completed(LONG))
        workflow = calls({"prompt": LONG})
        runtime_of(world, {LLM: handler}, workflow).tick(workflow=workflow, run_id="new")
        stores.artifacts.store_text("unused", artifact_id="gone")
        stores.artifacts.delete("gone")

    found = original("look", tmp_path)

    assert (found["prompt"], found["output"]) == (LONG, LONG)
    assert (found["listed"], found["reclaimed"]) == (1, 1)
