"""The tool box: synchronous to its callers, with one thread and one event loop for all servers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from abstractgateway.clock import Clock, SystemClock
from abstractgateway.config import GatewayConfig
from abstractgateway.errors import NotFound, Unavailable
from abstractgateway.jsonvalue import JsonObject
from abstractgateway.security import Redactor

from .errors import ToolError
from .servers import Server, servers_of

if TYPE_CHECKING:
    from .connection import Connection

_CLOSING_S = 6.0


def open_tools(config: GatewayConfig) -> McpTools:
    """Return the tools of the servers that the settings name, none of which is started yet.

    Raises `Invalid` for a wrong entry, `ImportError` when the client library is not installed.
    """
    if importlib.util.find_spec("mcp") is None:
        raise ImportError("No module named 'mcp'")
    return McpTools(config)


class Stop(Protocol):
    """Says that a result is not wanted any more."""

    def on_set(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have a quick function called when it is so, at once if it is; return how to take that back."""


class McpTools:
    """A `ToolBox` on the servers of the settings. `pause` says how long to wait after so many failures in a row."""

    def __init__(
        self, config: GatewayConfig, *, clock: Clock | None = None, pause: Callable[[int], float] | None = None
    ) -> None:
        self._config = config
        self._redactor = Redactor.of(config)
        self._clock = clock or SystemClock()
        self._options: dict[str, Any] = {"pause": pause} if pause else {}
        self._servers = {server.name: server for server in servers_of(config)}
        self._connections: dict[str, Connection] = {}
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None
        self._is_closed = False
        self._settled = {name: threading.Event() for name in self._servers}
        self._listed_by: float | None = None

    def connect(self) -> None:
        """Begin to connect to all servers, without waiting for any of them."""
        if self._servers and self._listed_by is None:
            self._listed_by = self._clock.monotonic() + self._config.mcp_connect_timeout_s
            self._loop().submit(self._connect_all())

    def specs(self, wanted: Iterable[str] | None = None) -> list[JsonObject]:
        """Return `[{name, description, parameters, annotations, server}]` of what the servers have listed so far.

        While servers are being connected for the first time, it waits for those that `wanted` names tools of (None:
        for all), until they had the time that they have for it; before `connect` there is nothing. What annotations
        say, such as `readOnlyHint`, is the server's word, and nothing to rely on.
        """
        names = self._servers if wanted is None else {name.partition("__")[0] for name in wanted}
        if self._listed_by is not None:
            for name in self._servers.keys() & names:
                self._settled[name].wait(max(0.0, self._listed_by - self._clock.monotonic()))
        return [spec for _, connection in sorted(self._connections.items()) for spec in connection.specs]

    def problems(self) -> dict[str, str]:
        """Return why servers cannot be used now, by server."""
        return {name: found.problem for name, found in list(self._connections.items()) if found.problem}

    def execute(
        self,
        name: str,
        arguments: JsonObject,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        stop: Stop | None = None,
    ) -> Any:
        """Call a tool; return its structured content, its text, or a list that describes what else it returned.

        `timeout_s` (seconds) and the time limit of the server bound it, whichever is shorter, the time for connecting
        included. Setting `stop` ends it, and tells the server. Raises `NotFound`, `Unavailable`, `ToolError`.
        """
        server = self._servers.get(name.partition("__")[0])
        if server is None:
            raise NotFound(f"there is no tool {name!r}; known servers: {', '.join(sorted(self._servers)) or 'none'}")
        seconds = server.timeout_s if timeout_s is None else min(timeout_s, server.timeout_s)
        call = self._loop().submit(self._call(server, name, arguments, idempotency_key))
        return _result(call, server, seconds, stop)

    def close(self) -> None:
        """End all sessions and processes. Returns within seconds, whatever the servers do."""
        with self._lock:
            self._is_closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.close(self._close_all(), _CLOSING_S)
            for connection in self._connections.values():
                connection.kill()

    def _loop(self) -> _LoopThread:
        with self._lock:
            if self._is_closed:
                raise Unavailable("the tools are closed", code="mcp_server_unavailable")
            self._thread = self._thread or _LoopThread()
            return self._thread

    def _connection(self, server: Server) -> Connection:
        """Only the loop's thread calls this. Importing the client library takes most of a second."""
        from .connection import Connection

        if server.name not in self._connections:
            self._connections[server.name] = Connection(
                server,
                connect_timeout_s=self._config.mcp_connect_timeout_s,
                most_output_bytes=self._config.mcp_max_output_bytes,
                redactor=self._redactor,
                **self._options,
            )
        return self._connections[server.name]

    async def _connect_all(self) -> None:
        connections = {name: self._connection(server) for name, server in self._servers.items()}
        for connection in connections.values():
            connection.start()
        await asyncio.gather(*(self._note_settled(name, connection) for name, connection in connections.items()))

    async def _note_settled(self, name: str, connection: Connection) -> None:
        await connection.wait_settled()
        self._settled[name].set()

    async def _call(self, server: Server, name: str, arguments: JsonObject, key: str | None) -> Any:
        return await self._connection(server).call(name, arguments, key)

    async def _close_all(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))


class _LoopThread:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="abstractgateway-mcp", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, last: Coroutine[Any, Any, None], timeout_s: float) -> None:
        """Do the last work, give up what is left, and let the thread end."""
        concurrent.futures.wait([self.submit(last)], timeout=timeout_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


def _result(call: concurrent.futures.Future[Any], server: Server, seconds: float, stop: Stop | None) -> Any:
    """Return what a call in the loop returned. Raises what it raised, or `ToolError` when it is given up."""
    woken = threading.Event()
    call.add_done_callback(lambda _: woken.set())
    take_back = stop.on_set(woken.set) if stop is not None else None
    is_in_time = woken.wait(seconds)
    if take_back is not None:
        take_back()
    if not call.done():
        call.cancel()
        why = "the call was cancelled" if is_in_time else f"no answer within {seconds:g} s"
        raise ToolError(f"mcp server {server.name!r}: {why}; it may have had its effect")
    try:
        return call.result()
    except concurrent.futures.CancelledError:
        raise ToolError(f"mcp server {server.name!r}: the call ended because the gateway is being closed") from None
