"""What a completed model call leaves in a run: two more messages in the conversation, and no pending attachments."""

from __future__ import annotations

from typing import Any

from ..jsonvalue import JsonObject, dumps
from .models import Effect

PENDING_MEDIA = "pending_media"
"""Where in `vars._runtime` the attachments are that the next model call takes along."""


def keep_turn(vars: JsonObject, effect: Effect, node_id: str, result: Any) -> None:
    """Append the turn of a completed model call to `context.messages` where its payload asks for that.

    The payload's `include_context` (or `use_context`) is the wish. The user's turn is the prompt, or else the last
    user message of those sent. The conversation and the context around it are replaced, never changed in place.
    """
    payload = effect.payload
    if not (payload.get("include_context") or payload.get("use_context")):
        return
    turn = [("user", _asked(payload)), ("assistant", _answered(result))]
    metadata = {"kind": "llm_turn", "node_id": node_id}
    added = [{"role": role, "content": said, "metadata": dict(metadata)} for role, said in turn if said]
    if not added:
        return
    context = vars.get("context")
    known = context if isinstance(context, dict) else {}
    before = known.get("messages")
    vars["context"] = {**known, "messages": [*(before if isinstance(before, list) else []), *added]}


def forget_pending_media(vars: JsonObject) -> None:
    """Drop the attachments of `_runtime.pending_media`, which a completed model call has taken along."""
    own = vars.get("_runtime")
    if isinstance(own, dict) and own.get(PENDING_MEDIA):
        vars["_runtime"] = {name: value for name, value in own.items() if name != PENDING_MEDIA}


def _asked(payload: JsonObject) -> Any:
    for name in ("prompt", "text"):
        if isinstance(payload.get(name), str) and payload[name].strip():
            return payload[name]
    messages = payload.get("messages")
    for message in reversed(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            return message.get("content")
    return None


def _answered(result: Any) -> str | None:
    fields = result if isinstance(result, dict) else {"content": result}
    for name in ("content", "text", "response"):
        if isinstance(fields.get(name), str) and fields[name].strip():
            return str(fields[name])
    data = fields.get("data")
    return dumps(data, field="data").decode() if data is not None else None
