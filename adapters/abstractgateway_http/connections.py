"""What waitress has open, and its loop, which looks at a connection only when something about it may have changed.

Waitress's own loop asks every connection before every wait what to wait for. With a thousand idle ones that takes
longer than a request. Here the kernel remembers what is waited for. A connection is asked again after an event of its
own, when a worker thread says that it has changed, and, for whatever else waitress may do, now and then.
"""

from __future__ import annotations

import contextlib
import select
from collections import deque
from collections.abc import Iterable
from typing import Any

from waitress import wasyncore


class Connections(dict[int, Any]):
    """Waitress's map of what is open, by file number: connections, listening sockets, and the pipe that wakes the loop.

    All but `note` is for the thread of the loop.
    """

    def __init__(self) -> None:
        super().__init__()
        has_epoll = hasattr(select, "epoll")
        self._poll: Any = select.epoll() if has_epoll else select.poll()
        self._unit_s = 1.0 if has_epoll else 0.001
        self._waited_for: dict[int, int] = {}
        self._changed: deque[int] = deque()
        self._asked_always: tuple[int, ...] = ()

    def __setitem__(self, number: int, member: Any) -> None:
        super().__setitem__(number, member)
        self.note(number)

    def __delitem__(self, number: int) -> None:
        super().__delitem__(number)
        if self._waited_for.pop(number, 0):
            with contextlib.suppress(OSError):  # its file is closed already, so the kernel has forgotten it
                self._poll.unregister(number)

    def note(self, number: int) -> None:
        """Have a member asked again what it waits for, in the next turn; any thread may note."""
        self._changed.append(number)

    def ask_always(self, numbers: Iterable[int]) -> None:
        """Ask these members in every turn."""
        self._asked_always = tuple(numbers)

    def ask_all(self) -> None:
        """Have every member asked again in the next turn."""
        self._changed.extend(self)

    def turn(self, seconds: float) -> None:
        """Wait until something happens, `seconds` at most, and let the members deal with it."""
        for number in self._asked_always:
            self._ask(number)
        while self._changed:
            self._ask(self._changed.popleft())
        for number, events in self._poll.poll(seconds / self._unit_s):
            member = self.get(number)
            if member is not None:
                wasyncore.readwrite(member, events)
                self.note(number)

    def close(self) -> None:
        """Forget everything; what is open stays so."""
        self.clear()
        if hasattr(self._poll, "close"):
            self._poll.close()

    def _ask(self, number: int) -> None:
        if number not in self:
            return
        member = self[number]
        wanted = select.POLLIN | select.POLLPRI if member.readable() else 0
        if member.writable() and not member.accepting:
            wanted |= select.POLLOUT
        before = self._waited_for.get(number, 0)
        if wanted == before:
            return
        self._waited_for[number] = wanted
        if not wanted:
            self._poll.unregister(number)
        elif before:
            self._poll.modify(number, wanted)
        else:
            self._poll.register(number, wanted)
