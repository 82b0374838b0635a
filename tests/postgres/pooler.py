"""A pooler that gives each transaction of a client whichever session is free, as PgBouncer's transaction mode does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

from tests.postgres.proxy import SSL_REQUEST, _close, _exactly

READY = b"Z\0\0\0\5I"
GREETING = b"R" + struct.pack(">ii", 8, 0) + b"K" + struct.pack(">iii", 12, 1, 1)


class TransactionPooler:
    """Answers start-ups itself; the session that was given back last is given away first."""

    def __init__(self, port: int, database: str) -> None:
        self._target, self._database = port, database
        self._free: list[socket.socket] = []
        self._all: list[socket.socket] = []
        self._lock = threading.Lock()
        self._facts = b""
        self._give_back(self._session())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        _close(self._listener, *self._all)

    def _session(self) -> socket.socket:
        with self._lock:
            if self._free:
                return self._free.pop()
        session = socket.create_connection(("127.0.0.1", self._target))
        body = b"user\0postgres\0database\0" + self._database.encode() + b"\0client_encoding\0utf8\0\0"
        session.sendall(struct.pack(">ii", 8 + len(body), 196608) + body)
        self._facts = b"".join(item for item in _until_ready(session)[0] if item[:1] == b"S")
        self._all.append(session)
        return session

    def _give_back(self, session: socket.socket) -> None:
        with self._lock:
            self._free.append(session)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._all.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            while int.from_bytes(_startup(client)[4:8], "big") == SSL_REQUEST:
                client.sendall(b"N")
            client.sendall(GREETING + self._facts + READY)
            while True:
                self._transact(client)

    def _transact(self, client: socket.socket) -> None:
        message, session, is_idle = _message(client), self._session(), False
        while not is_idle:
            session.sendall(message)
            if message[:1] in (b"Q", b"S"):
                answers, is_idle = _until_ready(session)
                client.sendall(b"".join(answers))
            if not is_idle:
                message = _message(client)
        self._give_back(session)


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 5)
    message = head + _exactly(source, int.from_bytes(head[1:], "big") - 4)
    if head[:1] == b"X":
        raise EOFError
    return message


def _startup(source: socket.socket) -> bytes:
    head = _exactly(source, 8)
    return head + _exactly(source, int.from_bytes(head[:4], "big") - 8)


def _until_ready(session: socket.socket) -> tuple[list[bytes], bool]:
    answers: list[bytes] = []
    while not answers or answers[-1][:1] != b"Z":
        answers.append(_message(session))
    return answers, answers[-1][-1:] == b"I"
