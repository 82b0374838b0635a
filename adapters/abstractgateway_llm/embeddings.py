"""Embeddings of the providers that answer as OpenAI does at `/embeddings`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from abstractgateway.clock import Clock, SystemClock
from abstractgateway.config import GatewayConfig
from abstractgateway.jsonvalue import JsonObject

from .budget import Budget
from .errors import ModelError
from .openai_chat import Chat
from .providers import Endpoint, endpoint_of, known_provider
from .transport import Reply, Transport

_CHAT, _EMBEDDINGS = "/chat/completions", "/embeddings"
TIME_LIMIT_S = 60.0
"""How long one request may take with its repetitions: a client waits for it."""


def open_embedder(config: GatewayConfig, provider: str, model: str) -> ProviderEmbedder:
    """Return what makes vectors with a model of a provider of the settings."""
    return ProviderEmbedder(config, provider, model)


class ProviderEmbedder:
    """An `Embedder` on one provider. `sleep` pauses between repetitions."""

    def __init__(
        self,
        config: GatewayConfig,
        provider: str,
        model: str,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.provider = provider
        self.model = model
        self._config = config
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._transport = Transport(config, self._clock)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text. Raises `ModelError`; no message of it has a key in it."""
        body: JsonObject = {"model": self.model, "input": list(texts), "encoding_format": "float"}
        budget = Budget(clock=self._clock, timeout_s=TIME_LIMIT_S, sleep=self._sleep)
        return self._transport.post(self._endpoint(), body, lambda reply: _vectors(reply, len(texts)), budget)

    def close(self) -> None:
        """Close the connections that no call uses."""
        self._transport.close()

    def _endpoint(self) -> Endpoint:
        row = known_provider(self.provider)
        if row is None or not isinstance(row.wire, Chat):
            raise ModelError(f"provider {self.provider!r} makes no embeddings here; use one with the API of OpenAI")
        chat = endpoint_of(self._config, row)
        return replace(chat, url=chat.url.removesuffix(_CHAT) + _EMBEDDINGS)


def _vectors(reply: Reply, count: int) -> list[list[float]]:
    """Return the vectors of an answer, by the places that it gives them."""
    data = reply.json().get("data")
    items = [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []
    if len(items) != count:
        raise ModelError(f"the answer has {len(items)} vectors for {count} texts")
    by_place = {_place(item, place): item.get("embedding") for place, item in enumerate(items)}
    return [_numbers(by_place.get(place)) for place in range(count)]


def _place(item: JsonObject, place: int) -> int:
    told = item.get("index")
    return told if isinstance(told, int) else place


def _numbers(value: Any) -> list[float]:
    if not isinstance(value, list) or not all(isinstance(item, (int, float)) for item in value):
        raise ModelError("the answer lacks a vector of numbers")
    return [float(item) for item in value]
