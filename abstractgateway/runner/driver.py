"""Driving runs: take one that can go on, advance it, commit, perform its effect, and again.

A run is driven by one execution at a time. A worker does not wait for the disk: it submits a commit and takes the next
run; whatever follows from the commit happens in its callback. An effect on the outside world runs in the effect pool,
after the commit of its intent (promise G3), and comes back through the queue: with its outcome, or because its time is
up, whichever is first (`performances`).

Who owns a run: from `offer` or `create` until `_release` a run is owned by exactly one `Work`, which is in the queue,
with a worker or with whoever makes the run, in the store's writer, in the effect pool, put aside because its workflow
is missing, or resting after trouble. News of an owned run is only noted; whoever releases it looks again when there
was any.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from ..errors import GatewayError, Invalid, LeaseLost, NotFound, StaleWrite
from ..runtime.commit import Commit, CommitReceipt, RunWrite, StoredRun
from ..runtime.execution import Execution, PendingEffect
from ..runtime.lifecycle import is_waiting_for_time
from ..runtime.models import EffectOutcome, RunState, RunStatus, WorkflowSpec
from ..runtime.registry import WorkflowRegistry, kernel_workflow
from ..runtime.runtime import Runtime
from ..stores.base import Done, RunRow, Stores, instant_or_none
from ..stores.feed import commit_and_wait
from .deltas import Deltas
from .performances import Performance, Performances
from .pool import Pool

_log = logging.getLogger(__name__)

ACTOR = "gateway"
"""Runs of other actors belong to programs that drive them themselves."""

_ALWAYS_NEWS = sys.maxsize

FIRST_SLICE_S = 0.005
"""How long the first steps of a new run may take that whoever starts it waits for."""


@dataclass(eq=False)
class Work:
    """A run to go on with: from what is stored, or from an execution in memory; with an outcome to take in, or none.

    `born` is what was stored when the run was made; where somebody has changed it since, the commit is refused.
    """

    run_id: str
    execution: Execution | None = None
    settling: tuple[PendingEffect, EffectOutcome] | None = None
    born: RunWrite | None = None
    slot: int = 0


@dataclass(frozen=True)
class Load:
    """How much there is to do: `ready` pieces of work in the queue, `runs` being driven, `effects` with the pool."""

    ready: int
    runs: int
    effects: int


@dataclass
class _PutAside:
    """The work of runs whose workflow is missing, and what is said of that."""

    reason: str
    works: dict[str, Work] = field(default_factory=dict)


class Driver:
    """The runs that can go on now, and how they do.

    `find_workflow` finds a workflow by its id alone; `registry_of`, if given, returns where a run looks for its own
    workflow and those of its children. `commit` is how commits are submitted, `on_trouble` what becomes of work that
    failed unexpectedly (it is to come back through `retry`), `on_lease_lost` is called when another runner owns the
    runs now, `on_not_due` when a run is to be offered again at a time (seconds since the epoch), `on_put_aside` when
    one has to be unblocked later. `on_committed` is called with each run whose steps became durable, by the store's
    writer, and must be quick. `deltas`, `on_deadline`, `on_late` and `is_sure` are those of `Performances`. `holds`
    says whether the runs of a slot are to be driven here; where they are no more, an effect that is under way is taken
    in, and no step is taken.
    """

    def __init__(
        self,
        *,
        stores: Stores,
        runtime: Runtime,
        find_workflow: Callable[[str], WorkflowSpec],
        effects: Pool,
        deltas: Deltas,
        commit: Callable[[Commit, Done], None],
        step_batch: int,
        on_trouble: Callable[[Work, Exception], None],
        on_lease_lost: Callable[[LeaseLost], None],
        on_not_due: Callable[[float, str, int], object],
        on_put_aside: Callable[[], None],
        on_deadline: Callable[[float, Performance], None],
        on_late: Callable[[str, PendingEffect, EffectOutcome], None],
        registry_of: Callable[[RunState], WorkflowRegistry] | None = None,
        on_committed: Callable[[RunState], None] = lambda state: None,
        holds: Callable[[int], bool] = lambda slot: True,
        is_sure: Callable[[], bool] = lambda: True,
    ) -> None:
        self._holds = holds
        self._on_committed = on_committed
        self._stores = stores
        self._runtime = runtime
        self._find_hosted = find_workflow
        self._registry_of = registry_of
        self._ended: set[str] = set()  # owned runs that somebody else has ended meanwhile
        self._performances = Performances(
            runtime=runtime,
            pool=effects,
            deltas=deltas,
            on_outcome=self._take_in,
            on_late=on_late,
            on_deadline=on_deadline,
            has_ended=self._ended.__contains__,
            is_sure=is_sure,
            on_dropped=lambda run_id: self._release(run_id, None),
        )
        self._commit = commit
        self._step_batch = step_batch
        self._on_trouble = on_trouble
        self._on_lease_lost = on_lease_lost
        self._on_not_due = on_not_due
        self._on_put_aside = on_put_aside
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._owned: dict[str, int] = {}  # run id -> the newest revision that the store has told of it
        self._slots: dict[str, int] = {}  # of owned runs
        self._aside: dict[str, _PutAside] = {}  # by workflow id
        self._troubles: dict[str, str] = {}  # runs that rest after something went wrong, and what it was
        self._is_draining = False
        self._is_quiet = False
        self._held: list[Work] = []
        self._lock = threading.Lock()
        self._released = threading.Condition(self._lock)

    def offer(self, run_id: str, revision: int = _ALWAYS_NEWS, born: RunWrite | None = None, *, slot: int = 0) -> None:
        """Say that a run may be able to go on; a run that is being driven is looked at again afterwards."""
        if self._take(run_id, slot, revision):
            self._queue.put(Work(run_id, born=born, slot=slot))

    def hear(self, row: RunRow, born: RunWrite | None = None) -> None:
        """Take note of a run that the store says has changed; one that was just made need not be read."""
        if row.actor_id != ACTOR:
            return
        if row.status is RunStatus.RUNNING:
            self.offer(row.run_id, row.revision, born, slot=row.slot)
            return
        if row.status.is_terminal:
            self._note_end(row.run_id)
        if self._aside:
            self._take_back(row)

    def create(self, state: RunState, slot: int) -> bool:
        """Make a new run durable together with its first steps, which are taken in this thread.

        Returns False, having done nothing, when the run is not to be driven here. Raises `StaleWrite` when there is
        such a run, `Invalid` when a step led to what cannot be stored, and what the store raises.
        """
        if not self._take(state.run_id, slot):
            return False
        work = Work(state.run_id, slot=slot)
        try:
            work.execution = self._execution_of(StoredRun(state, revision=0, ledger_len=0, ledger_hash=None))
            work.execution.advance(self._step_batch, slice_s=FIRST_SLICE_S)
            commit = work.execution.to_commit()
        except BaseException:
            self._release(work.run_id, None)
            raise
        commit_and_wait(lambda commit, done: self._commit(commit, partial(self._created, work, done)), commit)
        return True

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
        except LeaseLost as error:
            self._leave(item, error)
        except Exception as error:  # whatever goes wrong with one run must not end the worker of all runs
            self._trouble(item, error)
        return True

    def stop_workers(self, count: int) -> None:
        """Let that many workers come to an end."""
        for _ in range(count):
            self._queue.put(None)

    def drain(self, timeout_s: float) -> bool:
        """Take no more steps; wait until what is under way is committed, and say whether that came about in time.

        Outcomes that arrive meanwhile are taken in, so that an orderly stop leaves no effect in doubt.
        """
        with self._lock:
            self._is_draining = True
            return self._released.wait_for(lambda: self._under_way() == 0, timeout_s)

    @contextmanager
    def quieted(self) -> Iterator[None]:
        """Hold all work while somebody changes a run who would otherwise always come too late."""
        self._is_quiet = True
        try:
            yield
        finally:
            with self._lock:
                self._is_quiet = False
                held, self._held = self._held, []
            for work in held:
                self._queue.put(work)

    @property
    def has_blocked(self) -> bool:
        return bool(self._aside)

    def unblock(self) -> None:
        """Look again for the workflows that were missing, and go on with their runs."""
        for workflow_id in list(self._aside):
            try:
                self._find_workflow(workflow_id)
            except GatewayError:
                continue  # it is not there yet, or not usable yet; what is said of it stays true
            with self._lock:
                found = self._aside.pop(workflow_id, None)
            for work in found.works.values() if found is not None else ():
                self._queue.put(work)

    def _find_workflow(self, workflow_id: str) -> WorkflowSpec:
        return kernel_workflow(workflow_id) or self._find_hosted(workflow_id)

    def explain(self, run_id: str) -> str | None:
        """Return why a run that should go on does not, where it is the driver's affair."""
        with self._lock:
            reasons = (aside.reason for aside in self._aside.values() if run_id in aside.works)
            reason = next(reasons, None) or self._troubles.get(run_id)
        return reason or self._performances.explain(run_id)

    def load(self) -> Load:
        """Return how much there is to do just now."""
        return Load(self._queue.qsize(), len(self._owned), self._performances.count)

    def time_out(self, performance: Performance) -> None:
        """End an effect whose time is up, unless it is over."""
        self._performances.time_out(performance)

    def has_effect(self, run_id: str) -> bool:
        """Say whether an effect of a run is being performed, or waits for that."""
        return self._performances.is_under_way(run_id)

    def stop_effect(self, run_id: str) -> None:
        """Tell the effect of a run, if there is one, that its outcome is not wanted any more."""
        self._performances.stop(run_id)

    def abandon_effects(self) -> None:
        """Tell every effect to stop, and let go of its run; none of them comes back."""
        for run_id in self._performances.abandon():
            self._release(run_id, None)

    def drives(self, slot: int) -> bool:
        """Say whether a run of a slot is being driven; of one that is not held, none will be from then on."""
        with self._lock:
            return slot in self._slots.values()

    def let_go(self) -> None:
        """Let go of the runs that only wait for their workflows, and are to be driven by somebody else."""
        for aside in list(self._aside.values()):
            for work in list(aside.works.values()):
                if not self._holds(work.slot) and aside.works.pop(work.run_id, None) is not None:
                    self._release(work.run_id, None)

    def _go_on(self, work: Work) -> None:
        if self._is_quiet and self._hold(work):
            return
        is_staying = not self._is_draining and self._holds(work.slot)
        if not is_staying and work.settling is None:
            self._release(work.run_id, None)
            return
        execution = work.execution or self._open(work)
        if execution is None:
            return
        work.execution = execution
        if work.settling is not None:
            execution.settle(*work.settling)
        if is_staying:
            execution.advance(self._step_batch)
        if not execution.has_changes:
            self._stand(execution)
            return
        try:
            commit = execution.to_commit()
        except Invalid as error:
            self._runtime.fail_run(work.run_id, f"node {execution.state.current_node!r}: {error}")
            self._release(work.run_id, None)
            return
        self._commit(commit, lambda receipt, error: self._committed(work, receipt, error))

    def _stand(self, execution: Execution) -> None:
        """Go on with an execution that stands where the store does: an effect in doubt, or nothing to do."""
        if execution.pending is not None:
            self._performances.begin(execution)
            return
        slot = self._release(execution.state.run_id, execution)
        self._wait_on(execution.state, slot)

    def _take(self, run_id: str, slot: int, revision: int = 0) -> bool:
        """Become the one who drives a run; False when it is driven already, or is not to be driven here."""
        with self._lock:
            if run_id in self._owned:
                self._owned[run_id] = max(revision, self._owned[run_id])
                return False
            if self._is_draining or not self._holds(slot):
                return False
            self._owned[run_id], self._slots[run_id] = 0, slot
        return True

    def _hold(self, work: Work) -> bool:
        with self._lock:
            if self._is_quiet:
                self._held.append(work)
            return self._is_quiet

    def _open(self, work: Work) -> Execution | None:
        """Return an execution of the run as it is stored; None when the work is over, or cannot be done now."""
        born, work.born = work.born, None
        stored = born.to_stored() if born is not None else self._stores.runs.open(work.run_id)
        if stored is None or not (work.settling or _may_go_on(stored)):
            self._release(work.run_id, None)
            return None
        workflow_id = stored.state.workflow_id
        try:
            return self._execution_of(stored)
        except NotFound as error:
            if not stored.state.status.is_terminal:
                self._put_aside(work, workflow_id, str(error))
                return None
        ended = WorkflowSpec(workflow_id, "", {})  # a run that has ended takes no step any more
        return self._runtime.execution_of(ended, stored)

    def _execution_of(self, stored: StoredRun) -> Execution:
        workflow_id = stored.state.workflow_id
        if self._registry_of is None:
            return self._runtime.execution_of(self._find_workflow(workflow_id), stored)
        registry = self._registry_of(stored.state)
        return self._runtime.execution_of(registry.get_or_raise(workflow_id), stored, registry=registry)

    def _created(self, work: Work, done: Done, receipt: CommitReceipt | None, error: Exception | None) -> None:
        if error is None:
            self._committed(work, receipt, None)
        elif isinstance(error, LeaseLost):
            self._leave(work, error)
        else:
            self._release(work.run_id, None)
        done(receipt, error)

    def _committed(self, work: Work, receipt: CommitReceipt | None, error: Exception | None) -> None:
        """Go on after a commit; called by the store's writer, so it only hands things over."""
        execution = work.execution
        assert execution is not None
        if error is not None:
            self._refused(work, error)
            return
        execution.settle_commit()
        self._on_committed(execution.state)
        if self._troubles:
            self._forget_trouble(work.run_id)
        if execution.pending is not None:
            self._performances.begin(execution)
        elif execution.may_advance:
            self._queue.put(Work(work.run_id, execution, slot=work.slot))
        else:
            self._release(work.run_id, execution)

    def _refused(self, work: Work, error: Exception) -> None:
        """Somebody else changed the run: begin anew from what is stored, keeping an outcome that is to be taken in."""
        work.execution = None
        if isinstance(error, StaleWrite):
            self._queue.put(work)
        elif isinstance(error, LeaseLost):
            self._leave(work, error)
        else:
            self._trouble(work, error)

    def _take_in(
        self, run_id: str, execution: Execution | None, pending: PendingEffect, outcome: EffectOutcome
    ) -> None:
        self._queue.put(Work(run_id, execution, (pending, outcome), slot=self._slots.get(run_id, 0)))

    def _release(self, run_id: str, execution: Execution | None) -> int:
        """Let go of a run, and look at it again if there was news of it that this execution has not seen.

        Returns the run's slot.
        """
        seen = execution.revision if execution is not None else 0
        with self._lock:
            told, slot = self._owned.pop(run_id, 0), self._slots.pop(run_id, 0)
            self._ended.discard(run_id)
            self._troubles.pop(run_id, None)
            self._released.notify_all()
        if told > seen:
            self.offer(run_id, slot=slot)
        return slot

    def _wait_on(self, state: RunState, slot: int) -> None:
        """Have a run looked at again whose time has not come after all: the clock was set back meanwhile."""
        due = instant_or_none(state.waiting.until) if state.waiting is not None else None
        if due is not None and is_waiting_for_time(state):
            self._on_not_due(due, state.run_id, slot)

    def _leave(self, work: Work, error: LeaseLost) -> None:
        self._release(work.run_id, None)
        self._on_lease_lost(error)

    def _trouble(self, work: Work, error: Exception) -> None:
        """Let work rest that failed in a way that may pass; what its execution did in memory is forgotten."""
        work.execution = None
        reason = describe(error)
        with self._lock:
            is_new = self._troubles.get(work.run_id) != reason
            self._troubles[work.run_id] = reason
        if is_new:
            _log.error("run %s could not be driven: %s", work.run_id, reason)
        self._on_trouble(work, error)

    def _forget_trouble(self, run_id: str) -> None:
        with self._lock:
            self._troubles.pop(run_id, None)

    def _put_aside(self, work: Work, workflow_id: str, reason: str) -> None:
        work.execution = None
        with self._lock:
            aside = self._aside.setdefault(workflow_id, _PutAside(reason))
            is_first = not aside.works
            aside.works[work.run_id] = work
            self._released.notify_all()
        if is_first:
            _log.warning("runs are blocked: %s", reason)
            self._on_put_aside()

    def _note_end(self, run_id: str) -> None:
        with self._lock:
            if run_id in self._owned:
                self._ended.add(run_id)

    def _take_back(self, row: RunRow) -> None:
        """Go on with a run that was put aside and does not need its workflow any more."""
        with self._lock:
            aside = self._aside.get(row.workflow_id)
            work = aside.works.pop(row.run_id, None) if aside is not None else None
            if aside is not None and not aside.works:
                del self._aside[row.workflow_id]
        if work is not None:
            self._queue.put(work)

    def _under_way(self) -> int:
        """Return how many runs are owned by somebody who is still to do something about them."""
        idle = sum(len(aside.works) for aside in self._aside.values()) + len(self._troubles)
        return len(self._owned) - idle


def _may_go_on(stored: StoredRun) -> bool:
    return stored.state.status is RunStatus.RUNNING or is_waiting_for_time(stored.state)


def describe(error: Exception) -> str:
    """Return an error as one line for logs."""
    return str(error) if isinstance(error, GatewayError) else f"{type(error).__name__}: {error}"
