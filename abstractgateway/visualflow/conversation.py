"""Conversations as models take them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..jsonvalue import JsonObject
from .values import as_list, as_object

NO_RESULT = "Error: there is no result of this call"


def active_messages(variables: Mapping[str, Any]) -> list[JsonObject]:
    """Return the run's conversation: all of it, or the latest `_limits.max_history_messages` and what the system said.

    A negative limit, or none, is no limit.
    """
    messages = messages_in(variables.get("context"))
    limit = as_object(variables.get("_limits")).get("max_history_messages")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        return messages
    spoken = sum(message.get("role") != "system" for message in messages)
    kept: list[JsonObject] = []
    for message in messages:
        is_system = message.get("role") == "system"
        if is_system or spoken <= limit:
            kept.append(message)
        spoken -= not is_system
    return kept


def messages_in(context: Any) -> list[JsonObject]:
    """Return the messages of a context object."""
    return [item for item in as_list(as_object(context).get("messages")) if isinstance(item, dict)]


def leading_system(messages: list[JsonObject]) -> int:
    """Return how many messages of the system the conversation begins with."""
    return next((at for at, item in enumerate(messages) if item.get("role") != "system"), len(messages))


def sendable(messages: list[JsonObject]) -> list[JsonObject]:
    """Return a conversation in which every tool call is followed by its result, and every result follows its call.

    Models refuse others, but they come about: where an older part was cut off, or an agent's turn was shortened to
    what its tools said. A result without its call becomes a message of the user, a call without result gets an error.
    """
    sent: list[JsonObject] = []
    awaited: list[str] = []
    for message in messages:
        identity = message.get("tool_call_id")
        if message.get("role") == "tool" and identity in awaited:
            awaited.remove(str(identity))
            sent.append(message)
            continue
        sent += map(_missing_result, awaited)
        awaited = _call_ids(message)
        sent.append(_retold(message) if message.get("role") == "tool" else message)
    return [*sent, *map(_missing_result, awaited)]


def _call_ids(message: JsonObject) -> list[str]:
    if message.get("role") != "assistant":
        return []
    calls = [as_object(call) for call in as_list(message.get("tool_calls"))]
    return [str(call.get("call_id") or call.get("id") or "") for call in calls]


def _missing_result(identity: str) -> JsonObject:
    return {"role": "tool", "content": NO_RESULT, "tool_call_id": identity}


def _retold(message: JsonObject) -> JsonObject:
    content, name = message.get("content"), message.get("name")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return {"role": "user", "content": f"The tool {name} said: {text}" if name else f"A tool said: {text}"}
