"""The agent node: it starts an agent loop as a child run, waits for its answer, and shapes it.

One node takes several steps. What it is at is kept in `_temp.agent.<node id>`; a node that is done begins anew when
execution comes by again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...jsonvalue import JsonObject
from ...runtime.context import StepContext
from ...runtime.models import Effect, EffectType, NodeHandler, RunState, StepPlan
from .. import memory_sources
from ..agent import DEFAULT_MAX_ITERATIONS
from ..flow import EXEC_OUT, Node
from ..memory_sources import memory_settings, source_params
from ..node import Control, Inputs, NodeType, Site, continue_at
from ..state import Step, result_path, set_exec_handle
from ..values import as_list, as_names, as_object, safe_name
from .models import (
    MODEL_PINS,
    compact_json,
    history,
    odd_pins,
    sampling,
    thinking_and_cache,
    token_limits,
    wanted_model,
    wanted_schema,
    wanted_tools,
    wants_context,
)
from .variables import append_messages

META_SCHEMA = "abstractcode.agent.v1.meta"
MISSING_MODEL = "Agent configuration error: missing provider/model"
_MAX_OBSERVATIONS = 20
_MAX_OBSERVATION_CHARS = 2_000


def agent_workflow_id(workflow_id: str, node_id: str) -> str:
    """Return the id of the loop that belongs to an agent node."""
    return f"visual_react_agent_{safe_name(workflow_id)}_{safe_name(node_id)}"


@dataclass(frozen=True)
class _Agent:
    """An agent node at its place in a flow."""

    site: Site
    config: JsonObject
    loop_id: str

    def handle(self, run: RunState, ctx: StepContext) -> StepPlan:
        step = Step(run, ctx)
        memory = step.section("agent", self.site.node.id)
        phase = memory.get("phase")
        if phase == "subworkflow" and "sub" in memory:
            return self._answered(step, memory)
        if phase == "memory":
            return self._look_up(step, memory)
        return self._start(step, memory)

    def _start(self, step: Step, memory: JsonObject) -> StepPlan:
        inputs, node_id = self.site.resolve(step), self.site.node.id
        memory.clear()
        memory_sources.forget(step, node_id)
        model = _model_or_default(wanted_model(inputs, self.config), as_object(step.vars.get("_runtime")))
        memory.update(
            {"task": _as_text(inputs.get("prompt")), "use_context": wants_context(inputs, self.config), **model}
        )
        if "provider" not in model or "model" not in model:
            return self._refuse(step, memory)
        settings = memory_settings(inputs, step)
        if not memory_sources.wants_look_up(settings):
            return self._launch(step, memory, inputs)
        memory_sources.begin(step, node_id, settings, inputs.get("prompt"))
        memory.update({"phase": "memory", "resolved_inputs": inputs})
        return self._look_up(step, memory)

    def _look_up(self, step: Step, memory: JsonObject) -> StepPlan:
        """Ask memory what the pins want to be asked, then start."""
        inputs, node_id = memory["resolved_inputs"], self.site.node.id
        settings = memory_settings(inputs, step)
        effect = memory_sources.next_look_up(step, node_id, settings, inputs.get("prompt"))
        if effect is not None:
            return StepPlan(node_id, effect=effect, next_node=node_id)
        del memory["resolved_inputs"]
        return self._launch(step, memory, inputs)

    def _launch(self, step: Step, memory: JsonObject, inputs: Inputs) -> StepPlan:
        node_id = self.site.node.id
        memory["phase"] = "subworkflow"
        payload = {
            "workflow_id": self.loop_id,
            "vars": self._child_variables(step, inputs, memory),
            "async": True,
            "wait": True,
            "include_traces": True,
            "resume_to_node": node_id,
        }
        effect = Effect(EffectType.START_SUBWORKFLOW, payload, result_path("agent", node_id, "sub"))
        return StepPlan(node_id, effect=effect, next_node=node_id)

    def _child_variables(self, step: Step, inputs: Inputs, memory: JsonObject) -> JsonObject:
        given = as_object(inputs.get("context"))
        parent = as_object(step.vars.get("context")) if memory["use_context"] else {}
        messages = memory_sources.recalled(step, self.site.node.id, history(inputs, self.config, step))
        attachments = {"attachments": parent["attachments"]} if parent.get("attachments") else {}
        iterations = _positive(
            inputs.get("max_iterations"), _positive(self.config.get("max_iterations"), DEFAULT_MAX_ITERATIONS)
        )
        return {
            "context": {**attachments, **given, "task": memory["task"], "messages": messages},
            "scratchpad": {"iteration": 0, "max_iterations": iterations},
            "_runtime": self._settings(step, inputs, memory),
            "_temp": {},
            "_limits": {
                **as_object(step.vars.get("_limits")),
                "max_iterations": iterations,
                **token_limits(inputs, self.config),
            },
        }

    def _settings(self, step: Step, inputs: Inputs, memory: JsonObject) -> JsonObject:
        """Return what the loop is to know of the node, as its `_runtime`."""
        system = memory_sources.with_statements(step, self.site.node.id, _as_text(inputs.get("system")))
        schema = wanted_schema(inputs) or _configured_schema(self.config)
        return {
            "inbox": [],
            "provider": memory["provider"],
            "model": memory["model"],
            "allowed_tools": wanted_tools(inputs, self.config),
            **_params(inputs, self.config),
            **thinking_and_cache(inputs),
            **source_params(memory_settings(inputs, step)),
            **({"system_prompt_extra": system} if system else {}),
            **({"response_schema": schema} if schema else {}),
        }

    def _refuse(self, step: Step, memory: JsonObject) -> StepPlan:
        step.vars["_flow_error"], step.vars["_flow_error_node"] = MISSING_MODEL, self.site.node.id
        memory.update({"answer": MISSING_MODEL, "success": False, "output": {}, "error": MISSING_MODEL})
        return self._finish(step, memory)

    def _answered(self, step: Step, memory: JsonObject) -> StepPlan:
        received = as_object(memory.pop("sub"))
        output = as_object(received.get("output"))
        failed = output.get("success") is False
        memory.update(
            {
                "answer": _as_text(output.get("answer")),
                "success": not failed,
                "sub_run_id": received.get("sub_run_id"),
                "output": output,
                "traces": as_object(received.get("node_traces")),
            }
        )
        if failed:
            memory["error"] = str(output.get("error") or "the agent failed")
            step.vars["_flow_error"], step.vars["_flow_error_node"] = memory["error"], self.site.node.id
        elif memory["use_context"]:
            append_messages(step, _turn(memory, self.site.node.id, step))
        return self._finish(step, memory)

    def _finish(self, step: Step, memory: JsonObject) -> StepPlan:
        node_id = self.site.node.id
        shown = self._shown(memory)
        memory.clear()
        memory["phase"] = "done"
        step.keep_output(node_id, shown)
        step.bus = shown
        set_exec_handle(step, EXEC_OUT)
        target = continue_at(step, self.site.targets.get(EXEC_OUT))
        if target is not None:
            return StepPlan(node_id, next_node=target)
        return StepPlan(
            node_id, complete_output={key: shown[key] for key in ("response", "success", "meta", "scratchpad")}
        )

    def _shown(self, memory: JsonObject) -> JsonObject:
        steps, calls, results = _work(memory)
        scratchpad = _scratchpad(memory, self.loop_id, steps, calls, results)
        shown: JsonObject = {
            "response": memory["answer"],
            "success": memory["success"],
            "meta": _meta(memory, len(calls), len(results)),
            "scratchpad": scratchpad,
            "tool_calls": calls,
            "tool_results": results,
        }
        if "result" in self.site.wired_outputs:
            shown["result"] = {"result": memory["answer"], "task": memory["task"], "success": memory["success"]}
        return shown


def _model_or_default(model: JsonObject, runtime: JsonObject) -> JsonObject:
    chosen = {**{name: runtime[name] for name in ("provider", "model") if runtime.get(name)}, **model}
    return {**chosen, "provider": str(chosen["provider"]).lower()} if "provider" in chosen else chosen


def _params(inputs: Inputs, config: JsonObject) -> JsonObject:
    """The loop only hears of a temperature or seed that differs from what it does anyway."""
    params = sampling(inputs, config)
    if params["temperature"] == 0.7:
        del params["temperature"]
    return params


def _configured_schema(config: JsonObject) -> JsonObject | None:
    declared = as_object(config.get("outputSchema"))
    schema = declared.get("jsonSchema")
    return schema if declared.get("enabled") and isinstance(schema, dict) and schema else None


def _positive(value: Any, default: int) -> int:
    try:
        number = int(float(value)) if not isinstance(value, bool) else 0
    except (TypeError, ValueError, OverflowError):
        return default
    return number if number > 0 else default


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else compact_json(value)


def _turn(memory: JsonObject, node_id: str, step: Step) -> list[JsonObject]:
    """What the conversation keeps of an agent's work: the task, what the tools said, and the answer."""
    prefix, now = f"agent:{memory['sub_run_id']}:{node_id}", step.ctx.now_iso()
    results = as_list(memory["output"].get("tool_results"))[:_MAX_OBSERVATIONS]
    said: list[tuple[str, JsonObject]] = [("user", {"role": "user", "content": memory["task"]})]
    said += [(f"tool_{at}", _observation(item)) for at, item in enumerate(results, start=1)]
    said += [("assistant", {"role": "assistant", "content": memory["answer"]})]
    return [
        {
            **message,
            "timestamp": now,
            "metadata": {"message_id": f"{prefix}:{suffix}", "kind": "agent_turn"},
        }
        for suffix, message in said
    ]


def _observation(result: JsonObject) -> JsonObject:
    text = _as_text(result.get("output") if result.get("success") else result.get("error") or "")
    return {"role": "tool", "content": text[:_MAX_OBSERVATION_CHARS], "name": _as_text(result.get("name"))}


def _work(memory: JsonObject) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the steps, tool calls and tool results of the loop, from its traces where the host gave them."""
    traces = memory.get("traces") or {}
    listed = [
        item for trace in traces.values() for item in as_list(as_object(trace).get("steps")) if isinstance(item, dict)
    ]
    steps = sorted(listed, key=lambda item: str(item.get("ts") or ""))
    output = memory["output"]
    return steps, as_list(output.get("tool_calls")), as_list(output.get("tool_results"))


def _scratchpad(memory: JsonObject, loop_id: str, steps: list[Any], calls: list[Any], results: list[Any]) -> JsonObject:
    return {
        "sub_run_id": memory.get("sub_run_id"),
        "workflow_id": loop_id,
        "task": memory["task"],
        "messages": as_list(memory["output"].get("messages")),
        "node_traces": memory.get("traces") or {},
        "steps": steps,
        "tool_calls": calls,
        "tool_results": results,
    }


def _meta(memory: JsonObject, calls: int, results: int) -> JsonObject:
    meta: JsonObject = {
        "schema": META_SCHEMA,
        "version": 1,
        "output_mode": memory["output"].get("output_mode", "unstructured"),
        "tool_calls": calls,
        "tool_results": results,
    }
    found = {name: memory.get(name) for name in ("provider", "model", "sub_run_id", "error")}
    found.update({name: memory["output"].get(name) for name in ("iterations", "limit_reached")})
    return {**meta, **{name: value for name, value in found.items() if value is not None}}


def _build(site: Site) -> NodeHandler:
    loop_id = agent_workflow_id(site.workflow_id, site.node.id)
    return _Agent(site, site.node.config("agentConfig"), loop_id).handle


def _check(node: Node) -> str | None:
    tools = node.config("agentConfig").get("tools")
    return "has 'agentConfig.tools' that are not a list" if tools is not None and as_names(tools) is None else None


_PINS = (
    *("use_context", "context", "memory", "provider", "model", "system", "prompt", "tools", "prompt_cache_binding"),
    *("max_iterations", "max_in_tokens", "temperature", "seed", "thinking", "resp_schema"),
)

TYPES = (
    NodeType(
        "agent",
        "agents",
        Control(_build, (EXEC_OUT,)),
        _PINS,
        ("response", "success", "meta", "scratchpad", "tool_calls", "tool_results"),
        "Lets a language model work on a task with tools until it has an answer.",
        {"max_iterations": DEFAULT_MAX_ITERATIONS, "temperature": 0.7, "seed": -1},
        _check,
        odd_pins((*_PINS, *MODEL_PINS)),
    ),
)
