"""One open stream: a socket, the cursor it stands at, and at most one batch that is not sent yet."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from .deltas import DeltaBuffer, batch_of
from .frames import EVENTS, Batch, Cursor, Framing, framed

# Where a server puts the way out of its worker threads into the WSGI environ.
DOOR_KEY = "abstractgateway.stream_door"

# Four batches: enough for 2.5 MB/s to a reader 100 ms away. Linux takes twice as much, for its own bookkeeping.
_KERNEL_BYTES = 262_144
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class StreamRequest:
    """What a client asked to follow: the records of a run after a cursor, and for how long nothing may be said.

    Where the framing reads no ledger, `run_id` is the id of whatever it waits for news of.

    With `has_deltas` the pieces of answers that are being written come as well.
    """

    run_id: str
    after: Cursor
    heartbeat_s: float
    framing: Framing = EVENTS
    has_deltas: bool = False


@dataclass(frozen=True)
class Connection:
    """A connection that left its server: the socket, bytes still to send, and how to give the socket back.

    `close` must be called exactly once, from any thread; it posts the closing to the server's own thread.
    """

    sock: socket.socket
    chunked: bool
    unsent: bytes
    close: Callable[[], None]


@dataclass(eq=False, slots=True)
class Stream:
    """A stream as the hub's thread sees it; nobody else touches it."""

    run_id: str
    cursor: Cursor
    heartbeat_s: float
    connection: Connection
    release: Callable[[], None]
    framing: Framing = EVENTS
    deltas: DeltaBuffer | None = None
    is_open: bool = True
    pending: memoryview = field(init=False)
    ended: bool = False
    last_sent: float = 0.0
    stuck_since: float | None = None
    wants_write: bool = False
    watched: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.pending = memoryview(self.connection.unsent)

    @property
    def fd(self) -> int:
        return self.connection.sock.fileno()

    def limit_kernel_memory(self) -> None:
        """Keep the kernel from holding megabytes for a reader that does not read."""
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)

    def load(self, batch: Batch) -> None:
        """Take the next batch; its bytes are shared with every stream that stood at the same cursor."""
        self.pending = memoryview(batch.data)
        self.cursor = batch.cursor
        self.ended = batch.ended

    def load_deltas(self) -> bool:
        """Take the deltas that may be sent now, and say whether there are any."""
        frames = self.deltas.take(self._is_sent) if self.deltas is not None else b""
        if frames:
            self.load(batch_of(framed(frames, chunked=self.connection.chunked), self.cursor))
        return bool(frames)

    def next_intent(self) -> int | None:
        """Return the cursor of the record that the next delta waits for, or None."""
        found = self.deltas.next_intent() if self.deltas is not None else None
        return None if found is None or self._is_sent(*found) else found[1]

    def _is_sent(self, run_id: str, cursor: int) -> bool:
        return run_id != self.run_id or isinstance(self.cursor, str) or cursor <= self.cursor

    def send_pending(self, now: float) -> bool:
        """Send what the socket takes and say whether nothing is left. Raises `OSError` when the client is gone."""
        try:
            sent = self.connection.sock.send(self.pending)
        except BlockingIOError:
            sent = 0
        if sent:
            self.pending = self.pending[sent:]
            self.last_sent, self.stuck_since = now, None
        if self.pending and self.stuck_since is None:
            self.stuck_since = now
        return not self.pending

    def is_hung_up(self) -> bool:
        """Read away what the client says, which is nothing to us, and say whether it has closed its side."""
        try:
            return not self.connection.sock.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def hang_up(self, farewell: bytes = b"", *, reset: bool = False) -> None:
        """End the conversation and give the socket back; `reset` drops what the kernel still holds for the client.

        The socket is not closed here: its number must stay taken until the server's own poll has moved on.
        """
        if not self.is_open:
            return
        sock, self.is_open, self.pending = self.connection.sock, False, memoryview(b"")
        try:
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            else:
                if farewell:
                    sock.send(farewell)
                sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The client was faster; there is nobody left to tell.
            return
        finally:
            self.connection.close()
            self.release()
