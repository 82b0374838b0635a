"""How long a call may still take, and whether its answer is still wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable

from abstractgateway.clock import Clock

from .errors import Stopped


class Budget:
    """The time of one call: `timeout_s` seconds from now (None: any number), or until `stop` is set."""

    def __init__(
        self,
        *,
        clock: Clock,
        timeout_s: float | None = None,
        stop: threading.Event | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._ends_at = None if timeout_s is None else clock.monotonic() + timeout_s
        self._stop = stop or threading.Event()
        self._sleep = sleep or self._stop.wait

    def check(self) -> None:
        """Raise `Stopped` when the answer is not wanted any more, or comes too late."""
        if self._stop.is_set():
            raise Stopped("the call was cancelled")
        if self._ends_at is not None and self._clock.monotonic() >= self._ends_at:
            raise Stopped(f"no complete answer within {self._timeout_s:g} s")

    def shorter(self, seconds: float) -> float:
        """Return these seconds, or what is left where that is less."""
        return seconds if self._ends_at is None else max(min(seconds, self._ends_at - self._clock.monotonic()), 0.001)

    def allows(self, seconds: float) -> bool:
        """Say whether there is time for anything after a pause of these seconds."""
        return self._ends_at is None or self._clock.monotonic() + seconds < self._ends_at

    def wait(self, seconds: float) -> None:
        """Pause. Raises `Stopped` as soon as the answer is not wanted any more."""
        self._sleep(seconds)
        self.check()
