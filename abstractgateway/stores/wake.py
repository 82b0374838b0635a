"""Waking the other processes on a data directory: one Unix datagram to each after a batch of commits.

It is a hint: a process that misses it finds the change by its own look, a moment later.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..ids import new_hex

_log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often a process looks for changes on its own; the look costs a few microseconds."""
FRESH_NS = 100_000_000
"""A directory changed this recently may have changed since within the same tick of its file system's clock."""


class Wake:
    """One process's bell among those on a data directory; `on_wake(has_rung)` is called in a thread of its own."""

    def __init__(self, directory: Path, on_wake: Callable[[bool], None]) -> None:
        self._directory = directory / "wake"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._name = f"{os.getpid()}-{new_hex()[:8]}.sock"
        self._on_wake = on_wake
        self._peers: list[str] = []
        self._stamp = -1
        self._is_closed = False
        self._is_deaf = False
        self._is_troubled = False
        self._fd = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):  # no name for a bell here: this process looks on its own
            self._socket.bind(self._path(self._name))
        self._socket.settimeout(LOOK_S)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)  # a process that does not answer must not hold up the commits of this one
        self._thread = threading.Thread(target=self._listen, name="gateway-wake", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Wake the other processes; one that is gone is forgotten. Never fails: the change is durable already."""
        if self._is_closed:
            return
        with contextlib.suppress(OSError):
            for name in self._others():
                self._send(name)

    def close(self) -> None:
        """Stop listening and take the bell down; nobody may ring any more."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._sender.sendto(b"!", self._path(self._name))
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._forget(self._name)
        self._socket.close()
        self._sender.close()
        os.close(self._fd)

    def _listen(self) -> None:
        while not self._is_closed and not self._is_deaf:
            has_rung = True
            try:
                self._socket.recv(16)
            except TimeoutError:
                has_rung = False
            except OSError:
                time.sleep(LOOK_S)
                has_rung = False
            if not self._is_closed:
                self._look(has_rung)

    def _look(self, has_rung: bool) -> None:
        try:
            self._on_wake(has_rung)
            self._is_troubled = False
        except Exception as error:  # the bell must outlive a store that cannot be read for a while
            if not self._is_troubled:
                _log.warning("changes of other processes cannot be read: %s: %s", type(error).__name__, error)
            self._is_troubled = True
        except BaseException as error:  # nobody above this thread could handle it
            _log.critical("changes of other processes are no longer read: %s: %s", type(error).__name__, error)
            self._is_deaf = True

    def _send(self, name: str) -> None:
        try:
            self._sender.sendto(b"!", self._path(name))
        except (ConnectionRefusedError, FileNotFoundError):
            self._forget(name)
        except OSError:
            return  # its queue is full: it is awake, or will look on its own

    def _others(self) -> list[str]:
        stamp = os.fstat(self._fd).st_mtime_ns
        if stamp != self._stamp:
            self._stamp = stamp if time.time_ns() - stamp > FRESH_NS else -1
            self._peers = [name for name in os.listdir(self._fd) if name.endswith(".sock") and name != self._name]
        return self._peers

    def _path(self, name: str) -> str:
        """Return a short path: a socket address holds about a hundred bytes, data directories may be deeper."""
        short = f"/proc/self/fd/{self._fd}"
        return f"{short}/{name}" if os.path.isdir(short) else str(self._directory / name)

    def _forget(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._fd)
