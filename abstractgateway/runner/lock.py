"""One runner per data directory, across processes: an advisory lock that the system drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class RunnerLock:
    """The lock on `gateway_runner.lock`; the file names its holder's process id."""

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
        os.ftruncate(fd, 0)
        os.write(fd, b"pid=%d\n" % os.getpid())
        self._fd = fd
        return True

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
            os.close(fd)


class RunnerElsewhere:
    """The runner of a process that leaves driving runs to another one: it can only tell whether there is one."""

    def __init__(self, lock: RunnerLock) -> None:
        self._lock = lock

    def explain(self, run_id: str) -> str | None:
        """Return why a run does not go on: nobody drives it."""
        if not self._lock.is_free():
            return None
        return "no runner drives the runs of this data directory; start 'abstractgateway runner' on it"
