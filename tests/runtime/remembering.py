"""One memory effect after the other in one run, for the tests of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from abstractgateway.runtime import Effect, EffectType, RunState, StepPlan, WorkflowSpec
from abstractgateway.stores import open_file_stores, open_memory_stores, open_sqlite_stores
from tests.postgres.server import open_test_database
from tests.runtime.workflows import Json, World

BACKENDS = ("memory", "files", "sqlite", "postgres")


def opened(backend: str, directory: Path) -> Any:
    if backend == "memory":
        return open_memory_stores()
    return {"files": open_file_stores, "sqlite": open_sqlite_stores, "postgres": open_test_database}[backend](directory)


def steps(*effects: tuple[EffectType, Json], workflow_id: str = "remembers") -> WorkflowSpec:
    """Return a workflow that performs effects and ends with their results as `results`."""

    def node(number: int) -> Any:
        def decide(run: RunState, ctx: Any) -> StepPlan:
            type, payload = effects[number]
            following = f"n{number + 1}" if number + 1 < len(effects) else "end"
            return StepPlan(f"n{number}", Effect(type, payload, f"r{number}"), next_node=following)

        return decide

    def finish(run: RunState, ctx: Any) -> StepPlan:
        return StepPlan("end", complete_output={"results": [run.vars.get(f"r{at}") for at in range(len(effects))]})

    nodes = {f"n{number}": node(number) for number in range(len(effects))}
    return WorkflowSpec(workflow_id, "n0", {**nodes, "end": finish})


def perform(
    world: World,
    *effects: tuple[EffectType, Json],
    vars: Json | None = None,
    session_id: str | None = None,
    actor_id: str | None = None,
    parent_run_id: str | None = None,
    options: Json | None = None,
    handlers: Any = None,
) -> RunState:
    """Run effects one after the other in a run of their own and return how it ended."""
    workflow = steps(*effects)
    runtime = world.runtime(handlers, **(options or {}))
    run_id = runtime.start(
        workflow=workflow, vars=vars, session_id=session_id, actor_id=actor_id, parent_run_id=parent_run_id
    )
    return runtime.tick(workflow=workflow, run_id=run_id)


def results(state: RunState) -> list[Any]:
    assert state.output is not None, state.error
    found: list[Any] = state.output["results"]
    return found


def meta(result: Json) -> Json:
    entry: Json = result["results"][0]
    assert entry["success"] is True
    found: Json = entry["meta"]
    return found


def output(result: Json) -> str:
    text: str = result["results"][0]["output"]
    return text


def note(text: str = "the key is under the mat", **fields: Any) -> tuple[EffectType, Json]:
    return EffectType.MEMORY_NOTE, {"note": text, **fields}


def query(**fields: Any) -> tuple[EffectType, Json]:
    return EffectType.MEMORY_QUERY, {"return": "both", **fields}


def tag(**fields: Any) -> tuple[EffectType, Json]:
    return EffectType.MEMORY_TAG, fields


def compact(**fields: Any) -> tuple[EffectType, Json]:
    return EffectType.MEMORY_COMPACT, fields


def rehydrate(**fields: Any) -> tuple[EffectType, Json]:
    return EffectType.MEMORY_REHYDRATE, fields


def spans(state: RunState) -> list[Json]:
    found: list[Json] = state.vars["_runtime"].get("memory_spans", [])
    return found


def said(*texts: str, system: str | None = None) -> Json:
    """Return variables with a conversation: user and assistant in turn, after a system message where there is one."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]
    head = [{"role": "system", "content": system}] if system else []
    return {"context": {"task": "t", "messages": head + messages}}


def contents(state: RunState) -> list[str]:
    return [message["content"] for message in state.vars["context"]["messages"]]
