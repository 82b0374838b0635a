"""The agent loop: think, act, observe, until there is an answer.

It is a workflow of its own, so that each model call and each batch of tool calls is one journalled effect, and an
agent that was interrupted goes on where it stood. Its run starts with `context {task, messages}`, `scratchpad
{iteration, max_iterations}` and `_runtime {provider, model, allowed_tools, …}`; its output is
`{answer, iterations, messages, tool_calls, tool_results}`, with `success: false` and `error` when there is no answer.
"""

from __future__ import annotations

import json
from typing import Any

from ..jsonvalue import JsonObject
from ..runtime.context import StepContext
from ..runtime.models import Effect, EffectType, NodeHandler, RunState, StepPlan, WorkflowSpec
from .values import as_list, as_object

DEFAULT_MAX_ITERATIONS = 50
THINK, ACT, OBSERVE, DONE = "think", "act", "observe", "done"
_ANSWER_PATH = "_temp.llm_response"
_TOOLS_PATH = "_temp.tool_response"
_CALL_SETTINGS = ("temperature", "seed")


def agent_workflow(workflow_id: str) -> WorkflowSpec:
    """Return the loop under the id that the agent node starts it by."""
    nodes: dict[str, NodeHandler] = {THINK: _think, ACT: _act, OBSERVE: _observe, DONE: _done}
    return WorkflowSpec(workflow_id=workflow_id, entry_node=THINK, nodes=nodes)


def _think(run: RunState, _ctx: StepContext) -> StepPlan:
    """Ask the model what to do next; the task becomes the last message when the loop begins."""
    variables = run.vars
    pad = _pad(variables)
    context = as_object(variables.get("context"))
    if not pad.get("is_started"):
        task = {"role": "user", "content": str(context.get("task") or "")}
        context = {**context, "messages": [*as_list(context.get("messages")), task]}
        variables["context"] = context
        pad = {**pad, "is_started": True}
    if pad["iteration"] >= pad["max_iterations"]:
        variables["scratchpad"] = {**pad, "error": f"no answer after {pad['iteration']} iterations"}
        return StepPlan(THINK, next_node=DONE)
    variables["scratchpad"] = {**pad, "iteration": pad["iteration"] + 1}
    return StepPlan(THINK, effect=Effect(EffectType.LLM_CALL, _call(variables), _ANSWER_PATH), next_node=ACT)


def _call(variables: JsonObject) -> JsonObject:
    runtime = as_object(variables.get("_runtime"))
    limits = as_object(variables.get("_limits"))
    payload: JsonObject = {
        "messages": as_list(as_object(variables.get("context")).get("messages")),
        "system_prompt": runtime.get("system_prompt_extra"),
        "tools": as_list(runtime.get("allowed_tools")),
        "params": {name: runtime[name] for name in _CALL_SETTINGS if runtime.get(name) is not None},
        "include_context": False,
    }
    payload.update({name: runtime[name] for name in ("provider", "model") if runtime.get(name)})
    payload.update({name: limits[name] for name in ("max_input_tokens", "max_output_tokens") if limits.get(name)})
    media = as_object(variables.get("context")).get("attachments")
    return {**payload, "media": media} if isinstance(media, list) and media else payload


def _act(run: RunState, _ctx: StepContext) -> StepPlan:
    """Run the tools that the model asked for, or take its text as the answer."""
    variables = run.vars
    response = as_object(as_object(variables.get("_temp")).get("llm_response"))
    calls = [item for item in as_list(response.get("tool_calls")) if isinstance(item, dict)]
    content = response.get("content")
    message: JsonObject = {"role": "assistant", "content": "" if content is None else str(content)}
    pad = _pad(variables)
    if not calls:
        _add_messages(variables, [message])
        variables["scratchpad"] = {**pad, "answer": message["content"]}
        return StepPlan(ACT, next_node=DONE)
    numbered = [_numbered(call, pad["iteration"], position) for position, call in enumerate(calls)]
    _add_messages(variables, [{**message, "tool_calls": numbered}])
    variables["scratchpad"] = {**pad, "tool_calls": [*pad["tool_calls"], *numbered]}
    payload = {"tool_calls": numbered, "allowed_tools": _tool_names(variables)}
    return StepPlan(ACT, effect=Effect(EffectType.TOOL_CALLS, payload, _TOOLS_PATH), next_node=OBSERVE)


def _numbered(call: JsonObject, iteration: int, position: int) -> JsonObject:
    """Calls without an id get one, because their results are matched by it."""
    identity = call.get("call_id") or call.get("id") or f"call_{iteration}_{position + 1}"
    return {"name": call.get("name"), "arguments": call.get("arguments"), "call_id": str(identity)}


def _tool_names(variables: JsonObject) -> list[str]:
    allowed = as_list(as_object(variables.get("_runtime")).get("allowed_tools"))
    names = (item.get("name") if isinstance(item, dict) else item for item in allowed)
    return [name for name in names if isinstance(name, str)]


def _observe(run: RunState, _ctx: StepContext) -> StepPlan:
    """Tell the model what its tools said."""
    variables = run.vars
    response = as_object(as_object(variables.get("_temp")).get("tool_response"))
    results = [item for item in as_list(response.get("results")) if isinstance(item, dict)]
    _add_messages(variables, [_observation(result) for result in results])
    pad = _pad(variables)
    variables["scratchpad"] = {**pad, "tool_results": [*pad["tool_results"], *results]}
    return StepPlan(OBSERVE, next_node=THINK)


def _observation(result: JsonObject) -> JsonObject:
    name, output = result.get("name"), result.get("output")
    if result.get("success") is False:
        output = f"Error: {result.get('error') or output or 'the tool failed'}"
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    return {"role": "tool", "content": text, "name": name, "tool_call_id": result.get("call_id")}


def _done(run: RunState, _ctx: StepContext) -> StepPlan:
    """Hand back the answer."""
    pad = _pad(run.vars)
    output: JsonObject = {
        "answer": pad.get("answer", ""),
        "iterations": pad["iteration"],
        "messages": as_list(as_object(run.vars.get("context")).get("messages")),
        "tool_calls": pad["tool_calls"],
        "tool_results": pad["tool_results"],
        "success": "answer" in pad,
    }
    if "answer" not in pad:
        output["error"] = pad.get("error", "no answer")
    return StepPlan(DONE, complete_output=output)


def _pad(variables: JsonObject) -> dict[str, Any]:
    begin: JsonObject = {"iteration": 0, "max_iterations": DEFAULT_MAX_ITERATIONS, "tool_calls": [], "tool_results": []}
    return {**begin, **as_object(variables.get("scratchpad"))}


def _add_messages(variables: JsonObject, added: list[JsonObject]) -> None:
    context = as_object(variables.get("context"))
    variables["context"] = {**context, "messages": [*as_list(context.get("messages")), *added]}
