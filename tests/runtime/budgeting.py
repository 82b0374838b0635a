"""Runs that have a budget, for the tests of what they ask and count."""

from __future__ import annotations

from typing import Any

from abstractgateway.runtime import EffectOutcome, EffectType, RunState, Runtime, WorkflowSpec, budgets
from tests.runtime.workflows import Calls, Json, World, loop

MODEL, TOOLS = EffectType.LLM_CALL, EffectType.TOOL_CALLS
TALK = loop(6, MODEL, {"prompt": "hi"})
PAIR = {"tool_calls": [{"name": "add", "arguments": {}}, {"name": "add", "arguments": {}}]}
WORK = loop(6, TOOLS, PAIR)


def said(tokens: int = 10) -> Calls:
    """Return a model whose answers cost so many tokens."""
    return Calls(then=EffectOutcome.completed({"content": "hi", "usage": {"total_tokens": tokens}}))


def limited(world: World, handler: Any, *workflows: WorkflowSpec, **options: Any) -> Runtime:
    return world.runtime({MODEL: handler, TOOLS: handler}, *workflows, **options)


def begun(runtime: Runtime, workflow: WorkflowSpec, **limits: float) -> str:
    return runtime.start(workflow=workflow, vars={"_limits": {"budget": limits}})


def question(state: RunState) -> Json:
    """Return what a run asks about its budget."""
    assert state.waiting is not None, state.status
    assert budgets.is_question(state.waiting)
    return {"prompt": state.waiting.prompt, **(state.waiting.details or {})}


def answer(runtime: Runtime, workflow: WorkflowSpec, run_id: str, payload: Json) -> RunState:
    return runtime.resume(workflow=workflow, run_id=run_id, wait_key=None, payload=payload)
