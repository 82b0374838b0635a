"""Shortening a conversation: its older part is archived, and a summary takes its place.

The summary needs a language model, so it is the work of a child run. The effect archives and starts the child in one
commit; the child's model call is journalled like any other; and its last step puts the summary into the conversation
in the commit that ends the child and lets the parent go on. Nothing blocks, and a crash at any point loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....errors import Invalid
from ....jsonvalue import JsonObject
from ... import records
from ...context import derive_id
from ...draft import Draft, OpenRun
from ...models import Effect, EffectOutcome, EffectType, RunState, RunStatus, WaitReason, WaitState
from ...paths import store_at
from ..request import EffectRequest
from ..subworkflows import inherit_model
from .inputs import base_run, text, tool_result, whole
from .messages import (
    SUMMARY_KIND,
    Message,
    is_system,
    message_id,
    messages_of,
    metadata_of,
    put_messages,
    text_of,
    with_metadata,
)
from .spans import CONVERSATION, add_span, artifacts_of, store_json

COMPACT_WORKFLOW_ID = "wf_memory_compact_llm"
MODES = ("light", "standard", "heavy")
OUTSIDE_NODE, OUTSIDE_RESULT = "compact_memory", "_temp.command.compact_memory"
"""The node and the place of the result of a compaction that no step asked for."""
_PRESERVE_RECENT = 6
_CHARS_PER_TOKEN = 3
"""A careful estimate: the transcript must fit the model's input."""
_LEAST_CHARS = 200


def memory_compact(request: EffectRequest) -> EffectOutcome:
    """Archive all but the latest messages and put a summary in their place.

    Payload `preserve_recent` (6), `compression_mode` (light, standard, heavy), `focus`, `target_run_id`. The result is
    a tool's, with `meta` `{llm_run_id, span_id, summary_message_id, preserve_recent, compression_mode, focus,
    key_points, confidence}`. System messages stay.
    """
    if request.state.workflow_id == COMPACT_WORKFLOW_ID:
        return _put_summary(request)
    preserve, mode = whole(request, "preserve_recent"), (text(request, "compression_mode") or "standard").lower()
    preserve = _PRESERVE_RECENT if preserve is None else max(0, preserve)
    if mode not in MODES:
        raise Invalid("compression_mode", f"{mode!r} is not one of {', '.join(MODES)}")
    artifacts_of(request)
    base = base_run(request)
    messages = messages_of(base.state)
    spoken = [message for message in messages if not is_system(message)]
    if len(spoken) <= preserve:
        output = f"Nothing to compact: the conversation has {len(spoken)} messages, and {preserve} are to stay."
        return EffectOutcome.completed(tool_result(request, output, None, name="compact_memory"))
    named = _with_ids(request, messages)
    put_messages(request.draft, base, named)
    older = [message for message in named if not is_system(message)][: len(spoken) - preserve]
    plan = _archive(request, base, older, {"preserve_recent": preserve, "compression_mode": mode})
    return EffectOutcome.waiting(_wait_for(request, _start_child(request, base.state, older, plan)))


def begin_compaction(draft: Draft, teller: OpenRun, payload: JsonObject, *, key: str) -> str | None:
    """Begin to shorten a conversation that no step asks for; return the id of the child of `teller` that does it.

    None when there is nothing to shorten. The payload is that of the effect. That it was begun, and later its result,
    is told in the ledger of `teller`, under the idempotency key `key`. Raises `Invalid` as the effect does.
    """
    effect = Effect(EffectType.MEMORY_COMPACT, payload, OUTSIDE_RESULT)
    record = records.started(teller, OUTSIDE_NODE, effect, now=draft.now_iso(), attempt=1, key=key)
    teller.append(record)
    request = EffectRequest(draft, teller, effect, OUTSIDE_NODE, None, None)
    outcome = memory_compact(request)
    child_id = str((outcome.wait.details or {})["sub_run_id"]) if outcome.wait is not None else None
    if child_id is not None:
        plan = draft.open(child_id).state.vars["compaction"]
        plan |= {"told_run_id": teller.state.run_id, "key": key}
        outcome = EffectOutcome.completed({"sub_run_id": child_id, "async": True})
    teller.append(records.closed(record, outcome, now=draft.now_iso()))
    teller.touch(draft.now_iso())
    return child_id


def _tell_outside(request: EffectRequest, target: OpenRun, plan: JsonObject, result: JsonObject) -> None:
    """Put the result of a compaction that no step asked for where it was begun, unless that run is over."""
    if not plan.get("told_run_id"):
        return
    store_at(target.state.vars, OUTSIDE_RESULT, result)
    teller = request.draft.open(str(plan["told_run_id"]))
    if teller.state.status.is_terminal:
        return
    effect = Effect(EffectType.MEMORY_COMPACT, {"sub_run_id": request.state.run_id}, OUTSIDE_RESULT)
    record = records.started(
        teller, OUTSIDE_NODE, effect, now=request.draft.now_iso(), attempt=1, key=f"{plan['key']}:result"
    )
    teller.append(records.closed(record, EffectOutcome.completed(result), now=request.draft.now_iso()))


def _with_ids(request: EffectRequest, messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with an id and a time for every message."""
    seed, now = request.run.new_step_id(), request.draft.now_iso()
    named: list[Message] = []
    for number, message in enumerate(messages):
        known = metadata_of(message)
        added: JsonObject = {}
        if not known.get("message_id"):
            added["message_id"] = "msg_" + derive_id(seed, str(number)).replace("-", "")
        if not known.get("timestamp"):
            added["timestamp"] = message.get("timestamp") or now
        named.append(with_metadata(message, **added) if added else message)
    return named


def _archive(request: EffectRequest, base: OpenRun, older: list[Message], manner: JsonObject) -> JsonObject:
    """Store the older messages, and return what the child needs to finish the work."""
    first, last, now = metadata_of(older[0]), metadata_of(older[-1]), request.draft.now_iso()
    span: JsonObject = {
        "from_timestamp": first.get("timestamp"),
        "to_timestamp": last.get("timestamp"),
        "from_message_id": first.get("message_id"),
        "to_message_id": last.get("message_id"),
        "message_count": len(older),
    }
    focus = text(request, "focus")
    tags = {"kind": CONVERSATION, **{name: str(value) for name, value in manner.items()}}
    artifact_id = store_json(
        artifacts_of(request),
        {"messages": older, "span": span, "created_at": now},
        run_id=base.state.run_id,
        tags={**tags, "focus": focus} if focus else tags,
    )
    return {
        "target_run_id": base.state.run_id,
        "artifact_id": artifact_id,
        "created_at": now,
        "span": span,
        "message_ids": [message_id(message) for message in older],
        "focus": focus,
        "created_by": request.state.actor_id,
        "tool_name": str(request.first("tool_name", default="compact_memory")),
        "call_id": str(request.first("call_id", default="memory")),
        **manner,
    }


def _start_child(request: EffectRequest, base: RunState, older: list[Message], plan: JsonObject) -> RunState:
    parent, now = request.state, request.draft.now_iso()
    vars: JsonObject = {"compaction": plan, "transcript": transcript(older, _budget(base))}
    inherit_model(parent, vars)
    child = RunState(
        run_id=derive_id(request.run.new_step_id(), "compact"),
        workflow_id=COMPACT_WORKFLOW_ID,
        status=RunStatus.RUNNING,
        current_node="summarise",
        vars=vars,
        created_at=now,
        updated_at=now,
        actor_id=parent.actor_id,
        session_id=parent.session_id,
        parent_run_id=parent.run_id,
    )
    request.draft.create(child)
    return child


def _wait_for(request: EffectRequest, child: RunState) -> WaitState:
    details = {
        "sub_run_id": child.run_id,
        "sub_workflow_id": child.workflow_id,
        "sync": True,
        "gives_output": True,
        "kind": "memory_compact",
    }
    return WaitState(
        reason=WaitReason.SUBWORKFLOW,
        wait_key=f"subworkflow:{child.run_id}",
        resume_to_node=request.resume_target,
        result_key=request.effect.result_key,
        details=details,
    )


def _budget(base: RunState) -> int:
    """Return how many characters of transcript fit the model of a run."""
    limits = base.vars.get("_limits")
    known = limits if isinstance(limits, dict) else {}
    tokens = known.get("max_input_tokens") or known.get("max_tokens") or 32_768
    return int(tokens) * _CHARS_PER_TOKEN


def transcript(messages: Sequence[Message], budget: int) -> str:
    """Return a conversation as a text of about `budget` characters; the longest messages are cut, none is left out."""
    share = max(_LEAST_CHARS, budget // max(1, len(messages)))
    lines = []
    for message in messages:
        said = text_of(message)
        shown = said if len(said) <= share else f"{said[:share]} […]"
        lines.append(f"{message.get('role') or 'unknown'}: {shown}")
    return "\n\n".join(lines)


def _put_summary(request: EffectRequest) -> EffectOutcome:
    """Put the child's summary into the conversation it is about, and the archive into its run's memory."""
    plan: JsonObject = request.state.vars["compaction"]
    target = request.draft.open(str(plan["target_run_id"]))
    summary_id = "msg_" + derive_id(request.state.run_id, "summary").replace("-", "")
    archived = set(plan["message_ids"])
    left = [message for message in messages_of(target.state) if message_id(message) not in archived]
    systems = [message for message in left if is_system(message)]
    spoken = [message for message in left if not is_system(message)]
    summary = _summary_message(plan, summary_id, str(request.payload["summary"]))
    put_messages(request.draft, target, [*systems, summary, *spoken])
    add_span(request.draft, target, _span(plan, summary_id))
    meta = {
        "llm_run_id": request.state.run_id,
        "span_id": plan["artifact_id"],
        "summary_message_id": summary_id,
        "preserve_recent": plan["preserve_recent"],
        "compression_mode": plan["compression_mode"],
        "focus": plan["focus"],
        "key_points": request.payload.get("key_points"),
        "confidence": request.payload.get("confidence"),
    }
    output = f"Compacted {len(archived)} messages into span_id={plan['artifact_id']}."
    result = tool_result(request, output, meta, name="compact_memory")
    _tell_outside(request, target, plan, result)
    return EffectOutcome.completed(result)


def _summary_message(plan: JsonObject, summary_id: str, summary: str) -> Message:
    span = plan["span"]
    metadata = {
        "message_id": summary_id,
        "kind": SUMMARY_KIND,
        "timestamp": plan["created_at"],
        "compression_mode": plan["compression_mode"],
        "preserve_recent": plan["preserve_recent"],
        "source_artifact_id": plan["artifact_id"],
        "source_message_count": span["message_count"],
        "source_from_timestamp": span["from_timestamp"],
        "source_to_timestamp": span["to_timestamp"],
        "source_from_message_id": span["from_message_id"],
        "source_to_message_id": span["to_message_id"],
    }
    if plan["focus"]:
        metadata["focus"] = plan["focus"]
    content = f"[CONVERSATION HISTORY SUMMARY span_id={plan['artifact_id']}]: {summary}"
    return {"role": "system", "content": content, "metadata": metadata}


def _span(plan: JsonObject, summary_id: str) -> JsonObject:
    span = {
        "kind": CONVERSATION,
        "artifact_id": plan["artifact_id"],
        "created_at": plan["created_at"],
        "summary_message_id": summary_id,
        **plan["span"],
        "compression_mode": plan["compression_mode"],
        "focus": plan["focus"],
    }
    return {**span, "created_by": plan["created_by"]} if plan["created_by"] else span
