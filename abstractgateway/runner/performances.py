"""Effects in the pool: each is over when its outcome comes or when its time is up, whichever is first.

Whoever ends it has the run again: the thread that performed it, or the loop that found it overdue. A thread that comes
back afterwards owns nothing; what it brings is a late outcome.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..runtime.execution import Execution, PendingEffect, timed_out
from ..runtime.models import EffectOutcome, StepStatus
from ..runtime.runtime import Runtime
from ..runtime.signals import Signals
from .deltas import Deltas
from .pool import Pool
from .stop import StopSignal

_log = logging.getLogger(__name__)

Task = tuple[Execution, PendingEffect]
"""The execution that stands before an effect, and the effect."""


@dataclass(eq=False)
class Performance:
    """One effect that is to be performed, or is just now, by a thread; without a task it is over.

    What is over holds on to nothing: it may stay among the deadlines for a while.
    """

    run_id: str
    task: Task | None
    thread: threading.Thread | None = None
    stop: StopSignal = field(default_factory=StopSignal)

    @property
    def is_over(self) -> bool:
        return self.task is None


class Performances:
    """The effects that are with the pool.

    `on_outcome` is called with what ended an effect: the run's id, the execution that goes on, or None where it has to
    go on from what is stored, the effect and its outcome. `on_late` is called with outcomes that came afterwards, and
    `on_deadline` with an effect that begins and the seconds it may take; it is to come back through `time_out`.
    `deltas` is where the pieces of results go. `is_sure` says, at the last moment, whether the runs are still to be
    driven here; where they are not, `on_dropped` is called with the run's id, and nothing is performed. `has_ended`
    says whether a run has ended since its effect was decided on.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        pool: Pool,
        deltas: Deltas,
        on_outcome: Callable[[str, Execution | None, PendingEffect, EffectOutcome], None],
        on_late: Callable[[str, PendingEffect, EffectOutcome], None],
        on_deadline: Callable[[float, Performance], None],
        has_ended: Callable[[str], bool],
        is_sure: Callable[[], bool] = lambda: True,
        on_dropped: Callable[[str], object] = lambda run_id: None,
    ) -> None:
        self._is_sure = is_sure
        self._on_dropped = on_dropped
        self._runtime = runtime
        self._pool = pool
        self._has_ended = has_ended
        self._deltas = deltas
        self._on_outcome = on_outcome
        self._on_late = on_late
        self._on_deadline = on_deadline
        self._under_way: dict[str, Performance] = {}
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many effects are with the pool."""
        return len(self._under_way)

    def begin(self, execution: Execution) -> None:
        """Have the execution's pending effect performed; the time it waits for a thread does not count."""
        pending = execution.pending
        assert pending is not None
        performance = Performance(execution.state.run_id, (execution, pending))
        with self._lock:
            self._under_way[performance.run_id] = performance
        if self._has_ended(performance.run_id):  # between the commit of the intent and this
            performance.stop.set()
        self._pool.submit(self._perform, performance)

    def time_out(self, performance: Performance) -> None:
        """End an effect whose time is up, unless it is over; its thread is counted on no more.

        The run goes on from what is stored: the handler may still look at, or change, the state it was given.
        """
        with self._lock:
            task = self._end(performance)
            if task is None:
                return
            if performance.thread is not None:
                self._pool.give_up(performance.thread)
        performance.stop.set()
        outcome = timed_out(task[1])
        _log_end(performance.run_id, task[1], outcome)
        self._on_outcome(performance.run_id, None, task[1], outcome)

    def is_under_way(self, run_id: str) -> bool:
        """Say whether an effect of a run is with the pool."""
        return run_id in self._under_way

    def stop(self, run_id: str) -> None:
        """Tell the effect of a run that its outcome is not wanted; what it brings is taken in all the same."""
        found = self._under_way.get(run_id)
        if found is not None:
            found.stop.set()

    def abandon(self) -> list[str]:
        """Tell every effect to stop, and take in nothing more: they will be in doubt. Returns the ids of their runs."""
        with self._lock:
            left = list(self._under_way.values())
            for performance in left:
                self._end(performance)
        for performance in left:
            performance.stop.set()
        return [performance.run_id for performance in left]

    def explain(self, run_id: str) -> str | None:
        """Return why an effect of a run that is with the pool is not performed just now; None where it is."""
        with self._lock:
            found = self._under_way.get(run_id)
            if found is None or found.task is None:
                return None
            _, pending = found.task
        record = pending.record
        effect = f"{pending.effect.type.value} of node {record.node_id!r}"
        if pending.is_in_doubt:
            return f"in doubt: finding out what became of {effect}, begun at {record.started_at}"
        if found.thread is None:
            return f"{effect} waits since {record.started_at} until one of the effect workers is free"
        return None

    def _perform(self, performance: Performance) -> None:
        if not self._is_sure():
            self._drop(performance)
        if performance.task is None:
            return
        execution, pending = performance.task
        performance.thread = threading.current_thread()
        if pending.timeout_s is not None:
            self._on_deadline(pending.timeout_s, performance)
        _log_begin(performance.run_id, pending)
        outcome = self._outcome_of(performance, execution, pending)
        _log_end(performance.run_id, pending, outcome)
        with self._lock:
            is_in_time = self._end(performance) is not None
        if is_in_time:
            self._on_outcome(performance.run_id, execution, pending, outcome)
        elif outcome.status is not StepStatus.STARTED:
            self._on_late(performance.run_id, pending, outcome)

    def _drop(self, performance: Performance) -> None:
        with self._lock:
            is_dropped = self._end(performance) is not None
        if is_dropped:
            self._on_dropped(performance.run_id)

    def _outcome_of(self, performance: Performance, execution: Execution, pending: PendingEffect) -> EffectOutcome:
        if performance.stop.is_set() and not pending.is_in_doubt:
            return EffectOutcome.failed("it was not wanted any more before a thread was free for it")
        on_delta = self._deltas.source(execution.state, pending, performance.stop)
        return self._runtime.perform(execution.state, pending, Signals(performance.stop, on_delta))

    def _end(self, performance: Performance) -> Task | None:
        """Return the task, to the first who asks."""
        task, performance.task = performance.task, None
        if task is not None:
            del self._under_way[performance.run_id]
        return task


def _log_begin(run_id: str, pending: PendingEffect) -> None:
    if pending.is_in_doubt:
        _log.warning("effect in doubt", extra=_fields(run_id, pending))
    elif pending.record.attempt > 1 and _log.isEnabledFor(logging.INFO):
        _log.info("effect retried", extra=_fields(run_id, pending))


def _log_end(run_id: str, pending: PendingEffect, outcome: EffectOutcome) -> None:
    if outcome.status is StepStatus.FAILED and _log.isEnabledFor(logging.INFO):
        _log.info("effect failed", extra={**_fields(run_id, pending), "error": outcome.error})


def _fields(run_id: str, pending: PendingEffect) -> dict[str, Any]:
    record = pending.record
    effect = {"effect": pending.effect.type.value, "node_id": record.node_id, "attempt": record.attempt}
    return {"run_id": run_id, **effect}
