"""A proxy before a PostgreSQL server that cuts connections at a message of one's choice."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal

Cut = Literal["before", "after", "silent"]
SSL_REQUEST = 80877103


class Proxy:
    """Forwards connections to a server, message by message, until it is told to cut them.

    `before` cuts in front of a message, `after` once the server has dealt with it, without its answer, and `silent` is
    a cable that is pulled: the server does not notice that the client is gone.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._lock = threading.Lock()
        self._left: int | None = None
        self._how: Cut = "before"
        self._stays_away = False
        self._is_away = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._held: list[socket.socket] = []
        self.messages = 0
        self.has_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut_at(self, message: int, how: Cut = "before", *, stays_away: bool = False) -> None:
        """Cut all connections at that message from now, the first being 1; `stays_away` also refuses new ones."""
        with self._lock:
            self._left, self._how, self._stays_away = message, how, stays_away
            self.has_cut = False

    def cut_now(self, *, stays_away: bool = False) -> None:
        with self._lock:
            self._is_away = stays_away
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _close(*pair)

    def heal(self) -> None:
        """Forward everything again; what the server still holds of pulled cables stays as it is."""
        with self._lock:
            self._left, self._is_away = None, False

    def close(self) -> None:
        self.cut_now(stays_away=True)
        _close(self._listener, *self._held)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_away:
                _close(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                _close(client)
                continue
            server.settimeout(None)
            for end in (client, server):  # many small messages must not wait for each other
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((client, server))
            threading.Thread(target=self._forward, args=(client, server), name="proxy-in", daemon=True).start()
            threading.Thread(target=self._answer, args=(client, server), name="proxy-out", daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._greet(client, server)
            while True:
                head = _exactly(client, 5)
                message = head + _exactly(client, int.from_bytes(head[1:], "big") - 4)
                if self._is_last(message[:1]):
                    self._cut(message, server)
                    return
                server.sendall(message)
        _close(client, server) if not self._is_held(server) else _close(client)

    def _greet(self, client: socket.socket, server: socket.socket) -> None:
        """Forward the messages without a type with which a connection begins."""
        while True:
            head = _exactly(client, 8)
            rest = _exactly(client, int.from_bytes(head[:4], "big") - 8)
            if int.from_bytes(head[4:], "big") == SSL_REQUEST:
                client.sendall(b"N")
                continue
            server.sendall(head + rest)
            return

    def _is_last(self, kind: bytes) -> bool:
        with self._lock:
            self.messages += 1
            if self._left is None or kind == b"X":
                return False
            self._left -= 1
            return self._left <= 0

    def _cut(self, message: bytes, server: socket.socket) -> None:
        with self._lock:
            self._left, self.has_cut, self._is_away = None, True, self._stays_away
            pairs, self._pairs = self._pairs, []
            if self._how != "before":
                self._held.append(server)
        if self._how != "before":
            server.sendall(message)
        if self._how == "after":
            server.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while server.recv(65536):
                    pass
        for client, other in pairs:
            _close(client) if other is server and self._how == "silent" else _close(client, other)

    def _is_held(self, server: socket.socket) -> bool:
        with self._lock:
            return server in self._held

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not self._is_held(server) and (data := server.recv(65536)):
                if self._is_held(server):
                    return
                client.sendall(data)
        if not self._is_held(server):
            _close(client, server)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _close(*sockets: socket.socket) -> None:
    for item in sockets:
        with contextlib.suppress(OSError):
            item.shutdown(socket.SHUT_RDWR)
        item.close()
