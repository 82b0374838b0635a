"""Providers that only AbstractCore knows, when it is installed."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable
from typing import Any

from abstractgateway.jsonvalue import JsonObject

from .calls import conversation, instructed, params_of, schema_of, tool_specs
from .errors import ModelError

_PACKAGE = "abstractcore"
_PARAMS = ("temperature", "top_p", "top_k", "seed", "stop", "thinking")
_ANSWERED = ("content", "tool_calls", "usage", "model", "finish_reason", "gen_time")


class CoreModels:
    """Answers calls with AbstractCore, which is imported by the first of them; a model is made once.

    `known` are the providers that do without it.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = ", ".join(known)
        self._models: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def generate(self, call: JsonObject) -> JsonObject:
        """Answer one call. Raises `ModelError` when AbstractCore is missing or does not know the provider."""
        if call.get("media"):
            raise ModelError(f"provider {call['provider']!r}: attachments are not passed on to AbstractCore")
        model = self._model(str(call["provider"]), str(call["model"]))
        asked = instructed(call) if schema_of(call) is not None else call
        params, unused = params_of(call, _PARAMS)
        if call.get("max_output_tokens"):
            params["max_output_tokens"] = call["max_output_tokens"]
        messages = conversation({**asked, "system_prompt": None})
        answer = model.generate(
            prompt="",
            messages=messages,
            system_prompt=asked.get("system_prompt"),
            tools=tool_specs(call) or None,
            stream=False,
            **params,
        )
        known = {name: getattr(answer, name, None) for name in _ANSWERED}
        fields = {name: value for name, value in known.items() if value is not None}
        metadata = getattr(answer, "metadata", None)
        reasoning = metadata.get("reasoning") if isinstance(metadata, dict) else None
        return {**fields, "reasoning": reasoning, "metadata": {"unused_params": unused} if unused else {}}

    def problem(self, provider: str) -> str | None:
        """Return why calls for a provider cannot be answered, as far as is known without making one."""
        try:
            self._package(provider)
        except ModelError as error:
            return error.message
        return None

    def _model(self, provider: str, name: str) -> Any:
        with self._lock:
            if (provider, name) not in self._models:
                create: Any = self._package(provider).create_llm
                self._models[provider, name] = create(provider, model=name)
            return self._models[provider, name]

    def _package(self, provider: str) -> Any:
        try:
            return importlib.import_module(_PACKAGE)
        except ImportError:
            raise ModelError(
                f"provider {provider!r} is not known here; known: {self._known}; others need AbstractCore: "
                f"pip install {_PACKAGE}"
            ) from None
