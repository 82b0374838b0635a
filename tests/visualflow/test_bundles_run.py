"""The acceptance cases of the shared bundles, with scripted stand-ins for models and people."""

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime.models import EffectType


def _load(driver: Any, flows: dict[str, dict[str, Any]]) -> None:
    for document in flows.values():
        driver.add(document)


def _numbered(prefix: str) -> Any:
    count = iter(range(1, 1000))
    return lambda call: f"{prefix}#{next(count)}"


@pytest.fixture(params=[False, True], ids=["in one process", "restarted before every step"])
def fresh(request: pytest.FixtureRequest, make_driver: Any) -> Any:
    def make(flows: dict[str, dict[str, Any]], **settings: Any) -> Any:
        made = make_driver(is_restarted_each_step=request.param, **settings)
        _load(made, flows)
        return made

    return make


def test_basic_agent_answers_and_reports_its_status(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("basic-agent.flow"), llm=_numbered("AGENT"))

    result = driver.run("81795ea9", {"prompt": "do it"})

    assert result.status == "completed"
    output = result.output
    assert (output["response"], output["success"]) == ("AGENT#1", True)
    sub_run = output["meta"]["sub_run_id"]
    assert output["meta"] == {
        "schema": "abstractcode.agent.v1.meta",
        "version": 1,
        "provider": "lmstudio",
        "model": "qwen/qwen3-next-80b",
        "output_mode": "unstructured",
        "iterations": 1,
        "tool_calls": 0,
        "tool_results": 0,
        "sub_run_id": sub_run,
    }
    pad = output["scratchpad"]
    assert [message["role"] for message in pad.pop("messages")] == ["user", "assistant"]
    assert pad == {
        "sub_run_id": sub_run,
        "workflow_id": "visual_react_agent_81795ea9_node-2",
        "task": "do it",
        "node_traces": {},
        "steps": [],
        "tool_calls": [],
        "tool_results": [],
    }
    emitted = driver.payloads(EffectType.EMIT_EVENT)
    assert [(event["name"], event["scope"], event["payload"]) for event in emitted] == [
        ("abstract.status", "run", {"value": "Thinking..."}),
        ("abstract.status", "run", {"value": "Done"}),
    ]
    assert len(driver.children) == 3
    agent = driver.payloads(EffectType.START_SUBWORKFLOW)[1]["vars"]
    assert agent["_limits"]["max_iterations"] == 20
    assert not {"temperature", "seed"} & set(agent["_runtime"])
    assert len(agent["_runtime"]["allowed_tools"]) == 9


def test_basic_agent_gives_a_structured_answer_and_continues_the_conversation(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("basic-agent.flow"), llm=["plain", {"data": {"a": 1}}])
    schema = {"type": "object", "properties": {"a": {"type": "number"}}}
    given = {
        "prompt": "q",
        "use_context": True,
        "context": {"messages": [{"role": "user", "content": "old"}]},
        "resp_schema": schema,
    }

    result = driver.run("81795ea9", given)

    assert result.output["response"] == '{"a":1}'
    assert result.output["meta"]["output_mode"] == "structured"
    child = driver.payloads(EffectType.START_SUBWORKFLOW)[1]["vars"]
    assert child["context"]["messages"] == [{"role": "user", "content": "old"}]
    assert child["scratchpad"]["max_iterations"] == 20
    assert driver.payloads(EffectType.LLM_CALL)[1]["response_schema"] == schema


def test_basic_asks_its_agent_and_keeps_the_turn(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("basic@dev.flow"), llm=_numbered("AGENT"))

    result = driver.run("06af7170", {"prompt": "say hi"})

    assert result.output == {"response": "AGENT#1", "success": True}
    child = driver.payloads(EffectType.START_SUBWORKFLOW)[0]["vars"]
    assert (child["context"]["task"], child["context"]["messages"]) == ("say hi", [])
    assert child["_runtime"]["system_prompt_extra"].startswith("You are an expert coder")
    assert len(result.vars["context"]["messages"]) == 2


def test_basic_runs_without_a_prompt(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("basic@dev.flow"), llm=_numbered("AGENT"))

    result = driver.run("06af7170", {})

    assert result.output == {"response": "AGENT#1", "success": True}
    assert driver.payloads(EffectType.START_SUBWORKFLOW)[0]["vars"]["context"]["task"] == ""


def test_basic_without_a_model_says_so_and_starts_no_agent(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("basic@dev.flow"))

    result = driver.run("06af7170", {"prompt": "x", "provider": "default"})

    assert result.output == {"response": "Agent configuration error: missing provider/model", "success": True}
    assert driver.children == []


def test_basic_takes_the_hosts_model_for_the_default_one(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("basic@dev.flow"), llm=_numbered("AGENT"))

    result = driver.run("06af7170", {"provider": "default", "_runtime": {"provider": "OLLAMA", "model": "m"}})

    assert result.output["response"] == "AGENT#1"
    assert driver.payloads(EffectType.LLM_CALL)[0]["provider"] == "ollama"


def test_basic_llm_test_calls_the_model_once(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("basic-llm-test@0.0.0.flow"), llm=_numbered("LLM"))

    result = driver.run("ec5a574d", {"prompt": "q", "provider": "p", "model": "m"})

    assert result.output == {
        "response": "LLM#1",
        "success": True,
        "meta": {
            "schema": "abstractflow.llm_call.v1.meta",
            "version": 1,
            "output_mode": "unstructured",
            "tool_calls": 0,
            "provider": "p",
            "model": "m",
            "finish_reason": "stop",
            "usage": {"total_tokens": 3},
        },
        "scratchpad": None,
    }
    assert driver.payloads(EffectType.LLM_CALL) == [
        {
            "prompt": "q",
            "system_prompt": None,
            "include_context": False,
            "provider": "p",
            "model": "m",
            "tools": [],
            "params": {"temperature": 0.7},
            "resume_to_node": "end",
        }
    ]


def test_basic_llm_test_leaves_provider_and_model_to_the_host(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("basic-llm-test@0.0.0.flow"), llm=_numbered("LLM"))

    result = driver.run("ec5a574d", {"prompt": "q"})

    assert not {"provider", "model"} & set(driver.payloads(EffectType.LLM_CALL)[0])
    assert not {"provider", "model"} & set(result.output["meta"])


def test_basic_llm_test_passes_all_settings_on(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("basic-llm-test@0.0.0.flow"), llm=[{"data": {"k": 1}}])
    old = {"role": "user", "content": "old"}
    given = {
        "prompt": "q",
        "use_context": True,
        "context": {"messages": [old]},
        "temperature": 0,
        "seed": 3,
        "max_in_tokens": 100,
        "resp_schema": {"type": "object"},
        "memory": {"use_session_attachments": True, "use_kg_memory": False},
    }

    result = driver.run("ec5a574d", given)

    payload = driver.payloads(EffectType.LLM_CALL)[0]
    assert payload["messages"] == [old, {"role": "user", "content": "q"}]
    assert payload["params"] == {"temperature": 0.0, "seed": 3, "include_session_attachments_index": True}
    assert payload["max_input_tokens"] == 100
    assert payload["response_schema_name"] == "LLM_StructuredOutput"
    assert result.output["response"] == '{"k":1}'
    assert result.output["meta"]["output_mode"] == "structured"


@pytest.mark.parametrize(
    ("answers", "response", "agents"),
    [
        (["Make it better", "stop"], "AGENT#2", 2),
        (["ok thanks"], "AGENT#1", 1),
        (["Good job"], "AGENT#1", 1),
        (["OK, thanks", "ok"], "AGENT#2", 2),
        (["Stop.", "END"], "AGENT#2", 2),
        ([""], "AGENT#1", 1),
        (["   "], "AGENT#1", 1),
    ],
)
def test_basic_followup_goes_on_until_the_user_is_content(
    fresh: Any, bundle: Any, answers: list[str], response: str, agents: int
) -> None:
    driver = fresh(bundle("basic-followup@dev.flow"), llm=_numbered("AGENT"), answers=list(answers))

    result = driver.run("a8f5b5f8", {"prompt": "first"})

    assert result.output == {"response": response, "success": True}
    assert len(driver.children) == agents
    assert driver.answers == []
    assert len(result.vars["context"]["messages"]) == 2 * agents


def test_basic_followup_shows_the_history_to_the_second_agent(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("basic-followup@dev.flow"), llm=_numbered("AGENT"), answers=["Make it better", "stop"])

    driver.run("a8f5b5f8", {"prompt": "first"})

    contexts = [payload["vars"]["context"] for payload in driver.payloads(EffectType.START_SUBWORKFLOW)]
    assert [context["task"] for context in contexts] == ["first", "Make it better"]
    assert [len(context["messages"]) for context in contexts] == [0, 2]
    assert driver.payloads(EffectType.ASK_USER)[0]["prompt"].startswith("What should I do next?")


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"prompt": "hello"}, {"prompt": "hello"}), ({}, {"prompt": None})],
)
def test_yoda_never_enters_its_loop_for_texts(
    fresh: Any, bundle: Any, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    driver = fresh(bundle("yoda@dev.flow"))

    result = driver.run("646770d8", given)

    assert result.output == {"success": True, "result": expected}
    assert driver.effects == []


def test_yoda_asks_what_the_bus_carries(fresh: Any, bundle: Any) -> None:
    driver = fresh(bundle("yoda@dev.flow"), llm=_numbered("LLM"), answers=["done"])

    result = driver.run("646770d8", {"prompt": 5})

    assert result.output == {"success": True, "result": {"prompt": 5, "item": {"prompt": 5}, "index": 0}}
    assert driver.payloads(EffectType.ASK_USER)[0]["prompt"] == "5"
    assert driver.payloads(EffectType.ANSWER_USER) == [
        {"message": "LLM#1", "level": "message", "resume_to_node": "node-4"}
    ]


def test_two_runs_of_one_flow_do_not_see_each_other(bundle: Any, make_driver: Any) -> None:
    flows = bundle("basic-followup@dev.flow")
    alone = make_driver(llm=lambda call: "re: " + call["messages"][-1]["content"], answers=["b", "stop"])
    _load(alone, flows)
    expected = alone.run("a8f5b5f8", {"prompt": "a"}).output
    first = make_driver(workflows=alone.workflows, llm=alone.llm, answers=["b", "stop"])
    second = make_driver(workflows=alone.workflows, llm=alone.llm, answers=["y", "z", "stop"])

    left, right = first.steps("a8f5b5f8", {"prompt": "a"}), second.steps("a8f5b5f8", {"prompt": "x"}, run_id="run-2")
    ends: list[Any] = [None, None]
    for _ in range(200):
        ends = [next(left, ends[0]), next(right, ends[1])]

    assert ends[0].output == expected == {"response": "re: b", "success": True}
    assert ends[1].output == {"response": "re: z", "success": True}
