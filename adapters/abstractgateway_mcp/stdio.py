"""A server as a child process: one JSON message per line on its standard input and output.

The client library has such a transport too. This one keeps no line longer than `MAX_MESSAGE_BYTES` in memory, gives the
process no more of the environment than the settings say, ends it within two graces, and knows why it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types.jsonrpc import jsonrpc_message_adapter

from .servers import Server

MAX_MESSAGE_BYTES = 16_777_216
GRACE_S = 1.0
"""How long a process may take to end after its input was closed, and again after it was told to terminate."""

_CHUNK = 65_536
_MOST_FOREIGN_LINES = 1_000
_LAST_WORDS = 500
_LOOK_S = 0.01

Streams = tuple[
    MemoryObjectReceiveStream["SessionMessage | Exception"],
    MemoryObjectSendStream[SessionMessage],
]


class Lines:
    """Bytes in, whole lines out; a line without an end is kept up to `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> list[bytes]:
        """Return the lines that a chunk completes. Raises `ValueError` for one that is too long."""
        head, *rest = chunk.split(b"\n")
        self._size += len(head)
        if self._size > self._most:
            raise ValueError(f"it sent a message of more than {self._most} bytes")
        self._begun.append(head)
        if not rest:
            return []
        first, self._begun, self._size = b"".join(self._begun), [rest[-1]], len(rest[-1])
        return [first, *rest[:-1]]


class ChildProcess:
    """A transport of the client library; `on_end` is called once nothing more can come from the process.

    `ended_because` then says why, as far as the process let that be known.
    """

    def __init__(self, server: Server, on_end: Callable[[], None], *, grace_s: float = GRACE_S) -> None:
        self._server = server
        self._on_end = on_end
        self._grace_s = grace_s
        self._last_words = b""
        self._why = ""
        self._tasks: list[asyncio.Task[None]] = []
        self.pid = 0

    @property
    def ended_because(self) -> str:
        words = self._last_words.decode("utf-8", "replace").strip()
        return f"{self._why or 'it ended'}{f'; it said: {words}' if words else ''}"

    async def __aenter__(self) -> Streams:
        server = self._server
        self._process = await asyncio.create_subprocess_exec(
            server.command,
            *server.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(server.env),
            cwd=server.cwd,
            start_new_session=True,  # so that its own children can be ended with it
        )
        self.pid = self._process.pid
        self._to_client, incoming = anyio.create_memory_object_stream["SessionMessage | Exception"](0)
        outgoing, self._from_client = anyio.create_memory_object_stream[SessionMessage](0)
        self._open = (self._to_client, incoming, outgoing, self._from_client)
        self._tasks = [self._begun(work()) for work in (self._read, self._write, self._listen_to_errors)]
        return incoming, outgoing

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ending = asyncio.ensure_future(self._end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending  # whoever is cancelled still leaves no process behind; the graces bound this
            raise

    def kill(self) -> None:
        """End the process and its children at once, from any thread."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    @staticmethod
    def _begun(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        lines = Lines(MAX_MESSAGE_BYTES)
        foreign = 0
        try:
            while chunk := await self._process.stdout.read(_CHUNK):
                for line in lines.add(chunk):
                    message = _message(line)
                    foreign += message is None
                    if foreign > _MOST_FOREIGN_LINES:
                        raise ValueError("it writes to its output what is no message")
                    if message is not None:
                        await self._to_client.send(message)
        except ValueError as error:
            self._why = str(error)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass  # the session is gone, or the pipe is
        finally:
            self._to_client.close()
            self._on_end()

    async def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it does not read any more; its output ends as well, or the call in time
            async for item in self._from_client:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                self._process.stdin.write(text.encode() + b"\n")
                await self._process.stdin.drain()

    async def _listen_to_errors(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(OSError):
            while chunk := await self._process.stderr.read(_CHUNK):
                self._last_words = (self._last_words + chunk)[-_LAST_WORDS:]

    async def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if not await self._has_ended():
            self._signal(signal.SIGTERM)
            await self._has_ended()
        self.kill()  # also what it started and left behind
        await self._has_ended()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self._open:
            stream.close()
        _close_pipes(self._process)

    async def _has_ended(self) -> bool:
        """Wait for a grace. (`Process.wait` would also wait for whoever else holds the pipes.)"""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._grace_s
        while self._process.returncode is None and loop.time() < until:
            await asyncio.sleep(_LOOK_S)
        return self._process.returncode is not None

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def _message(line: bytes) -> SessionMessage | None:
    """Return the message of a line, or None for one that is none, such as a greeting.

    Raises `ValueError` for a line that begins as a message does: whoever waits for it would wait for ever.
    """
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        raise ValueError("it sent a line that is no message of the protocol") from error


def _close_pipes(process: asyncio.subprocess.Process) -> None:
    """A process that a server moved out of its group may hold the pipes open; nothing public closes our ends."""
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
