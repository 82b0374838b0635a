from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime.models import EffectType
from abstractgateway.visualflow import compile_flow

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
    driver.llm = [_call("add", a=1, b=1), draw.failure("model is down")]
    driver.tools = {"add": lambda a, b: a + b}

    result = driver.run(
        driver.add(_flow(draw, {"prompt": "t", "use_context": True, "resp_schema": {"type": "object"}}))
    )

    assert (result.output["response"], result.output["success"]) == ("", False)
    assert result.output["meta"]["error"] == "model is down"
    assert (result.vars["_flow_error"], result.vars["_flow_error_node"]) == ("model is down", "a")
    assert "context" not in result.vars


SCHEMA = {"type": "object", "properties": {"k": {"type": "integer"}}, "required": ["k"]}


def _structured(schema: dict[str, Any] = SCHEMA) -> dict[str, Any]:
    return {"outputSchema": {"enabled": True, "jsonSchema": schema}}


@pytest.mark.parametrize(
    ("reply", "response", "success"),
    [
        ({"data": {"k": 1}}, '{"k":1}', True),
        ('Here: {"k": 1}', '{"k":1}', True),
        ("no json at all", "plain", False),
        ({"data": {"k": "1"}}, "plain", False),
    ],
)
def test_a_structured_answer_takes_a_second_call(
    driver: Any, draw: Any, reply: Any, response: str, success: bool
) -> None:
    driver.llm = ["plain", reply, reply, reply]

    result = driver.run(driver.add(_flow(draw, {"prompt": "t"}, agentConfig=_structured())))

    assert (result.output["response"], result.output["success"]) == (response, success)
    assert result.output["meta"]["output_mode"] == ("structured" if success else "unstructured")
    second = driver.payloads(EffectType.LLM_CALL)[1]
    assert second["prompt"].endswith("plain")
    assert second["response_schema"] == SCHEMA


def test_a_model_is_told_what_is_wrong_with_the_form_of_its_answer(driver: Any, draw: Any) -> None:
    driver.llm = ["plain", "nothing", {"data": {"k": "1"}}, {"data": {"k": 1}}]
    driver.is_restarted_each_step = True

    result = driver.run(driver.add(_flow(draw, {"prompt": "t", "resp_schema": SCHEMA})))

    assert result.output["response"] == '{"k":1}'
    *_, third, fourth = driver.payloads(EffectType.LLM_CALL)
    assert "it is no JSON" in third["prompt"]
    assert "k: is string, not integer" in fourth["prompt"]
    assert [message["role"] for message in fourth["messages"]] == ["user", "assistant", "user", "assistant"]
    assert fourth["messages"][-1]["content"] == '{"k":"1"}'


def test_an_answer_that_has_its_form_already_takes_one_call(driver: Any, draw: Any) -> None:
    driver.llm = ['{"k": 1}']

    result = driver.run(driver.add(_flow(draw, {"prompt": "t", "resp_schema": SCHEMA})))

    assert result.output["response"] == '{"k":1}'


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


def test_the_last_step_asks_for_an_answer_instead_of_tools(driver: Any, draw: Any) -> None:
    driver.llm = [_call("add", a=1, b=1), "as far as I know: 2"]
    driver.tools = {"add": lambda a, b: a + b}

    result = driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["add"], "max_iterations": 2})))

    assert (result.output["response"], result.output["success"]) == ("as far as I know: 2", True)
    assert result.output["meta"]["limit_reached"] is True
    first, last = driver.payloads(EffectType.LLM_CALL)
    assert [message["role"] for message in last["messages"]] == ["user", "assistant", "tool", "user"]
    assert "last step" in last["messages"][-1]["content"]
    assert "last step" not in str(first["messages"])
    assert "last step" not in str(result.output["scratchpad"]["messages"])


def test_tools_that_nobody_would_hear_of_are_not_run(driver: Any, draw: Any) -> None:
    driver.llm = lambda call: _call("add", a=1, b=1)
    driver.tools = {"add": lambda a, b: a + b}

    driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["add"], "max_iterations": 3})))

    assert len(driver.payloads(EffectType.TOOL_CALLS)) == 2


def test_an_agent_with_one_step_may_use_its_tools(driver: Any, draw: Any) -> None:
    driver.llm = lambda call: _call("add", a=1, b=1)
    driver.tools = {"add": lambda a, b: a + b}

    result = driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["add"], "max_iterations": 1})))

    assert result.output["success"] is False
    assert result.output["scratchpad"]["tool_results"][0]["output"] == 2


def test_an_empty_answer_is_asked_for_once_more(driver: Any, draw: Any) -> None:
    driver.llm = ["", "here"]

    result = driver.run(driver.add(_flow(draw, {"prompt": "t"})))

    assert (result.output["response"], result.output["meta"]["iterations"]) == ("here", 2)
    assert "empty" in driver.payloads(EffectType.LLM_CALL)[1]["messages"][-1]["content"]
    assert [message["content"] for message in result.output["scratchpad"]["messages"]] == ["t", "here"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"content": None}, "2 times in a row it said nothing"),
        ({"content": None, "metadata": {"refusal": "I must not"}}, "the model refused: I must not"),
        ({"content": "", "finish_reason": "content_filter"}, "its content filter stopped it"),
    ],
)
def test_an_agent_without_an_answer_says_why(driver: Any, draw: Any, answer: Any, reason: str) -> None:
    driver.llm = lambda call: answer

    result = driver.run(driver.add(_flow(draw, {"prompt": "t"})))

    assert (result.output["response"], result.output["success"]) == ("", False)
    assert reason in result.output["meta"]["error"]


def test_calls_without_an_id_or_with_one_that_is_taken_get_their_own(driver: Any, draw: Any) -> None:
    twice = {"name": "add", "arguments": {"a": 1, "b": 1}, "call_id": "x"}
    without = {"name": "add", "arguments": {"a": 2, "b": 2}}
    driver.llm = [{"tool_calls": [twice, twice, without]}, {"tool_calls": [twice]}, "done"]
    driver.tools = {"add": lambda a, b: a + b}

    driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["add"]})))

    messages = driver.payloads(EffectType.LLM_CALL)[-1]["messages"]
    called = [call["call_id"] for message in messages for call in message.get("tool_calls", [])]
    assert called == [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert called == ["x", "call_1_2", "call_1_3", "call_2_1"]
    assert [message["content"] for message in messages if message["role"] == "tool"] == ["2", "2", "4", "2"]


@pytest.mark.parametrize("arguments", ["{broken", None, [1], 5])
def test_the_model_is_shown_calls_that_any_provider_takes(driver: Any, draw: Any, arguments: Any) -> None:
    driver.llm = [{"tool_calls": [{"name": "no such tool!", "arguments": arguments}]}, "done"]

    driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["add"]})))

    (told,) = driver.payloads(EffectType.LLM_CALL)[-1]["messages"][1]["tool_calls"]
    assert isinstance(told["arguments"], dict)
    assert told["name"] == "no_such_tool_"
    assert driver.payloads(EffectType.TOOL_CALLS)[0]["tool_calls"][0]["arguments"] == arguments


def test_a_call_whose_name_is_no_name_is_answered_like_any_wrong_one(driver: Any, draw: Any) -> None:
    driver.llm = [{"tool_calls": [{"name": {"odd": 1}, "arguments": {}}, {"name": None}]}, "done"]

    driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["add"]})))

    messages = driver.payloads(EffectType.LLM_CALL)[-1]["messages"]
    assert [message["content"] for message in messages if message["role"] == "tool"] == ["Error: unknown tool"] * 2
    assert driver.payloads(EffectType.TOOL_CALLS)[0]["tool_calls"][0]["name"] == '{"odd": 1}'


def test_a_call_whose_result_nobody_gave_is_told_so(driver: Any, draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.llm = [{"tool_calls": [{"name": "add", "call_id": "1"}, {"name": "add", "call_id": "2"}]}, "done"]
    monkeypatch.setattr(driver, "_tool", lambda call: {"call_id": "2", "success": True, "output": "second"})

    driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["add"]})))

    told = driver.payloads(EffectType.LLM_CALL)[-1]["messages"][2:]
    assert [message["tool_call_id"] for message in told] == ["1", "2"]
    assert told[0]["content"].startswith("Error: the tool was not run")
    assert told[1]["content"] == "second"


def test_an_agent_asks_its_user_between_two_batches_of_tools(driver: Any, draw: Any) -> None:
    ask = {"name": "ask_user", "arguments": {"question": "Who?", "choices": None}}
    add = {"name": "add", "arguments": {"a": 1, "b": 1}}
    driver.llm = [{"tool_calls": [add, add, ask, add]}, "done"]
    driver.tools = {"add": lambda a, b: a + b}
    driver.answers = ["Bob"]
    driver.is_restarted_each_step = True

    result = driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["ask_user", "add"]})))

    assert [len(payload["tool_calls"]) for payload in driver.payloads(EffectType.TOOL_CALLS)] == [2, 1]
    assert driver.payloads(EffectType.TOOL_CALLS)[0]["allowed_tools"] == ["add"]
    assert driver.payloads(EffectType.ASK_USER) == [{"prompt": "Who?", "choices": None, "allow_free_text": True}]
    first, second = driver.payloads(EffectType.LLM_CALL)
    assert first["tools"][0]["parameters"]["required"] == ["question"]
    assert first["tools"][1] == "add"
    told = [message["content"] for message in second["messages"] if message["role"] == "tool"]
    assert told == ["2", "2", "Bob", "2"]
    assert [item["name"] for item in result.output["scratchpad"]["tool_results"]] == ["add", "add", "ask_user", "add"]


def test_an_answer_that_says_nothing_is_not_taken_for_an_earlier_one(
    driver: Any, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.llm = [_call("ask_user", question="Who?"), _call("ask_user", question="And who?"), "done"]
    replies = [{"response": "Bob"}, None]
    perform = driver._perform

    def answer(effect: EffectType, *rest: Any) -> Any:
        return replies.pop(0) if effect is EffectType.ASK_USER else perform(effect, *rest)

    monkeypatch.setattr(driver, "_perform", answer)

    result = driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["ask_user"]})))

    assert [item["output"] for item in result.output["scratchpad"]["tool_results"]] == ["Bob", {}]


@pytest.mark.parametrize("arguments", [{"question": " "}, {}, "{broken", {"question": "Who?", "sauce": 1}])
def test_a_question_that_is_none_is_not_asked(driver: Any, draw: Any, arguments: Any) -> None:
    driver.llm = [{"tool_calls": [{"name": "ask_user", "arguments": arguments}]}, "done"]

    result = driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["ask_user"]})))

    assert result.output["response"] == "done"
    assert driver.payloads(EffectType.ASK_USER) == []
    assert "arguments" in driver.payloads(EffectType.LLM_CALL)[1]["messages"][-1]["content"]


def test_an_agent_has_only_those_tools_of_its_own_that_it_was_given(driver: Any, draw: Any) -> None:
    driver.llm = [_call("ask_user", question="Who?"), "done"]

    driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["add"]})))

    assert driver.payloads(EffectType.ASK_USER) == []
    assert driver.payloads(EffectType.LLM_CALL)[1]["messages"][-1]["content"] == "Error: unknown tool"


def test_what_an_agent_notes_is_the_sessions(driver: Any, draw: Any) -> None:
    driver.llm = [_call("remember_note", note="n"), _call("recall_memory", query="n", scope="run"), "done"]

    driver.run(driver.add(_flow(draw, {"prompt": "t", "tools": ["remember_note", "recall_memory"]})))

    assert driver.payloads(EffectType.MEMORY_NOTE) == [{"scope": "session", "note": "n"}]
    assert driver.payloads(EffectType.MEMORY_QUERY) == [{"scope": "run", "query": "n"}]


def test_thinking_cache_and_limits_reach_every_call(driver: Any, draw: Any) -> None:
    driver.llm = ["plain", {"data": {"k": 1}}]
    defaults = {
        "prompt": "t",
        "thinking": "high",
        "prompt_cache_binding": {"key": "shared"},
        "max_out_tokens": 7,
        "max_in_tokens": 9,
        "resp_schema": SCHEMA,
    }

    driver.run(driver.add(_flow(draw, defaults)))

    for call in driver.payloads(EffectType.LLM_CALL):
        assert (call["params"]["thinking"], call["params"]["prompt_cache_key"]) == ("high", "shared")
        assert (call["max_output_tokens"], call["max_input_tokens"]) == (7, 9)


def test_what_the_host_puts_into_the_inbox_is_said_to_the_model_once(driver: Any, draw: Any) -> None:
    driver.llm = [_call("say"), "done"]
    driver.add(_flow(draw, {"prompt": "t"}))
    own = {"inbox": ["hurry", {"content": "but be careful"}], "allowed_tools": ["say"]}

    result = driver.run("visual_react_agent_f_a", {"context": {"task": "t"}, "_runtime": own})

    said = [message["content"] for message in result.output["messages"]]
    assert said == ["t", "hurry", "but be careful", "let me see", "Error: unknown tool", "done"]
    assert result.vars["_runtime"]["inbox"] == []


def test_the_limit_of_a_working_agent_can_be_raised(driver: Any, draw: Any) -> None:
    driver.llm = [*(_call("say") for _ in range(3)), "done"]
    driver.add(_flow(draw, {"prompt": "t"}))
    started = {"_limits": {"max_iterations": 5}, "scratchpad": {"iteration": 0, "max_iterations": 2}}

    result = driver.run("visual_react_agent_f_a", {**started, "_runtime": {"allowed_tools": ["say"]}})

    assert (result.output["answer"], result.output["iterations"]) == ("done", 4)
    assert result.vars["_limits"]["current_iteration"] == 4


def test_an_agent_goes_on_with_a_conversation_whose_tool_calls_were_left_out(driver: Any, draw: Any) -> None:
    driver.llm = [_call("say"), "first", "second"]
    driver.tools = {"say": lambda: "hello"}
    document = draw.flow(
        [
            draw.node("s", "on_flow_start", "", ">"),
            *(
                draw.node(
                    name,
                    "agent",
                    "> prompt",
                    "> response",
                    defaults={**MODEL, "prompt": name, "use_context": True, "tools": ["say"]},
                )
                for name in ("a", "b")
            ),
        ],
        ["s > a", "a > b"],
    )

    driver.run(driver.add(document))

    messages = driver.payloads(EffectType.LLM_CALL)[-1]["messages"]
    assert [message["role"] for message in messages] == ["user", "user", "assistant", "user"]
    assert messages[1]["content"] == "The tool say said: hello"


def test_the_conversation_is_as_long_as_its_limit_says(driver: Any, draw: Any) -> None:
    driver.llm = ["done"]
    said = [{"role": role, "content": f"{at}"} for at, role in enumerate(["system", "user", "assistant", "user"])]

    driver.run(
        driver.add(_flow(draw, {"prompt": "t", "use_context": True})),
        {"context": {"messages": said}, "_limits": {"max_history_messages": 2}},
    )

    sent = driver.payloads(EffectType.LLM_CALL)[0]["messages"]
    assert [message["content"] for message in sent] == ["0", "2", "3", "t"]


def test_a_pin_that_does_nothing_is_told_when_the_flow_is_compiled(draw: Any) -> None:
    compiled = compile_flow(_flow(draw, {"prompt": "t", "task": "old", "kg_limit": 3}))

    assert compiled.warnings == ("node 'a' (agent) has input pins that do nothing: task",)
