"""Partial results of effects on their way to whoever listens; they are kept nowhere."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

from ..jsonvalue import JsonObject
from ..runtime.execution import PendingEffect
from ..runtime.models import RunState
from ..runtime.signals import OnDelta, Stop

_log = logging.getLogger(__name__)

_TEXTS = ("content", "reasoning")


@dataclass(frozen=True)
class Delta:
    """A piece of an answer that is being written.

    `step_id` and `attempt` are those of the ledger records of the effect, `cursor` is where its intent is in the ledger
    of the run. `piece` is `{content, offset}` or `{reasoning, offset}`, where `offset` says how many characters of that
    kind came before, or `{restart: true}` when the pieces so far are void.
    """

    run_id: str
    node_id: str
    step_id: str
    attempt: int
    cursor: int
    piece: JsonObject

    @cached_property
    def body(self) -> bytes:
        """The delta as JSON, ASCII only: a piece may end in the middle of a character that JSON spells as two."""
        named = {"run_id": self.run_id, "node_id": self.node_id, "step_id": self.step_id, "attempt": self.attempt}
        return json.dumps({**named, **self.piece}).encode()


Listener = Callable[[Delta], object]


class Deltas:
    """Who listens to the deltas of which runs. Where nobody listens, nothing is looked up and nothing is made.

    `parent_of` returns the id of a run's parent, or None.
    """

    def __init__(self, parent_of: Callable[[str], str | None]) -> None:
        self._parent_of = parent_of
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self._lock = threading.Lock()

    @property
    def has_listeners(self) -> bool:
        return bool(self._listeners)

    def subscribe(self, run_id: str, listener: Listener) -> Callable[[], None]:
        """Call a function with every delta of a run and of the runs below it, from now on; return how to stop that.

        It is called in the thread that performs the effect, and must be quick.
        """
        own: Listener = partial(listener)  # the same function may listen twice
        with self._lock:
            self._listeners[run_id] = (*self._listeners.get(run_id, ()), own)
        return lambda: self._unsubscribe(run_id, own)

    def source(self, run: RunState, pending: PendingEffect, stop: Stop) -> OnDelta:
        """Return what an effect of a run gives its pieces to; what comes after `stop` reaches nobody."""
        return _Source(self, run, pending, stop)

    def listeners_of(self, lineage: tuple[str, ...]) -> list[Listener]:
        """Return who listens to any of these runs."""
        return [listener for run_id in lineage for listener in self._listeners.get(run_id, ())]

    def lineage(self, run: RunState) -> tuple[str, ...]:
        """Return a run's id and those of the runs above it."""
        found = [run.run_id]
        parent = run.parent_run_id
        while parent is not None and parent not in found:
            found.append(parent)
            parent = self._parent_of(parent)
        return tuple(found)

    def _unsubscribe(self, run_id: str, listener: Listener) -> None:
        with self._lock:
            left = tuple(one for one in self._listeners.get(run_id, ()) if one is not listener)
            if left:
                self._listeners[run_id] = left
            else:
                self._listeners.pop(run_id, None)


class _Source:
    """One effect that gives pieces of its result."""

    def __init__(self, deltas: Deltas, run: RunState, pending: PendingEffect, stop: Stop) -> None:
        self._deltas = deltas
        self._run = run
        self._pending = pending
        self._stop = stop
        self._lineage: tuple[str, ...] | None = None
        self._given = dict.fromkeys(_TEXTS, 0)

    def __call__(self, piece: JsonObject) -> None:
        if self._stop.is_set():
            return
        if piece.get("restart"):
            self._given = dict.fromkeys(_TEXTS, 0)
            self._publish({"restart": True})
        for name in _TEXTS:
            text = piece.get(name)
            if isinstance(text, str) and text:
                self._publish({name: text, "offset": self._given[name]})
                self._given[name] += len(text)

    def _publish(self, piece: JsonObject) -> None:
        if not self._deltas.has_listeners:
            return
        try:
            self._tell(piece)
        except Exception:  # whoever listens must not break the call
            _log.exception("a delta of run %s could not be passed on", self._run.run_id)

    def _tell(self, piece: JsonObject) -> None:
        if self._lineage is None:
            self._lineage = self._deltas.lineage(self._run)
        listeners = self._deltas.listeners_of(self._lineage)
        record = self._pending.record
        delta = Delta(record.run_id, record.node_id, record.step_id, record.attempt, self._pending.cursor, piece)
        for listener in listeners:
            listener(delta)
