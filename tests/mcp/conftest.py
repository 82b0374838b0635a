from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig
from abstractgateway.config import McpServers
from abstractgateway_mcp import McpTools

SERVER = str(Path(__file__).with_name("server.py"))
STDIO: dict[str, Any] = {"command": sys.executable, "args": [SERVER, "stdio"]}
PLAIN: dict[str, Any] = {"command": sys.executable, "args": ["-I", "-S", str(Path(__file__).with_name("plain.py"))]}
TOKEN = "a-token-that-nobody-may-see"
PATIENCE_S = 30.0

Open = Callable[..., McpTools]


class Pipe:
    """A named pipe that servers write words to; that the last of them has ended can be seen at it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._heard = b""

    def wait_for(self, word: str) -> None:
        """Wait until the word was written."""
        self._wait(lambda: word.encode() in self._heard)

    def wait_for_end(self) -> None:
        """Wait until nobody has the pipe open for writing any more."""
        self._wait(lambda: False)

    def close(self) -> None:
        os.close(self._fd)

    def _wait(self, is_there: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not is_there():
            events = self._poll.poll(max(0.0, until - time.monotonic()) * 1000)
            assert events, f"nothing more is heard after {self._heard!r}"
            piece = os.read(self._fd, 1000) if events[0][1] & select.POLLIN else b""
            self._heard += piece
            if not piece:
                return


class HttpServer:
    """The server of these tests behind a URL, in a process of its own."""

    def __init__(self, port: int = 0, *arguments: str) -> None:
        command = [sys.executable, SERVER, "http", "--port", str(port), *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    def close(self) -> None:
        """End the server, unless it has ended; again does nothing."""
        self._process.kill()
        self._process.wait(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


def config_of(entries: dict[str, Any], **settings: Any) -> GatewayConfig:
    return GatewayConfig(mcp_servers=McpServers.of(entries, os.environ), **settings)


def soon(failures: int) -> float:
    """Try again at once after the first failure, and then not within a test."""
    return 0.0 if failures < 2 else 600.0


def specs_by_name(tools: McpTools) -> dict[str, dict[str, Any]]:
    return {spec["name"]: spec for spec in tools.specs()}


def names(tools: McpTools) -> set[str]:
    return set(specs_by_name(tools))


def wait_for_name(tools: McpTools, name: str) -> None:
    """Wait until a tool is offered, by calling another one, whose answers come in turn with the list."""
    until = time.monotonic() + PATIENCE_S
    while name not in names(tools):
        assert time.monotonic() < until, f"{name} is not listed"
        tools.execute("t__add", {"a": 1, "b": 2})


@pytest.fixture
def tools_of() -> Iterator[Open]:
    """Opens a tool box on servers, by name."""
    opened: list[McpTools] = []

    def open_one(entries: dict[str, Any], pause: Callable[[int], float] = soon, **settings: Any) -> McpTools:
        opened.append(McpTools(config_of(entries, **settings), pause=pause))
        return opened[-1]

    yield open_one
    for tools in opened:
        tools.close()


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    opened = Pipe(tmp_path / "pipe")
    yield opened
    opened.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., HttpServer]]:
    """Starts servers behind URLs."""
    started: list[HttpServer] = []

    def start(*arguments: Any) -> HttpServer:
        started.append(HttpServer(*arguments))
        return started[-1]

    yield start
    for server in started:
        server.close()
