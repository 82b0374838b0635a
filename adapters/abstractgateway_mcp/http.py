"""A server behind a URL: the client library's streamable HTTP, with answers of a bounded size."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from .servers import Server
from .stdio import MAX_MESSAGE_BYTES

_CONNECT_S = 30.0
_SESSION = "mcp-session-id"


class TooLarge(httpx2.TransportError):
    """An answer is larger than any that is read, or compressed, which would hide how large it is."""


class HttpSession:
    """A transport of the client library; proxies and credentials of the environment are not looked at."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._requests = _Bounded(trust_env=False)
        self._open = AsyncExitStack()

    @property
    def is_forgotten(self) -> bool:
        """Whether the server has refused a request because it does not know the session any more."""
        return self._requests.is_forgotten

    async def __aenter__(self) -> Any:
        client = httpx2.AsyncClient(
            headers={"accept-encoding": "identity", **self._server.headers},
            timeout=httpx2.Timeout(_CONNECT_S, read=None),  # every call has its own time; a silent stream is no failure
            transport=self._requests,
            trust_env=False,
        )
        await self._open.enter_async_context(client)
        streams = streamable_http_client(self._server.url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES)
        return await self._open.enter_async_context(streams)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._open.__aexit__(kind, error, trace)


class _Bounded(httpx2.AsyncHTTPTransport):
    """Lets no answer pass that is larger than a message may be; events of a stream are bounded one by one."""

    is_forgotten = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        self.is_forgotten |= response.status_code == 404 and _SESSION in request.headers
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise TooLarge("it sent a compressed answer, which was not asked for")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _BoundedStream(response.stream)
        return response


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_MESSAGE_BYTES
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise TooLarge(f"it sent an answer of more than {MAX_MESSAGE_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
