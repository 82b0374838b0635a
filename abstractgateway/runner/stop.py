"""How an effect under way is told that its outcome is not wanted any more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)

Callback = Callable[[], object]


class StopSignal(threading.Event):
    """A `Stop`: an event that also calls functions when it is set; what they raise is logged."""

    def __init__(self) -> None:
        super().__init__()
        self._callbacks: dict[object, Callback] = {}
        self._calling = threading.RLock()  # a callback may take itself back

    def set(self) -> None:
        """Set the event, and call every function that was not taken back."""
        with self._calling:
            super().set()
            callbacks, self._callbacks = self._callbacks, {}
            for callback in callbacks.values():
                _call(callback)

    def on_set(self, callback: Callback) -> Callable[[], None]:
        """Have a function called when the event is set, at once if it is; return how to take that back."""
        key = object()
        with self._calling:
            if self.is_set():
                _call(callback)
            else:
                self._callbacks[key] = callback
        return lambda: self._take_back(key)

    def _take_back(self, key: object) -> None:
        with self._calling:
            self._callbacks.pop(key, None)


def _call(callback: Callback) -> None:
    try:
        callback()
    except Exception:  # it is somebody else's code; whoever sets the event has other effects to stop
        _log.exception("an effect could not be told to stop")
