"""Threads for effects: made when they are needed, up to a limit, and never in the way of the process's end."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

_log = logging.getLogger(__name__)

MOST_STUCK = 4
"""How many threads may hang for each that works."""

Call = tuple[Callable[..., None], tuple[Any, ...]]


class Pool(Protocol):
    """Something that calls functions, now or later."""

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call the function; it must not raise."""

    def give_up(self, thread: threading.Thread) -> None:
        """Count no more on a thread whose call does not end: another takes its place, and it ends with its call."""

    def shutdown(self) -> None:
        """Take no more calls; what is under way is left alone."""


class ThreadPool:
    """Calls functions in up to `size` daemon threads.

    A standard pool waits for its threads when the process ends; a model call that hangs would keep it from ending.
    Threads that were given up are not among the `size`; there are up to `MOST_STUCK` times as many of them. Beyond that
    no more are replaced until one of them comes back.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._made = 0
        self._stuck: set[threading.Thread] = set()  # given up, and replaced
        self._unreplaced: set[threading.Thread] = set()  # given up when there were too many of them
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
            thread = self._new_thread()
        thread.start()

    def give_up(self, thread: threading.Thread) -> None:
        with self._lock:
            if self._is_shut_down:
                return
            if len(self._stuck) < MOST_STUCK * self._size and self._replace():
                self._stuck.add(thread)
                _log.warning("%s: a call does not end; a fresh thread replaces %s", self._name, thread.name)
            else:
                self._unreplaced.add(thread)
                _log.error(
                    "%s: %d calls do not end; no thread replaces %s", self._name, len(self._stuck) + 1, thread.name
                )

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
            if not self._goes_on():
                return

    def _goes_on(self) -> bool:
        """Say whether this thread, whose call has ended, is counted on."""
        thread = threading.current_thread()
        with self._lock:
            if thread in self._stuck:
                self._stuck.remove(thread)
                if not self._unreplaced or self._is_shut_down:
                    return False
                self._stuck.add(self._unreplaced.pop())  # this one takes its place
            self._unreplaced.discard(thread)
            self._free += 1
        return True

    def _replace(self) -> bool:
        """Start a thread that is idle at first; False where the system has no more of them."""
        try:
            self._new_thread().start()
        except RuntimeError:
            return False
        self._free += 1
        return True

    def _new_thread(self) -> threading.Thread:
        self._made += 1
        return threading.Thread(target=self._work, name=f"{self._name}-{self._made}", daemon=True)


class InlinePool:
    """Calls functions at once, in the calling thread."""

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        function(*arguments)

    def give_up(self, thread: threading.Thread) -> None:
        """Do nothing: the calling thread is the caller's."""

    def shutdown(self) -> None:
        """Do nothing: there is no thread to end."""
