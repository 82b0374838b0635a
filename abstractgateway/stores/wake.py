"""Waking the other processes on a data directory: one Unix datagram to each after a batch of commits.

It is a hint: a process that misses it finds the change by its own look, a moment later.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from ..ids import new_hex

LOOK_S = 0.25
"""How often a process looks for changes on its own; the look costs a few microseconds."""


class Wake:
    """One process's bell among those on a data directory."""

    def __init__(self, directory: Path, on_wake: Callable[[], None]) -> None:
        self._directory = directory / "wake"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        self._name = f"{os.getpid()}-{new_hex()[:8]}.sock"
        self._on_wake = on_wake
        self._peers: list[str] = []
        self._stamp = -1
        self._is_closed = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path(self._name))
        self._socket.settimeout(LOOK_S)
        self._thread = threading.Thread(target=self._listen, name="gateway-wake", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Wake the other processes; one that is gone is forgotten."""
        for name in self._others():
            try:
                self._socket.sendto(b"!", socket.MSG_DONTWAIT, self._path(name))
            except BlockingIOError:
                continue  # its queue is full: it is awake, or will look on its own
            except OSError:
                self._forget(name)

    def close(self) -> None:
        """Stop listening and take the bell down."""
        self._is_closed = True
        if threading.current_thread() is not self._thread:
            self._thread.join(4 * LOOK_S)
        self._forget(self._name)
        self._socket.close()
        os.close(self._fd)

    def _listen(self) -> None:
        while not self._is_closed:
            try:
                self._socket.recv(16)
            except TimeoutError:
                pass  # nobody rang: time for a look of our own
            except OSError:
                return
            if not self._is_closed:
                self._on_wake()

    def _others(self) -> list[str]:
        stamp = os.fstat(self._fd).st_mtime_ns
        if stamp != self._stamp:
            self._stamp = stamp
            self._peers = [name for name in os.listdir(self._fd) if name.endswith(".sock") and name != self._name]
        return self._peers

    def _path(self, name: str) -> str:
        """Return a short path: a socket address holds about a hundred bytes, data directories may be deeper."""
        return f"/proc/self/fd/{self._fd}/{name}"

    def _forget(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._fd)
        except OSError:
            return
