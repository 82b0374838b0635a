"""Language models as a port, and the effect that calls one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...errors import Invalid
from ...jsonvalue import JsonObject
from ..model_usage import spent
from ..models import Effect, EffectOutcome, RunState
from ..signals import OnDelta, Stop
from .model_answer import fitting_answer, outcome_of
from .model_input import ReadArtifact, call_of, media_of, trimmed, unknown_tools
from .tools import ToolBox


class LanguageModel(Protocol):
    """Something that answers model calls."""

    def generate(self, call: JsonObject) -> Mapping[str, Any]:
        """Answer one call.

        `call` has `messages` (`[{role, content}]`, possibly empty) and `prompt`, and where given `system_prompt`,
        `provider`, `model`, `tools` (`[{name, description, parameters}]`), `response_schema`, `params`
        (`temperature`, `seed`, …), `media` (`[{content_type, data}]`, data in base64, or `{url}`), `max_output_tokens`
        and `idempotency_key`. The answer has `content` (text or null) and may have `data`, `tool_calls`
        (`[{name, arguments, call_id}]`), `usage`, `model`, `finish_reason`, `reasoning`, `metadata`.

        A model whose `generate` has a parameter `timeout_s` is told how many seconds it may take, or None. One that has
        `stop` is given a `Stop`, which is set when the answer is not wanted any more, or None. One that has `on_delta`
        is given an `OnDelta` to tell of the answer while it is written, or None.
        """


def call_model(
    model: LanguageModel, tools: ToolBox | None, read_artifact: ReadArtifact | None = None
) -> Callable[..., EffectOutcome]:
    """Return the handler of `llm_call` for a model; tool names in the payload become the specs of these tools.

    Artifacts that the payload's `media` refers to are read with `read_artifact`. Messages are left out of a call that
    is too long. An answer that was cut off is asked for again with a higher limit of output tokens, as the payload
    says, and one that does not fit its schema is asked for once more. Raises `Invalid` for what is no model.
    """
    if not callable(getattr(model, "generate", None)):
        raise Invalid("model", f"is {type(model).__name__}, which has no method generate(call)")
    wanted = _parameters(model.generate)

    def perform(
        run: RunState,
        effect: Effect,
        default_next_node: str | None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        stop: Stop | None = None,
        on_delta: OnDelta | None = None,
    ) -> EffectOutcome:
        offered = {"timeout_s": timeout_s, "stop": stop, "on_delta": on_delta}
        asked = _Asked(model, {name: value for name, value in offered.items() if name in wanted})
        try:
            call, trimming = trimmed(run, call_of(run, effect.payload, tools))
            if not (call.get("prompt") or call.get("messages") or call.get("media")):
                return EffectOutcome.failed("llm_call requires payload.prompt or payload.messages")
            call.update({"media": media_of(call["media"], read_artifact)} if call.get("media") else {})
            call.update({"idempotency_key": idempotency_key} if idempotency_key else {})
            answer = fitting_answer(asked, call)
        except Exception as error:  # a model may raise anything; its failure is the effect's, not the process's
            return EffectOutcome.failed(f"{type(error).__name__}: {error}", asked.spent())
        notes = {"_input_trimming": trimming, "_unknown_tools": unknown_tools(effect.payload, call)}
        return outcome_of(call, asked.counted(answer), {name: note for name, note in notes.items() if note})

    return perform


def no_model(run: RunState, effect: Effect, default_next_node: str | None) -> EffectOutcome:
    """Fail: the host has no language model."""
    return EffectOutcome.failed(
        "no language model is configured; give GatewayService.open(config, model=...) one that answers calls"
    )


class _Asked:
    """The model of one effect, asked as often as its answer takes; what was shown of an earlier answer is void."""

    def __init__(self, model: LanguageModel, told: Mapping[str, Any]) -> None:
        self._model = model
        self._tell: OnDelta | None = told.get("on_delta")
        self._told = told if self._tell is None else {**told, "on_delta": self._show}
        self._has_shown = False
        self._used: list[Any] = []

    def __call__(self, call: JsonObject) -> Any:
        if self._has_shown:
            self._show({"restart": True})
        self._used.append(None)
        answer = self._model.generate(call, **self._told)
        self._used[-1] = answer.get("usage") if isinstance(answer, Mapping) else None
        return answer

    def spent(self) -> JsonObject | None:
        """Return `{usage, metadata}` of the answers of a call that failed, None where there was none."""
        return spent(self._used) if any(self._used) else None

    def counted(self, answer: Any) -> Any:
        """Return an answer with the usage of all that it took to get it."""
        if len(self._used) == 1 or not isinstance(answer, Mapping):
            return answer
        total = spent(self._used)
        known = answer.get("metadata")
        metadata = {**(known if isinstance(known, Mapping) else {}), **total["metadata"]}
        return {**answer, "usage": total["usage"], "metadata": metadata}

    def _show(self, piece: JsonObject) -> None:
        self._has_shown = not piece.get("restart")
        if self._tell is not None:
            self._tell(piece)


def _parameters(function: Callable[..., Any]) -> Mapping[str, object]:
    try:
        return inspect.signature(function).parameters
    except ValueError:
        return {}  # a builtin tells no signature
