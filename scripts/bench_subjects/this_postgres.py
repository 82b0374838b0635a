"""One runner of a fleet on PostgreSQL: `this_postgres.py URL`. It drives until its input ends.

Of each line that it reads it tells the processor time that it has used so far, in seconds.
"""

from __future__ import annotations

import sys
import time

from abstractgateway.clock import SystemClock
from abstractgateway.runner import Runner
from abstractgateway.runtime import Effect, EffectOutcome, EffectType, Runtime, StepPlan, WorkflowSpec
from abstractgateway_postgres import open_postgres_stores

WORKFLOW_ID = "call"


def call(run, ctx):  # type: ignore[no-untyped-def]
    """Perform an effect on the outside world, until `left` is used up."""
    left = run.vars["left"] = run.vars["left"] - 1
    if left < 0:
        return StepPlan("call", complete_output={"ok": True})
    return StepPlan("call", effect=Effect(EffectType.TOOL_CALLS, {"n": left}, "called"), next_node="call")


CALL = WorkflowSpec(WORKFLOW_ID, "call", {"call": call})


def main() -> None:
    stores = open_postgres_stores(sys.argv[1])
    done = EffectOutcome.completed({"done": True})
    runtime = Runtime(stores=stores, effect_handlers={EffectType.TOOL_CALLS: lambda run, effect, following: done})
    runner = Runner(
        stores=stores,
        runtime=runtime,
        find_workflow=lambda name: CALL,
        clock=SystemClock(),
        tenure=stores.share(10.0),
    )
    runner.start()
    print("drives", flush=True)
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
    runner.stop()
    stores.close()


if __name__ == "__main__":
    main()
