"""Readers of event streams: thousands in one thread; started as a process, they are the load of a measurement.

The process (`python -m bench_http.readers PORT TOKEN`) reads one JSON object a line and answers each with one:

    {"open": [run_id, ...], "at_most_s": 20}      opens a stream for each, and waits for the first record of all
    {"await": 3, "at_most_s": 20}                 waits until all have the record with cursor 3
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import IO, Any

from . import processes

_STEP = re.compile(rb'id: (\d+)\nevent: step\ndata: \{"cursor": (\d+), ')
_DONE = re.compile(rb'event: done\ndata: \{"run_id": "[^"]+", "cursor": (\d+)')
_READ_BYTES = 262_144


class Body:
    """The body of an answer, taken out of the bytes of a connection as they come."""

    def __init__(self) -> None:
        self.status = 0
        self._is_chunked = False
        self._raw = b""

    def feed(self, data: bytes) -> bytes:
        """Return what the bytes add to the body."""
        self._raw += data
        if not self.status and b"\r\n\r\n" in self._raw:
            head, _, self._raw = self._raw.partition(b"\r\n\r\n")
            self.status = int(head[9:12])
            self._is_chunked = b"transfer-encoding: chunked" in head.lower()
        if not self.status:
            return b""
        found, self._raw = _whole_chunks(self._raw) if self._is_chunked else (self._raw, b"")
        return found


def _whole_chunks(raw: bytes) -> tuple[bytes, bytes]:
    """Return what the complete chunks at the beginning hold (RFC 9112 section 7.1), and the bytes after them."""
    parts, place = [], 0
    while (line_end := raw.find(b"\r\n", place)) >= 0:
        begin, size = line_end + 2, int(raw[place:line_end], 16)
        if begin + size + 2 > len(raw):
            break
        parts.append(raw[begin : begin + size])
        place = begin + size + 2
    return b"".join(parts), raw[place:]


class Reader:
    """One stream: what arrived of it, and whether that is all there is, once and in order.

    What arrives is looked at later, so that the looking delays no other reader.
    """

    def __init__(self, sock: socket.socket, run_id: str) -> None:
        self.sock = sock
        self.run_id = run_id
        self.times: list[float] = []
        self.ended_at: int | None = None
        self.is_closed = False
        self.faults: list[str] = []
        self._arrived: list[tuple[float, bytes]] = []
        self._body = Body()
        self._rest = b""

    def take(self) -> None:
        """Read what is there."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            data = b""
            self.faults.append(str(error))
        self.is_closed = not data
        self._arrived.append((time.monotonic(), data))

    def look(self) -> None:
        """Check what was read."""
        arrived, self._arrived = self._arrived, []
        for at, data in arrived:
            frames, mark, self._rest = (self._rest + self._body.feed(data)).rpartition(b"\n\n")
            if mark:
                self._check(frames + mark, at)

    def _check(self, frames: bytes, at: float) -> None:
        found = [(int(event), int(cursor)) for event, cursor in _STEP.findall(frames)]
        wanted = [(number, number) for number in range(self.seen + 1, self.seen + len(found) + 1)]
        if found != wanted:
            self.faults.append(f"after record {self.seen} came {found[:3]}")
        self.times.extend([at] * len(found))
        done = _DONE.search(frames)
        if done is not None:
            self.ended_at = int(done[1])

    @property
    def status(self) -> int:
        """The status of the answer; 0 while there is none."""
        return self._body.status

    @property
    def seen(self) -> int:
        """How many records arrived; `times` says when each did, by the monotonic clock."""
        return len(self.times)

    @property
    def is_well(self) -> bool:
        return not self.faults and self.ended_at == self.seen and self.seen > 0


class Readers:
    """All streams, read by one thread."""

    def __init__(self, port: int, token: str, awake: int | None = None) -> None:
        """Read streams of the gateway on a port; the wait in `read` ends also when the file `awake` has something."""
        self.all: list[Reader] = []
        self._head = f" HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._port = port
        self._poll = select.epoll()
        self._by_fd: dict[int, Reader] = {}
        self._unlooked: dict[Reader, None] = {}
        self._stuck: list[socket.socket] = []
        if awake is not None:
            self._poll.register(awake, select.EPOLLIN)

    def open(self, run_id: str, heartbeat_s: float = 5.0) -> Reader:
        """Open a stream and read it from now on."""
        sock = self._asked(run_id, heartbeat_s, socket.socket())
        sock.setblocking(False)
        reader = self._by_fd[sock.fileno()] = Reader(sock, run_id)
        self.all.append(reader)
        self._poll.register(sock, select.EPOLLIN)
        return reader

    def open_unread(self, run_id: str) -> None:
        """Open a stream that is not read: what comes stays in the buffers of the kernel."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._stuck.append(self._asked(run_id, 5.0, sock))

    def _asked(self, run_id: str, heartbeat_s: float, sock: socket.socket) -> socket.socket:
        sock.settimeout(10)
        sock.connect(("127.0.0.1", self._port))
        path = f"/api/gateway/runs/{run_id}/ledger/stream?after=0&heartbeat_s={heartbeat_s}"
        sock.sendall(f"GET {path}{self._head}".encode())
        return sock

    def read(self, seconds: float | None) -> bool:
        """Read what arrives, for so long at most, and say whether anything did."""
        ready = [self._by_fd[fd] for fd, _ in self._poll.poll(seconds) if fd in self._by_fd]
        for reader in ready:
            reader.take()
            self._unlooked[reader] = None
            if reader.is_closed:
                self._forget(reader)
        return bool(ready)

    def look(self) -> None:
        """Check what was read since the last look."""
        for reader in self._unlooked:
            reader.look()
        self._unlooked.clear()

    def read_until(self, is_over: Callable[[], bool], deadline: float) -> bool:
        """Read until something is so, by what was looked at, and say whether it came to that."""
        while True:
            # Nothing is looked at while more is arriving, unless it never ends.
            patience = time.monotonic() + 0.5
            while self.read(0.002) and time.monotonic() < patience:
                pass
            self.look()
            if is_over():
                return True
            if time.monotonic() > deadline:
                return False

    def _forget(self, reader: Reader) -> None:
        del self._by_fd[reader.sock.fileno()]
        self._poll.unregister(reader.sock)
        reader.sock.close()


class Load:
    """The readers of a process, told what to do by lines."""

    def __init__(self, port: int, token: str, orders: IO[str]) -> None:
        self._orders = orders
        self._readers = Readers(port, token, orders.fileno())

    def run(self, answers: IO[str]) -> None:
        """Read streams, and do what is ordered meanwhile, until there are no more orders."""
        while line := self._next_order():
            print(json.dumps(self._obey(json.loads(line))), file=answers, flush=True)

    def _next_order(self) -> str:
        while not select.select([self._orders], [], [], 0)[0]:
            self._readers.read(None)
        return self._orders.readline()

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        if "open" in order:
            return self._open(order["open"], order["at_most_s"])
        return self._await(order["await"], order["at_most_s"])

    def _open(self, run_ids: list[str], at_most_s: float) -> dict[str, Any]:
        begin, unconnected = time.monotonic(), 0
        for number, run_id in enumerate(run_ids):
            if time.monotonic() > begin + at_most_s:
                unconnected = len(run_ids) - number
                break
            try:
                self._readers.open(run_id)
            except OSError:
                unconnected += 1
            if number % 50 == 49:
                self._readers.read(0)
        opened = self._readers.all
        self._readers.read_until(lambda: all(map(_is_settled, opened)), begin + at_most_s)
        return {
            "open": sum(reader.seen > 0 and not reader.is_closed for reader in opened),
            "refused": sum(reader.status not in (0, 200) for reader in opened),
            "unconnected": unconnected,
            "seen": max((reader.seen for reader in opened), default=0),
            "took_s": time.monotonic() - begin,
        }

    def _await(self, cursor: int, at_most_s: float) -> dict[str, Any]:
        followed = [reader for reader in self._readers.all if not reader.is_closed]
        self._readers.read_until(
            lambda: all(reader.seen >= cursor for reader in followed), time.monotonic() + at_most_s
        )
        at = sorted(reader.times[cursor - 1] for reader in followed if reader.seen >= cursor)
        return {"at": at, "missing": len(followed) - len(at)}


def _is_settled(reader: Reader) -> bool:
    """Say whether a stream has brought a record, or will not bring one."""
    return reader.seen > 0 or reader.is_closed


def main() -> None:
    processes.raise_file_limit()
    Load(int(sys.argv[1]), sys.argv[2], sys.stdin).run(sys.stdout)


if __name__ == "__main__":
    main()
