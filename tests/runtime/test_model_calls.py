"""Model calls as an effect: what the model is asked, and what becomes of what it says."""

from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime.effects.model import call_model, no_model
from abstractgateway.runtime.effects.model_answer import data_in
from abstractgateway.runtime.effects.tools import FunctionTools
from abstractgateway.runtime.models import Effect, EffectOutcome, EffectType, RunState, StepStatus
from abstractgateway.testing import ScriptedModel

TOOLS = FunctionTools({"add": lambda a, b: a + b})


def performed(model: Any, payload: dict[str, Any]) -> EffectOutcome:
    run = RunState.new(workflow_id="w", entry_node="n", vars={})
    return call_model(model, TOOLS)(run, Effect(EffectType.LLM_CALL, payload), None)


def said(answer: Any, **payload: Any) -> dict[str, Any]:
    outcome = performed(ScriptedModel([answer]), {"prompt": "hi", **payload})
    assert outcome.result is not None, outcome.error
    return outcome.result


@pytest.mark.parametrize("payload", [{}, {"prompt": ""}, {"messages": []}, {"system_prompt": "be kind"}], ids=str)
def test_a_call_that_asks_nothing_fails_and_reaches_no_model(payload: dict[str, Any]) -> None:
    model = ScriptedModel([])

    outcome = performed(model, payload)

    assert (outcome.status, model.calls) == (StepStatus.FAILED, [])
    assert outcome.error == "llm_call requires payload.prompt or payload.messages"


def test_a_text_is_a_prompt_and_names_of_tools_become_what_is_known_of_them() -> None:
    model = ScriptedModel(["ok"])
    own = {"name": "own", "parameters": {}}

    performed(model, {"text": "hi", "tools": ["add", "unheard of", own], "media": [{"url": "https://example.org/a"}]})

    (call,) = model.calls
    assert call["prompt"] == "hi"
    assert [tool["name"] for tool in call["tools"]] == ["add", "own"]
    assert call["media"] == [{"url": "https://example.org/a"}]


def test_a_host_without_a_model_says_so() -> None:
    run = RunState.new(workflow_id="w", entry_node="n", vars={})

    outcome = no_model(run, Effect(EffectType.LLM_CALL, {"prompt": "hi"}), None)

    assert outcome.status is StepStatus.FAILED
    assert "no language model is configured" in str(outcome.error)


def test_a_model_that_tells_no_signature_can_answer() -> None:
    class Echo:
        generate = dict  # of which Python knows no signature

    result = performed(Echo(), {"prompt": "hi", "content": "said before"}).result

    assert result is not None and result["content"] == "said before"


@pytest.mark.parametrize("answer", [None, 7, ["text"]])
def test_an_answer_that_is_no_object_is_a_failure(answer: Any) -> None:
    outcome = performed(ScriptedModel(lambda call: answer), {"prompt": "hi"})

    assert outcome.status is StepStatus.FAILED
    assert f"the model answered {type(answer).__name__}" in str(outcome.error)


def test_the_calls_of_an_answer_have_ids_and_objects_as_arguments_where_they_can() -> None:
    calls = [
        {"name": "a", "arguments": '{"x": 1}', "call_id": "c"},
        {"name": "b", "arguments": "", "id": 7},
        {"name": "c", "arguments": {"y": 2}},
        {"name": "d", "arguments": "[1]"},
        "no call",
    ]

    found = said({"content": None, "tool_calls": calls})["tool_calls"]

    assert [(call["call_id"], call["arguments"]) for call in found] == [
        ("c", {"x": 1}),
        ("7", {}),
        ("call_3", {"y": 2}),
        ("call_4", "[1]"),
    ]


def test_what_a_schema_asked_for_is_read_from_the_text_unless_the_model_gives_it() -> None:
    schema = {"type": "object"}

    assert said('{"x": 1}', response_schema=schema)["data"] == {"x": 1}
    assert said({"content": '{"x": 1}', "data": {"x": 2}}, response_schema=schema)["data"] == {"x": 2}
    assert said('{"x": 1}')["data"] is None


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('```json\n{"x": 1}\n```', {"x": 1}),
        ("```\n[1]\n``` ", [1]),
        (" 7 ", 7),
        ("no JSON", None),
        (None, None),
        ({"x": 1}, None),
    ],
    ids=repr,
)
def test_data_is_found_inside_a_code_fence_or_not(text: Any, data: Any) -> None:
    assert data_in(text) == data
