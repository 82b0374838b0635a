"""The workflow that summarises an archived conversation: ask a model, read its answer, put the summary in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ....errors import GatewayError, Invalid
from ....jsonvalue import JsonObject
from ...commit import KernelArtifacts
from ...context import StepContext
from ...models import Effect, EffectOutcome, EffectType, RunState, StepPlan, WorkflowSpec
from ..model_answer import data_in
from .compact import COMPACT_WORKFLOW_ID
from .spans import load_json

_LENGTH = {
    "light": "Keep most details; leave out only repetition and small talk.",
    "standard": "Keep decisions, facts, names, numbers and open questions; leave out how they came about.",
    "heavy": "Keep only what somebody must know to go on, in a few sentences.",
}
_TASK = (
    "You summarise the older part of a conversation so that it can be continued without it. {length}{focus} "
    "Answer with a JSON object: 'summary' (text), 'key_points' (list of texts), 'confidence' (0 to 1)."
)
_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "summary": {"type": "string"},
        "key_points": {"type": "array", "items": {"type": "string"}},
        "confidence": {"type": "number"},
    },
    "required": ["summary"],
}


def _summarise(run: RunState, context: StepContext) -> StepPlan:
    plan = run.vars["compaction"]
    focus = f" Pay special attention to: {plan['focus']}." if plan["focus"] else ""
    payload = {
        "system_prompt": _TASK.format(length=_LENGTH[plan["compression_mode"]], focus=focus),
        "prompt": run.vars["transcript"],
        "response_schema": _SCHEMA,
        "params": {"temperature": 0},
    }
    return StepPlan("summarise", Effect(EffectType.LLM_CALL, payload, "answer"), next_node="place")


def _place(run: RunState, context: StepContext) -> StepPlan:
    plan = run.vars["compaction"]
    payload = {**summary_in(run.vars.get("answer")), "tool_name": plan["tool_name"], "call_id": plan["call_id"]}
    return StepPlan("place", Effect(EffectType.MEMORY_COMPACT, payload, "result"), next_node="done")


def _done(run: RunState, context: StepContext) -> StepPlan:
    return StepPlan("done", complete_output=run.vars["result"])


COMPACT_WORKFLOW = WorkflowSpec(
    COMPACT_WORKFLOW_ID, "summarise", {"summarise": _summarise, "place": _place, "done": _done}
)


def summary_in(answer: Any) -> JsonObject:
    """Return `{summary, key_points, confidence}` of a model's result; an answer that is no JSON is the summary.

    Raises `Invalid` when there is nothing to be a summary.
    """
    found = answer if isinstance(answer, Mapping) else {}
    data = found.get("data")
    if not isinstance(data, Mapping):
        data = data_in(found.get("content"))
    if not isinstance(data, Mapping):
        data = {"summary": found.get("content")}
    summary = data.get("summary")
    if not isinstance(summary, str) or not summary.strip():
        raise Invalid("summary", "is missing: the model gave no summary of the conversation")
    points = data.get("key_points")
    return {
        "summary": summary.strip(),
        "key_points": [str(point) for point in points] if isinstance(points, list) else [],
        "confidence": data.get("confidence"),
    }


def summarise_with(summarizer: Any, artifacts: KernelArtifacts | None) -> Callable[..., EffectOutcome]:
    """Return the handler by which a chat summarizer does the model call of a compaction.

    A summarizer has `summarize_chat_history(messages, preserve_recent=0, focus=…, compression_mode=…)`, or is that
    function itself; it returns `summary`, `key_points` and `confidence` as a mapping or as attributes.
    """
    summarize = getattr(summarizer, "summarize_chat_history", summarizer)

    def perform(run: RunState, effect: Effect, default_next_node: str | None) -> EffectOutcome:
        if artifacts is None:
            return EffectOutcome.failed("a chat_summarizer needs an artifact store that holds what it is to summarise")
        plan = run.vars["compaction"]
        try:
            archived = load_json(artifacts, plan["artifact_id"])
        except GatewayError as error:
            return EffectOutcome.failed(f"the archived conversation cannot be read: {error}")
        mode = plan["compression_mode"]
        answer = summarize(archived["messages"], preserve_recent=0, focus=plan["focus"], compression_mode=mode)
        names = ("summary", "key_points", "confidence")
        is_mapping = isinstance(answer, Mapping)
        data = {name: answer.get(name) if is_mapping else getattr(answer, name, None) for name in names}
        return EffectOutcome.completed({"content": data["summary"], "data": data})

    return perform
