"""A client that costs little, so that what is measured is the server: one connection, requests as bytes."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# Servers close connections that have been silent for some seconds; a request on its way at that moment would be lost.
_SILENT_S = 1.0


class Refused(Exception):
    """The server answered with another status than 200."""

    def __init__(self, path: str, status: int, text: bytes) -> None:
        super().__init__(f"{path}: {status} {text[:300]!r}")
        self.status = status


class Wire:
    """One connection, made anew when it was not used for a while; for one thread at a time."""

    def __init__(self, port: int, token: str, timeout_s: float = 20.0) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._headers = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json"
        self._sock: socket.socket | None = None
        self._used_at = 0.0

    def json(self, path: str, body: Any = None) -> Any:
        """Return the JSON of a GET, or of a POST when there is a body. Raises `Refused` for a status but 200."""
        return json.loads(self.call(path, body))

    def call(self, path: str, body: Any = None) -> bytes:
        """Return the body of the answer. Raises `Refused`, and `OSError` when there is none in time."""
        return self.exchange(path, self.request(path, body))

    def request(self, path: str, body: Any = None) -> bytes:
        """Return the bytes of a request, for a caller that sends the same one again and again."""
        data = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        return f"{method} {path} HTTP/1.1\r\n{self._headers}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

    def exchange(self, path: str, request: bytes) -> bytes:
        """Send a request and return the body of the answer."""
        try:
            self.send(request)
            return self.receive(path)
        except OSError:
            self.close()
            raise

    def send(self, request: bytes) -> socket.socket:
        """Send a request and return the socket on which its answer will come."""
        if self._sock is None or time.monotonic() - self._used_at > _SILENT_S:
            self.close()
            self._sock = socket.create_connection(("127.0.0.1", self._port), self._timeout_s)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(request)
        return self._sock

    def receive(self, path: str) -> bytes:
        """Return the body of the answer to the request that was sent; `path` is named when it is refused."""
        assert self._sock is not None
        head, received = b"", b""
        while not head:
            received += self._receive(self._sock)
            head, _, rest = received.partition(b"\r\n\r\n") if b"\r\n\r\n" in received else (b"", b"", b"")
        length = _LENGTH.search(head)
        if length is None:
            raise ConnectionError("an answer without a length")
        parts, missing = [rest], int(length[1]) - len(rest)
        while missing > 0:
            parts.append(self._receive(self._sock))
            missing -= len(parts[-1])
        self._used_at = time.monotonic()
        status, text = int(head[9:12]), b"".join(parts)
        if status != 200:
            raise Refused(path, status, text)
        return text

    def close(self) -> None:
        """End the connection; the next request makes another one."""
        if self._sock is not None:
            self._sock.close()
        self._sock = None

    @staticmethod
    def _receive(sock: socket.socket) -> bytes:
        data = sock.recv(262_144)
        if not data:
            raise ConnectionError("the server ended the connection")
        return data
