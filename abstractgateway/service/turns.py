"""The runs of a session as the turns of a conversation: what was asked, what was answered, what it took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import GatewayError
from ..jsonvalue import JsonObject, loads
from ..runtime.models import RunState
from ..runtime.offloading import is_offloaded, output_of, rehydrate_record, vars_of
from ..stores.base import ArtifactStore, LedgerStore, RunQuery, RunStore, instant_or_none

_ASKED = ("prompt", "message", "task")
_ANSWERED = ("response", "answer", "message", "text", "content")
_LEAST_SCANNED = 1000

TreeOf = Callable[[RunStore, str], list[str]]


def session_turns(
    session_id: str,
    run_store: RunStore,
    ledger_store: LedgerStore,
    artifact_store: ArtifactStore | None,
    *,
    limit: int,
    tree_of: TreeOf,
) -> list[JsonObject]:
    """Return the last turns of a session, oldest first.

    Turns are root runs; internal ones are left out. Where one of them is a chat (it has `context.messages`), only
    chats are turns.
    """
    wanted = max(1, limit)
    query = RunQuery(session_id=session_id, root_only=True, hide_internal=True, limit=max(_LEAST_SCANNED, 5 * wanted))
    opened = (run_store.open(row.run_id) for row in run_store.find(query))
    states = sorted((stored.state for stored in opened if stored is not None), key=_started)
    chats = [state for state in states if _kind(_context_of(state, artifact_store), state.workflow_id) == "chat"]
    chosen = (chats or states)[-wanted:]
    return [_turn(state, run_store, ledger_store, artifact_store, tree_of) for state in chosen]


def _started(state: RunState) -> float:
    return instant_or_none(state.created_at) or 0.0


def _context_of(state: RunState, artifact_store: ArtifactStore | None) -> JsonObject:
    """Return the variables of a run, read back from artifacts only where that is needed to know what it is."""
    is_elsewhere = is_offloaded(state.vars.get("context"))
    return vars_of(state, artifact_store, is_lenient=True) if is_elsewhere else state.vars


def _kind(vars: JsonObject, workflow_id: str) -> str:
    context = vars.get("context")
    messages = context.get("messages") if isinstance(context, dict) else None
    if isinstance(messages, list) or is_offloaded(messages):
        return "chat"
    meta = vars.get("_meta")
    is_scheduled = isinstance(meta, dict) and isinstance(meta.get("schedule"), dict)
    return "scheduled" if is_scheduled or workflow_id.startswith("scheduled:") else "run"


def _turn(
    state: RunState,
    run_store: RunStore,
    ledger_store: LedgerStore,
    artifact_store: ArtifactStore | None,
    tree_of: TreeOf,
) -> JsonObject:
    own = [_whole(record, artifact_store) for record in ledger_store.list(state.run_id)]
    others = [run_id for run_id in tree_of(run_store, state.run_id) if run_id != state.run_id]
    below = [_whole(record, artifact_store) for run_id in others for record in ledger_store.list(run_id)]
    output = _output(state, artifact_store)
    vars = vars_of(state, artifact_store, is_lenient=True)
    meta = output.get("meta") if isinstance(output, dict) else None
    return {
        "run_id": state.run_id,
        "workflow_id": state.workflow_id,
        "kind": _kind(vars, state.workflow_id),
        "status": state.status.value,
        "created_at": state.created_at,
        "updated_at": state.updated_at,
        "prompt": prompt_of(vars),
        "attachments": _attachments(vars),
        "answer": answer_in(output) or _shown(own),
        "answer_meta": meta if isinstance(meta, dict) else None,
        "stats": run_stats([*own, *below]),
    }


def prompt_of(vars: JsonObject) -> str | None:
    """Return what a run was asked: an input, its context's task, or the first thing the user says."""
    context = vars.get("context")
    known = context if isinstance(context, dict) else {}
    messages = known.get("messages")
    spoken = (
        message.get("content")
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, dict) and message.get("role") == "user"
    )
    candidates = [*(vars.get(name) for name in _ASKED), *(known.get(name) for name in ("task", "message")), *spoken]
    return next((text for text in candidates if isinstance(text, str) and text.strip()), None)


def answer_in(output: Any) -> str | None:
    """Return the text of an output that is its answer, looking into `result` and `output` inside it."""
    if isinstance(output, str):
        return output if output.strip() else None
    if not isinstance(output, dict):
        return None
    texts = (output.get(name) for name in _ANSWERED)
    found = next((text for text in texts if isinstance(text, str) and text.strip()), None)
    return found or answer_in(output.get("result")) or answer_in(output.get("output"))


def run_stats(records: Iterable[Mapping[str, Any]]) -> JsonObject:
    """Return what the completed steps of a tree of runs took.

    `{duration_ms, llm_calls, tool_calls, usage: {input_tokens, output_tokens, total_tokens}, tok_s}`; the duration is
    that from the first step to the last, `tok_s` the tokens that the models wrote per second of their calls.
    """
    done = [record for record in records if record.get("status") == "completed"]
    calls = [record for record in done if _effect(record) == "llm_call"]
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    for record in calls:
        for name, count in _tokens(record).items():
            usage[name] += count
    seconds = sum(_seconds(record) for record in calls)
    return {
        "duration_ms": _span_ms(done),
        "llm_calls": len(calls),
        "tool_calls": sum(_tool_calls(record) for record in done if _effect(record) == "tool_calls"),
        "usage": usage,
        "tok_s": round(usage["output_tokens"] / seconds, 2) if usage["output_tokens"] and seconds > 0 else None,
    }


def _output(state: RunState, artifact_store: ArtifactStore | None) -> Any:
    """Return a run's output, fetched from its artifact where it was too large to stay."""
    output = output_of(state, artifact_store, is_lenient=True)
    if not isinstance(output, dict) or "$artifact" not in output or artifact_store is None:
        return output
    try:
        metadata = artifact_store.get_metadata(str(output["$artifact"]))
        if metadata is not None and metadata.run_id not in (None, state.run_id):
            return output  # a reference of the flow's own, which may name what is somebody else's
        content = artifact_store.load(str(output["$artifact"]))
        return loads(content) if content is not None else None
    except GatewayError:
        return None  # a damaged artifact is reported where it is read; the turn is shown without its answer


def _whole(record: JsonObject, artifact_store: ArtifactStore | None) -> JsonObject:
    """Return a record whose result has everything of which the turn shows a part."""
    result = record.get("result")
    if artifact_store is None or not isinstance(result, dict) or not any(map(is_offloaded, result.values())):
        return record
    return rehydrate_record(record, artifact_store, is_lenient=True)


def _shown(records: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the last message that the run itself showed to the user."""
    for record in reversed(records):
        if record.get("status") == "completed" and _effect(record) == "answer_user":
            return answer_in(record.get("result"))
    return None


def _attachments(vars: JsonObject) -> list[Any]:
    context = vars.get("context")
    for source in (context, vars):
        found = source.get("attachments") if isinstance(source, dict) else None
        if isinstance(found, list):
            return found
    return []


def _effect(record: Mapping[str, Any]) -> str | None:
    effect = record.get("effect")
    return effect.get("type") if isinstance(effect, dict) else None


def _tool_calls(record: Mapping[str, Any]) -> int:
    result = record.get("result")
    results = result.get("results") if isinstance(result, dict) else None
    return len(results) if isinstance(results, list) else 0


def _tokens(record: Mapping[str, Any]) -> dict[str, int]:
    result = record.get("result")
    usage = result.get("usage") if isinstance(result, dict) else None
    known = usage if isinstance(usage, dict) else {}
    read = _count(known.get("input_tokens", known.get("prompt_tokens")))
    written = _count(known.get("output_tokens", known.get("completion_tokens")))
    return {
        "input_tokens": read,
        "output_tokens": written,
        "total_tokens": _count(known.get("total_tokens")) or read + written,
    }


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _seconds(record: Mapping[str, Any]) -> float:
    started, ended = instant_or_none(record.get("started_at")), instant_or_none(record.get("ended_at"))
    return max(0.0, ended - started) if started is not None and ended is not None else 0.0


def _span_ms(records: Sequence[Mapping[str, Any]]) -> int:
    started = [at for record in records if (at := instant_or_none(record.get("started_at"))) is not None]
    ended = [at for record in records if (at := instant_or_none(record.get("ended_at"))) is not None]
    return round(1000 * max(0.0, max(ended) - min(started))) if started and ended else 0
