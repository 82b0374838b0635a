"""The original kernel (abstractruntime), in process: `original.py BACKEND`."""

from __future__ import annotations

import json
import sys
import tempfile
import time

from abstractruntime import Effect, EffectType, JsonFileRunStore, JsonlLedgerStore, Runtime, StepPlan, WorkflowSpec
from abstractruntime.core.runtime import EffectOutcome
from abstractruntime.storage.sqlite import SqliteDatabase, SqliteLedgerStore, SqliteRunStore


def say(run, ctx):
    left = run.vars["left"] = run.vars["left"] - 1
    if left < 0:
        return StepPlan("say", complete_output={"ok": True})
    return StepPlan("say", effect=Effect(EffectType.ANSWER_USER, {"message": f"step {left}"}, "said"), next_node="say")


def call(run, ctx):
    left = run.vars["left"] = run.vars["left"] - 1
    if left < 0:
        return StepPlan("call", complete_output={"ok": True})
    effect = Effect(EffectType.TOOL_CALLS, {"n": left, "tool_calls": []}, "called")
    return StepPlan("call", effect=effect, next_node="call")


SAY = WorkflowSpec("say", "say", {"say": say})
CALL = WorkflowSpec("call", "call", {"call": call})


def steps_per_second(runtime, workflow, runs, steps):
    begin = time.perf_counter()
    for _ in range(runs):
        run_id = runtime.start(workflow=workflow, vars={"left": steps})
        state = runtime.tick(workflow=workflow, run_id=run_id, max_steps=2 * steps + 2)
        assert state.status.value == "completed", state.error
    return runs * steps / (time.perf_counter() - begin)


with tempfile.TemporaryDirectory(prefix="bench-") as directory:
    if sys.argv[1] == "sqlite":
        database = SqliteDatabase(f"{directory}/runs.sqlite3")
        stores = {"run_store": SqliteRunStore(database), "ledger_store": SqliteLedgerStore(database)}
    else:
        stores = {"run_store": JsonFileRunStore(directory), "ledger_store": JsonlLedgerStore(directory)}
    outcome = EffectOutcome.completed({"mode": "executed", "results": []})
    runtime = Runtime(**stores, effect_handlers={EffectType.TOOL_CALLS: lambda run, effect, following: outcome})
    figures = {
        "1 run x 100 steps": steps_per_second(runtime, SAY, 1, 100),
        "1 run x 1,000 steps": steps_per_second(runtime, SAY, 1, 1000),
        "200 runs x 10 steps": steps_per_second(runtime, SAY, 200, 10),
        "1 run x 300 outside effects": steps_per_second(runtime, CALL, 1, 300),
    }
print(json.dumps(figures))
