"""The agent loop: think, act, observe, until there is an answer.

It is a workflow of its own, so that each model call and each batch of tool calls is one journalled effect, and an
agent that was interrupted goes on where it stood. Its run starts with `context {task, messages}`, `scratchpad
{iteration, max_iterations}` and `_runtime {provider, model, allowed_tools, response_schema, inbox, …}`; its output is
`{answer, iterations, messages, tool_calls, tool_results}`, with `success: false` and `error` when there is no answer.

Whatever a model does wrong with its tools becomes an observation for it, and the loop goes on.
"""

from __future__ import annotations

import json
from itertools import takewhile
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject, compact_text
from ..runtime.context import StepContext
from ..runtime.effects.model_answer import data_in
from ..runtime.json_schema import problems
from ..runtime.models import Effect, EffectType, NodeHandler, RunState, StepPlan, WorkflowSpec
from .agent_tools import OWN_TOOLS, name_of, offered, result_of
from .conversation import messages_in, sendable
from .lenient import read_json
from .values import MISSING, as_list, as_object, safe_name

DEFAULT_MAX_ITERATIONS = 50
THINK, ACT, OBSERVE, STRUCTURE, DONE = "think", "act", "observe", "structure", "done"
CALL_SETTINGS = ("temperature", "seed", "thinking", "prompt_cache_key", "include_session_attachments_index")
"""What of `_runtime` goes into the `params` of each model call."""

_ANSWER_PATH = "_temp.llm_response"
_TOOLS_PATH = "_temp.tool_response"
_MOST_EMPTY_ANSWERS = 2
_MOST_FORMS = 3
_MOST_SHOWN_CHARS = 2_000
_LAST_CHANCE = (
    "This is your last step: no tool is called any more. Answer the task now, as well as you can with what you know."
)
_WAS_EMPTY = "Your answer was empty. Call a tool, or answer the task."
_FORM = "Write the following answer as JSON that matches the schema. Add nothing that it does not say.\n\n"
_MISFIT = "This is not what the schema asks for: {}. Write the JSON again, and nothing else."


def agent_workflow(workflow_id: str) -> WorkflowSpec:
    """Return the loop under the id that the agent node starts it by."""
    nodes: dict[str, NodeHandler] = {
        THINK: _think,
        ACT: _act,
        OBSERVE: _observe,
        STRUCTURE: _structure,
        DONE: _done,
    }
    return WorkflowSpec(workflow_id=workflow_id, entry_node=THINK, nodes=nodes)


class _Loop:
    """The variables of a loop's run, read and replaced by name."""

    def __init__(self, run: RunState) -> None:
        self._vars = run.vars

    @property
    def pad(self) -> dict[str, Any]:
        begin: JsonObject = {"iteration": 0, "tool_calls": [], "tool_results": [], "pending": []}
        return {**begin, **as_object(self._vars.get("scratchpad"))}

    def note(self, **fields: Any) -> None:
        """Write fields into the scratchpad."""
        self._vars["scratchpad"] = {**self.pad, **fields}

    @property
    def context(self) -> JsonObject:
        return as_object(self._vars.get("context"))

    @property
    def messages(self) -> list[JsonObject]:
        return messages_in(self.context)

    def say(self, *messages: JsonObject) -> None:
        """Add to the loop's conversation."""
        self._vars["context"] = {**self.context, "messages": [*self.messages, *messages]}

    @property
    def settings(self) -> JsonObject:
        return as_object(self._vars.get("_runtime"))

    @property
    def limits(self) -> JsonObject:
        return as_object(self._vars.get("_limits"))

    @property
    def tools(self) -> list[Any]:
        return as_list(self.settings.get("allowed_tools"))

    @property
    def tool_names(self) -> list[str]:
        return [name for tool in self.tools if (name := name_of(tool)) is not None]

    @property
    def max_iterations(self) -> int:
        """What the limits say counts, since they can be raised while the agent works."""
        given = (self.limits.get("max_iterations"), self.pad.get("max_iterations"))
        return next((limit for limit in given if isinstance(limit, int) and limit > 0), DEFAULT_MAX_ITERATIONS)

    @property
    def is_last_chance(self) -> bool:
        """Whether tools are useless now, since nobody would look at what they give; a single step may have them."""
        return bool(self.tools) and 1 < self.max_iterations <= self.pad["iteration"]

    def begin_iteration(self) -> None:
        iteration = self.pad["iteration"] + 1
        self.note(iteration=iteration)
        self._vars["_limits"] = {**self.limits, "current_iteration": iteration}

    def take_inbox(self) -> list[JsonObject]:
        """Return what the host put into `_runtime.inbox` as messages, and empty it."""
        waiting = as_list(self.settings.get("inbox"))
        if waiting:
            self._vars["_runtime"] = {**self.settings, "inbox": []}
        return [_guidance(item) for item in waiting]

    def forget_results(self) -> None:
        """Drop what the tools said last: whoever answers the next wait may give nothing."""
        kept = {name: value for name, value in as_object(self._vars.get("_temp")).items() if name != "tool_response"}
        self._vars["_temp"] = kept

    def result(self, name: str) -> JsonObject:
        return as_object(as_object(self._vars.get("_temp")).get(name))


def _guidance(item: Any) -> JsonObject:
    fields = as_object(item)
    said = next((fields[name] for name in ("content", "message", "text") if fields.get(name)), item)
    return {"role": "user", "content": _text(said)}


def _think(run: RunState, _ctx: StepContext) -> StepPlan:
    """Ask the model what to do next; the task becomes the last message when the loop begins."""
    loop = _Loop(run)
    if not loop.pad.get("is_started"):
        loop.say({"role": "user", "content": str(loop.context.get("task") or "")})
        loop.note(is_started=True)
    loop.say(*loop.take_inbox())
    iteration = loop.pad["iteration"]
    if iteration >= loop.max_iterations:
        return _give_up(THINK, loop, f"no answer after {iteration} iterations")
    loop.begin_iteration()
    return StepPlan(THINK, effect=Effect(EffectType.LLM_CALL, _call(loop), _ANSWER_PATH), next_node=ACT)


def _call(loop: _Loop) -> JsonObject:
    settings = loop.settings
    hint = _LAST_CHANCE if loop.is_last_chance else _WAS_EMPTY if loop.pad.get("empty_answers") else None
    hints = [{"role": "user", "content": hint}] if hint else []
    payload: JsonObject = {
        **_model_and_limits(loop),
        "messages": sendable([*loop.messages, *hints]),
        "system_prompt": settings.get("system_prompt_extra"),
        "tools": offered(loop.tools),
        "params": _params(loop),
        "include_context": False,
    }
    media = loop.context.get("attachments")
    return {**payload, "media": media} if isinstance(media, list) and media else payload


def _model_and_limits(loop: _Loop) -> JsonObject:
    settings, limits = loop.settings, loop.limits
    model = {name: settings[name] for name in ("provider", "model") if settings.get(name)}
    return {**model, **{name: limits[name] for name in ("max_input_tokens", "max_output_tokens") if limits.get(name)}}


def _params(loop: _Loop) -> JsonObject:
    return {name: loop.settings[name] for name in CALL_SETTINGS if loop.settings.get(name) is not None}


def _give_up(node: str, loop: _Loop, error: str) -> StepPlan:
    loop.note(error=error)
    return StepPlan(node, next_node=DONE)


def _act(run: RunState, _ctx: StepContext) -> StepPlan:
    """Run the tools that the model asked for, or take its text as the answer."""
    loop = _Loop(run)
    if not loop.pad["pending"]:
        response = loop.result("llm_response")
        calls = [item for item in as_list(response.get("tool_calls")) if isinstance(item, dict)]
        if not calls:
            return _take_answer(loop, response)
        if loop.is_last_chance:
            return _give_up(ACT, loop, f"no answer after {loop.pad['iteration']} iterations")
        _take_calls(loop, calls, _text(response.get("content")))
    return _perform(loop)


def _take_answer(loop: _Loop, response: JsonObject) -> StepPlan:
    text, refusal = _text(response.get("content")), as_object(response.get("metadata")).get("refusal")
    if refusal or response.get("finish_reason") == "content_filter":
        return _give_up(ACT, loop, f"the model refused: {_text(refusal) or text or 'its content filter stopped it'}")
    if not text.strip():
        return _ask_again(loop)
    loop.say({"role": "assistant", "content": text})
    is_short = {"limit_reached": True} if loop.is_last_chance else {}
    loop.note(answer=text, empty_answers=0, **is_short)
    return StepPlan(ACT, next_node=STRUCTURE if loop.settings.get("response_schema") else DONE)


def _ask_again(loop: _Loop) -> StepPlan:
    count = loop.pad.get("empty_answers", 0) + 1
    loop.note(empty_answers=count)
    if count >= _MOST_EMPTY_ANSWERS:
        return _give_up(ACT, loop, f"the model gave no answer: {count} times in a row it said nothing")
    return StepPlan(ACT, next_node=THINK)


def _take_calls(loop: _Loop, calls: list[JsonObject], text: str) -> None:
    pad = loop.pad
    taken = {call["call_id"] for call in pad["tool_calls"]}
    numbered: list[JsonObject] = []
    for position, call in enumerate(calls, start=1):
        numbered.append(_numbered(call, f"call_{pad['iteration']}_{position}", taken))
        taken.add(numbered[-1]["call_id"])
    loop.say({"role": "assistant", "content": text, "tool_calls": [_retold(call) for call in numbered]})
    loop.note(tool_calls=[*pad["tool_calls"], *numbered], pending=numbered, empty_answers=0)


def _numbered(call: JsonObject, fresh: str, taken: set[str]) -> JsonObject:
    """Give a call without an id one, and one of its own where another call has the same: results are matched by it."""
    identity = str(call.get("call_id") or call.get("id") or fresh)
    while identity in taken:
        identity, fresh = fresh, f"{fresh}_"
    return {"name": _text(call.get("name")), "arguments": call.get("arguments"), "call_id": identity}


def _retold(call: JsonObject) -> JsonObject:
    """Return a call as the conversation keeps it: providers refuse names and arguments that cannot be ones."""
    arguments = call["arguments"]
    if not isinstance(arguments, dict):
        arguments = {"not_an_object": _text(arguments)[:_MOST_SHOWN_CHARS]} if arguments else {}
    return {**call, "name": safe_name(call["name"]), "arguments": arguments}


def _perform(loop: _Loop) -> StepPlan:
    """Ask for the next effect: one of the agent's own tools, or all calls up to the next of these."""
    loop.forget_results()
    pending, names = loop.pad["pending"], loop.tool_names
    own = [call["name"] in OWN_TOOLS and call["name"] in names for call in pending]
    if own[0]:
        return _perform_own(loop, pending[0])
    batch = pending[: sum(1 for _ in takewhile(lambda is_own: not is_own, own))]
    loop.note(batch=len(batch), is_own=False)
    payload = {"tool_calls": batch, "allowed_tools": [name for name in names if name not in OWN_TOOLS]}
    return StepPlan(ACT, effect=Effect(EffectType.TOOL_CALLS, payload, _TOOLS_PATH), next_node=OBSERVE)


def _perform_own(loop: _Loop, call: JsonObject) -> StepPlan:
    loop.note(batch=1, is_own=True)
    try:
        effect = OWN_TOOLS[call["name"]].effect_of(call["arguments"], _TOOLS_PATH)
    except Invalid as error:
        return StepPlan(ACT, next_node=_take_results(loop, [_failed(call, str(error))]))
    return StepPlan(ACT, effect=effect, next_node=OBSERVE)


def _observe(run: RunState, _ctx: StepContext) -> StepPlan:
    """Tell the model what its tools said."""
    loop = _Loop(run)
    pad, response = loop.pad, loop.result("tool_response")
    batch = pad["pending"][: pad["batch"]]
    results = [result_of(batch[0], response)] if pad["is_own"] else _results_of(batch, response)
    return StepPlan(OBSERVE, next_node=_take_results(loop, results))


def _results_of(batch: list[JsonObject], response: JsonObject) -> list[JsonObject]:
    """Return one result for each call, whatever whoever ran them has given."""
    given = {str(item.get("call_id")): item for item in as_list(response.get("results")) if isinstance(item, dict)}
    missing = "the tool was not run, or nothing is known of its result"
    return [given.get(call["call_id"]) or _failed(call, missing) for call in batch]


def _failed(call: JsonObject, error: str) -> JsonObject:
    return {"call_id": call["call_id"], "name": call["name"], "success": False, "output": None, "error": error}


def _take_results(loop: _Loop, results: list[JsonObject]) -> str:
    """Put results into the conversation and return the node that goes on."""
    pad = loop.pad
    rest = pad["pending"][len(results) :]
    loop.say(*(_observation(call, result) for call, result in zip(pad["pending"], results, strict=False)))
    loop.note(tool_results=[*pad["tool_results"], *results], pending=rest)
    return ACT if rest else THINK


def _observation(call: JsonObject, result: JsonObject) -> JsonObject:
    output = result.get("output")
    if result.get("success") is False:
        output = f"Error: {result.get('error') or output or 'the tool failed'}"
    name = safe_name(call["name"])
    return {"role": "tool", "content": _text(output), "name": name, "tool_call_id": call["call_id"]}


def _structure(run: RunState, _ctx: StepContext) -> StepPlan:
    """Bring the answer into the form that was asked for; the model is told what is wrong with one that does not fit."""
    loop = _Loop(run)
    schema, asked, response = loop.settings["response_schema"], loop.pad.get("form", []), loop.result("llm_response")
    data = _written(response) if asked else _whole(loop.pad["answer"])
    found = ["it is no JSON"] if data is MISSING else problems(data, schema)
    if not found:
        loop.note(answer=compact_text(data), output_mode="structured")
        return StepPlan(STRUCTURE, next_node=DONE)
    tries, reasons = (len(asked) + 1) // 2, "; ".join(found)
    if tries >= _MOST_FORMS:
        return _give_up(STRUCTURE, loop, f"the answer could not be written in the form that was asked for: {reasons}")
    if asked:
        said = _text(response.get("content")) or ("" if data is MISSING else compact_text(data))
        asked = [*asked, {"role": "assistant", "content": said}, {"role": "user", "content": _MISFIT.format(reasons)}]
    else:
        asked = [{"role": "user", "content": _FORM + loop.pad["answer"]}]
    loop.note(form=asked)
    effect = Effect(EffectType.LLM_CALL, _form_call(loop, asked), _ANSWER_PATH)
    return StepPlan(STRUCTURE, effect=effect, next_node=STRUCTURE)


def _form_call(loop: _Loop, asked: list[JsonObject]) -> JsonObject:
    return {
        **_model_and_limits(loop),
        **({"messages": asked[:-1]} if asked[:-1] else {}),
        "prompt": asked[-1]["content"],
        "params": {"temperature": 0.0, **_params(loop)},
        "response_schema": loop.settings["response_schema"],
        "response_schema_name": "Agent_StructuredOutput",
        "include_context": False,
    }


def _whole(text: str) -> Any:
    """Return the object or list that an answer is as it stands, or `MISSING`."""
    found = data_in(text)
    return found if isinstance(found, (dict, list)) else MISSING


def _written(response: JsonObject) -> Any:
    """Return the JSON value of an answer, or `MISSING`."""
    data = response.get("data")
    return data if data is not None else read_json(_text(response.get("content")))


def _done(run: RunState, _ctx: StepContext) -> StepPlan:
    """Hand back the answer."""
    loop = _Loop(run)
    pad = loop.pad
    output: JsonObject = {
        "answer": pad.get("answer", ""),
        "iterations": pad["iteration"],
        "messages": loop.messages,
        "tool_calls": pad["tool_calls"],
        "tool_results": pad["tool_results"],
        "success": "error" not in pad,
    }
    output.update({name: pad[name] for name in ("error", "output_mode", "limit_reached") if name in pad})
    return StepPlan(DONE, complete_output=output)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
