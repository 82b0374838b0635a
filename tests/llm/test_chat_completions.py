from __future__ import annotations

import base64
from typing import Any

import pytest

from abstractgateway_llm import ModelError
from tests.llm.conftest import Open
from tests.llm.provider import KEY, Provider, Reply, chat, chat_chunks, chunk, failed, said, streamed, tool_call

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ADD = {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}


def test_a_prompt_is_asked_and_answered(model_of: Open) -> None:
    with Provider(said(chat("hello"))) as provider:
        answer = model_of(provider).generate({"prompt": "hi", "system_prompt": "be brief"})

    (request,) = provider.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    }
    assert (answer["content"], answer["finish_reason"]) == ("hello", "stop")
    assert (answer["provider"], answer["model"], answer["trace_id"]) == ("openai", "m-2026", "chatcmpl-1")
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (5, 7)
    assert answer["gen_time"] >= 0


def test_a_conversation_with_tools_is_written_as_the_provider_wants_it(model_of: Open) -> None:
    messages = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {"a": 1}, "call_id": "c1"}]},
        {"role": "tool", "content": "2", "name": "add", "tool_call_id": "c1"},
    ]
    with Provider(said(chat("two"))) as provider:
        model_of(provider).generate({"messages": messages, "prompt": "so?", "tools": [ADD]})

    (body,) = provider.bodies
    assert body["tools"] == [{"type": "function", "function": ADD}]
    assert body["messages"][1]["tool_calls"] == [tool_call("add", '{"a": 1}', "c1")]
    assert body["messages"][2] == {"role": "tool", "content": "2", "tool_call_id": "c1"}
    assert body["messages"][3] == {"role": "user", "content": "so?"}


def test_parameters_described_field_by_field_become_a_schema(model_of: Open) -> None:
    fields = {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}}
    with Provider(said(chat())) as provider:
        model_of(provider).generate({"prompt": "p", "tools": [{"name": "add", "parameters": fields}]})

    schema = provider.bodies[0]["tools"][0]["function"]["parameters"]
    assert schema == {"type": "object", "properties": fields, "required": ["a"]}


def test_tool_calls_come_back_with_their_ids_and_arguments(model_of: Open) -> None:
    calls = [tool_call("add", '{"a": 1}', "c1"), tool_call("add", "{broken", "c2")]
    with Provider(said(chat(None, finish_reason="tool_calls", tool_calls=calls))) as provider:
        answer = model_of(provider).generate({"prompt": "p", "tools": [ADD]})

    assert answer["content"] is None
    assert answer["finish_reason"] == "tool_calls"
    assert answer["tool_calls"] == [
        {"name": "add", "arguments": '{"a": 1}', "call_id": "c1"},
        {"name": "add", "arguments": "{broken", "call_id": "c2"},
    ]


@pytest.mark.parametrize(("name", "field"), [("openai", "max_completion_tokens"), ("vllm", "max_tokens")])
def test_what_is_wished_of_the_sampling_is_sent(model_of: Open, name: str, field: str) -> None:
    params = {"temperature": 0.2, "seed": 7, "stop": ["END"], "thinking": "low", "colour": "red", "max_tokens": 50}
    with Provider(said(chat())) as provider:
        answer = model_of(provider, name).generate({"prompt": "p", "params": params, "max_output_tokens": 50})

    body = provider.bodies[0]
    assert {key: body[key] for key in ("temperature", "seed", "stop", "reasoning_effort", field)} == {
        "temperature": 0.2,
        "seed": 7,
        "stop": ["END"],
        "reasoning_effort": "low",
        field: 50,
    }
    assert "colour" not in body
    assert answer["metadata"] == {"unused_params": ["colour"]}


def test_an_option_that_the_model_refuses_is_left_out_and_named(model_of: Open) -> None:
    refusal = failed(400, "Unsupported value: 'temperature' does not support 0.7 with this model.")
    with Provider(refusal, said(chat())) as provider:
        call = {"prompt": "p", "params": {"temperature": 0.7, "seed": 1}, "idempotency_key": "k"}
        answer = model_of(provider).generate(call)

    first, second = provider.requests
    assert "temperature" in first.body
    assert "temperature" not in second.body
    assert second.body["seed"] == 1
    assert (first.headers["idempotency-key"], second.headers["idempotency-key"]) == ("k", "k-1")
    assert answer["metadata"] == {"unused_params": ["temperature"]}


def test_a_refusal_of_the_request_itself_is_the_error(model_of: Open) -> None:
    with Provider(failed(400, "messages: too long")) as provider, pytest.raises(ModelError, match="400: messages: too"):
        model_of(provider).generate({"prompt": "p", "params": {"temperature": 0.7}})

    assert len(provider.requests) == 1


def test_a_schema_is_given_natively(model_of: Open) -> None:
    with Provider(said(chat('{"n": 1}'))) as provider:
        answer = model_of(provider).generate({"prompt": "p", "response_schema": SCHEMA, "response_schema_name": "N"})

    assert provider.bodies[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "N", "schema": SCHEMA},
    }
    assert answer["content"] == '{"n": 1}'
    assert "_structured_output_fallback" not in answer["metadata"]


def test_a_schema_that_the_server_does_not_take_goes_into_the_prompt(model_of: Open) -> None:
    with Provider(failed(400, "'response_format' is not supported"), said(chat('{"n": 1}'))) as provider:
        call = {"prompt": "p", "system_prompt": "s", "response_schema": SCHEMA}
        answer = model_of(provider, "ollama").generate(call)

    body = provider.bodies[1]
    assert "response_format" not in body
    assert body["messages"][0]["content"].startswith("s\n\nAnswer with one JSON value")
    assert '"required":["n"]' in body["messages"][0]["content"]
    assert answer["metadata"]["_structured_output_fallback"]["used"] is True
    assert "not supported" in answer["metadata"]["_structured_output_fallback"]["error"]


def test_without_a_fallback_the_refusal_of_a_schema_is_the_error(model_of: Open) -> None:
    call = {"prompt": "p", "response_schema": SCHEMA, "structured_output_fallback": False}
    with Provider(failed(400, "'response_format' is not supported")) as provider, pytest.raises(ModelError):
        model_of(provider).generate(call)
    with Provider(said(chat("[]"))) as provider, pytest.raises(ModelError, match="structured_output_fallback is off"):
        model_of(provider).generate({**call, "response_schema": {"type": "array"}})

    assert provider.requests == []


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_attachments_go_with_the_last_words_of_the_user(model_of: Open) -> None:
    media = [
        {"content_type": "image/png", "data": encoded(b"\x89PNG")},
        {"content_type": "text/plain; charset=utf-8", "data": encoded("é".encode()), "name": "a.txt"},
        {"content_type": "application/pdf", "data": encoded(b"%PDF"), "name": "b.pdf"},
        {"url": "https://example.org/c.png"},
    ]
    with Provider(said(chat())) as provider:
        model_of(provider).generate({"prompt": "look", "media": media})

    assert provider.bodies[0]["messages"][-1]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded(bytes([0x89]) + b'PNG')}"}},
        {"type": "text", "text": "a.txt:\né"},
        {
            "type": "file",
            "file": {"filename": "b.pdf", "file_data": f"data:application/pdf;base64,{encoded(b'%PDF')}"},
        },
        {"type": "image_url", "image_url": {"url": "https://example.org/c.png"}},
    ]


@pytest.mark.parametrize(
    ("medium", "why"),
    [
        ({"content_type": "video/mp4", "data": ""}, "video/mp4"),
        ({"content_type": "text/plain", "data": encoded(b"\xff")}, "no UTF-8"),
        ({"url": "http://169.254.169.254/x.png"}, "https://"),
    ],
)
def test_an_attachment_that_no_model_takes_is_refused(model_of: Open, medium: dict[str, Any], why: str) -> None:
    with Provider(said(chat())) as provider, pytest.raises(ModelError, match=why):
        model_of(provider).generate({"prompt": "p", "media": [medium]})

    assert provider.requests == []


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_what_the_model_thought_is_kept_apart(model_of: Open, field: str) -> None:
    with Provider(said(chat("4", **{field: "2+2"}))) as provider:
        answer = model_of(provider, "vllm").generate({"prompt": "p"})

    assert (answer["content"], answer["reasoning"]) == ("4", "2+2")


def test_a_streamed_answer_is_shown_as_it_comes_and_is_the_same_in_the_end(model_of: Open) -> None:
    deltas: list[Any] = []
    with Provider(streamed(chat_chunks("he", "llo")), said(chat("hello"))) as provider:
        model = model_of(provider)
        answer = model.generate({"prompt": "p"}, on_delta=deltas.append)
        whole = model.generate({"prompt": "p"})

    assert deltas == [{"content": "he"}, {"content": "llo"}]
    assert provider.bodies[0]["stream"] is True
    assert provider.bodies[0]["stream_options"] == {"include_usage": True}
    assert "stream" not in provider.bodies[1]
    same = ("content", "tool_calls", "usage", "model", "finish_reason", "trace_id")
    assert {name: answer[name] for name in same} == {name: whole[name] for name in same}
    assert answer["ttft_ms"] >= 0


def test_a_provider_that_does_not_stream_is_asked_for_the_whole_answer(model_of: Open) -> None:
    refusal = failed(400, "the parameter 'stream' is not supported with this model")
    with Provider(refusal, said(chat("hello"))) as provider:
        answer = model_of(provider).generate({"prompt": "p"}, on_delta=lambda delta: None)

    assert (answer["content"], answer["metadata"]) == ("hello", {})
    assert provider.bodies[0]["stream"] is True
    assert not {"stream", "stream_options"} & provider.bodies[1].keys()


def test_tool_calls_and_thoughts_are_put_together_from_a_stream(model_of: Open) -> None:
    deltas: list[Any] = []
    first = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": ""}}
    events = [
        chunk(reasoning_content="hm"),
        chunk(tool_calls=[first]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
        chunk(tool_calls=[{"index": 1, "id": "c2", "function": {"name": "add", "arguments": "{}"}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
        chunk("tool_calls"),
    ]
    with Provider(streamed(events)) as provider:
        answer = model_of(provider).generate({"prompt": "p", "tools": [ADD]}, on_delta=deltas.append)

    assert deltas == [{"reasoning": "hm"}]
    assert answer["reasoning"] == "hm"
    assert answer["tool_calls"] == [
        {"name": "add", "arguments": '{"a": 1}', "call_id": "c1"},
        {"name": "add", "arguments": "{}", "call_id": "c2"},
    ]


def test_a_stream_in_pieces_of_one_byte_is_read_all_the_same(model_of: Open) -> None:
    content = b"".join(streamed(chat_chunks("h\u00e9", "llo")).parts)
    pieces = Reply([bytes([byte]) for byte in content], headers={"Content-Type": "text/event-stream"})
    with Provider(pieces) as provider:
        answer = model_of(provider).generate({"prompt": "p"}, on_delta=lambda delta: None)

    assert answer["content"] == "h\u00e9llo"


def test_events_are_read_as_the_standard_has_them(model_of: Open) -> None:
    content = (
        b': keep-alive\r\n\r\nevent: x\r\nid: 1\r\ndata:{"choices":\r\ndata: [{"delta": {"content": "hello"}}]}\r\n\r\n'
        b'data: {"choices": [{"finish_reason": "stop"}]}'
    )
    with Provider(Reply([content], headers={"Content-Type": "text/event-stream"})) as provider:
        answer = model_of(provider).generate({"prompt": "p"}, on_delta=lambda delta: None)

    assert answer["content"] == "hello"


def test_a_conversation_in_parts_is_told_as_text(model_of: Open) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    with Provider(said(chat())) as provider:
        model_of(provider).generate({"messages": [{"role": "user", "content": parts}], "prompt": "c"})

    assert [message["content"] for message in provider.bodies[0]["messages"]] == ["ab", "c"]


def test_an_attachment_alone_is_a_message_of_the_user(model_of: Open) -> None:
    with Provider(said(chat())) as provider:
        model_of(provider).generate({"media": [{"url": "https://example.org/c.png"}]})

    assert [message["role"] for message in provider.bodies[0]["messages"]] == ["user"]


def test_a_tool_without_a_name_is_refused(model_of: Open) -> None:
    with Provider(said(chat())) as provider, pytest.raises(ModelError, match="has no name"):
        model_of(provider).generate({"prompt": "p", "tools": [{"description": "d"}]})

    assert provider.requests == []


def test_a_server_that_does_not_stream_is_understood(model_of: Open) -> None:
    deltas: list[Any] = []
    with Provider(said(chat("hello"))) as provider:
        answer = model_of(provider).generate({"prompt": "p"}, on_delta=deltas.append)

    assert (answer["content"], deltas) == ("hello", [])


@pytest.mark.parametrize("ending", [{"is_cut": True}, {"has_end": False}])
def test_a_stream_that_ends_early_is_asked_for_again_and_what_was_shown_is_void(
    model_of: Open, ending: dict[str, bool]
) -> None:
    deltas: list[Any] = []
    with Provider(streamed([chunk(content="he")], **ending), streamed(chat_chunks("hello"))) as provider:
        answer = model_of(provider).generate({"prompt": "p"}, on_delta=deltas.append)

    assert answer["content"] == "hello"
    assert deltas == [{"content": "he"}, {"restart": True}, {"content": "hello"}]


def test_an_error_inside_a_stream_is_the_error(model_of: Open) -> None:
    events = [chunk(content="he"), {"error": {"message": "the model fell over"}}]
    with Provider(streamed(events)) as provider, pytest.raises(ModelError, match="the model fell over"):
        model_of(provider).generate({"prompt": "p"}, on_delta=lambda delta: None)


def test_halves_of_characters_are_joined_or_replaced(model_of: Open) -> None:
    with Provider(streamed(chat_chunks("\ud83d", "\ude00 \ud83d"))) as provider:
        answer = model_of(provider).generate({"prompt": "p"}, on_delta=lambda delta: None)

    assert answer["content"] == "\U0001f600 \ufffd"
