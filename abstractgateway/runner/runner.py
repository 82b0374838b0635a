"""The runner: one loop decides, workers advance runs, a pool performs effects.

Work is found by being told: the store tells of every run that can go on and of every command; timers are a heap. The
store is asked for its running and waiting runs once, at the start. `run_until_idle` does the same without any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ..clock import Clock
from ..errors import LeaseLost, NotFound
from ..runtime.models import RunStatus, WaitReason, WorkflowSpec
from ..runtime.runtime import Runtime
from ..stores.base import Changes, RunQuery, RunRow, Stores
from .commands import CommandApplier
from .driver import ACTOR, Driver, Work, describe
from .lock import RunnerLock
from .pool import InlinePool, Pool, ThreadPool
from .timers import Timers

_log = logging.getLogger(__name__)

STANDBY_S = 0.5
"""How often a standby looks whether the owner is gone; a lock attempt costs a few microseconds."""
BLOCKED_S = 1.0
"""How often the workflow of a blocked run is looked for again."""
TROUBLE_S = 1.0
"""How long a run rests after its store could not write."""


class Runner:
    """Drives the runs of a store that belong to the gateway."""

    def __init__(
        self,
        *,
        stores: Stores,
        runtime: Runtime,
        find_workflow: Callable[[str], WorkflowSpec],
        clock: Clock,
        lock: RunnerLock | None = None,
        advance_workers: int = 8,
        effect_workers: int = 32,
        step_batch: int = 256,
        inline: bool = False,
    ) -> None:
        self._stores = stores
        self._runtime = runtime
        self._clock = clock
        self._lock = lock
        self._advance_workers = advance_workers
        self._timers = Timers()
        self._wake = threading.Event()
        self._stopping = False
        self._resting: list[tuple[float, Work]] = []
        self._applier = CommandApplier(stores, clock)
        self._effects: Pool = InlinePool() if inline else ThreadPool(effect_workers, "gateway-effect")
        self._driver = Driver(
            stores=stores,
            runtime=runtime,
            find_workflow=find_workflow,
            effects=self._effects,
            step_batch=step_batch,
            on_trouble=self._rest,
        )
        self._threads: list[threading.Thread] = []
        self._unsubscribe: Callable[[], None] | None = None
        self._has_commands = True
        self.is_owner = False

    def start(self) -> None:
        """Start the threads; a runner that does not get the lock stands by until its holder is gone."""
        loop = threading.Thread(target=self._loop, name="gateway-runner", daemon=True)
        self._threads = [loop]
        loop.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop taking work, wait for what is being advanced, and give the lock back; effects under way are left."""
        self._stopping = True
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout_s)
        self._threads = []
        self._effects.shutdown()
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._lock is not None:
            self._lock.release()
        self.is_owner = False

    def run_until_idle(self) -> None:
        """Do everything that can be done now, in this thread, and return."""
        self.own()
        while self._apply_commands() or self._release_due() or self._driver.work(wait=False):
            continue

    def next_due(self) -> float | None:
        """Return the second (since the epoch) at which the next timer is due, or None."""
        return self._timers.next_due()

    def explain(self, run_id: str) -> str | None:
        """Return why a run that should go on does not, where it is the runner's affair."""
        return self._driver.explain(run_id)

    def own(self) -> bool:
        """Become the owner of the store's runs if nobody else is, and take up what is there."""
        if self.is_owner:
            return True
        if self._lock is not None and not self._lock.try_acquire():
            return False
        epoch = self._stores.claim(ACTOR)
        self._runtime.epoch = self._applier.epoch = epoch
        self._unsubscribe = self._stores.subscribe(self._hear)
        self.is_owner = True
        self._take_up()
        return True

    def _take_up(self) -> None:
        for row in self._stores.runs.find(RunQuery(statuses=(RunStatus.RUNNING,), limit=None)):
            self._driver.hear(row)
        timers = RunQuery(statuses=(RunStatus.WAITING,), wait_reason=WaitReason.UNTIL, limit=None)
        for row in self._stores.runs.find(timers):
            self._note_timer(row)

    def _hear(self, changes: Changes) -> None:
        """Take note of what became durable; called by the store's writer."""
        for row in changes.runs:
            self._driver.hear(row)
            self._note_timer(row)
        if changes.has_commands:
            self._has_commands = True
            self._wake.set()

    def _note_timer(self, row: RunRow) -> None:
        if row.wait_due is None or row.actor_id != ACTOR:
            return
        first = self._timers.next_due()
        self._timers.add(row.wait_due, row.run_id)
        if first is None or row.wait_due < first:
            self._wake.set()

    def _loop(self) -> None:
        while not self._stopping and not self._try(self.own):
            self._wake.wait(STANDBY_S)
        workers = [self._start_worker(number) for number in range(self._advance_workers)]
        while not self._stopping:
            self._wake.clear()
            if not self._try(self._turn):
                self._wake.wait(self._idle_s())
        self._driver.stop_workers(len(workers))
        for worker in workers:
            worker.join()

    def _turn(self) -> bool:
        """Do what the loop has to decide now; say whether there may be more."""
        did_something = self._apply_commands()
        did_something = self._release_due() or did_something
        if self._driver.blocked:
            self._driver.unblock()
        return did_something

    def _try(self, action: Callable[[], bool]) -> bool:
        try:
            return action()
        except LeaseLost as error:
            _log.error("this runner stops: %s", error)
            self._stopping = True
        except Exception as error:  # the loop must outlive a store that fails for a while
            _log.error("the runner could not go on: %s", describe(error))
        return False

    def _start_worker(self, number: int) -> threading.Thread:
        worker = threading.Thread(target=self._work, name=f"gateway-advance-{number}", daemon=True)
        worker.start()
        return worker

    def _work(self) -> None:
        while self._driver.work(wait=True):
            continue

    def _apply_commands(self) -> bool:
        """Apply what is in the inbox, in order; say whether there was anything."""
        if not self._has_commands:
            return False
        self._has_commands = False
        try:
            commands, _ = self._stores.commands.list_after(after=self._stores.commands.get_cursor(), limit=200)
            for command in commands:
                outcome = self._applier.apply(command)
                if outcome.status == "rejected":
                    _log.info("command %s was rejected: %s", command.command_id, outcome.reason)
        except BaseException:
            self._has_commands = True
            raise
        self._has_commands = self._has_commands or bool(commands)
        return bool(commands)

    def _release_due(self) -> bool:
        """Hand over the runs whose time has come; say whether there were any."""
        now = self._clock.now().timestamp()
        due = self._timers.pop_due(now)
        for run_id in due:
            self._driver.offer(run_id)
        rested = [work for until, work in self._resting if until <= self._clock.monotonic()]
        self._resting = [item for item in self._resting if item[1] not in rested]
        for work in rested:
            self._driver.retry(work)
        return bool(due or rested)

    def _idle_s(self) -> float | None:
        """Return how long there is nothing to decide; None for until somebody tells."""
        waits = []
        next_due = self._timers.next_due()
        if next_due is not None:
            waits.append(max(0.0, next_due - self._clock.now().timestamp()))
        if self._driver.blocked:
            waits.append(BLOCKED_S)
        if self._resting or self._has_commands:
            waits.append(TROUBLE_S)
        return min(waits, default=None)

    def _rest(self, work: Work, error: Exception) -> None:
        """Let a run rest whose store or code failed unexpectedly, and try again later."""
        if isinstance(error, NotFound):
            _log.warning("run %s: %s", work.run_id, describe(error))
        else:
            _log.error("run %s could not be driven: %s", work.run_id, describe(error))
        self._driver.troubles[work.run_id] = describe(error)
        self._resting = [*self._resting, (self._clock.monotonic() + TROUBLE_S, work)]
        self._wake.set()
