"""Talking about runs: summaries, answers to questions, and conversations that are kept."""

from __future__ import annotations

from typing import Any

from werkzeug.wrappers import Response

from ..fields import Field, Mismatch, Reader, read_member, text
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..shapes import named
from .inputs import optional_text, switch


def summarise_run(call: Call) -> Response:
    """Have a model summarise a run; the summary becomes a record of its ledger."""
    return json_answer(call.gateway.talk.summary(call.path["run_id"], **call.body))


def chat_about_run(call: Call) -> Response:
    """Have a model answer a question about a run."""
    return json_answer(call.gateway.talk.chat(call.path["run_id"], **call.body))


def keep_chat_thread(call: Call) -> Response:
    """Keep a conversation about a run as an artifact of it."""
    return json_answer(call.gateway.talk.chat_thread(call.path["run_id"], **call.body))


_MOST_MESSAGES = 1_000


def _read_messages(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list):
        raise Mismatch("list_type", "Input should be a valid list")
    if len(value) > _MOST_MESSAGES:
        raise Mismatch("too_long", f"List should have at most {_MOST_MESSAGES} items", max_length=_MOST_MESSAGES)
    return [_read_message(item, place) for place, item in enumerate(value)]


def _read_message(item: Any, place: int) -> dict[str, str]:
    return {name: read_member(item, text, place, name) for name in ("role", "content")}


_MESSAGE = {
    "type": "object",
    "properties": {
        "role": {"type": "string", "enum": ["user", "assistant", "system"]},
        "content": {"type": "string"},
    },
    "required": ["role", "content"],
}
_MESSAGES = Reader(_read_messages, {"type": "array", "items": _MESSAGE, "maxItems": _MOST_MESSAGES})
_MODEL = (
    optional_text("provider", "The provider of the model; without it, that of the settings or of the flow."),
    optional_text("model", "The model."),
    switch("include_subruns", "Whether the ledgers of the runs below it are read as well.", on=True),
)

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{API}/runs/{{run_id}}/summary",
        summarise_run,
        answers=(Answer("The summary, which is a durable record.", named("RunSummary")),),
        body=_MODEL,
        may_lack_body=True,
        refusals=(400, 404, 409, 503),
        scope="command",
    ),
    Route(
        "POST",
        f"{API}/runs/{{run_id}}/chat",
        chat_about_run,
        answers=(Answer("The answer.", named("RunAnswer")),),
        body=(
            Field("messages", _MESSAGES, required=True, about="`{role, content}`, the question last."),
            *_MODEL,
            switch("persist", "Whether question and answer become a record of the ledger."),
        ),
        refusals=(400, 404, 409, 503),
        scope="command",
    ),
    Route(
        "POST",
        f"{API}/runs/{{run_id}}/chat_threads",
        keep_chat_thread,
        answers=(Answer("It is kept durably, now or by an earlier request.", named("ChatThread")),),
        body=(
            Field("messages", _MESSAGES, required=True, about="`{role, content}`, the first one first."),
            optional_text("title", "What it is called; without it, as its first question."),
            *_MODEL,
        ),
        refusals=(400, 404, 409),
        scope="command",
    ),
)
