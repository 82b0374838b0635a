from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime.models import EffectType

MODEL = {"provider": "p", "model": "m"}


def _flow(
    draw: Any, defaults: dict[str, Any], *, outputs: str = "response success meta scratchpad", **data: Any
) -> dict[str, Any]:
    names = outputs.split()
    return draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> unused"),
            draw.node("a", "agent", "> prompt", f"> {outputs}", defaults={**MODEL, **defaults}, **data),
            draw.node("e", "on_flow_end", "> " + outputs),
        ],
        ["s > a", "a > e", *(f"a/{name} -> e/{name}" for name in names)],
    )


def _call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"content": "let me see", "tool_calls": [{"name": name, "arguments": arguments, "call_id": f"id-{name}"}]}


def test_an_agent_uses_its_tools_until_it_has_an_answer(driver: Any, draw: Any) -> None:
    driver.llm = [_call("add", a=1, b=2), _call("gone"), "three"]
    driver.tools = {"add": lambda a, b: a + b}

    result = driver.run(driver.add(_flow(draw, {"prompt": "1+2?", "tools": ["add", " add ", "gone"]})))

    assert result.output["response"] == "three"
    assert [payload["allowed_tools"] for payload in driver.payloads(EffectType.TOOL_CALLS)] == [["add", "gone"]] * 2
    pad = result.output["scratchpad"]
    assert [message["role"] for message in pad["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [message["content"] for message in pad["messages"] if message["role"] == "tool"] == [
        "3",
        "Error: unknown tool",
    ]
    assert pad["messages"][2]["tool_call_id"] == "id-add"
    assert [call["name"] for call in pad["tool_calls"]] == ["add", "gone"]
    meta = result.output["meta"]
    assert (meta["iterations"], meta["tool_calls"], meta["tool_results"]) == (3, 2, 2)


def test_the_model_sees_system_text_tools_and_settings(driver: Any, draw: Any) -> None:
    driver.llm = ["done"]
    defaults = {
        "prompt": "t",
        "system": "be kind",
        "temperature": 0,
        "seed": 5,
        "tools": [],
        "max_in_tokens": 99,
        "provider": "P",
    }

    driver.run(driver.add(_flow(draw, defaults, agentConfig={"tools": ["x"]})), {"_limits": {"max_tokens": 7}})

    assert driver.payloads(EffectType.LLM_CALL) == [
        {
            "messages": [{"role": "user", "content": "t"}],
            "system_prompt": "be kind",
            "tools": [],
            "params": {"temperature": 0.0, "seed": 5},
            "include_context": False,
            "provider": "p",
            "model": "m",
            "max_input_tokens": 99,
        }
    ]
    assert driver.payloads(EffectType.START_SUBWORKFLOW)[0]["vars"]["_limits"] == {
        "max_tokens": 7,
        "max_iterations": 50,
        "max_input_tokens": 99,
    }


def test_an_agent_that_finds_no_answer_in_time_did_not_succeed(driver: Any, draw: Any) -> None:
    driver.llm = lambda call: _call("add", a=1, b=1)
    driver.tools = {"add": lambda a, b: a + b}

    result = driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["add"], "max_iterations": 2})))

    assert (result.output["response"], result.output["success"]) == ("", False)
    assert result.output["meta"]["error"] == "no answer after 2 iterations"
    assert len(driver.payloads(EffectType.LLM_CALL)) == 2


def test_an_agent_that_failed_did_not_succeed(driver: Any, draw: Any) -> None:
    driver.llm = [draw.failure("model is down")]

    result = driver.run(
        driver.add(_flow(draw, {"prompt": "t", "use_context": True, "resp_schema": {"type": "object"}}))
    )

    assert (result.output["response"], result.output["success"]) == ("", False)
    assert result.output["meta"]["error"] == "model is down"
    assert (result.vars["_flow_error"], result.vars["_flow_error_node"]) == ("model is down", "a")
    assert "context" not in result.vars


@pytest.mark.parametrize(
    ("reply", "response", "success"),
    [
        ({"data": {"k": 1}}, '{"k":1}', True),
        ('Here: {"k": 1}', '{"k":1}', True),
        ("no json at all", "plain", False),
    ],
)
def test_a_structured_answer_takes_a_second_call(
    driver: Any, draw: Any, reply: Any, response: str, success: bool
) -> None:
    driver.llm = ["plain", reply]
    schema = {"type": "object"}

    result = driver.run(
        driver.add(_flow(draw, {"prompt": "t"}, agentConfig={"outputSchema": {"enabled": True, "jsonSchema": schema}}))
    )

    assert (result.output["response"], result.output["success"]) == (response, success)
    second = driver.payloads(EffectType.LLM_CALL)[1]
    assert second["prompt"].endswith("plain")
    assert second["response_schema"] == schema


def test_the_conversation_keeps_the_turn_and_what_the_tools_said(driver: Any, draw: Any) -> None:
    driver.llm = [_call("say"), "answer"]
    driver.tools = {"say": lambda: "x" * 5000}

    result = driver.run(
        driver.add(_flow(draw, {"prompt": "t", "use_context": True, "tools": ["say"]})),
        {"context": {"messages": [{"role": "user", "content": "old"}], "attachments": ["f"]}},
    )

    messages = result.vars["context"]["messages"]
    assert [message["role"] for message in messages] == ["user", "user", "tool", "assistant"]
    assert len(messages[2]["content"]) == 2000
    sub_run = result.output["meta"]["sub_run_id"]
    assert messages[1]["metadata"]["message_id"] == f"agent:{sub_run}:a:user"
    child = driver.payloads(EffectType.START_SUBWORKFLOW)[0]["vars"]["context"]
    assert child == {"task": "t", "messages": [{"role": "user", "content": "old"}], "attachments": ["f"]}


def test_explicit_messages_replace_the_conversation(driver: Any, draw: Any) -> None:
    driver.llm = ["answer"]
    context = {"messages": [{"role": "user", "content": "given"}], "extra": 1}

    driver.run(
        driver.add(_flow(draw, {"prompt": "t", "use_context": True, "context": context})),
        {"context": {"messages": [{"role": "user", "content": "old"}]}},
    )

    child = driver.payloads(EffectType.START_SUBWORKFLOW)[0]["vars"]["context"]
    assert child == {**context, "task": "t"}


def test_the_last_agent_ends_the_run_with_its_outputs(driver: Any, draw: Any) -> None:
    driver.llm = ["answer"]
    document = draw.flow(
        [draw.node("s", "on_flow_start", "", ">"), draw.node("a", "agent", "> prompt", "> response", defaults=MODEL)],
        ["s > a"],
    )

    result = driver.run(driver.add(document))

    assert set(result.output) == {"response", "success", "meta", "scratchpad"}


def test_the_old_result_pin_is_only_there_when_it_is_wired(driver: Any, draw: Any) -> None:
    driver.llm = ["answer"]

    result = driver.run(driver.add(_flow(draw, {"prompt": "t"}, outputs="result")))

    assert result.output["result"]["result"] == "answer"


def test_an_agent_in_a_loop_begins_anew_each_time(driver: Any, draw: Any) -> None:
    driver.llm = lambda call: "re: " + call["messages"][-1]["content"]
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            draw.node("l", "loop", "> items", ">loop >done item", defaults={"items": ["x", "y"]}),
            draw.node("a.1", "agent", "> prompt", "> response", defaults=MODEL),
            draw.node("say", "answer_user", "> message", ">"),
        ],
        ["s > l", "l/loop > a.1", "l/item -> a.1/prompt", "a.1 > say", "a.1/response -> say/message"],
    )

    driver.run(driver.add(document))

    assert [payload["message"] for payload in driver.payloads(EffectType.ANSWER_USER)] == ["re: x", "re: y"]
