from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from abstractgateway.runtime.effects.model import call_model
from abstractgateway.runtime.effects.model_input import MAX_MEDIA_BYTES
from abstractgateway.runtime.effects.tools import FunctionTools
from abstractgateway.runtime.models import Effect, EffectOutcome, EffectType, RunState
from abstractgateway.testing import ScriptedModel
from tests.runner.bench import Bench
from tests.runtime.workflows import effect, end, spec

ARTIFACTS = {"a1": ("image/png", b"png"), "big": ("image/png", b"0" * (MAX_MEDIA_BYTES + 1))}


def perform(model: Any, payload: dict[str, Any], *, vars: dict[str, Any] | None = None, **more: Any) -> EffectOutcome:
    run = RunState.new(workflow_id="w", entry_node="n", vars=vars or {})
    handler = call_model(model, None, ARTIFACTS.get)
    return handler(run, Effect(EffectType.LLM_CALL, payload), None, **more)


def cut_off(times: int, **usage: int) -> ScriptedModel:
    """A model whose first answers are cut off."""
    answers = [{"content": "hal", "finish_reason": "length", "usage": usage}] * times
    return ScriptedModel([*answers, {"content": "half and half"}])


@pytest.mark.parametrize(
    ("payload", "limits"),
    [
        ({"max_output_tokens": 100}, [100, 600]),
        ({"max_out_tokens": 1000}, [1000, 2000]),
        ({"params": {"max_tokens": 40}}, [40, 540]),
        ({"max_output_tokens": 100, "max_output_tokens_cap": 150}, [100, 150]),
        ({}, [None, 507]),
    ],
)
def test_an_answer_that_was_cut_off_is_asked_for_again_with_a_higher_limit(
    payload: dict[str, Any], limits: list[int | None]
) -> None:
    model = cut_off(1, output_tokens=7)

    outcome = perform(model, {"prompt": "p", **payload})

    assert outcome.result is not None
    assert [call.get("max_output_tokens") for call in model.calls] == limits
    assert outcome.result["content"] == "half and half"
    assert outcome.result["metadata"]["_truncation"]["resolved"] is True
    assert [item["finish_reason"] for item in outcome.result["metadata"]["_truncation"]["attempts"]] == ["length", None]


@pytest.mark.parametrize(
    ("payload", "calls"),
    [
        ({"max_output_tokens": 10}, 3),
        ({"max_output_tokens": 10, "max_truncation_attempts": 2}, 2),
        ({"max_output_tokens": 10, "retry_on_truncation": False}, 1),
        ({"max_output_tokens": 10, "no_truncation": "false"}, 1),
        ({"max_output_tokens": 10, "max_output_tokens_cap": 10}, 1),
        ({}, 1),
    ],
)
def test_an_answer_that_stays_cut_off_is_a_failure(payload: dict[str, Any], calls: int) -> None:
    model = cut_off(9)

    outcome = perform(model, {"prompt": "p", **payload})

    assert len(model.calls) == calls
    assert outcome.result is None
    assert "was cut off" in str(outcome.error)
    assert "allow_truncation" in str(outcome.error)


def test_the_usage_of_a_call_is_that_of_all_answers_it_took() -> None:
    schema = {"type": "object", "required": ["n"]}
    wrong = {"content": "none", "usage": {"input_tokens": 5, "output_tokens": 1, "details": {"cached": 1}}}
    right = {"content": '{"n": 1}', "usage": {"input_tokens": 7, "output_tokens": 2, "details": {"cached": 3}}}

    outcome = perform(ScriptedModel([wrong, right]), {"prompt": "p", "response_schema": schema})

    assert outcome.result is not None
    assert outcome.result["usage"] == {"input_tokens": 12, "output_tokens": 3, "details": {"cached": 3}}
    assert outcome.result["metadata"]["_usage_by_attempt"] == [wrong["usage"], right["usage"]]


def test_tools_that_there_are_not_are_named() -> None:
    handler = call_model(ScriptedModel(["fine"]), FunctionTools({"add": lambda a: a}))
    payload = {"prompt": "p", "tools": ["add", "sub", {"name": "own"}]}

    outcome = handler(
        RunState.new(workflow_id="w", entry_node="n", vars={}), Effect(EffectType.LLM_CALL, payload), None
    )

    assert outcome.result is not None
    assert outcome.result["metadata"] == {"_unknown_tools": ["sub"]}


def test_a_cut_off_answer_is_one_where_that_is_allowed() -> None:
    model = cut_off(9)

    outcome = perform(model, {"prompt": "p", "allow_truncation": True, "max_output_tokens": 5})

    assert outcome.result is not None
    assert (len(model.calls), outcome.result["content"], outcome.result["finish_reason"]) == (1, "hal", "length")


def test_the_limit_of_the_run_counts_where_the_call_has_none() -> None:
    model = ScriptedModel(["a", "b"])
    vars = {"_limits": {"max_output_tokens": 64}}

    perform(model, {"prompt": "p"}, vars=vars)
    perform(model, {"prompt": "p", "max_output_tokens": 8}, vars=vars)

    assert [call["max_output_tokens"] for call in model.calls] == [64, 8]


def test_each_attempt_has_a_key_of_its_own() -> None:
    model = cut_off(2)

    perform(model, {"prompt": "p", "max_output_tokens": 1}, idempotency_key="k")

    assert [call["idempotency_key"] for call in model.calls] == ["k", "k.2", "k.3"]


class Timed:
    """A model that wants to know how long it may take."""

    def __init__(self) -> None:
        self.limits: list[float | None] = []

    def generate(self, call: dict[str, Any], *, timeout_s: float | None = None) -> dict[str, Any]:
        self.limits.append(timeout_s)
        return {"content": "a"}


def test_a_model_is_told_its_time_where_it_wants_to_know() -> None:
    timed = Timed()

    perform(timed, {"prompt": "p"}, timeout_s=5.0)
    plain = perform(ScriptedModel(["a"]), {"prompt": "p"}, timeout_s=5.0)

    assert timed.limits == [5.0]
    assert plain.result is not None


@pytest.mark.parametrize("reference", [{"$artifact": "a1"}, {"artifact_id": "a1", "filename": "x.png"}])
def test_artifacts_reach_the_model_with_their_bytes(reference: dict[str, Any]) -> None:
    model = ScriptedModel(["a"])

    perform(model, {"prompt": "p", "media": [reference]})

    (medium,) = model.calls[0]["media"]
    assert (medium["content_type"], base64.b64decode(medium["data"])) == ("image/png", b"png")
    assert medium.get("name") == reference.get("filename")


@pytest.mark.parametrize(
    ("media", "why"),
    [
        ("/etc/passwd", "files of the machine are not read"),
        ([{"path": "/etc/passwd"}], "files of the machine are not read"),
        ({"$artifact": "a9"}, "'a9', which does not exist"),
        ({"$artifact": "big"}, "at most 26214400"),
    ],
)
def test_what_is_no_artifact_reaches_no_model(media: Any, why: str) -> None:
    model = ScriptedModel(["a"])

    outcome = perform(model, {"prompt": "p", "media": media})

    assert why in str(outcome.error)
    assert model.calls == []


def test_the_model_of_the_run_is_not_asked_of_another_provider() -> None:
    model = ScriptedModel(["a"] * 3)
    vars = {"_runtime": {"provider": "openai", "model": "gpt"}}

    for asked in ({}, {"provider": "OpenAI"}, {"provider": "ollama"}):
        perform(model, {"prompt": "p", **asked}, vars=vars)

    assert [(call["provider"], call.get("model")) for call in model.calls] == [
        ("openai", "gpt"),
        ("OpenAI", "gpt"),
        ("ollama", None),
    ]


def test_arguments_that_are_no_object_stay_as_they_were_written() -> None:
    calls = [{"name": "f", "arguments": text} for text in ('{"a": 1}', "", "{broken", "[1]")]

    outcome = perform(ScriptedModel([{"content": None, "tool_calls": calls}]), {"prompt": "p"})

    assert outcome.result is not None
    assert [call["arguments"] for call in outcome.result["tool_calls"]] == [{"a": 1}, {}, "{broken", "[1]"]


class Writing:
    """A model that tells of its answers while it writes them."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.calls: list[dict[str, Any]] = []
        self._answers = list(answers)

    def generate(self, call: dict[str, Any], *, on_delta: Any = None, stop: Any = None) -> dict[str, Any]:
        self.calls.append(call)
        answer = self._answers.pop(0)
        if on_delta is not None:
            on_delta({"content": answer["content"]})
        return answer


def test_a_model_is_given_what_it_asks_for_and_a_new_answer_makes_the_first_void() -> None:
    pieces: list[Any] = []
    cut = {"content": "hal", "finish_reason": "length"}
    model = Writing(cut, {"content": "half and half"})

    perform(model, {"prompt": "p", "max_output_tokens": 5}, on_delta=pieces.append)
    perform(Writing({"content": "alone"}), {"prompt": "p"})

    assert pieces == [{"content": "hal"}, {"restart": True}, {"content": "half and half"}]


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ({"content": "seven"}, "it is not one JSON value"),
        ({"content": '{"n": "seven"}'}, "n: is string, not integer"),
        ({"content": None, "data": {}}, "n: is missing"),
    ],
)
def test_an_answer_of_another_form_is_asked_for_once_more(first: dict[str, Any], why: str) -> None:
    model = ScriptedModel([first, '{"n": 7}'])

    outcome = perform(model, {"prompt": "p", "response_schema": SCHEMA}, idempotency_key="k")

    assert outcome.result is not None
    asked = model.calls[1]
    assert outcome.result["data"] == {"n": 7}
    assert outcome.result["metadata"]["_schema_repair"] == {"attempts": 2, "problems": [why]}
    assert [message["role"] for message in asked["messages"]] == ["user", "assistant", "user"]
    assert why in asked["messages"][-1]["content"]
    assert (asked["prompt"], asked["idempotency_key"]) == ("", "k.form")


def test_a_form_that_stays_wrong_is_a_failure_that_says_what_is_wrong() -> None:
    model = ScriptedModel(["no", '{"n": null}'])

    outcome = perform(model, {"prompt": "p", "response_schema": SCHEMA})

    assert outcome.result is None
    assert "does not fit, also after it was told why: n: is null, not integer" in str(outcome.error)
    assert len(model.calls) == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"content": None, "tool_calls": [{"name": "f", "arguments": {}}]},
        {"content": '{"n":', "finish_reason": "length"},
        {"content": '{"n": 1}'},
    ],
)
def test_tools_first_a_cut_off_answer_that_is_allowed_and_one_that_fits_are_taken(answer: dict[str, Any]) -> None:
    model = ScriptedModel([answer])

    outcome = perform(model, {"prompt": "p", "response_schema": SCHEMA, "allow_truncation": True})

    assert outcome.result is not None
    assert len(model.calls) == 1


def message(role: str, size: int = 400, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": role[0] * size, **more}


def sent(payload: dict[str, Any], *, vars: dict[str, Any] | None = None) -> tuple[list[str], dict[str, Any]]:
    """Return the roles of the messages that reach the model, and the metadata of the result."""
    model = ScriptedModel(["ok"])
    outcome = perform(model, payload, vars=vars)
    assert outcome.result is not None, outcome.error
    return [item["role"] for item in model.calls[0]["messages"]], outcome.result.get("metadata") or {}


CALLED = message("assistant", tool_calls=[{"name": "f", "arguments": {}}])
LONG = [
    message("system"),
    message("user"),
    message("assistant"),
    message("user"),
    CALLED,
    message("tool"),
    message("tool"),
]


@pytest.mark.parametrize(
    ("limit", "roles"),
    [
        (10_000, ["system", "user", "assistant", "user", "assistant", "tool", "tool"]),
        (600, ["system", "user", "assistant", "tool", "tool"]),
        (400, ["system", "user"]),
        (1, ["system", "user"]),
    ],
)
def test_a_call_that_is_too_long_goes_without_its_oldest_turns(limit: int, roles: list[str]) -> None:
    kept, metadata = sent({"messages": LONG, "max_input_tokens": limit})

    note = metadata.get("_input_trimming")
    assert kept == roles
    assert (note is None) == (len(roles) == len(LONG))
    if note is not None:
        assert (note["max_input_tokens"], note["dropped_messages"]) == (limit, len(LONG) - len(roles))
        assert note["estimated_tokens"] < note["estimated_tokens_before"]


def test_the_limit_of_the_run_counts_for_what_goes_in_too_and_can_be_switched_off() -> None:
    limits = {"_limits": {"max_input_tokens": 150}}
    turns = [message("user"), message("assistant"), message("user")]

    assert sent({"messages": turns}, vars=limits)[0] == ["user"]
    assert sent({"messages": turns}, vars={**limits, "_runtime": {"disable_input_trimming": True}})[0] == [
        "user",
        "assistant",
        "user",
    ]
    assert sent({"messages": turns, "max_input_tokens": 10_000}, vars=limits)[0] == ["user", "assistant", "user"]


def test_with_a_prompt_of_its_own_a_call_needs_no_message() -> None:
    assert sent({"prompt": "p" * 400, "messages": [message("user")], "max_input_tokens": 50})[0] == []


def test_a_call_says_whose_it_is() -> None:
    model = ScriptedModel(["ok"])
    run = RunState.new(workflow_id="w", entry_node="n", vars={}, session_id="s", parent_run_id="p")

    call_model(model, None)(run, Effect(EffectType.LLM_CALL, {"prompt": "p", "params": {"seed": 1}}), None)

    assert model.calls[0]["params"] == {
        "seed": 1,
        "trace_metadata": {
            "run_id": run.run_id,
            "workflow_id": "w",
            "node_id": "n",
            "session_id": "s",
            "parent_run_id": "p",
        },
    }


def key_of(prompt_cache: Any, *, session_id: str | None = "s", node: str = "n") -> Any:
    model = ScriptedModel(["ok"])
    run = RunState.new(
        workflow_id="w", entry_node=node, vars={"_runtime": {"prompt_cache": prompt_cache}}, session_id=session_id
    )
    call_model(model, None)(run, Effect(EffectType.LLM_CALL, {"prompt": "p", "provider": "x", "model": "y"}), None)
    return model.calls[0]["params"].get("prompt_cache_key")


def test_calls_of_one_node_in_one_session_share_a_cache_where_that_is_wished() -> None:
    digest = hashlib.sha256(b"v1|s|x|y|w|n").hexdigest()[:24]

    assert key_of(True) == key_of({"enabled": True, "version": 1}) == f"abstractgateway:{digest}"
    assert key_of({"enabled": True, "namespace": "mine"}) == f"mine:{digest}"
    assert key_of(True, node="other") != key_of(True)
    assert [key_of(None), key_of(False), key_of({"enabled": False}), key_of(True, session_id=None)] == [None] * 4


def test_attachments_that_wait_for_the_next_call_go_with_it_once() -> None:
    model = ScriptedModel(lambda call: "ok")
    asked = effect("ask", EffectType.LLM_CALL, {"prompt": "p", "media": {"$artifact": "a1"}}, then="again")
    again = effect("again", EffectType.LLM_CALL, {"prompt": "p"}, then="end")
    bench = Bench()
    bench.handlers = {EffectType.LLM_CALL: call_model(model, None, ARTIFACTS.get)}
    workflow = spec("asks", ask=asked, again=again, end=end())

    run_id = bench.start(workflow, {"_runtime": {"pending_media": [{"$artifact": "a1", "name": "p.png"}]}})
    bench.runner().run_until_idle()

    assert [len(call.get("media", [])) for call in model.calls] == [2, 0]
    assert model.calls[0]["media"][1]["name"] == "p.png"
    assert "pending_media" not in bench.state(run_id).vars["_runtime"]
