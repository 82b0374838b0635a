"""Writing something down."""

from __future__ import annotations

from ....errors import Invalid
from ....jsonvalue import JsonObject
from ...models import EffectOutcome
from ..request import EffectRequest
from .inputs import base_run, flag, scope_of, tags_of, text, texts, tool_result
from .messages import add_once, messages_of, note_message, put_messages
from .owners import open_owner
from .spans import NOTE, add_span, artifacts_of, preview, store_json


def memory_note(request: EffectRequest) -> EffectOutcome:
    """Keep a note: payload `note`, `tags`, `sources`, `location`, `scope`, `target_run_id`, `keep_in_context`.

    The note becomes an artifact of the run that holds the scope's memory, and a span there; with `keep_in_context` a
    system message of the run's conversation as well. The result is a tool's; its `meta` names the span.
    """
    note = text(request, "note")
    if note is None:
        raise Invalid("", "requires payload.note")
    scope, tags = scope_of(request, may_be_all=False), tags_of(request.payload.get("tags"))
    is_kept = flag(request, "keep_in_context", "keepInContext")
    artifacts, base = artifacts_of(request), base_run(request)
    owner = open_owner(request.draft, base.state, scope, request.global_memory)
    body = _body(request, note)
    artifact_id = store_json(artifacts, body, run_id=owner.state.run_id, tags={"kind": NOTE, **tags})
    add_span(request.draft, owner, _span(request, artifact_id, body, tags))
    shown = preview(note)
    meta: JsonObject = {"span_id": artifact_id, "created_at": body["created_at"], "note_preview": shown}
    if is_kept:
        messages = messages_of(base.state)
        is_new = add_once(messages, note_message(artifact_id, note))
        put_messages(request.draft, base, messages)
        meta["kept_in_context"] = {"inserted": int(is_new), "skipped": int(not is_new)}
    output = f"Noted as span_id={artifact_id}: {shown}"
    return EffectOutcome.completed(tool_result(request, output, meta, name="remember_note"))


def _body(request: EffectRequest, note: str) -> JsonObject:
    given = request.payload.get("sources")
    sources = given if isinstance(given, dict) else {}
    body: JsonObject = {
        "note": note,
        "sources": {
            "run_id": str(sources.get("run_id") or request.state.run_id),
            "span_ids": texts(sources.get("span_ids")),
            "message_ids": texts(sources.get("message_ids")),
        },
        "created_at": request.draft.now_iso(),
    }
    optional = {
        "location": text(request, "location"),
        "actor_id": request.state.actor_id,
        "session_id": request.state.session_id,
    }
    return {**body, **{name: value for name, value in optional.items() if value}}


def _span(request: EffectRequest, artifact_id: str, body: JsonObject, tags: dict[str, str]) -> JsonObject:
    span: JsonObject = {
        "kind": NOTE,
        "artifact_id": artifact_id,
        "created_at": body["created_at"],
        "from_timestamp": body["created_at"],
        "to_timestamp": body["created_at"],
        "message_count": 0,
        "note_preview": preview(body["note"]),
    }
    optional = {
        "location": body.get("location"),
        "tags": tags,
        "sources": body["sources"],
        "created_by": request.state.actor_id,
    }
    return {**span, **{name: value for name, value in optional.items() if value}}
