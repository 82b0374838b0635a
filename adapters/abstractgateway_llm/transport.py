"""Requests to providers: time limits, repetitions, a largest answer, and no key in anything that comes out."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError, SSLError

from abstractgateway import __version__
from abstractgateway.clock import Clock
from abstractgateway.config import GatewayConfig
from abstractgateway.errors import Invalid
from abstractgateway.jsonvalue import JsonObject, dumps, loads

from .budget import Budget, watch
from .errors import ModelError, Passing, Refused
from .openai_chat import error_text
from .providers import Endpoint

Result = TypeVar("Result")

LONGEST_PAUSE_S = 60.0
"""A provider that asks for more is not waited for: the worker would stand still, and the run's user learn nothing."""

_FIRST_PAUSE_S = 0.5
_CHUNK_BYTES = 65_536
_MOST_OF_AN_ERROR = 65_536
_MOST_SHOWN = 500
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})


@dataclass(frozen=True)
class Reply:
    """A provider's answer that is about to be read, of a request that was accepted."""

    endpoint: Endpoint
    content_type: str
    headers: Mapping[str, str]
    chunks: Iterator[bytes]

    @property
    def is_stream(self) -> bool:
        return self.content_type.startswith("text/event-stream")

    def json(self) -> JsonObject:
        """Return the whole answer. Raises `ModelError` when it is no JSON object."""
        text = self.endpoint.key.hidden_in_answer(b"".join(self.chunks).decode("utf-8", "replace"))
        return parsed(text)


def parsed(text: str) -> JsonObject:
    """Return the JSON object that a provider wrote. Raises `ModelError` for anything else."""
    try:
        value = loads(text, field="answer")
    except Invalid as error:
        raise ModelError(f"the answer cannot be read: {error.why}; it begins with {text[:80]!r}") from None
    if not isinstance(value, dict):
        raise ModelError(f"the answer is JSON of the type {type(value).__name__}, not an object")
    return value


class _Connection(HTTPConnection):
    """A connection that is closed with the call that uses it."""

    def connect(self) -> None:
        super().connect()
        watch(self.sock)

    def request(self, *arguments: Any, **options: Any) -> None:
        watch(self.sock)
        super().request(*arguments, **options)


class _SecureConnection(HTTPSConnection):
    """The same, with TLS."""

    def connect(self) -> None:
        super().connect()
        watch(self.sock)

    def request(self, *arguments: Any, **options: Any) -> None:
        watch(self.sock)
        super().request(*arguments, **options)


class _Plain(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _Secure(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Transport:
    """Posts requests; its connections are shared by all threads and used again."""

    def __init__(self, config: GatewayConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._pools = urllib3.PoolManager(maxsize=config.effect_workers)
        self._pools.pool_classes_by_scheme = {"http": _Plain, "https": _Secure}

    def post(
        self,
        endpoint: Endpoint,
        body: JsonObject,
        read: Callable[[Reply], Result],
        budget: Budget,
        *,
        idempotency_key: str | None = None,
    ) -> Result:
        """Post a body and return what `read` makes of the answer.

        Both are done again after a failure that may pass. Raises `ModelError`, whose message begins with the provider.
        """
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "User-Agent": f"abstractgateway/{__version__}",
            **endpoint.provider.wire.headers(endpoint.key),
            **({"Idempotency-Key": idempotency_key} if idempotency_key else {}),
        }
        content = dumps(body, field="call")
        for attempt in range(1, self._config.llm_retries + 2):
            try:
                return self._once(endpoint, headers, content, read, budget)
            except Passing as failure:
                pause = _FIRST_PAUSE_S * 2 ** (attempt - 1) if failure.pause_s is None else failure.pause_s
                is_last = attempt > self._config.llm_retries
                if is_last or pause > LONGEST_PAUSE_S or not budget.allows(pause):
                    raise _told(failure, endpoint, attempt) from None
                with _named(endpoint):
                    budget.wait(pause)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close the connections that no call uses."""
        self._pools.clear()

    def _once(
        self,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        content: bytes,
        read: Callable[[Reply], Result],
        budget: Budget,
    ) -> Result:
        with _named(endpoint), _network_errors(self._config, budget), budget.watching():
            budget.check()
            timeout = urllib3.Timeout(
                connect=budget.shorter(self._config.llm_connect_timeout_s),
                read=budget.shorter(self._config.llm_read_timeout_s),
            )
            response = self._pools.request(
                "POST",
                endpoint.url,
                body=content,
                headers=dict(headers),
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            with contextlib.closing(response):
                if response.status != 200:
                    raise self._refusal(endpoint, response, budget)
                content_type = response.headers.get("Content-Type", "").lower()
                most = self._config.llm_max_response_bytes
                return read(Reply(endpoint, content_type, response.headers, _chunks(response, most, budget)))

    def _refusal(self, endpoint: Endpoint, response: urllib3.BaseHTTPResponse, budget: Budget) -> ModelError:
        said = endpoint.key.hidden_in_error(_beginning(response, budget))
        message = f"{response.status}: {reason_in(said)}"
        is_passing = response.status in _PASSING and response.headers.get("x-should-retry") != "false"
        if is_passing and "insufficient_quota" not in said:
            return Passing(message, pause_s=self._asked_pause(response.headers))
        if 300 <= response.status < 400:
            to = urlsplit(response.headers.get("Location", "")).netloc
            return ModelError(f"{response.status}: redirected to {to or 'another place'}, which is not followed")
        if response.status in (400, 422):
            return Refused(message, said=said)
        return ModelError(message)

    def _asked_pause(self, headers: Mapping[str, str]) -> float | None:
        """Return the seconds of `Retry-After`, which may also be an instant, or None."""
        text = headers.get("Retry-After", "").strip()
        with contextlib.suppress(ValueError):
            seconds = float(text)
            return None if math.isnan(seconds) else max(seconds, 0.0)
        try:
            return max((parsedate_to_datetime(text) - self._clock.now()).total_seconds(), 0.0)
        except (ValueError, TypeError):
            return None


def _chunks(response: urllib3.BaseHTTPResponse, most: int, budget: Budget) -> Iterator[bytes]:
    """Yield what arrives, as soon as it does. Raises `ModelError` for an answer that is too large."""
    size = 0
    while chunk := response.read1(_CHUNK_BYTES):
        budget.check()
        size += len(chunk)
        if size > most:
            raise ModelError(f"the answer has more than {most} bytes (ABSTRACTGATEWAY_LLM_MAX_RESPONSE_BYTES)")
        yield chunk
    budget.check()


def _beginning(response: urllib3.BaseHTTPResponse, budget: Budget) -> str:
    """Return what a refusal says; one that is cut off or endless still is one."""
    said = b""
    with contextlib.suppress(HTTPError):
        while len(said) < _MOST_OF_AN_ERROR and (chunk := response.read1(_CHUNK_BYTES)):
            budget.check()
            said += chunk
    return said[:_MOST_OF_AN_ERROR].decode("utf-8", "replace")


def reason_in(said: str) -> str:
    """Return what the body of a refusal says, as one short line."""
    try:
        value = json.loads(said)
    except (ValueError, RecursionError):
        value = None
    text = error_text(value) if isinstance(value, dict) else ""
    shown = " ".join((text or said).split())
    return shown[:_MOST_SHOWN] or "no reason given"


@contextlib.contextmanager
def _network_errors(config: GatewayConfig, budget: Budget) -> Iterator[None]:
    """Turn what the client library raises into errors of ours; its own name addresses, and hold whole requests."""
    try:
        yield
    except HTTPError as error:
        budget.check()  # what was left of the call's time may have been less, or its end have closed the connection
        raise _ours(error, config) from None


def _ours(error: HTTPError, config: GatewayConfig) -> ModelError:
    if isinstance(error, NewConnectionError):
        return Passing(f"no connection: {_reason(error)}")
    if isinstance(error, ConnectTimeoutError):
        return Passing(f"no connection within {config.llm_connect_timeout_s:g} s")
    if isinstance(error, ReadTimeoutError):
        return ModelError(f"silent for {config.llm_read_timeout_s:g} s (ABSTRACTGATEWAY_LLM_READ_TIMEOUT_S)")
    if isinstance(error, SSLError):
        return ModelError(f"no secure connection: {str(error)[:200]}")
    return Passing(f"the connection broke ({type(error).__name__})")


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__
    return (cause.strerror if isinstance(cause, OSError) else None) or "the name cannot be resolved or nothing listens"


@contextlib.contextmanager
def _named(endpoint: Endpoint) -> Iterator[None]:
    """Say in every error which provider it is about, and nowhere with what key."""
    try:
        yield
    except ModelError as error:
        if not error.message.startswith(endpoint.name):
            error.message = endpoint.key.hidden_in_error(f"{endpoint.name}: {error.message}")
            error.args = (error.message,)
        raise


def _told(failure: Passing, endpoint: Endpoint, attempts: int) -> ModelError:
    asked = failure.pause_s
    wish = f"; it asks to come back in {asked:g} s" if asked is not None and asked > LONGEST_PAUSE_S else ""
    often = f" (attempt {attempts})" if attempts > 1 else ""
    return ModelError(f"{failure.message}{often}{wish}")
