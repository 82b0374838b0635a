"""Run by an interpreter that has AbstractRuntime 0.4.9 installed: runs flows and tells how each of them ended.

Reads `[{flow, vars, others}]` from stdin; `others` are flows that it may run as subflows. Writes `[{status, output,
error}]`; the status `unserializable` means that JSON cannot hold the output. Models and people answer as `scripted` and
`REPLY` say.
"""

from __future__ import annotations

import json
import sys
from typing import Any

REPLY = {"response": "Blue"}
MOST_WAITS = 12
STATEMENTS = [{"subject": "alice", "predicate": "likes", "object": "tea", "observed_at": "2026-01-01T00:00:00+00:00"}]
AGENT = {"answer": "the agent's answer", "iterations": 2, "messages": [], "tool_calls": [], "tool_results": []}
KNOWN = {
    "memory_kg_assert": {"assertion_ids": ["a1"], "count": 1, "ok": True},
    "memory_kg_query": {"items": STATEMENTS, "count": 1, "ok": True, "active_memory_text": "alice likes tea"},
    "memory_kg_resolve": {"candidates": ["alice"], "count": 1, "ok": True},
}
"""What the knowledge graph says, by effect."""


def scripted(call: dict[str, Any]) -> dict[str, Any]:
    """Return what the model answers: what the wanted schema allows, or always the same text."""
    schema = call.get("response_schema")
    data = example(schema) if schema else None
    content = None if schema else '{"answer": "text", "items": ["a", "b"]}'
    return {"content": content, "data": data, "tool_calls": None, "finish_reason": "stop", "usage": {"total_tokens": 3}}


def example(schema: Any) -> Any:
    """Return a value that a schema allows."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "object":
        return {name: example(inner) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items"))]
    return {"number": 1, "integer": 1, "boolean": True}.get(str(kind), "text")


class Case:
    """One flow with everything that it may run."""

    def __init__(self, case: dict[str, Any]) -> None:
        from abstractruntime import EffectType, InMemoryLedgerStore, InMemoryRunStore, Runtime, WorkflowRegistry
        from abstractruntime.core.models import StepPlan
        from abstractruntime.core.runtime import EffectOutcome
        from abstractruntime.core.spec import WorkflowSpec
        from abstractruntime.visualflow_compiler import compile_visualflow

        self.specs = {document["id"]: compile_visualflow(document) for document in case.get("others", [])}
        self.spec = compile_visualflow(case["flow"])
        specs = self.specs

        class Registry(WorkflowRegistry):
            """The flows of the case, and an agent for every other id."""

            def get(self, workflow_id: str) -> Any:
                done = WorkflowSpec(
                    workflow_id, "done", {"done": lambda run, context: StepPlan("done", complete_output=AGENT)}
                )
                return specs.setdefault(workflow_id, done)

        registry = Registry()
        self.runtime = Runtime(
            run_store=InMemoryRunStore(),
            ledger_store=InMemoryLedgerStore(),
            workflow_registry=registry,
            effect_handlers={
                EffectType.LLM_CALL: lambda run, effect, following: EffectOutcome.completed(scripted(effect.payload)),
                **dict.fromkeys(
                    map(EffectType, KNOWN),
                    lambda run, effect, following: EffectOutcome.completed(dict(KNOWN[effect.type.value])),
                ),
            },
        )
        self.vars = case["vars"]

    def run(self) -> Any:
        return self.drive(self.spec, self.runtime.start(workflow=self.spec, vars=self.vars))

    def drive(self, spec: Any, run_id: str) -> Any:
        """Advance a run to its end, answering what it waits for as the gateway and a person would."""
        state = self.runtime.tick(workflow=spec, run_id=run_id, max_steps=2_000)
        for _ in range(MOST_WAITS):
            if state.status.value != "waiting" or state.waiting.reason.value == "until":
                break
            payload: dict[str, Any] = dict(REPLY)
            if state.waiting.reason.value == "subworkflow":
                child_id = state.waiting.details["sub_run_id"]
                child = self.drive(self.specs[self.runtime.get_state(child_id).workflow_id], child_id)
                output = child.output if child.status.value == "completed" else {"success": False, "error": child.error}
                payload = {"sub_run_id": child_id, "output": output}
            state = self.runtime.resume(
                workflow=spec, run_id=run_id, wait_key=state.waiting.wait_key, payload=payload, max_steps=2_000
            )
        return state


def run_flow(case: dict[str, Any]) -> dict[str, Any]:
    try:
        state = Case(case).run()
    except Exception as error:  # whatever it raises is the end of this case, not of the others
        return {"status": "raised", "output": None, "error": f"{type(error).__name__}: {error}"}
    try:
        json.dumps(state.output, allow_nan=False)
    except (TypeError, ValueError) as error:
        return {"status": "unserializable", "output": None, "error": str(error)}
    return {"status": state.status.value, "output": state.output, "error": state.error}


if __name__ == "__main__":
    json.dump([run_flow(case) for case in json.load(sys.stdin)], sys.stdout)
