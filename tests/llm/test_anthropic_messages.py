from __future__ import annotations

import base64
from typing import Any

import pytest

from abstractgateway_llm import ModelError
from tests.llm.conftest import Open
from tests.llm.provider import KEY, Provider, failed, message, said, streamed, text

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
ADD = {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}}


def use(name: str, arguments: Any, identity: str = "toolu_1") -> dict[str, Any]:
    return {"type": "tool_use", "id": identity, "name": name, "input": arguments}


def events(*blocks: tuple[dict[str, Any], list[dict[str, Any]]], reason: str = "end_turn") -> list[dict[str, Any]]:
    """A streamed message: each block with the deltas that fill it."""
    found: list[dict[str, Any]] = [{"type": "message_start", "message": message()}, {"type": "ping"}]
    for at, (block, deltas) in enumerate(blocks):
        found.append({"type": "content_block_start", "index": at, "content_block": block})
        found += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": at})
    found.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 9}})
    return [*found, {"type": "message_stop"}]


def test_a_prompt_is_asked_and_answered(model_of: Open) -> None:
    with Provider(said(message(text("hello")))) as provider:
        call = {"prompt": "hi", "system_prompt": "be brief", "params": {"temperature": 0.1, "stop": "X", "seed": 3}}
        answer = model_of(provider, "anthropic").generate({**call, "idempotency_key": "k"})

    (request,) = provider.requests
    assert request.path == "/v1/messages"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["anthropic-version"] == "2026-10-21"
    assert request.headers["idempotency-key"] == "k"
    assert request.body == {
        "model": "m",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "system": "be brief",
        "stop_sequences": ["X"],
    }
    assert (answer["content"], answer["finish_reason"], answer["provider"]) == ("hello", "stop", "anthropic")
    assert answer["usage"] == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert answer["metadata"] == {"unused_params": ["seed", "temperature"]}


def test_results_of_tools_go_back_in_one_turn(model_of: Open) -> None:
    calls = [
        {"name": "add", "arguments": {"a": 1}, "call_id": "c1"},
        {"name": "add", "arguments": "{x", "call_id": "c2"},
    ]
    messages = [
        {"role": "system", "content": "s1"},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "tool", "content": "Error", "tool_call_id": "c2"},
    ]
    with Provider(said(message(use("add", {"a": 2}), stop_reason="tool_use"))) as provider:
        answer = model_of(provider, "anthropic").generate({"messages": messages, "tools": [ADD]})

    (body,) = provider.bodies
    assert body["system"] == "s1"
    assert body["tools"] == [{"name": "add", "description": "Add.", "input_schema": ADD["parameters"]}]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == [
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
        {"type": "tool_use", "id": "c2", "name": "add", "input": {"invalid_arguments": "{x"}},
    ]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c1", "content": "2"},
        {"type": "tool_result", "tool_use_id": "c2", "content": "Error"},
    ]
    assert answer["tool_calls"] == [{"name": "add", "arguments": {"a": 2}, "call_id": "toolu_1"}]
    assert (answer["content"], answer["finish_reason"]) == (None, "tool_calls")


def test_a_schema_is_given_natively_next_to_tools_and_effort(model_of: Open) -> None:
    with Provider(said(message(text('{"n": 1}')))) as provider:
        call = {"prompt": "p", "response_schema": SCHEMA, "tools": [ADD], "params": {"thinking": "low"}}
        answer = model_of(provider, "anthropic").generate(call)

    (body,) = provider.bodies
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}
    assert "system" not in body
    assert (answer["content"], answer["metadata"]) == ('{"n": 1}', {})


def test_a_schema_that_the_model_does_not_take_goes_into_the_prompt(model_of: Open) -> None:
    refusal = failed(400, "output_config.format: structured outputs are not supported by this model")
    with Provider(refusal, said(message(text('{"n": 1}')))) as provider:
        answer = model_of(provider, "anthropic").generate({"prompt": "p", "response_schema": SCHEMA})

    assert "JSON schema" in provider.bodies[1]["system"]
    assert "output_config" not in provider.bodies[1]
    assert answer["metadata"]["_structured_output_fallback"]["used"] is True


def test_attachments_go_with_the_last_words_of_the_user(model_of: Open) -> None:
    data = base64.b64encode(b"x").decode()
    media = [
        {"content_type": "image/png", "data": data},
        {"content_type": "application/pdf", "data": data},
        {"content_type": "text/csv", "data": data},
        {"url": "https://example.org/c.png"},
    ]
    with Provider(said(message(text("hello")))) as provider:
        model_of(provider, "anthropic").generate({"prompt": "look", "media": media})

    assert provider.bodies[0]["messages"][0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}},
        {"type": "text", "text": "attachment:\nx"},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/c.png"}},
    ]


def test_a_streamed_answer_is_shown_as_it_comes(model_of: Open) -> None:
    deltas: list[Any] = []
    blocks = (
        ({"type": "thinking", "thinking": ""}, [{"type": "thinking_delta", "thinking": "hm"}]),
        (text(""), [{"type": "text_delta", "text": "he"}, {"type": "text_delta", "text": "llo"}]),
        (use("add", {}), [{"type": "input_json_delta", "partial_json": part} for part in ('{"a"', ": 1}")]),
    )
    with Provider(streamed(events(*blocks, reason="tool_use"), has_end=False)) as provider:
        thinking = {"type": "enabled", "budget_tokens": 1024}
        call = {"prompt": "p", "tools": [ADD], "params": {"thinking": thinking}}
        answer = model_of(provider, "anthropic").generate(call, on_delta=deltas.append)

    assert provider.bodies[0]["thinking"] == thinking
    assert deltas == [{"reasoning": "hm"}, {"content": "he"}, {"content": "llo"}]
    assert (answer["content"], answer["reasoning"], answer["finish_reason"]) == ("hello", "hm", "tool_calls")
    assert answer["tool_calls"] == [{"name": "add", "arguments": {"a": 1}, "call_id": "toolu_1"}]
    assert answer["usage"] == {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12}


def test_an_overload_inside_a_stream_is_waited_for(model_of: Open, pauses: list[float]) -> None:
    overloaded = [{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}]
    whole = events((text(""), [{"type": "text_delta", "text": "hello"}]))
    with Provider(streamed(overloaded, has_end=False), streamed(whole, has_end=False)) as provider:
        answer = model_of(provider, "anthropic").generate({"prompt": "p"}, on_delta=lambda delta: None)

    assert answer["content"] == "hello"
    assert pauses == [0.5]


def test_any_other_error_inside_a_stream_is_the_error(model_of: Open) -> None:
    broken = [{"type": "error", "error": {"type": "invalid_request_error", "message": "what?"}}]
    with Provider(streamed(broken, has_end=False)) as provider, pytest.raises(ModelError, match="what\\?"):
        model_of(provider, "anthropic").generate({"prompt": "p"}, on_delta=lambda delta: None)


def test_an_effort_that_the_model_refuses_is_left_out(model_of: Open) -> None:
    refusal = failed(400, "output_config.effort is not supported by this model")
    with Provider(refusal, said(message(text("hello")))) as provider:
        answer = model_of(provider, "anthropic").generate({"prompt": "p", "params": {"reasoning_effort": "high"}})

    assert provider.bodies[0]["output_config"] == {"effort": "high"}
    assert "output_config" not in provider.bodies[1]
    assert answer["metadata"] == {"unused_params": ["effort"]}


def test_thinking_that_is_no_setting_of_the_api_is_named_as_unused(model_of: Open) -> None:
    with Provider(said(message(text("hello")))) as provider:
        answer = model_of(provider, "anthropic").generate({"prompt": "p", "params": {"thinking": True}})

    assert "thinking" not in provider.bodies[0]
    assert answer["metadata"] == {"unused_params": ["thinking"]}
