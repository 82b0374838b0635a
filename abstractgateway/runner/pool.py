"""Threads for effects: made when they are needed, up to a limit, and never in the way of the process's end."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

_log = logging.getLogger(__name__)

Call = tuple[Callable[..., None], tuple[Any, ...]]


class Pool(Protocol):
    """Something that calls functions, now or later."""

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call the function; it must not raise."""

    def shutdown(self) -> None:
        """Take no more calls; what is under way is left alone."""


class ThreadPool:
    """Calls functions in up to `size` daemon threads.

    A standard pool waits for its threads when the process ends; a model call that hangs would keep it from ending.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0  # idle threads that no queued call counts on; of no meaning once there are `size` threads
        self._is_shut_down = False

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        with self._lock:
            if self._is_shut_down:
                return
            self._calls.put((function, arguments))
            if self._free > 0:
                self._free -= 1
                return
            if self._threads >= self._size:
                return
            self._threads += 1
            number = self._threads
        threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True).start()

    def shutdown(self) -> None:
        with self._lock:
            if self._is_shut_down:
                return
            self._is_shut_down = True
            threads = self._threads
        for _ in range(threads):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, arguments = call
            try:
                function(*arguments)
            except BaseException:  # the thread is counted on; whatever a call raises, it must live on
                _log.exception("a call in %s failed", self._name)
            with self._lock:
                self._free += 1


class InlinePool:
    """Calls functions at once, in the calling thread."""

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        function(*arguments)

    def shutdown(self) -> None:
        """Do nothing: there is no thread to end."""
