"""Telling other processes that something was committed, and hearing it from them.

A notification is a hint: it is sent after the commit, one for all that were committed meanwhile, and whoever misses it
finds the change by looking, a moment later.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable

import psycopg

from abstractgateway.errors import GatewayError

from .alone import be_seen
from .database import Connection, Database

_log = logging.getLogger(__name__)

CHANNEL = "abstractgateway"
SHARES = "shares"
"""What is told where the runners, and not the runs, have changed."""
SHELF = "shelf"
"""What is told where bundles, deprecations, drawn flows or named tokens have changed."""
LEAST_GAP_S = 0.005
"""Between two notifications: a busy process tells of many batches at once."""
LEAST_LOOK_GAP_S = 0.01
"""Between two looks: where many others ring, one look finds what several of them have told of."""
SHORTEST_LOOK_S = 0.25
LONGEST_LOOK_S = 2.0
"""How often a process looks on its own; the less is going on, the more seldom."""


class News:
    """One process's bell among those on a database.

    `look` is called in a thread of its own when others have rung or some time has passed, and says whether it found
    anything. `on_share` is called when runners have come, gone, or given runs back, `on_shelf` when bundles and such
    may have changed.
    """

    def __init__(self, database: Database, name: str, look: Callable[[], bool]) -> None:
        self._database = database
        self._name = name
        self._look = look
        self.on_share: Callable[[], None] = lambda: None
        self.on_shelf: Callable[[], object] = lambda: None
        self._shelf_seen_at = -LONGEST_LOOK_S
        self._connection: Connection | None = None
        self.is_seen = threading.Event()
        self._heard: list[str] = []
        self._must_tell = False
        self._told_at = self._looked_at = 0.0
        self._is_closed = False
        self._is_troubled = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="gateway-postgres-news", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Have the others told; returns at once."""
        if not self._must_tell:
            self._must_tell = True
            self._wake()

    def close(self) -> None:
        """Stop telling and hearing."""
        self._is_closed = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()
            self._waker.close()
            self._woken.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # a full buffer wakes the thread as well
            self._waker.send(b"!")

    def _run(self) -> None:
        pause = SHORTEST_LOOK_S
        while not self._is_closed:
            pause = min(2 * pause, LONGEST_LOOK_S)
            try:
                if self._wait(pause) and not self._is_closed and self._look_after_a_gap():
                    pause = SHORTEST_LOOK_S / 2
                self._is_troubled = False
            except (psycopg.Error, GatewayError, OSError) as error:
                self._note_trouble(error)
        self._hang_up()

    def _look_after_a_gap(self) -> bool:
        time.sleep(max(0.0, self._looked_at + LEAST_LOOK_GAP_S - time.monotonic()))
        self._looked_at = time.monotonic()
        return self._look()

    def _wait(self, pause: float) -> bool:
        """Wait for others to ring, or until it is time to look, and say whether to look; tell the others meanwhile."""
        is_new = self._connection is None or self._connection.closed
        connection = self._listening()
        shelf_due_s = self._shelf_seen_at + LONGEST_LOOK_S - time.monotonic()
        ready = self._poll(connection.fileno(), max(0.0, min(pause, shelf_due_s)) if not is_new else 0.0)
        if self._must_tell:
            time.sleep(max(0.0, self._told_at + LEAST_GAP_S - time.monotonic()))
            self._must_tell, self._told_at = False, time.monotonic()
            connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, self._name))
        connection.pgconn.consume_input()
        while (notice := connection.pgconn.notifies()) is not None:
            self._heard.append(notice.extra.decode())
        heard, self._heard = self._heard, []
        if SHARES in heard:
            self.on_share()
        if is_new or not ready or SHELF in heard or shelf_due_s <= 0:
            self.on_shelf()
            self._shelf_seen_at = time.monotonic()
        return is_new or not ready or any(name not in (self._name, SHARES, SHELF) for name in heard)

    def _poll(self, descriptor: int, pause: float) -> bool:
        """Wait until somebody rings or wakes this thread, and say whether anybody has."""
        waiting = select.poll()  # `select` fails for descriptors above 1023
        waiting.register(self._woken, select.POLLIN)
        waiting.register(descriptor, select.POLLIN)
        ready = waiting.poll(1000 * pause)
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        return bool(ready)

    def _listening(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect(patience_s=0.0)
            self._connection.add_notify_handler(lambda notice: self._heard.append(notice.payload))
            self._connection.execute(f"LISTEN {CHANNEL}")
            be_seen(self._connection)
            self.is_seen.set()
        return self._connection

    def _note_trouble(self, error: Exception) -> None:
        if not self._is_troubled:
            _log.warning("changes of other processes cannot be read: %s: %s", type(error).__name__, error)
        self._is_troubled = True
        self._hang_up()
        self._database.note_loss()
        if not self._is_closed:
            self._poll(self._woken.fileno(), SHORTEST_LOOK_S)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
