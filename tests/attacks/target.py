"""A gateway in a process of its own that is attacked, and the well-behaved client that is to be served meanwhile."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cli.processes import PATIENCE_S, TOKEN, Process, environment, port_of, serve

API = "/api/gateway"
HEALTH = "/api/health"
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class Target:
    """A served gateway."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.port = port

    @property
    def output(self) -> str:
        """What the gateway has said so far."""
        return "".join(self._process.output)

    def rss_kb(self) -> int:
        """Return the memory of the process in KB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])

    def connect(self, *, source: str = "127.0.0.1", receive_buffer: int | None = None) -> socket.socket:
        """Open a connection, from any address of the loopback network."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE_S)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", self.port))
        return sock

    def ask(self, path: str, body: Any = None, *, token: str = TOKEN) -> tuple[int, Any]:
        """Send one request on a connection of its own; return status and JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            content = json.dumps(body) if body is not None else None
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request("POST" if body is not None else "GET", path, content, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def latencies_ms(self, count: int) -> list[float]:
        """Return, sorted, how long requests with a valid token took, each on a connection of its own."""
        taken = []
        for _ in range(count):
            began = time.perf_counter()
            status, _ = self.ask(f"{API}/runs?limit=5")
            taken.append((time.perf_counter() - began) * 1000)
            assert status == 200
        return sorted(taken)

    def exchange(self, sent: bytes, *, source: str = "127.0.0.1", patience_s: float = PATIENCE_S) -> bytes:
        """Send bytes and return everything that is answered until the server closes."""
        sock = self.connect(source=source)
        sock.settimeout(patience_s)
        received = []
        try:
            sock.sendall(sent)
            while part := sock.recv(65_536):
                received.append(part)
        except ConnectionResetError:
            pass
        finally:
            sock.close()
        return b"".join(received)


def statuses(answers: bytes) -> list[int]:
    """Return the status of every response in what a server sent."""
    return [int(found) for found in STATUS.findall(answers)]


def head(method: str, path: str, *headers: str, token: str | None = TOKEN, version: str = "HTTP/1.1") -> bytes:
    """Return the head of a request, with a Host and a token."""
    lines = [f"{method} {path} {version}", "Host: 127.0.0.1", *headers]
    lines += [f"Authorization: Bearer {token}"] if token is not None else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def p99(sorted_values: list[float]) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * 0.99))]


@contextmanager
def attacked(directory: Path, *, env: Mapping[str, str] | None = None, **settings: Any) -> Iterator[Target]:
    """Serve a gateway with the sample flows, and further variables in its environment; it ends with the block."""
    with serve(env={**environment(directory / "data", "memory", **settings), **(env or {})}) as process:
        yield Target(process, port_of(process))
