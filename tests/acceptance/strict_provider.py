"""A provider of chat completions that refuses the conversations which OpenAI refuses, and streams when asked to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.llm.provider import Reply, Request, Script, chat, chunk, failed, said, streamed, tool_call

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


@dataclass(frozen=True)
class Answer:
    """A text, or calls of tools as `(name, arguments, id)`; the arguments are the text that the model wrote."""

    content: str | None = None
    calls: tuple[tuple[str, str, str], ...] = ()
    finish_reason: str = "stop"

    def reply(self, request: Request) -> Reply:
        """Return the answer in the way that the request wants it."""
        if request.body.get("stream"):
            return streamed(self.events())
        calls = [tool_call(*call) for call in self.calls]
        more = {"tool_calls": calls} if calls else {}
        return said(chat(self.content, finish_reason=self.finish_reason, **more))

    def events(self) -> list[dict[str, Any]]:
        """Return the chunks of the answer: texts word by word, arguments in two halves."""
        words = [chunk(content=word) for word in re.findall(r"\S*\s*", self.content or "") if word]
        calls = [part for at, call in enumerate(self.calls) for part in _call_parts(at, *call)]
        return [chunk(role="assistant"), *words, *calls, chunk(self.finish_reason), {"choices": [], "usage": USAGE}]


def _call_parts(at: int, name: str, arguments: str, identity: str) -> list[dict[str, Any]]:
    half = len(arguments) // 2
    parts = [
        {"index": at, "id": identity, "type": "function", "function": {"name": name, "arguments": arguments[:half]}},
        {"index": at, "function": {"arguments": arguments[half:]}},
    ]
    return [chunk(tool_calls=[part]) for part in parts]


def call(name: str, identity: str = "c1", **arguments: Any) -> Answer:
    """An answer that calls one tool."""
    return Answer(calls=((name, json.dumps(arguments), identity),))


def by_rule(rule: Callable[[Request], Answer | Reply | None]) -> Script:
    """Return a script that refuses what OpenAI refuses, and else does what the rule says; None hangs up."""

    def script(request: Request) -> Reply | None:
        problem = problem_in(request.body)
        if problem is not None:
            return failed(400, problem)
        answer = rule(request)
        return answer.reply(request) if isinstance(answer, Answer) else answer

    return script


def in_turn(*answers: Answer | Reply | None) -> Script:
    """Return a script of a conversation: the answers one after the other, the last of them again and again."""
    left = list(answers)
    return by_rule(lambda request: left.pop(0) if len(left) > 1 else left[0])


def tools_said(body: dict[str, Any]) -> list[str]:
    """Return what the tools said so far, in the order of the conversation."""
    return [message["content"] for message in body["messages"] if message["role"] == "tool"]


def problem_in(body: dict[str, Any]) -> str | None:
    """Return why OpenAI would refuse a request, or None."""
    awaited: list[str] = []
    for message in body["messages"]:
        role = message.get("role")
        if role not in ("system", "user", "assistant", "tool"):
            return f"unknown role {role!r}"
        if not isinstance(message.get("content"), (str, list, type(None))):
            return "content is neither a text nor a list"
        if role == "tool":
            if message.get("tool_call_id") not in awaited:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            awaited.remove(message["tool_call_id"])
            continue
        if awaited:
            return f"tool_call_ids did not have response messages: {awaited}"
        calls = message.get("tool_calls") or []
        awaited = [item["id"] for item in calls]
        problem = next((found for item in calls if (found := _problem_of_call(item, awaited))), None)
        if problem is not None:
            return problem
    return f"tool_call_ids did not have response messages: {awaited}" if awaited else None


def _problem_of_call(item: dict[str, Any], identities: list[str]) -> str | None:
    function = item["function"]
    if not TOOL_NAME.fullmatch(function["name"]):
        return f"{function['name']!r} is no name of a function"
    if not item["id"] or identities.count(item["id"]) > 1:
        return f"the id {item['id']!r} is empty or not the only one"
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return "the arguments are no JSON"
    return None if isinstance(arguments, dict) else "the arguments are no object"
