from __future__ import annotations

from typing import Any

import pytest

from abstractgateway.runtime.models import EffectType


def _single(
    draw: Any, kind: str, inputs: str, outputs: str, *, defaults: dict[str, Any] | None = None, **data: Any
) -> dict[str, Any]:
    names = [word.partition("|")[0] for word in outputs.split()]
    return draw.flow(
        [
            draw.node("s", "on_flow_start", "", "> unused"),
            draw.node("x", kind, f"> {inputs}", f"> {outputs}", defaults=defaults, **data),
            draw.node("e", "on_flow_end", "> " + " ".join(names)),
        ],
        ["s > x", "x > e", *(f"x/{name} -> e/{name}" for name in names)],
    )


@pytest.mark.parametrize(
    ("defaults", "config", "expected"),
    [
        ({}, {}, {"prompt": "Please respond:", "choices": None, "allow_free_text": True}),
        (
            {"prompt": 5, "choices": ["a"]},
            {"allowFreeText": False},
            {"prompt": "5", "choices": ["a"], "allow_free_text": False},
        ),
        ({"prompt": "q", "choices": "a"}, {}, {"prompt": "q", "choices": None, "allow_free_text": True}),
    ],
)
def test_ask_user_asks_and_gives_the_answer(
    driver: Any, draw: Any, defaults: dict[str, Any], config: dict[str, Any], expected: dict[str, Any]
) -> None:
    driver.answers = ["blue"]

    result = driver.run(
        driver.add(_single(draw, "ask_user", "prompt choices", "response", defaults=defaults, effectConfig=config))
    )

    assert driver.payloads(EffectType.ASK_USER) == [{**expected, "resume_to_node": "e"}]
    assert result.output == {"response": "blue", "success": True}


@pytest.mark.parametrize("prompt", ["", None])
def test_an_empty_question_fails_the_run(driver: Any, draw: Any, prompt: Any) -> None:
    result = driver.run(driver.add(_single(draw, "ask_user", "prompt", "response", defaults={"prompt": prompt})))

    assert (result.status, driver.effects) == ("failed", [])


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        ({"message": "", "level": "info"}, {"message": "", "level": "message"}),
        ({"message": 1.0, "level": "WARN"}, {"message": "1.0", "level": "warning"}),
        ({"message": "m", "level": "error"}, {"message": "m", "level": "error"}),
        ({"message": "m", "level": None}, {"message": "m", "level": "message"}),
    ],
)
def test_answer_user_shows_a_text_at_a_level(
    driver: Any, draw: Any, defaults: dict[str, Any], expected: dict[str, Any]
) -> None:
    driver.run(driver.add(_single(draw, "answer_user", "message level", "message", defaults=defaults)))

    assert driver.payloads(EffectType.ANSWER_USER) == [{**expected, "resume_to_node": "e"}]


def test_a_null_message_fails_the_run(driver: Any, draw: Any) -> None:
    result = driver.run(driver.add(_single(draw, "answer_user", "message", "message", defaults={"message": None})))

    assert result.error == "node 'x': Invalid: message: is null; there is nothing to show to the user"


def test_an_answer_to_which_nothing_leads_is_an_empty_message(driver: Any, draw: Any) -> None:
    driver.run(driver.add(_single(draw, "answer_user", "message", "message")))

    assert driver.effects[0][2]["message"] == ""


@pytest.mark.parametrize(
    ("duration", "unit", "until"),
    [
        (90, None, "2026-03-01T12:01:30+00:00"),
        ("2", "minutes", "2026-03-01T12:02:00+00:00"),
        (1.5, "hours", "2026-03-01T13:30:00+00:00"),
        ("junk", None, "2026-03-01T12:00:00+00:00"),
        (None, None, "2026-03-01T12:00:00+00:00"),
        (-5, None, "2026-03-01T12:00:00+00:00"),
        ("2026-03-01T09:00:00-05:00", "timestamp", "2026-03-01T14:00:00+00:00"),
        ("2026-03-02T00:00:00Z", "timestamp", "2026-03-02T00:00:00+00:00"),
        (1e300, None, "2126-02-05T12:00:00+00:00"),
    ],
)
def test_wait_until_names_an_instant(driver: Any, draw: Any, duration: Any, unit: Any, until: str) -> None:
    config = {"durationType": unit} if unit else None

    driver.run(
        driver.add(_single(draw, "wait_until", "duration", "", defaults={"duration": duration}, effectConfig=config))
    )

    assert driver.payloads(EffectType.WAIT_UNTIL) == [{"until": until, "resume_to_node": "e"}]


@pytest.mark.parametrize("duration", ["tomorrow", "", None])
def test_a_time_that_is_none_fails_the_run(driver: Any, draw: Any, duration: Any) -> None:
    document = _single(
        draw, "wait_until", "duration", "", defaults={"duration": duration}, effectConfig={"durationType": "timestamp"}
    )

    result = driver.run(driver.add(document))

    assert result.status == "failed"
    assert "duration: " in result.error


def test_a_question_by_event_waits_for_its_key_and_shows_the_answer(driver: Any, draw: Any) -> None:
    defaults = {"event_key": "abstract.ask", "prompt": " q ", "choices": ["Red", " ", 3], "allow_free_text": ""}
    driver.events = [{"response": "Blue"}]

    result = driver.run(
        driver.add(
            _single(draw, "wait_event", "event_key prompt choices allow_free_text", "event_data", defaults=defaults)
        )
    )

    assert driver.payloads(EffectType.WAIT_EVENT) == [
        {"wait_key": "abstract.ask", "prompt": "q", "choices": ["Red"], "allow_free_text": False, "resume_to_node": "e"}
    ]
    assert result.output["event_data"] == {"response": "Blue"}


def test_a_wait_without_a_key_has_the_default_one_and_null_is_none(driver: Any, draw: Any) -> None:
    waiting = driver.run(driver.add(_single(draw, "wait_event", "event_key", "event_data")))
    failed = driver.run(
        driver.add(_single(draw, "wait_event", "event_key", "event_data", defaults={"event_key": None}))
    )

    assert waiting.waiting.payload["wait_key"] == "default"
    assert failed.status == "failed"


@pytest.mark.parametrize(
    ("defaults", "config", "expected"),
    [
        (
            {"name": "n", "payload": {"a": 1}},
            {"name": "c", "scope": "run"},
            {"name": "n", "scope": "run", "payload": {"a": 1}},
        ),
        ({"event_name": "n", "payload": None}, {}, {"name": "n", "scope": "session", "payload": {}}),
        (
            {"payload": 5, "scope": "GLOBAL"},
            {"event_name": "c"},
            {"name": "c", "scope": "global", "payload": {"value": 5}},
        ),
        (
            {"name": "n", "scope": "junk", "session_id": "s"},
            {},
            {"name": "n", "scope": "session", "payload": {}, "session_id": "s"},
        ),
    ],
)
def test_emit_event_takes_pins_before_its_settings(
    driver: Any, draw: Any, defaults: dict[str, Any], config: dict[str, Any], expected: dict[str, Any]
) -> None:
    driver.run(
        driver.add(
            _single(draw, "emit_event", "name scope payload", "delivered", defaults=defaults, effectConfig=config)
        )
    )

    assert driver.payloads(EffectType.EMIT_EVENT) == [{**expected, "event_id": "run-1:x:1", "resume_to_node": "e"}]


def test_an_event_without_a_name_fails_the_run(driver: Any, draw: Any) -> None:
    result = driver.run(driver.add(_single(draw, "emit_event", "name", "delivered", defaults={"name": " "})))

    assert "name: is missing" in result.error


@pytest.mark.parametrize(
    ("calls", "config", "payload", "output"),
    [
        (
            [{"name": "add", "arguments": {"a": 1, "b": 2}, "call_id": "c"}, "junk"],
            {"allowed_tools": ["add"]},
            {"tool_calls": [{"name": "add", "arguments": {"a": 1, "b": 2}, "call_id": "c"}], "allowed_tools": ["add"]},
            {
                "results": [{"call_id": "c", "name": "add", "success": True, "output": 3, "error": None}],
                "success": True,
            },
        ),
        ('{"name": "no", "arguments": {}}', {}, {"tool_calls": [{"name": "no", "arguments": {}}]}, None),
        ("junk", {"allowedTools": []}, {"tool_calls": [], "allowed_tools": []}, {"results": [], "success": True}),
    ],
)
def test_tool_calls_runs_what_it_is_given(
    driver: Any, draw: Any, calls: Any, config: dict[str, Any], payload: dict[str, Any], output: dict[str, Any] | None
) -> None:
    driver.tools = {"add": lambda a, b: a + b}

    result = driver.run(
        driver.add(
            _single(
                draw, "tool_calls", "tool_calls", "results success", defaults={"tool_calls": calls}, effectConfig=config
            )
        )
    )

    assert driver.payloads(EffectType.TOOL_CALLS) == [{**payload, "resume_to_node": "e"}]
    assert result.output == output if output else result.output["success"] is False


@pytest.mark.parametrize(
    ("call", "result", "success"),
    [
        ({"name": "add", "arguments": {"a": 1, "b": 2}}, 3, True),
        ({"name": "gone", "arguments": {}}, "unknown tool", False),
        (None, None, False),
    ],
)
def test_call_tool_gives_the_result_or_the_error(driver: Any, draw: Any, call: Any, result: Any, success: bool) -> None:
    driver.tools = {"add": lambda a, b: a + b}

    ended = driver.run(
        driver.add(_single(draw, "call_tool", "tool_call", "result success", defaults={"tool_call": call}))
    )

    assert ended.output == {"result": result, "success": success}


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": "object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}, {"type": "array"}),
        ({}, None),
        ('{"type": "array"}', {"type": "array"}),
    ],
)
def test_llm_call_sends_the_schema_itself(driver: Any, draw: Any, schema: Any, sent: Any) -> None:
    driver.llm = ["{}"]

    driver.run(
        driver.add(
            _single(draw, "llm_call", "prompt resp_schema", "response", defaults={"prompt": "q", "resp_schema": schema})
        )
    )

    assert driver.payloads(EffectType.LLM_CALL)[0].get("response_schema") == sent


def test_a_schema_that_only_the_original_knows_fails_the_run(driver: Any, draw: Any) -> None:
    schema = {"$ref": "abstractsemantics:kg"}

    result = driver.run(
        driver.add(_single(draw, "llm_call", "resp_schema", "response", defaults={"resp_schema": schema}))
    )

    assert "is a schema that is not known here" in result.error


def test_llm_call_goes_on_with_the_runs_conversation(driver: Any, draw: Any) -> None:
    driver.llm = [{"content": None, "tool_calls": [{"name": "t"}]}]
    config = {"include_context": True, "temperature": None, "seed": 4, "tools": ["a", {"name": "spec"}]}
    document = _single(
        draw,
        "llm_call",
        "prompt system",
        "response tool_calls meta",
        defaults={"prompt": "q", "system": "be kind"},
        effectConfig=config,
    )
    history = [{"role": "system", "content": "first"}, {"role": "user", "content": "old"}]

    result = driver.run(driver.add(document), {"context": {"messages": history}})

    payload = driver.payloads(EffectType.LLM_CALL)[0]
    assert [message["content"] for message in payload["messages"]] == ["first", "be kind", "old", "q"]
    assert (payload["tools"], payload["params"], payload["include_context"]) == (
        ["a", {"name": "spec"}],
        {"temperature": 0.7, "seed": 4},
        True,
    )
    assert result.output["response"] == ""
    assert result.output["tool_calls"] == [{"name": "t"}]
    assert result.output["meta"]["tool_calls"] == 1


@pytest.mark.parametrize(
    ("pin", "value"), [("resp_schema", "text"), ("resp_schema", [1]), ("prompt_cache_binding", {"no": "key"})]
)
def test_what_a_model_call_cannot_use_fails_the_run_by_name(driver: Any, draw: Any, pin: str, value: Any) -> None:
    document = _single(draw, "llm_call", f"prompt {pin}", "response", defaults={"prompt": "q", pin: value})

    result = driver.run(driver.add(document))

    assert result.status == "failed"
    assert pin in str(result.error)


@pytest.mark.parametrize(
    ("value", "warning"),
    [
        ("{broken", "tool_calls is no JSON and was taken for no calls"),
        ([1, {"name": "a", "call_id": "x"}], "tool_calls has items that are no calls; they were left out"),
        ([{"name": "a"}], "tool_calls has calls without a call_id; they got one"),
    ],
)
def test_calls_that_are_not_quite_calls_are_warned_about(driver: Any, draw: Any, value: Any, warning: str) -> None:
    document = _single(draw, "tool_calls", "tool_calls", "success", defaults={"tool_calls": value})

    result = driver.run(driver.add(document))

    assert result.status == "completed"
    assert result.vars["_flow_warnings"][0].startswith(warning)


def test_a_model_call_goes_on_with_a_conversation_whose_tool_calls_were_left_out(driver: Any, draw: Any) -> None:
    driver.llm = ["x"]
    said = [{"role": "tool", "content": "hello", "name": "say"}, {"role": "assistant", "content": "fine"}]
    defaults = {"prompt": "q", "context": {"messages": said}}

    driver.run(driver.add(_single(draw, "llm_call", "prompt context", "response", defaults=defaults)))

    assert driver.payloads(EffectType.LLM_CALL)[0]["messages"] == [
        {"role": "user", "content": "The tool say said: hello"},
        said[1],
        {"role": "user", "content": "q"},
    ]


@pytest.mark.parametrize("pin", ["use_semantic_search", "use_session_attachments"])
def test_memory_sources_that_are_not_there_are_warned_about(driver: Any, draw: Any, pin: str) -> None:
    driver.llm = ["x"]
    document = _single(draw, "llm_call", "prompt memory", "response", defaults={"prompt": "q", "memory": {pin: True}})

    result = driver.run(driver.add(document))

    assert [text.partition(":")[0] for text in result.vars["_flow_warnings"]] == [pin]


def _parent(draw: Any, outputs: str, **data: Any) -> dict[str, Any]:
    return _single(draw, "subflow", data.pop("pins", "a input"), outputs, subflowId="child", **data)


def _child(draw: Any, pins: str) -> dict[str, Any]:
    names = pins.split()
    return draw.flow(
        [draw.node("s", "on_flow_start", "", f"> {pins}"), draw.node("e", "on_flow_end", f"> {pins}")],
        ["s > e", *(f"s/{name} -> e/{name}" for name in names)],
        "child",
    )


@pytest.mark.parametrize(
    ("pins", "outputs", "expected"),
    [
        ("a b", "a b gone", {"a": 1, "b": 2, "gone": None}),
        ("a b", "output", {"output": {"a": 1, "b": 2, "success": True}}),
        ("a result", "result a", {"a": None, "result": {"r": 1}}),
        (
            "a result",
            "output child_output",
            {"output": {"r": 1}, "child_output": {"a": 1, "result": {"r": 1}, "success": True}},
        ),
    ],
)
def test_a_subflow_gives_its_childs_outputs(
    driver: Any, draw: Any, pins: str, outputs: str, expected: dict[str, Any]
) -> None:
    driver.add(_child(draw, pins))
    defaults = {"a": 1, "input": {"b": 2, "a": 0, "result": {"r": 1}}}

    result = driver.run(driver.add(_parent(draw, outputs, defaults=defaults)))

    assert result.output == {**expected, "success": True}
    assert driver.payloads(EffectType.START_SUBWORKFLOW) == [
        {
            "workflow_id": "child",
            "vars": {"b": 2, "a": 1, "result": {"r": 1}},
            "async": True,
            "wait": True,
            "resume_to_node": "e",
        }
    ]


def test_a_failed_subflow_shows_its_error_on_its_pins(driver: Any, draw: Any) -> None:
    driver.add(
        draw.flow(
            [
                draw.node("s", "on_flow_start", "", ">"),
                draw.node("x", "answer_user", "> message", ">", defaults={"message": None}),
            ],
            ["s > x"],
            "child",
        )
    )

    result = driver.run(driver.add(_parent(draw, "success error")))

    assert result.output["success"] is False
    assert "message: is null" in result.output["error"]


def test_a_subflow_may_inherit_the_conversation(driver: Any, draw: Any) -> None:
    driver.add(_child(draw, "context"))
    mine = [{"role": "user", "content": "mine", "metadata": {"message_id": "1"}}, {"role": "system", "content": "sys"}]
    own = {
        "messages": [
            {"role": "user", "content": "own"},
            {"role": "user", "content": "mine", "metadata": {"message_id": "1"}},
        ]
    }
    defaults = {"context": own, "inherit_context": True, "child_session_id": "s"}

    document = _parent(draw, "context", pins="context inherit_context child_session_id", defaults=defaults)
    result = driver.run(driver.add(document), {"context": {"messages": mine, "attachments": ["f"]}})

    context = result.output["context"]
    assert [message["content"] for message in context["messages"]] == ["sys", "mine", "own"]
    assert context["attachments"] == ["f"]
    sent = driver.payloads(EffectType.START_SUBWORKFLOW)[0]
    assert sent["session_id"] == "s"
    assert set(sent["vars"]) == {"context"}
