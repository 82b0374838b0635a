"""Which providers there are, and which models they say they have."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from abstractgateway.clock import Clock, SystemClock
from abstractgateway.config import GatewayConfig
from abstractgateway.jsonvalue import JsonObject

from .asking import Asker
from .calls import objects
from .errors import ModelError
from .providers import PROVIDERS, Provider, endpoint_of, known_provider

TIMEOUT_S = 3.0
"""A client that looks at lists waits for this; a provider that is there answers in less."""
MOST_BYTES = 4_000_000
"""OpenRouter's list of several hundred models has about one megabyte."""
FRESH_S = 60.0
_FAILURE_FRESH_S = 5.0
_MOST_MODELS = 5_000
_CHAT = ["chat", "streaming", "tools", "structured_output"]


@dataclass(frozen=True)
class _About:
    """What is told of a provider: its name for people, what it is, and whether it runs on one's own machines."""

    display_name: str
    description: str
    is_local: bool
    needs_key: bool


_ABOUT = {
    "openai": _About("OpenAI", "The models of OpenAI.", False, True),
    "anthropic": _About("Anthropic", "The models of Anthropic.", False, True),
    "openrouter": _About("OpenRouter", "The models of many makers under one key.", False, True),
    "ollama": _About("Ollama", "Models on one's own machine, served by Ollama.", True, False),
    "lmstudio": _About("LM Studio", "Models on one's own machine, served by LM Studio.", True, False),
    "vllm": _About("vLLM", "Models on one's own machines, served by vLLM.", True, False),
    "openai-compatible": _About("OpenAI compatible", "Any server with the chat completions of OpenAI.", True, False),
}


@dataclass(frozen=True)
class _Known:
    """What a provider answered, or why it did not, and until when that counts."""

    models: tuple[str, ...]
    error: str | None
    until: float


def open_catalogue(config: GatewayConfig) -> Catalogue:
    """Return the catalogue of the providers that the settings describe."""
    return Catalogue(config)


class Catalogue:
    """The providers of the settings. A list of models is asked for at most once a minute."""

    def __init__(self, config: GatewayConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._asker = Asker(self._clock, connect_timeout_s=min(TIMEOUT_S, config.llm_connect_timeout_s))
        self._known: dict[str, _Known] = {}
        self._locks = {row.name: threading.Lock() for row in PROVIDERS}

    def providers(self, *, include_models: bool) -> list[JsonObject]:
        """Return `[{name, display_name, type, model_count, status, …, models}]`.

        `status` is `available`, `not_configured` or, of one that was asked in vain, `unreachable`. `model_count` is
        null where the models were not asked for.
        """
        if not include_models:
            return [self._told(row, None) for row in PROVIDERS]
        with ThreadPoolExecutor(len(PROVIDERS)) as pool:
            return list(pool.map(lambda row: self._told(row, self._fresh(row)), PROVIDERS))

    def models(self, provider: str) -> list[str]:
        """Return the names of a provider's models. Raises `ModelError` saying why they are not known."""
        row = known_provider(provider)
        if row is None:
            known = ", ".join(row.name for row in PROVIDERS)
            raise ModelError(f"provider {provider!r} is not known here; known: {known}")
        found = self._fresh(row)
        if found.error is not None:
            raise ModelError(found.error)
        return list(found.models)

    def close(self) -> None:
        """Close the connections that no request uses."""
        self._asker.close()

    def _fresh(self, row: Provider) -> _Known:
        with self._locks[row.name]:
            known = self._known.get(row.name)
            if known is None or self._clock.monotonic() >= known.until:
                known = self._known[row.name] = self._asked(row)
            return known

    def _asked(self, row: Provider) -> _Known:
        try:
            body = self._asker.get(endpoint_of(self._config, row), "/models", timeout_s=TIMEOUT_S, most=MOST_BYTES)
        except ModelError as error:
            return _Known((), error.message, self._clock.monotonic() + _FAILURE_FRESH_S)
        names = (item.get("id") or item.get("name") for item in objects(body.get("data", body.get("models"))))
        found = tuple(name for name in names if isinstance(name, str) and name)[:_MOST_MODELS]
        return _Known(found, None, self._clock.monotonic() + FRESH_S)

    def _told(self, row: Provider, known: _Known | None) -> JsonObject:
        about, problem = _ABOUT[row.name], self._problem(row)
        asked = known if problem is None else None
        error = problem or (asked.error if asked is not None else None)
        return {
            "name": row.name,
            "display_name": about.display_name,
            "type": "llm",
            "model_count": len(asked.models) if asked is not None and asked.error is None else None,
            "status": "not_configured" if problem else "unreachable" if error else "available",
            "description": about.description,
            "local_provider": about.is_local,
            "authentication_required": about.needs_key,
            "supported_features": _CHAT,
            "installation_extras": "llm",
            "models": sorted(asked.models) if asked is not None else [],
            **({"error": error} if error else {}),
        }

    def _problem(self, row: Provider) -> str | None:
        try:
            endpoint_of(self._config, row)
        except ModelError as error:
            return error.message
        return None
