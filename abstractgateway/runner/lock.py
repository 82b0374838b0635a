"""One runner per data directory, across processes: an advisory lock that the system drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from ..clock import to_iso
from ..runtime.models import RunState


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, and since when (ISO time); what an earlier version wrote names no more than it."""

    pid: int
    host: str | None = None
    since: str | None = None

    @staticmethod
    def now() -> Holder:
        """Return this process, as one that holds a lock from now on."""
        return Holder(os.getpid(), socket.gethostname(), to_iso(datetime.now(timezone.utc)))

    @staticmethod
    def parse(text: str) -> Holder | None:
        """Return the holder that `str` wrote, or None for another text."""
        fields = dict(line.partition("=")[::2] for line in text.splitlines())
        pid = fields.get("pid", "")
        return Holder(int(pid), fields.get("host"), fields.get("since")) if pid.isdecimal() else None

    def __str__(self) -> str:
        return f"pid={self.pid}\nhost={self.host}\nsince={self.since}\n"


class RunnerLock:
    """The lock on a file, `gateway_runner.lock` for the runner; the file names its holder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def is_held(self) -> bool:
        return self._fd is not None

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it, and say whether this object holds it now."""
        if self._fd is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        text = str(Holder.now()).encode()
        os.pwrite(fd, text, 0)  # whoever reads meanwhile finds a holder
        os.ftruncate(fd, len(text))
        self._fd = fd
        return True

    def holder(self) -> Holder | None:
        """Return who holds the lock; None where nobody does."""
        if self._fd is None and self.is_free():
            return None
        return Holder.parse(self.path.read_text(errors="replace"))

    def last_held(self) -> datetime | None:
        """Return when the lock was last known to be taken or given back; None where it never was."""
        try:
            return datetime.fromtimestamp(self.path.stat().st_mtime, timezone.utc)
        except FileNotFoundError:
            return None

    def is_free(self) -> bool:
        """Say whether nobody holds the lock; it is shared for the blink of an eye to find out."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def release(self) -> None:
        """Give the lock back; without it nothing happens."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.utime(fd)
            os.close(fd)


class Watch(Protocol):
    """What can be seen of who drives the runs, from any process."""

    def is_free(self) -> bool:
        """Say whether nobody does."""

    def holder(self) -> Holder | None:
        """Return who does; None where nobody does."""

    def last_held(self) -> datetime | None:
        """Return when somebody was last known to; None where nobody ever was."""


class RunnerElsewhere:
    """The runner of a process that leaves driving runs to another one: it can only tell whether there is one.

    `place` is where the runs are, as people are told.
    """

    def __init__(self, lock: Watch, place: str = "this data directory") -> None:
        self._lock = lock
        self._place = place

    def create(self, state: RunState) -> bool:
        """Leave the first steps of a new run to the process that drives it."""
        return False

    def explain(self, run_id: str) -> str | None:
        """Return why a run does not go on: nobody drives it."""
        if not self._lock.is_free():
            return None
        return f"no runner drives the runs of {self._place}; start 'abstractgateway runner' on it"
