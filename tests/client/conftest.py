from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.client import GatewayClient
from abstractgateway_http.server import GatewayServer

TOKEN = "a-token-for-clients-of-tests"
SAMPLES = Path(__file__).resolve().parents[2] / "docs" / "samples"


class Proxy:
    """Passes connections on to a server, and closes each once it has passed as many bytes back as it may."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.allowances: list[int] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            allowance = self.allowances.pop(0) if self.allowances else 1 << 40
            far = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=_pass, args=(near, far, 1 << 40), daemon=True).start()
            threading.Thread(target=_pass, args=(far, near, allowance), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket, allowance: int) -> None:
    with contextlib.suppress(OSError):
        while allowance > 0 and (data := source.recv(65_536)):
            target.sendall(data[:allowance])
            allowance -= len(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


class Scripted(http.server.ThreadingHTTPServer):
    """Answers each request with the next of a list of `(status, headers, body)`; remembers the requests."""

    daemon_threads = True

    def __init__(self, answers: list[tuple[int, dict[str, str], bytes]]) -> None:
        self.answers = answers
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Scripted)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Scripted(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, self.path, headers, body))
        status, extra, answer = self.server.answers.pop(0)
        self.send_response(status)
        if extra.get("Connection") != "close":
            self.send_header("Content-Length", str(len(answer)))
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayService]:
    flows = shutil.copytree(SAMPLES, tmp_path / "flows")
    config = GatewayConfig(data_dir=tmp_path / "data", flows_dir=flows, store_backend="memory", auth_tokens=(TOKEN,))
    with GatewayService.open(config) as opened:
        yield opened


@pytest.fixture
def server(gateway: GatewayService) -> Iterator[GatewayServer]:
    with GatewayServer(gateway) as running:
        yield running


@pytest.fixture
def client(server: GatewayServer) -> Iterator[GatewayClient]:
    with GatewayClient(server.url, TOKEN) as opened:
        yield opened


@pytest.fixture
def proxy(server: GatewayServer) -> Iterator[Proxy]:
    running = Proxy(server.port)
    yield running
    running.close()


@pytest.fixture
def script() -> Iterator[Callable[..., Scripted]]:
    """Starts servers that answer as they are told."""
    running: list[Scripted] = []

    def start(*answers: tuple[int, dict[str, str], bytes]) -> Scripted:
        running.append(Scripted(list(answers)))
        threading.Thread(target=running[-1].serve_forever, args=(0.01,), daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()
