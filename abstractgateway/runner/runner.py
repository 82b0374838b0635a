"""The runner: one loop decides, workers advance runs, a pool performs effects.

Work is found by being told: the store tells of every run that can go on and of every command; timers are a heap. The
store is asked for its running and waiting runs once, at the start. `run_until_idle` does the same without any thread.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection

from ..clock import Clock
from ..errors import GatewayError, LeaseLost
from ..runtime.commit import CommandOutcome, CommandRecord, Commit
from ..runtime.execution import PendingEffect
from ..runtime.models import EffectOutcome, RunState, RunStatus, WaitReason, WorkflowSpec
from ..runtime.registry import WorkflowRegistry
from ..runtime.runtime import Runtime
from ..stores.base import Changes, Done, RunQuery, RunRow, Stores, slot_of
from .auto_compaction import AutoCompaction
from .commands import CommandApplier
from .deltas import Deltas
from .driver import ACTOR, Driver, Load, Work, describe
from .late import LateOutcomes
from .lock import Holder, RunnerLock
from .performances import Performance
from .pool import InlinePool, Pool, ThreadPool
from .run_log import RunLog
from .tenure import COMMANDS, SoleTenure, Tenure
from .timers import Timers

_log = logging.getLogger(__name__)

STANDBY_S = 0.5
"""How often a standby looks whether the owner is gone; a lock attempt costs a few microseconds."""
BLOCKED_S = 1.0
"""How often the workflow of a blocked run is looked for again."""
TROUBLE_S = 1.0
"""How long a run rests after its store could not write."""
CLOCK_LOOK_S = 5.0
"""How long the loop sleeps at most while a timer is open: the wall clock may be set forward meanwhile."""


class Runner:
    """Drives the runs of a store that belong to the gateway.

    Whoever holds `lock` drives; one that waits for it holds `standby`, so that others can tell that there is one. With
    a `tenure` it drives its share of the runs, and there is no lock.
    `registry_of` returns where a run looks for its workflow and those of its children; without it they are what
    `find_workflow` finds. A runner is started once and stopped once. With `inline` there is no thread: `run_until_idle`
    does the work, and no effect can be timed out, because it is performed in between.
    """

    def __init__(
        self,
        *,
        stores: Stores,
        runtime: Runtime,
        find_workflow: Callable[[str], WorkflowSpec],
        clock: Clock,
        lock: RunnerLock | None = None,
        standby: RunnerLock | None = None,
        tenure: Tenure | None = None,
        advance_workers: int = 2,
        effect_workers: int = 32,
        step_batch: int = 256,
        inline: bool = False,
        registry_of: Callable[[RunState], WorkflowRegistry] | None = None,
        auto_compact_pct: int = 90,
        on_rescheduled: Callable[[str], None] = lambda run_id: None,
    ) -> None:
        if tenure is not None:
            runtime = copy.copy(runtime)  # what others commit through theirs needs no lease, and outlives one
        self.deltas = Deltas(lambda run_id: _parent_of(stores, run_id))
        self._stores = stores
        self._runtime = runtime
        self._clock = clock
        self._tenure = tenure or SoleTenure(stores, ACTOR, lock, standby)
        self._to_take_up: list[Collection[int]] = []  # slots that have come, and were not looked through yet
        self._advance_workers = advance_workers
        self._wake = threading.Event()
        self._timers: Timers[tuple[str, int]] = Timers()  # run ids and their slots, by seconds since the epoch
        self._resting: Timers[Work] = Timers()  # by seconds of the monotonic clock
        self._deadlines: Timers[Performance] = Timers(lambda performance: performance.is_over)  # monotonic as well
        self._effects: Pool = InlinePool() if inline else ThreadPool(effect_workers, "gateway-effect")
        self._driver = Driver(
            stores=stores,
            runtime=runtime,
            find_workflow=find_workflow,
            effects=self._effects,
            deltas=self.deltas,
            commit=self._commit_here if inline else stores.submit,
            step_batch=step_batch,
            on_trouble=self._rest,
            on_lease_lost=self._lose,
            on_not_due=self._add_timer,
            on_put_aside=self._wake.set,
            on_deadline=self._add_deadline,
            on_late=self._hear_late,
            registry_of=registry_of,
            on_committed=self._look_at_conversation,
            holds=self._tenure.holds,
            is_sure=self._tenure.is_sure,
        )
        self._applier = CommandApplier(
            stores,
            clock,
            quietly=self._driver.quieted,
            max_inline_bytes=runtime.max_inline_bytes,
            on_rescheduled=on_rescheduled,
        )
        self._compaction = AutoCompaction(runtime, pct=auto_compact_pct, quietly=self._driver.quieted)
        self._unwanted: deque[str] = deque()  # runs that ended while an effect of theirs was under way
        self._late = LateOutcomes(runtime, quietly=self._driver.quieted)
        self._outcome_listeners: tuple[Callable[[str], None], ...] = ()
        self._loop_thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._unsubscribe_log: Callable[[], None] | None = None
        self._has_commands = True
        self._stopping = False
        self._drain_s = 0.0
        self._next_unblock = 0.0
        self._problem: str | None = None
        self._lost: LeaseLost | None = None
        self.is_owner = False
        self.holder: Holder | None = None
        """This process and since when it drives the runs, once it does."""

    def start(self) -> None:
        """Start the threads; a runner that does not get the lock stands by until its holder is gone."""
        self._loop_thread = threading.Thread(target=self._loop, name="gateway-runner", daemon=True)
        self._loop_thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Take no more steps, wait up to `timeout_s` seconds for what is under way, and give the lock back.

        Effects that end in time are taken in; one that takes longer is told to stop, and is in doubt when its run is
        taken up again.
        """
        self._drain_s = timeout_s
        self._stopping = True
        self._wake.set()
        if self._loop_thread is not None:
            self._loop_thread.join(timeout_s + 1.0)
        self._effects.shutdown()
        for unsubscribe in (self._unsubscribe, self._unsubscribe_log):
            if unsubscribe is not None:
                unsubscribe()
        self._tenure.end()
        self.is_owner = False

    def run_until_idle(self) -> None:
        """Do everything that can be done now, in this thread, and return.

        Raises `LeaseLost` when another runner owns the runs, and what the store raises when it cannot be used.
        """
        self.own()
        self._driver.unblock()
        try:
            while self._decide() or self._driver.work(wait=False):
                continue
        except LeaseLost as error:
            self._lose(error)
        if self._lost is not None:
            raise self._lost

    def create(self, state: RunState) -> bool:
        """Make a new run durable with its first steps, in this thread; see `Driver.create`."""
        return self.is_owner and self._driver.create(state, slot_of(state.run_id))

    def next_due(self) -> float | None:
        """Return the second (since the epoch) at which the next timer is due, or None."""
        return self._timers.next_due()

    def load(self) -> Load:
        """Return how much there is to do just now."""
        return self._driver.load()

    def subscribe_outcomes(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call the listener with the id of each command that is dealt with; return how to stop that.

        It is called in a thread of the runner and must be quick.
        """
        self._outcome_listeners = (*self._outcome_listeners, listener)

        def stop() -> None:
            self._outcome_listeners = tuple(item for item in self._outcome_listeners if item is not listener)

        return stop

    def explain(self, run_id: str) -> str | None:
        """Return why a run that should go on does not, where it is the runner's affair."""
        return self._problem or self._driver.explain(run_id)

    def own(self) -> bool:
        """Become the owner of the store's runs if nobody else is, and take up what is there.

        Raises `LeaseLost` once another runner has taken the runs over.
        """
        if self._lost is not None:
            raise self._lost
        if self.is_owner:
            return True
        epoch = self._tenure.begin(self._wake.set, self._driver.drives)
        if epoch is None:
            return False
        self._runtime.epoch = self._applier.epoch = epoch
        if self._unsubscribe is None:
            self._unsubscribe = self._stores.subscribe(self._hear)
        if self._unsubscribe_log is None and _log.isEnabledFor(logging.INFO):
            self._unsubscribe_log = self._stores.subscribe(RunLog(self._clock.now().timestamp()))
        self._take_up()
        self.is_owner = True
        self.holder = Holder.now()
        return True

    def _take_up(self) -> bool:
        """Look for what there is to do in slots that have come; say whether there were any."""
        self._to_take_up += filter(None, [self._tenure.take_gained()])
        if not self._to_take_up:
            return False
        self._has_commands = True
        while not self._stopping and self._apply_commands():
            continue  # what was accepted while nobody drove the runs comes before their next step
        for row in self._found(RunQuery(statuses=(RunStatus.RUNNING,), limit=None)):
            self._driver.hear(row)
        timers = RunQuery(statuses=(RunStatus.WAITING,), wait_reason=WaitReason.UNTIL, limit=None)
        for row in self._found(timers):
            self._note_timer(row)
        self._to_take_up.clear()
        return True

    def _found(self, query: RunQuery) -> list[RunRow]:
        rows = self._stores.runs.find(query)
        return [row for row in rows if any(row.slot in slots for slots in self._to_take_up)]

    def _keep_share(self) -> bool:
        """Follow what has become of the share of the runs; say whether there is more to do."""
        if self._tenure.is_over:
            self.is_owner = False
            self._driver.abandon_effects()
        self._driver.let_go()
        return self._take_up() if self.is_owner else self.own()

    def _hear(self, changes: Changes) -> None:
        """Take note of what became durable; called by the store's writer."""
        for row in changes.runs:
            self._driver.hear(row, changes.born.get(row.run_id))
            self._note_timer(row)
            if row.status.is_terminal and self._driver.has_effect(row.run_id):
                self._unwanted.append(row.run_id)
                self._wake.set()
        if changes.has_commands:
            self._has_commands = True
            self._wake.set()

    def _note_timer(self, row: RunRow) -> None:
        if row.wait_due is None or row.actor_id != ACTOR or not self._tenure.holds(row.slot):
            return
        self._add_timer(row.wait_due, row.run_id, row.slot)

    def _add_timer(self, due: float, run_id: str, slot: int) -> None:
        if self._timers.add(due, (run_id, slot)):
            self._wake.set()

    def _add_deadline(self, seconds: float, performance: Performance) -> None:
        if self._deadlines.add(self._clock.monotonic() + seconds, performance):
            self._wake.set()

    def _hear_late(self, run_id: str, pending: PendingEffect, outcome: EffectOutcome) -> None:
        self._late.add(run_id, pending, outcome)
        self._wake.set()

    def _look_at_conversation(self, state: RunState) -> None:
        if self._compaction.note(state):
            self._wake.set()

    def _loop(self) -> None:
        while not (self._is_stopping() or self._try(self.own)):
            self._wake.wait(STANDBY_S)
        if self._is_stopping():
            return
        workers = [self._start_worker(number) for number in range(self._advance_workers)]
        while not self._is_stopping():
            self._wake.clear()
            if not self._try(self._turn):
                self._wake.wait(self._idle_s())
        if not self._driver.drain(self._drain_s):
            _log.warning("stopped with effects or steps under way; effects among them will be in doubt")
        self._try(self._late.record)
        self._driver.abandon_effects()
        self._driver.stop_workers(len(workers))
        for worker in workers:
            worker.join()

    def _is_stopping(self) -> bool:
        return self._stopping

    def _turn(self) -> bool:
        """Do what the loop has to decide now; say whether there may be more."""
        did_something = self._keep_share()
        did_something = self._decide() or did_something
        if self._driver.has_blocked and self._clock.monotonic() >= self._next_unblock:
            self._next_unblock = self._clock.monotonic() + BLOCKED_S
            self._driver.unblock()
        return did_something

    def _decide(self) -> bool:
        did_something = self._apply_commands()
        self._stop_unwanted()
        did_something = self._release_due() or did_something
        did_something = self._compaction.work() or did_something
        return self._late.record() or did_something

    def _try(self, action: Callable[[], bool]) -> bool:
        try:
            done = action()
        except LeaseLost as error:
            self._lose(error)
        except Exception as error:  # the loop must outlive a store that fails for a while
            if self._problem != describe(error):
                _log.error("the runner could not go on: %s", describe(error))
            self._problem = describe(error)
        else:
            self._problem = None
            return done
        return False

    def _lose(self, error: LeaseLost) -> None:
        """Stop for good: another runner drives the runs now, and would be disturbed by one that claims them back.

        One that shares the runs begins again.
        """
        if self._tenure.may_return:
            self._tenure.check()
            return
        if self._lost is None:
            _log.error("this runner stops: %s", error)
        self._lost, self._problem = error, describe(error)
        self.is_owner = False
        self._stopping = True
        self._wake.set()

    def _start_worker(self, number: int) -> threading.Thread:
        worker = threading.Thread(target=self._work, name=f"gateway-advance-{number}", daemon=True)
        worker.start()
        return worker

    def _work(self) -> None:
        while self._driver.work(wait=True):
            continue

    def _apply_commands(self) -> bool:
        """Apply what is in the inbox, in order; say whether there was anything."""
        if not self._has_commands or not self._tenure.holds(COMMANDS):
            return False
        self._has_commands = False
        try:
            commands, _ = self._stores.commands.list_after(after=self._stores.commands.get_cursor(), limit=200)
            for command in commands:
                outcome = self._applier.apply(command)
                self._stop_unwanted()
                self._tell_outcome(command.command_id)
                _log_outcome(command, outcome)
        except BaseException:
            self._has_commands = True
            raise
        self._has_commands = self._has_commands or bool(commands)
        return bool(commands)

    def _tell_outcome(self, command_id: str) -> None:
        for listener in self._outcome_listeners:
            try:
                listener(command_id)
            except Exception:  # the outcome is durable, and the commands behind it must not wait for a listener
                _log.exception("a listener for outcomes failed")

    def _stop_unwanted(self) -> None:
        """Tell the effects of runs that have ended to stop."""
        while self._unwanted:
            self._driver.stop_effect(self._unwanted.popleft())

    def _release_due(self) -> bool:
        """Hand over the runs whose time has come; say whether there were any."""
        due = self._timers.pop_due(self._clock.now().timestamp())
        for run_id, slot in due:
            self._driver.offer(run_id, slot=slot)
        rested = self._resting.pop_due(self._clock.monotonic())
        for work in rested:
            self._driver.retry(work)
        overdue = self._deadlines.pop_due(self._clock.monotonic())
        for performance in overdue:
            self._driver.time_out(performance)
        return bool(due or rested or overdue)

    def _idle_s(self) -> float | None:
        """Return how long there is nothing to decide; None for until somebody tells."""
        waits = []
        next_due = self._timers.next_due()
        if next_due is not None:
            waits += [max(0.0, next_due - self._clock.now().timestamp()), CLOCK_LOOK_S]
        for due in (self._resting.next_due(), self._deadlines.next_due()):
            if due is not None:
                waits.append(max(0.0, due - self._clock.monotonic()))
        if self._driver.has_blocked:
            waits.append(BLOCKED_S)
        has_commands = self._has_commands and self._tenure.holds(COMMANDS)
        if has_commands or self._late or self._compaction or self._to_take_up or not self.is_owner:
            waits.append(TROUBLE_S)
        return min((*waits, threading.TIMEOUT_MAX)) if waits else None

    def _rest(self, work: Work, error: Exception) -> None:
        """Let a run rest whose store or code failed unexpectedly, and try again later."""
        self._resting.add(self._clock.monotonic() + TROUBLE_S, work)
        self._wake.set()

    def _commit_here(self, commit: Commit, done: Done) -> None:
        """Commit in this thread, so that what follows happens here as well."""
        try:
            receipt = self._stores.commit(commit)
        except GatewayError as error:
            done(None, error)
        else:
            done(receipt, None)


def _log_outcome(command: CommandRecord, outcome: CommandOutcome) -> None:
    if _log.isEnabledFor(logging.INFO):
        fields = {"command_id": command.command_id, "run_id": command.run_id, "type": command.type}
        reason = {"reason": outcome.reason} if outcome.reason else {}
        _log.info("command %s", outcome.status, extra={**fields, **reason})


def _parent_of(stores: Stores, run_id: str) -> str | None:
    row = stores.runs.row(run_id)
    return row.parent_run_id if row is not None else None
