"""Run by an interpreter that has AbstractRuntime 0.4.9 installed: runs flows and tells how each of them ended.

Reads `[{flow, vars}]` from stdin; writes `[{status, output, error}]`; `unserializable` is output that JSON cannot hold.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def run_flow(case: dict[str, Any]) -> dict[str, Any]:
    from abstractruntime import InMemoryLedgerStore, InMemoryRunStore, Runtime
    from abstractruntime.visualflow_compiler import compile_visualflow

    try:
        spec = compile_visualflow(case["flow"])
        runtime = Runtime(run_store=InMemoryRunStore(), ledger_store=InMemoryLedgerStore())
        run_id = runtime.start(workflow=spec, vars=case["vars"])
        state = runtime.tick(workflow=spec, run_id=run_id, max_steps=2_000)
    except Exception as error:  # whatever it raises is the end of this case, not of the others
        return {"status": "raised", "output": None, "error": f"{type(error).__name__}: {error}"}
    try:
        json.dumps(state.output, allow_nan=False)
    except (TypeError, ValueError) as error:
        return {"status": "unserializable", "output": None, "error": str(error)}
    return {"status": state.status.value, "output": state.output, "error": state.error}


if __name__ == "__main__":
    json.dump([run_flow(case) for case in json.load(sys.stdin)], sys.stdout)
