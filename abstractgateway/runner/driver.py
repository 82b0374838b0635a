"""Driving runs: take one that can go on, advance it, commit, perform its effect, and again.

A run is driven by one execution at a time. A worker does not wait for the disk: it submits a commit and takes the next
run; whatever follows from the commit happens in its callback. An effect on the outside world runs in the effect pool,
after the commit of its intent (promise G3), and comes back through the queue.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import GatewayError, Invalid, LeaseLost, NotFound, StaleWrite
from ..runtime.commit import CommitReceipt
from ..runtime.execution import Execution, PendingEffect
from ..runtime.models import EffectOutcome, RunStatus, WorkflowSpec
from ..runtime.runtime import Runtime
from ..stores.base import RunRow, Stores
from .pool import Pool

_log = logging.getLogger(__name__)

ACTOR = "gateway"
"""Runs of other actors belong to programs that drive them themselves."""


@dataclass
class Work:
    """A run to go on with: from what is stored, or from an execution in memory; with an outcome to take in, or none."""

    run_id: str
    execution: Execution | None = None
    settling: tuple[PendingEffect, EffectOutcome] | None = None


class Driver:
    """The runs that can go on now, and how they do."""

    def __init__(
        self,
        *,
        stores: Stores,
        runtime: Runtime,
        find_workflow: Callable[[str], WorkflowSpec],
        effects: Pool,
        step_batch: int,
        on_trouble: Callable[[Work, Exception], None],
    ) -> None:
        self.blocked: dict[str, str] = {}  # runs whose workflow is missing, and what is said of it
        self.troubles: dict[str, str] = {}  # runs that rest after something went wrong, and what it was
        self._stores = stores
        self._runtime = runtime
        self._find_workflow = find_workflow
        self._effects = effects
        self._step_batch = step_batch
        self._on_trouble = on_trouble
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._owned: dict[str, int] = {}  # run id -> the newest revision that the store has told of it
        self._lock = threading.Lock()

    def offer(self, run_id: str, revision: int = 0) -> None:
        """Say that a run may be able to go on; a run that is being driven is looked at again afterwards."""
        with self._lock:
            if run_id in self._owned:
                self._owned[run_id] = max(revision, self._owned[run_id])
                return
            self._owned[run_id] = revision
        self._queue.put(Work(run_id))

    def hear(self, row: RunRow) -> None:
        """Take note of a run that the store says has changed."""
        if row.actor_id == ACTOR and row.status is RunStatus.RUNNING:
            self.offer(row.run_id, row.revision)

    def retry(self, work: Work) -> None:
        """Put work back that could not be done."""
        self._queue.put(work)

    def work(self, *, wait: bool) -> bool:
        """Do one piece of work; False when there is none, or when the workers are told to stop."""
        try:
            item = self._queue.get(block=wait)
        except queue.Empty:
            return False
        if item is None:
            return False
        try:
            self._go_on(item)
        except Exception as error:  # whatever goes wrong with one run must not end the worker of all runs
            self._on_trouble(item, error)
        return True

    def stop_workers(self, count: int) -> None:
        """Let that many workers come to an end."""
        for _ in range(count):
            self._queue.put(None)

    def unblock(self) -> None:
        """Look again at the runs whose workflow was missing."""
        for run_id in list(self.blocked):
            self.blocked.pop(run_id, None)
            self.offer(run_id)

    def _go_on(self, work: Work) -> None:
        execution = work.execution or self._open(work.run_id)
        if execution is None:
            self._release(work.run_id, None)
            return
        work.execution = execution
        if work.settling is not None:
            execution.settle(*work.settling)
        execution.advance(self._step_batch)
        if not execution.has_changes:
            self._release(work.run_id, execution)
            return
        try:
            commit = execution.to_commit()
        except Invalid as error:
            self._runtime.fail_run(work.run_id, f"node {execution.state.current_node!r}: {error}")
            self._release(work.run_id, None)
            return
        self._stores.submit(commit, lambda receipt, error: self._committed(work, receipt, error))

    def _open(self, run_id: str) -> Execution | None:
        stored = self._stores.runs.open(run_id)
        if stored is None:
            return None
        try:
            workflow = self._find_workflow(stored.state.workflow_id)
        except NotFound as error:
            self.blocked[run_id] = str(error)
            return None
        return Execution(
            stores=self._stores,
            clock=self._runtime.clock,
            workflow=workflow,
            stored=stored,
            registry=self._runtime.workflow_registry,
            epoch=self._runtime.epoch,
        )

    def _committed(self, work: Work, receipt: CommitReceipt | None, error: Exception | None) -> None:
        """Go on after a commit; called by the store's writer, so it only hands things over."""
        execution = work.execution
        assert execution is not None
        if error is not None:
            self._refused(work, error)
            return
        execution.settle_commit()
        if self.troubles:
            self.troubles.pop(work.run_id, None)
        if execution.pending is not None:
            self._effects.submit(self._perform, execution)
        elif execution.may_advance:
            self._queue.put(Work(work.run_id, execution))
        else:
            self._release(work.run_id, execution)

    def _refused(self, work: Work, error: Exception) -> None:
        """Somebody else changed the run: begin anew from what is stored, keeping an outcome that is to be taken in."""
        work.execution = None
        if isinstance(error, StaleWrite):
            self._queue.put(work)
        elif isinstance(error, LeaseLost):
            _log.warning("run %s is left to the runner that owns it now", work.run_id)
            self._release(work.run_id, None)
        else:
            self._on_trouble(work, error)

    def _perform(self, execution: Execution) -> None:
        pending = execution.pending
        assert pending is not None
        outcome = self._runtime.perform(execution.state, pending)
        self._queue.put(Work(execution.state.run_id, execution, (pending, outcome)))

    def _release(self, run_id: str, execution: Execution | None) -> None:
        """Let go of a run, unless the store told of a change that this execution has not seen."""
        seen = execution.revision if execution is not None else 0
        with self._lock:
            told = self._owned.pop(run_id, 0)
        if execution is not None and told > seen:
            row = self._stores.runs.row(run_id)
            if row is not None:
                self.hear(row)

    def explain(self, run_id: str) -> str | None:
        """Return why a run that should go on does not, where it is the driver's affair."""
        return self.blocked.get(run_id) or self.troubles.get(run_id)


def describe(error: Exception) -> str:
    """Return an error as one line for logs."""
    return str(error) if isinstance(error, GatewayError) else f"{type(error).__name__}: {error}"
