from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractgateway.jsonvalue import check_json
from abstractgateway_llm.anthropic_messages import Messages
from abstractgateway_llm.errors import ModelError
from abstractgateway_llm.openai_chat import Chat
from abstractgateway_llm.wire import Wire

WIRES: tuple[Wire, ...] = (Chat(), Messages())
NAMES = [
    "choices",
    "message",
    "content",
    "text",
    "type",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "id",
    "index",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "finish_reason",
    "stop_reason",
    "delta",
    "error",
    "reasoning",
    "thinking",
    "input",
    "content_block",
    "partial_json",
    "detail",
    "model",
    "refusal",
]
WORDS = [
    "text",
    "tool_use",
    "thinking",
    "message_start",
    "content_block_start",
    "content_block_delta",
    "message_delta",
    "message_stop",
    "error",
    "text_delta",
    "input_json_delta",
    "stop",
    "{}",
]
LEAVES = st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(WORDS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=25,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)


@st.composite
def near_answers(draw: st.DrawFn) -> dict[str, Any]:
    """Bodies that have the outer shape of an answer, so that what is inside is looked at."""
    message = draw(OBJECTS)
    body = draw(OBJECTS)
    return {**body, "choices": [{**draw(OBJECTS), "message": message, "delta": message}], "content": [message]}


@pytest.mark.parametrize("wire", WIRES, ids=["chat", "messages"])
@settings(max_examples=100, deadline=None)
@given(body=OBJECTS | near_answers())
def test_any_body_is_an_answer_or_a_refusal(wire: Wire, body: dict[str, Any]) -> None:
    try:
        answer = wire.answer(body)
    except ModelError:
        return

    assert isinstance(answer["tool_calls"], list)
    assert answer["content"] is None or isinstance(answer["content"], str)
    assert isinstance(answer["finish_reason"], str)
    check_json(answer)


@pytest.mark.parametrize("wire", WIRES, ids=["chat", "messages"])
@settings(max_examples=100, deadline=None)
@given(events=st.lists(OBJECTS | near_answers(), max_size=5))
def test_any_stream_is_an_answer_or_a_refusal(wire: Wire, events: list[dict[str, Any]]) -> None:
    assembly = wire.assembly()
    try:
        shown = [assembly.add(event) for event in events]
        body = assembly.body()
        if body is not None:
            check_json(wire.answer(body))
    except ModelError:
        return

    assert all(isinstance(text, str) for piece in shown for text in piece.values())
