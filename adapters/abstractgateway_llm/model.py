"""The model of a gateway that calls providers: one for all of them, each call says which."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from abstractgateway.clock import Clock, SystemClock
from abstractgateway.config import GatewayConfig
from abstractgateway.jsonvalue import JsonObject, check_json

from .budget import Budget, Stop
from .calls import check_output, schema_of
from .core import CoreModels
from .errors import ModelError, Passing, Refused
from .events import event_data
from .keys import Pieces
from .providers import PROVIDERS, Endpoint, endpoint_of, known_provider
from .transport import Reply, Transport, parsed
from .wire import SCHEMA, Draft

OnDelta = Callable[[JsonObject], object]
"""Is given `{content}` or `{reasoning}` with a piece of text, and `{restart: true}` when what was given is void."""

_SIGNS_OF_A_SCHEMA = ("response_format", "output_config", "schema", "structured")
_END = "[DONE]"


def open_model(config: GatewayConfig) -> ProviderModel:
    """Return the model that the settings describe."""
    return ProviderModel(config)


class ProviderModel:
    """A `LanguageModel` on the providers of the settings.

    `sleep` pauses between repetitions; without one, `stop` ends a pause.
    """

    def __init__(
        self, config: GatewayConfig, *, clock: Clock | None = None, sleep: Callable[[float], object] | None = None
    ) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._transport = Transport(config, self._clock)
        self._core = CoreModels(row.name for row in PROVIDERS)

    def generate(
        self,
        call: JsonObject,
        *,
        timeout_s: float | None = None,
        on_delta: OnDelta | None = None,
        stop: Stop | None = None,
    ) -> JsonObject:
        """Answer one call; with `on_delta` the answer is streamed, and its pieces are given to it as they arrive.

        The answer has `content, reasoning, data, tool_calls, usage, provider, model, finish_reason, metadata, trace_id,
        gen_time` (milliseconds), and streamed `ttft_ms`. Raises `ModelError`; no message of it has a key in it.
        """
        check_output(call)
        asked = self._chosen(call)
        began = self._clock.monotonic()
        provider = known_provider(asked["provider"])
        if provider is None:
            answer = self._core.generate(asked)
        else:
            budget = Budget(clock=self._clock, timeout_s=timeout_s, stop=stop, sleep=self._sleep)
            answer = _Exchange(endpoint_of(self._config, provider), asked, budget, on_delta, self._clock).settle(
                self._transport
            )
        elapsed = round((self._clock.monotonic() - began) * 1000, 1)
        return _storable({"provider": asked["provider"], "gen_time": elapsed, **answer})

    def problem(self) -> str | None:
        """Return why calls that name no provider cannot be answered, as far as is known without making one."""
        name = self._config.provider
        if not name:
            return None
        provider = known_provider(name)
        if provider is None:
            return self._core.problem(name)
        try:
            endpoint_of(self._config, provider)
        except ModelError as error:
            return error.message
        return None

    def close(self) -> None:
        """Close the connections that no call uses."""
        self._transport.close()

    def _chosen(self, call: JsonObject) -> JsonObject:
        default = self._config.provider
        provider = call.get("provider") or default
        if not provider:
            raise ModelError("the call names no provider; set ABSTRACTGATEWAY_PROVIDER and ABSTRACTGATEWAY_MODEL")
        is_default = str(provider).lower() == str(default).lower()
        model = call.get("model") or (self._config.model if is_default else None)
        if not model:
            raise ModelError(
                f"no model is named for provider {provider!r}; set it in the flow or ABSTRACTGATEWAY_MODEL"
            )
        return {**call, "provider": str(provider).strip().lower(), "model": str(model)}


class _Exchange:
    """One call with one provider: asked again without the options that the provider refuses."""

    def __init__(
        self, endpoint: Endpoint, call: JsonObject, budget: Budget, on_delta: OnDelta | None, clock: Clock
    ) -> None:
        self._endpoint = endpoint
        self._wire = endpoint.provider.wire
        self._call = call
        self._budget = budget
        self._on_delta = on_delta
        self._clock = clock
        self._began = clock.monotonic()
        self._first_at: float | None = None
        self._has_shown = False

    def settle(self, transport: Transport) -> JsonObject:
        left_out: frozenset[str] = frozenset()
        refusals: list[str] = []
        while True:
            draft = self._wire.draft(self._call, is_streamed=self._on_delta is not None, left_out=left_out)
            self._check_schema(draft)
            try:
                answer = transport.post(
                    self._endpoint, draft.body, self._read, self._budget, idempotency_key=self._key(len(left_out))
                )
            except Refused as refused:
                option = self._refused_option(draft, refused.said)
                if option is None:
                    raise
                left_out |= {option}
                refusals.append(refused.message)
                continue
            return self._described(answer, draft, refusals)

    def _key(self, changes: int) -> str | None:
        """A changed request is another one; under the same key a provider might repeat its refusal."""
        key = self._call.get("idempotency_key")
        return f"{key}-{changes}" if key and changes else key

    def _check_schema(self, draft: Draft) -> None:
        wanted = schema_of(self._call) is not None and self._call.get("structured_output_fallback") is False
        if wanted and not draft.is_schema_native:
            raise ModelError(
                f"{self._endpoint.name}: response_schema cannot be given to the model natively, "
                "and structured_output_fallback is off"
            )

    def _refused_option(self, draft: Draft, said: str) -> str | None:
        named = next((name for name in sorted(draft.optional) if re.search(rf"\b{name}\b", said)), None)
        if named is not None:
            return named
        may_fall_back = draft.is_schema_native and self._call.get("structured_output_fallback") is not False
        return SCHEMA if may_fall_back and any(sign in said for sign in _SIGNS_OF_A_SCHEMA) else None

    def _read(self, reply: Reply) -> JsonObject:
        if self._on_delta is None or not reply.is_stream:
            return self._wire.answer(reply.json())
        if self._has_shown:
            self._on_delta({"restart": True})
            self._has_shown = False
        return self._streamed(reply, self._on_delta)

    def _streamed(self, reply: Reply, on_delta: OnDelta) -> JsonObject:
        assembly, key = self._wire.assembly(), self._endpoint.key
        pieces: dict[str, Pieces] = {}
        for data in event_data(reply.chunks):
            if data == _END:
                break
            for name, text in assembly.add(parsed(key.hidden_in_answer(data))).items():
                self._first_at = self._first_at or self._clock.monotonic()
                self._show(on_delta, name, pieces.setdefault(name, key.hidden_in_pieces()).shown(text))
        body = assembly.body()
        if body is None:
            raise Passing("the stream ended before the answer did")
        for name, held in pieces.items():
            self._show(on_delta, name, held.rest())
        return self._wire.answer(_with_texts(body, key.hidden_in_answer))

    def _show(self, on_delta: OnDelta, name: str, text: str) -> None:
        if text:
            self._has_shown = True
            on_delta({name: text})

    def _described(self, answer: JsonObject, draft: Draft, refusals: list[str]) -> JsonObject:
        metadata: JsonObject = dict(answer.get("metadata") or {})
        if draft.unused:
            metadata["unused_params"] = draft.unused
        if schema_of(self._call) is not None and not draft.is_schema_native:
            metadata["_structured_output_fallback"] = {"used": True, "error": refusals[-1] if refusals else ""}
        first = {} if self._first_at is None else {"ttft_ms": round((self._first_at - self._began) * 1000, 1)}
        return {**answer, "metadata": metadata, **first}


def _storable(answer: JsonObject) -> JsonObject:
    """Return an answer that a ledger can keep. Raises `ModelError` when there is no way to."""
    try:
        whole: JsonObject = _with_texts(answer, _whole_text)
        check_json(whole, field="answer")
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the answer cannot be stored: {error}") from None
    return whole


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _with_texts(item, change) for key, item in value.items()}
    return [_with_texts(item, change) for item in value] if isinstance(value, list) else value


def _whole_text(text: str) -> str:
    """Return a text that is Unicode: halves of characters are joined, or replaced where one is missing."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
