"""Single requests to providers besides model calls: lists, speech, transcripts, images. None of them is repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from abstractgateway import __version__
from abstractgateway.clock import Clock
from abstractgateway.jsonvalue import JsonObject, dumps

from .budget import Budget
from .errors import ModelError, Refused
from .providers import Endpoint
from .transport import parsed, reason_in

_CHUNK_BYTES = 65_536
_MOST_OF_AN_ERROR = 65_536
_MOST_CONNECTIONS = 8


class Asker:
    """Sends requests below the address of a provider; its connections are used again."""

    def __init__(self, clock: Clock, *, connect_timeout_s: float) -> None:
        self._clock = clock
        self._connect_timeout_s = connect_timeout_s
        self._pools = urllib3.PoolManager(maxsize=_MOST_CONNECTIONS)

    def get(self, endpoint: Endpoint, path: str, *, timeout_s: float, most: int) -> JsonObject:
        """Return the JSON object at a path. Raises `ModelError`, as all of these do."""
        return parsed(self._send("GET", endpoint, path, timeout_s, most, {}).decode("utf-8", "replace"))

    def post(self, endpoint: Endpoint, path: str, body: JsonObject, *, timeout_s: float, most: int) -> bytes:
        """Post JSON and return the bytes of the answer. Raises `Refused` with what a 400 or 422 says."""
        given = {"body": dumps(body, field="request"), "headers": {"Content-Type": "application/json"}}
        return self._send("POST", endpoint, path, timeout_s, most, given)

    def post_form(
        self, endpoint: Endpoint, path: str, fields: Mapping[str, Any], *, timeout_s: float, most: int
    ) -> bytes:
        """Post a form with files, `(name, bytes, content type)`, and return the bytes of the answer."""
        return self._send("POST", endpoint, path, timeout_s, most, {"fields": dict(fields)})

    def close(self) -> None:
        """Close the connections that no request uses."""
        self._pools.clear()

    def _send(
        self, method: str, endpoint: Endpoint, path: str, timeout_s: float, most: int, given: Mapping[str, Any]
    ) -> bytes:
        budget = Budget(clock=self._clock, timeout_s=timeout_s)
        try:
            return self._answer(method, endpoint, path, budget, most, given)
        except HTTPError as error:
            raise ModelError(f"{endpoint.name}: {_reason(error, timeout_s)}") from None
        except ModelError as error:
            said = endpoint.key.hidden_in_error(f"{endpoint.name}: {error.message}")
            raise Refused(said, said=error.said) if isinstance(error, Refused) else ModelError(said) from None

    def _answer(
        self, method: str, endpoint: Endpoint, path: str, budget: Budget, most: int, given: Mapping[str, Any]
    ) -> bytes:
        headers = {
            "Accept-Encoding": "identity",
            "User-Agent": f"abstractgateway/{__version__}",
            **endpoint.provider.wire.headers(endpoint.key),
            **given.get("headers", {}),
        }
        timeout = urllib3.Timeout(connect=budget.shorter(self._connect_timeout_s), read=budget.shorter(3600.0))
        response = self._pools.request(
            method,
            f"{base_of(endpoint)}{path}",
            **{**given, "headers": headers},
            timeout=timeout,
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        with contextlib.closing(response):
            if response.status != 200:
                raise _refusal(response, endpoint, budget)
            content = _read(response, most, budget)
            if len(content) > most:
                raise ModelError(f"the answer has more than {most} bytes")
            return content


def base_of(endpoint: Endpoint) -> str:
    """Return the address below which everything of a provider is, given where its model calls go."""
    return endpoint.url.removesuffix("/chat/completions").removesuffix("/messages")


def _read(response: urllib3.BaseHTTPResponse, most: int, budget: Budget) -> bytes:
    """Return the answer; of one that is too large a little more than it may have."""
    parts: list[bytes] = []
    size = 0
    while size <= most and (chunk := response.read1(_CHUNK_BYTES)):
        budget.check()
        parts.append(chunk)
        size += len(chunk)
    return b"".join(parts)


def _refusal(response: urllib3.BaseHTTPResponse, endpoint: Endpoint, budget: Budget) -> ModelError:
    text = _read(response, _MOST_OF_AN_ERROR, budget).decode("utf-8", "replace")
    said = endpoint.key.hidden_in_error(text)
    message = f"{response.status}: {reason_in(said)}"
    return Refused(message, said=said) if response.status in (400, 422) else ModelError(message)


def _reason(error: HTTPError, timeout_s: float) -> str:
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "no connection: the name cannot be resolved or nothing listens"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return f"no complete answer within {timeout_s:g} s"
    return f"the connection broke ({type(error).__name__})"
