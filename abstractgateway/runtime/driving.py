"""Which runs are being advanced by a thread of this process, so that no two threads advance the same one."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Conflict
from .commit import KernelStores


class Driven:
    """The runs of one store that are being advanced, and by which threads."""

    def __init__(self) -> None:
        self._holders: dict[str, int] = {}
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, run_id: str) -> Iterator[None]:
        """Wait until no other thread advances the run, and keep it meanwhile.

        Raises `Conflict` for the thread that holds it already: an effect must not advance its own run.
        """
        own = threading.get_ident()
        with self._changed:
            if self._holders.get(run_id) == own:
                raise Conflict(f"run {run_id!r} is being advanced by this thread; return from its effect first")
            self._changed.wait_for(lambda: run_id not in self._holders)
            self._holders[run_id] = own
        try:
            yield
        finally:
            with self._changed:
                del self._holders[run_id]
                self._changed.notify_all()

    def is_held(self, run_id: str) -> bool:
        """Say whether a thread advances the run just now."""
        return run_id in self._holders


_driven: weakref.WeakKeyDictionary[KernelStores, Driven] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def driven_of(stores: KernelStores) -> Driven:
    """Return what is being driven of a store; every runtime of this process on the store shares it."""
    with _lock:
        return _driven.setdefault(stores, Driven())
