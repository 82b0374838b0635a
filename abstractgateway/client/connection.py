"""Requests to one server: connections that are kept, and patience with a server that is away for a moment."""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlencode, urlsplit

from ..errors import Invalid, Unavailable
from ..jsonvalue import JsonObject, dumps
from .answers import Answer, is_passing, pause_of, refusal

Sleep = Callable[[float], None]

_MOST_KEPT = 8
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_LOST = (OSError, http.client.HTTPException)
_UNWRITABLE = re.compile(r"[^!-~]")


@dataclass(frozen=True)
class Request:
    """What is sent; `is_repeatable` says that sending it twice does no more than sending it once."""

    method: str
    path: str
    query: Mapping[str, object] = field(default_factory=dict)
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = True

    @staticmethod
    def with_json(path: str, value: JsonObject, *, is_repeatable: bool, **headers: str) -> Request:
        """Return a POST of a JSON body; underscores in the names of headers stand for hyphens."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        kind = {"Content-Type": "application/json"}
        return Request("POST", path, {}, dumps(value, field="body"), {**kind, **named}, is_repeatable)

    @property
    def target(self) -> str:
        given = {name: _query_text(value) for name, value in self.query.items() if value is not None}
        return f"{self.path}?{urlencode(given)}" if given else self.path


def _query_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parts_of(url: str) -> tuple[SplitResult, str, int | None]:
    """Return the parts of a URL, its host and its port. Raises `Invalid` for what is no URL of a server."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Invalid("url", f"{url!r} is no URL such as http://127.0.0.1:8080: {error}") from error
    if parts.scheme not in ("http", "https") or not host or _UNWRITABLE.search(url):
        raise Invalid("url", f"{url!r} is no URL such as http://127.0.0.1:8080")
    return parts, host, port


def _credentials(token: str) -> str:
    """Return a token as a header carries it. Raises `Invalid` for one that no header can."""
    if not token.isprintable():
        raise Invalid("token", "has control characters, which no header can carry")
    return f"Bearer {token}".encode().decode("latin-1")  # its bytes are those of UTF-8


class Server:
    """The server at a URL. May be used by several threads.

    A repeatable request is sent again for up to `patience_s` seconds while the server cannot be reached or says that
    it is not able to answer now.
    """

    def __init__(
        self, url: str, *, token: str | None, timeout_s: float, patience_s: float, sleep: Sleep = time.sleep
    ) -> None:
        self._kept: list[http.client.HTTPConnection] = []
        parts, host, port = _parts_of(url)
        self.url = f"{parts.scheme}://{parts.netloc}"
        self.sleep = sleep
        self._host, self._port, self._is_secure = host, port, parts.scheme == "https"
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": _credentials(token)} if token else {}
        self._timeout_s = timeout_s
        self._patience_s = patience_s

    def send(self, request: Request) -> Answer:
        """Return the answer, which is one of the 2xx.

        Raises `NotFound`, `Conflict`, `Denied`, `Invalid` or `GatewayError` as the server refuses, and `Unavailable`
        when it could not be reached, or could not answer, for as long as this client is patient.
        """
        deadline = time.monotonic() + self._patience_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                answer = self._exchange(request)
            except _LOST as error:
                problem: Exception = self.unreachable(error)
                wanted = pause
            else:
                if 200 <= answer.status < 300:
                    return answer
                problem = refusal(answer)
                if not is_passing(answer.status):
                    raise problem
                wanted = pause_of(answer.headers, pause)
            if not request.is_repeatable or time.monotonic() + wanted > deadline:
                raise problem
            self.sleep(wanted)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    @contextmanager
    def open(self, request: Request, *, timeout_s: float | None = None) -> Iterator[http.client.HTTPResponse]:
        """Open an answer that is read piece by piece, on a connection of its own.

        Raises what `send` raises for a refusal, at once, and `OSError` or `HTTPException` for a lost connection.
        """
        connection = self._connect(timeout_s or self._timeout_s)
        try:
            # Of an answer that is the last on its connection, the socket is closed with the answer only.
            with self._begin(connection, request) as response:
                if not 200 <= response.status < 300:
                    raise refusal(_read(response))
                yield response
        finally:
            connection.close()

    def unreachable(self, error: Exception) -> Unavailable:
        """Return the error that says so."""
        why = str(error) or type(error).__name__
        return Unavailable(f"the gateway at {self.url} cannot be reached: {why}", code="unreachable")

    def close(self) -> None:
        """Close the connections that no request uses."""
        while self._kept:
            self._kept.pop().close()

    def __del__(self) -> None:
        self.close()

    def _exchange(self, request: Request) -> Answer:
        connection = self._take() if request.is_repeatable else None
        if connection is not None:
            try:
                return self._ask(connection, request)
            except _LOST:
                connection.close()  # a kept connection may have been closed by the server meanwhile
        return self._ask(self._connect(self._timeout_s), request)

    def _ask(self, connection: http.client.HTTPConnection, request: Request) -> Answer:
        try:
            response = self._begin(connection, request)
            answer = _read(response)
        except BaseException:
            connection.close()
            raise
        if response.will_close or len(self._kept) >= _MOST_KEPT:
            connection.close()
        else:
            self._kept.append(connection)
        return answer

    def _begin(self, connection: http.client.HTTPConnection, request: Request) -> http.client.HTTPResponse:
        headers = {**self._headers, **request.headers}
        connection.request(request.method, self._prefix + request.target, body=request.body, headers=headers)
        return connection.getresponse()

    def _take(self) -> http.client.HTTPConnection | None:
        try:
            return self._kept.pop()
        except IndexError:
            return None

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._is_secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)


def _read(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())
