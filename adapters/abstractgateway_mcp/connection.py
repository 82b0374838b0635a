"""The life of one server: connected, listed, called, and connected again when it is gone.

Everything here runs in the event loop of the tool box, besides `specs`, which any thread may read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Literal

from mcp import Client, MCPError
from mcp.client import IncomingMessage, Transport
from mcp.types import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    Tool,
    ToolListChangedNotification,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from abstractgateway.errors import Invalid, NotFound, Unavailable
from abstractgateway.jsonvalue import JsonObject
from abstractgateway.security import Redactor

from .errors import ToolError
from .http import HttpSession, TooLarge
from .results import error_of, output_of
from .servers import Server
from .specs import MAX_TOOLS, SEPARATOR, offered
from .stdio import ChildProcess

KEY_IN_META = "abstractgateway/idempotency_key"
_CLIENT = Implementation(name="abstractgateway", version="1")
_MOST_PAUSE_S = 60.0
_LEAVING_S = 1.0  # for telling a server behind a URL that its session is over

for _name in ("mcp", "client"):  # the loggers of the client library, which print to standard error where nobody listens
    logging.getLogger(_name).addHandler(logging.NullHandler())


def pause_after(failures: int) -> float:
    """Return how many seconds to wait for the next attempt: none at first, then 1, 2, 4 … 60."""
    return 0.0 if failures <= 1 else min(2.0 ** (failures - 2), _MOST_PAUSE_S)


class Connection:
    """One server and, while there is one, the session with it."""

    def __init__(
        self,
        server: Server,
        *,
        connect_timeout_s: float,
        most_output_bytes: int,
        redactor: Redactor,
        pause: Callable[[int], float] = pause_after,
    ) -> None:
        self._server = server
        self._redactor = redactor
        self._connect_timeout_s = connect_timeout_s
        self._most_output_bytes = most_output_bytes
        self._pause = pause
        self._failures = 0
        self._mode: Literal["auto", "legacy"] = "auto"
        self._client: Client | None = None
        self._process: ChildProcess | None = None
        self._http: HttpSession | None = None
        self._tools: dict[str, tuple[str, JsonObject]] = {}
        self._settled = asyncio.Event()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._is_over = False
        self._is_changed = False
        self._life: asyncio.Task[None] | None = None
        self.problem: str | None = None

    @property
    def specs(self) -> list[JsonObject]:
        """What the server listed last; while it is away, what it had before."""
        return [spec for _, spec in self._tools.values()]

    def start(self) -> None:
        """Connect, and from now on connect again whenever the server is gone."""
        self._life = self._life or asyncio.get_running_loop().create_task(self._live())

    async def wait_settled(self) -> None:
        """Wait until the attempt to connect that is under way has succeeded or failed."""
        await self._settled.wait()

    async def close(self) -> None:
        """End the session and the process; a server that does not let go of the session is left to itself."""
        self._is_closing = True
        self._end()
        if self._life is not None:
            await asyncio.wait({self._life}, timeout=_LEAVING_S if self._client else 0)
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)

    def kill(self) -> None:
        """End the process without any courtesy, from any thread."""
        if self._process is not None and self._process.pid:
            self._process.kill()

    async def call(self, name: str, arguments: JsonObject, idempotency_key: str | None) -> Any:
        """Call a tool and return its output. A cancelled call tells the server that it is not wanted any more.

        Raises `NotFound` for a tool that the server does not have, `Unavailable` while there is no server, `ToolError`
        when the call fails.
        """
        client = await self._connected()
        if name not in self._tools:
            raise NotFound(f"there is no tool {name!r}; the server has: {', '.join(sorted(self._tools)) or 'none'}")
        meta: Any = {KEY_IN_META: idempotency_key} if idempotency_key else None
        params = CallToolRequestParams(name=self._tools[name][0], arguments=arguments, _meta=meta)
        try:
            result = await self._answer(client, CallToolRequest(params=params))
            if result.is_error:
                raise ToolError(self._server.hidden(error_of(result)))
            return output_of(result, self._most_output_bytes)
        except (MCPError, ValueError, RuntimeError) as error:  # what the library raises for answers that are none
            raise ToolError(self._said(error)) from None

    async def _answer(self, client: Client, request: CallToolRequest) -> CallToolResult:
        try:
            result = await client.session.send_request(request, CallToolResult)
        except MCPError as error:
            is_forgotten = self._http is not None and self._http.is_forgotten
            if error.code != INVALID_REQUEST or not is_forgotten:
                raise
            self._drop()  # the server refused the request together with the session, so it did nothing
            result = await (await self._connected()).session.send_request(request, CallToolResult)
        self._failures = 0
        return result

    def _said(self, error: Exception) -> str:
        if isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
            return self._text(f"the connection was lost during the call, which may have had its effect; {self._fate()}")
        if isinstance(error, MCPError):
            return self._text(f"error {error.code}: {error.message}"[:4000])
        if isinstance(error, Invalid):
            return self._text(error.message)
        return self._text("it sent an answer that is no result of a tool")

    def _text(self, what: str) -> str:
        return self._server.hidden(f"mcp server {self._server.name!r}: {what}")

    def _fate(self) -> str:
        return self._process.ended_because if self._process else self.problem or "it ended"

    async def _connected(self) -> Client:
        self.start()
        await self._settled.wait()
        if self._client is None:
            raise Unavailable(self.problem or self._text("is not connected"), code="mcp_server_unavailable")
        return self._client

    def _drop(self) -> None:
        self._client = None
        self._is_over = True
        self._settled.clear()
        self._wake.set()

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._is_closing:
            self._settled.clear()
            began = loop.time()
            reason = await self._attempt()
            self._client = None
            self._failures = 1 if loop.time() - began >= _MOST_PAUSE_S else self._failures + 1
            pause = self._pause(self._failures)
            self.problem = self._text(reason)
            if pause > 0 or self._is_closing:
                self._settled.set()
            await asyncio.sleep(0 if self._is_closing else pause)

    async def _attempt(self) -> str:
        """Keep a session for as long as it lasts; return why there is none any more."""
        session = asyncio.get_running_loop().create_task(self._session())
        settled = asyncio.get_running_loop().create_task(self._settled.wait())
        try:
            await asyncio.wait({session, settled}, timeout=self._connect_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not settled.done():  # a server may know only the older way to begin, and end at the sight of the newer
                self._mode = "legacy" if self._mode == "auto" else "auto"
            if not (session.done() or settled.done()):
                return f"it was not ready within {self._connect_timeout_s:g} s"
            await asyncio.wait({session})
            return self._reason(session)
        finally:
            settled.cancel()
            session.cancel()
            await asyncio.gather(session, settled, return_exceptions=True)

    def _reason(self, session: asyncio.Task[None]) -> str:
        error = None if session.cancelled() else session.exception()
        causes = [cause for cause in _leaves(error) if not isinstance(cause, asyncio.CancelledError)]
        lost = [cause for cause in causes if isinstance(cause, MCPError) and cause.code == CONNECTION_CLOSED]
        if self._process is not None and len(lost) == len(causes):
            return self._process.ended_because
        return "; ".join(dict.fromkeys(_words_of(cause) for cause in causes)) or "it ended"

    async def _session(self) -> None:
        self._is_over = self._is_changed = False
        client = Client(self._transport(), mode=self._mode, cache=None, client_info=_CLIENT, message_handler=self._note)
        async with client:
            self._tools = await self._listed(client)
            self._client, self.problem = client, None
            self._settled.set()
            listener = asyncio.get_running_loop().create_task(self._listen(client))
            try:
                await self._follow(client)
            finally:
                self._client = None
                self._settled.clear()
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    def _transport(self) -> Transport:
        self._process = None
        if self._server.url:
            self._http = HttpSession(self._server)
            return self._http
        self._process = ChildProcess(self._server, self._end)
        return self._process

    async def _follow(self, client: Client) -> None:
        while not self._is_over:
            await self._wake.wait()
            self._wake.clear()
            if self._is_changed and not self._is_over:
                self._is_changed = False
                self._tools = await self._listed(client)

    async def _listed(self, client: Client) -> dict[str, tuple[str, JsonObject]]:
        if client.server_capabilities.tools is None:
            return {}
        tools: list[Tool] = []
        cursors: set[str] = set()
        cursor: str | None = None
        while cursor not in cursors:
            cursors.update([cursor] if cursor else [])
            page = await client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if len(tools) > MAX_TOOLS or len(cursors) > MAX_TOOLS:
                raise ToolError(f"it lists more than {MAX_TOOLS} tools")
            if not cursor:
                return offered(self._server, tools, self._redactor)
        raise ToolError("it lists the same page of tools again and again")

    async def _listen(self, client: Client) -> None:
        """Newer servers tell of changes to those who subscribe, older ones to everybody."""
        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or tools is None or not tools.list_changed:
            return
        try:
            async with client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self._change()
        except (MCPError, RuntimeError):
            self._end()  # what changed meanwhile is not told again; a new session lists everything

    async def _note(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._change()

    def _change(self) -> None:
        self._is_changed = True
        self._wake.set()

    def _end(self) -> None:
        self._is_over = True
        self._wake.set()


def server_of(name: str) -> str:
    """Return the name of the server in the name of one of its tools."""
    return name.partition(SEPARATOR)[0]


def _words_of(error: BaseException) -> str:
    is_ours = isinstance(error, (ToolError, TooLarge))
    return (str(error) if is_ours else f"{type(error).__name__}: {error}")[:500]


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    inner = getattr(error, "exceptions", None)
    if inner is not None:
        for item in inner:
            yield from _leaves(item)
    elif error is not None:
        yield error
