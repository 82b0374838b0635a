"""This library's kernel and runner, in process: `this.py BACKEND`."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time

from abstractgateway.clock import SystemClock
from abstractgateway.runner import Runner
from abstractgateway.runtime import Effect, EffectOutcome, EffectType, Runtime, StepPlan, WorkflowSpec
from abstractgateway.stores import Stores, open_file_stores, open_memory_stores, open_sqlite_stores


def say(run, ctx):  # type: ignore[no-untyped-def]
    """Show a message and come back, until `left` is used up."""
    left = run.vars["left"] = run.vars["left"] - 1
    if left < 0:
        return StepPlan("say", complete_output={"ok": True})
    return StepPlan("say", effect=Effect(EffectType.ANSWER_USER, {"message": f"step {left}"}, "said"), next_node="say")


def call(run, ctx):  # type: ignore[no-untyped-def]
    """Change 1 KB of the variables and perform an effect on the outside world, until `left` is used up."""
    left = run.vars["left"] = run.vars["left"] - 1
    if left < 0:
        return StepPlan("call", complete_output={"ok": True})
    run.vars[f"part {left % run.vars['parts']}"] = f"{left:08}" * 128
    return StepPlan("call", effect=Effect(EffectType.TOOL_CALLS, {"n": left}, "called"), next_node="call")


SAY = WorkflowSpec("say", "say", {"say": say})
CALL = WorkflowSpec("call", "call", {"call": call})


def open_backend(name: str, directory: str) -> Stores:
    if name == "memory":
        return open_memory_stores()
    return open_sqlite_stores(directory) if name == "sqlite" else open_file_stores(directory)


def sequential(stores: Stores, steps: int) -> float:
    runtime = Runtime(stores=stores)
    begin = time.perf_counter()
    run_id = runtime.start(workflow=SAY, vars={"left": steps})
    state = runtime.tick(workflow=SAY, run_id=run_id, max_steps=2 * steps)
    assert state.status.value == "completed", state.error
    return steps / (time.perf_counter() - begin)


def external(stores: Stores, steps: int, *, state_kb: int) -> float:
    handlers = {EffectType.TOOL_CALLS: lambda run, effect, following: EffectOutcome.completed({"done": True})}
    runtime = Runtime(stores=stores, effect_handlers=handlers)
    parts = {f"part {number}": "x" * 1024 for number in range(state_kb)}
    run_id = runtime.start(workflow=CALL, vars={"left": steps, "parts": state_kb, **parts})
    begin = time.perf_counter()
    state = runtime.tick(workflow=CALL, run_id=run_id, max_steps=2 * steps)
    assert state.status.value == "completed", state.error
    return steps / (time.perf_counter() - begin)


def concurrent(stores: Stores, runs: int, steps: int) -> float:
    runtime = Runtime(stores=stores)
    runner = Runner(stores=stores, runtime=runtime, find_workflow=lambda name: SAY, clock=SystemClock())
    runner.start()
    while not runner.is_owner:
        time.sleep(0.001)
    ended, all_ended = set(), threading.Event()

    def note(changes):  # type: ignore[no-untyped-def]
        ended.update(row.run_id for row in changes.runs if row.status.is_terminal)
        if len(ended) == runs:
            all_ended.set()

    stop_listening = stores.subscribe(note)
    begin = time.perf_counter()
    starters = [threading.Thread(target=start_some, args=(runtime, runner, runs // 8, steps)) for _ in range(8)]
    for starter in starters:
        starter.start()
    all_ended.wait(120)
    took = time.perf_counter() - begin
    stop_listening()
    runner.stop()
    assert len(ended) == runs, len(ended)
    return runs * steps / took


def start_some(runtime: Runtime, runner: Runner, count: int, steps: int) -> None:
    for _ in range(count):
        assert runner.create(runtime.new_run(SAY, {"left": steps}, actor_id="gateway"))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        stores = open_backend(sys.argv[1], directory)
        figures = {
            "1 run x 100 steps": sequential(stores, 100),
            "1 run x 1,000 steps": sequential(stores, 1000),
            "1 run x 10,000 steps": sequential(stores, 10_000),
            "200 runs x 10 steps": concurrent(stores, 200, 10),
            "1 run x 300 outside effects": external(stores, 300, state_kb=2),
            "the same with a state of 200 KB": external(stores, 300, state_kb=200),
        }
        stores.close()
    print(json.dumps(figures))


main()
