from __future__ import annotations

import base64
from typing import Any

import pytest

from abstractgateway.runtime.effects.model import MAX_MEDIA_BYTES, call_model
from abstractgateway.runtime.models import Effect, EffectOutcome, EffectType, RunState
from abstractgateway.testing import ScriptedModel

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
