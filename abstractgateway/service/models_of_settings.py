"""The language model on the providers of the settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from ..config import GatewayConfig
from ..errors import Unavailable
from ..jsonvalue import JsonObject
from ..runtime.signals import OnDelta, Stop


class ProviderModels(Protocol):
    """The models of all providers, each call says which."""

    def generate(
        self,
        call: JsonObject,
        *,
        timeout_s: float | None = None,
        on_delta: OnDelta | None = None,
        stop: Stop | None = None,
    ) -> JsonObject: ...
    def problem(self) -> str | None: ...
    def close(self) -> None: ...


class ModelsOfSettings:
    """The language model on the providers of the settings; its adapter is loaded by the first who needs it."""

    def __init__(self, config: GatewayConfig, load: Callable[[Any], ProviderModels]) -> None:
        self._config = config
        self._load = load
        self._lock = threading.Lock()
        self._opened: ProviderModels | None = None

    def generate(
        self,
        call: JsonObject,
        *,
        timeout_s: float | None = None,
        on_delta: OnDelta | None = None,
        stop: Stop | None = None,
    ) -> JsonObject:
        """Answer one call, streamed if it may be. Raises `Unavailable` when the extra is not installed."""
        tell = on_delta if self._config.llm_stream else None
        return self._open(call.get("provider")).generate(call, timeout_s=timeout_s, on_delta=tell, stop=stop)

    def problem(self) -> str | None:
        """Return why calls to the provider of the settings cannot be answered, as far as is known beforehand."""
        if not self._config.provider:
            return None
        try:
            return self._open(None).problem()
        except Unavailable as error:
            return error.message

    def close(self) -> None:
        """Let go of the connections that no call uses."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()

    def _open(self, provider: Any) -> ProviderModels:
        with self._lock:
            if self._opened is None:
                self._opened = self._load(provider or self._config.provider)
            return self._opened
