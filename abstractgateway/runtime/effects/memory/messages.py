"""The conversation of a run, `vars.context.messages`: read, replaced, never changed in place."""

from __future__ import annotations

from typing import Any

from ....jsonvalue import JsonObject
from ...draft import Draft, OpenRun
from ...models import RunState

Message = JsonObject

NOTE_HEADER = "[MEMORY NOTE]"
SUMMARY_KIND = "memory_summary"


def messages_of(state: RunState) -> list[Message]:
    """Return a run's conversation; the list is a new one, the messages are shared."""
    context = state.vars.get("context")
    found = context.get("messages") if isinstance(context, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def put_messages(draft: Draft, run: OpenRun, messages: list[Message]) -> None:
    """Give a run another conversation."""
    replace_messages(run.state.vars, messages)
    run.touch(draft.now_iso())


def replace_messages(vars: JsonObject, messages: list[Message]) -> None:
    """Put a conversation into variables; the context around it is copied."""
    context = vars.get("context")
    vars["context"] = {**(context if isinstance(context, dict) else {}), "messages": messages}


def metadata_of(message: Message) -> JsonObject:
    found = message.get("metadata")
    return found if isinstance(found, dict) else {}


def message_id(message: Message) -> str | None:
    found = metadata_of(message).get("message_id")
    return str(found) if found else None


def with_metadata(message: Message, **fields: Any) -> Message:
    """Return a copy of a message with more metadata."""
    return {**message, "metadata": {**metadata_of(message), **fields}}


def is_system(message: Message) -> bool:
    return message.get("role") == "system"


def text_of(message: Message) -> str:
    """Return what a message says; of content in parts, the texts among them."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return "\n".join(part for part in parts if isinstance(part, str))
    return "" if content is None else str(content)


def note_message(artifact_id: str, note: str) -> Message:
    """Return the system message by which a note stands in a conversation."""
    metadata = {
        "kind": "memory_note",
        "rehydrated": True,
        "source_artifact_id": artifact_id,
        "message_id": f"memory_note:{artifact_id}",
    }
    return {"role": "system", "content": f"{NOTE_HEADER}\n{note}", "metadata": metadata}


def add_once(messages: list[Message], message: Message) -> bool:
    """Append a message to a list of the caller's own unless its id is there; say whether it was."""
    wanted = message_id(message)
    if wanted is not None and any(message_id(item) == wanted for item in messages):
        return False
    messages.append(message)
    return True
