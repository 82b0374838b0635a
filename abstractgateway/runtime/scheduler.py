"""A thread that lets runs go on whose time has come, for programs that embed the kernel without a gateway."""

from __future__ import annotations

import logging
import pkgutil
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from ..clock import to_iso
from ..errors import Conflict
from ..jsonvalue import JsonObject
from . import lifecycle
from .commit import KernelStores
from .effects import ExternalEffect
from .effects.events import Event, as_object, build_event_wait_key, deliver
from .models import EffectType, RunState, RunStatus, WaitReason, WorkflowSpec
from .policy import EffectPolicy, InDoubt, Reconciler
from .registry import WorkflowRegistry
from .runtime import Runtime

_log = logging.getLogger(__name__)

_ALL = 1_000_000
"""A limit that nobody reaches: with the default of 100, runs that cannot go on would keep the others from theirs."""


class QueryableRuns(Protocol):
    """The queries that a scheduler makes of a run store."""

    def list_runs(
        self,
        *,
        status: RunStatus | None = None,
        wait_reason: WaitReason | None = None,
        workflow_id: str | None = None,
        limit: int = 100,
    ) -> list[RunState]:
        """Return runs, the latest updated first."""

    def list_due_wait_until(self, *, now_iso: str, limit: int = 100) -> list[RunState]:
        """Return the runs whose time has come, the earliest due first."""


@dataclass
class SchedulerStats:
    """What a scheduler has done since it was made."""

    runs_resumed: int = 0
    runs_failed: int = 0
    poll_cycles: int = 0
    last_poll_at: str | None = None
    errors: list[str] = field(default_factory=list)


class Scheduler:
    """Polls for due runs every `poll_interval_s` seconds and ticks them, one after the other.

    Runs that are `running` and belong to a registered workflow are ticked too: after an event, an answer or a crash
    nobody else would.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        registry: WorkflowRegistry,
        poll_interval_s: float = 1.0,
        max_errors_kept: int = 100,
        on_run_resumed: Callable[[RunState], object] | None = None,
        on_run_failed: Callable[[str, Exception], object] | None = None,
    ) -> None:
        if not hasattr(runtime.run_store, "list_due_wait_until"):
            raise TypeError("the scheduler needs a QueryableRunStore, a run store that can be asked for due runs")
        self.runtime = runtime
        self.registry = registry
        self.poll_interval_s = poll_interval_s
        self.stats = SchedulerStats()
        self._runs = cast(QueryableRuns, runtime.run_store)
        self._max_errors_kept = max_errors_kept
        self._on_run_resumed = on_run_resumed
        self._on_run_failed = on_run_failed
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the polling thread. Raises `RuntimeError` when it runs already."""
        if self.is_running:
            raise RuntimeError("the scheduler is already running")
        self._stopping.clear()
        self._thread = threading.Thread(target=self._poll_until_stopped, name="abstractgateway-scheduler", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop the polling thread; calling it again does nothing."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                _log.warning("the scheduler did not stop within %s s; a run is still being ticked", timeout)

    def poll_once(self) -> int:
        """Tick every run that can go on now and return how many did."""
        now = to_iso(self.runtime.clock.now())
        self.stats.poll_cycles += 1
        self.stats.last_poll_at = now
        due = self._runs.list_due_wait_until(now_iso=now, limit=_ALL)
        running = self._runs.list_runs(status=RunStatus.RUNNING, limit=_ALL)
        return sum(self._tick(run) for run in [*due, *(run for run in running if run.workflow_id in self.registry)])

    def resume_event(self, *, run_id: str, wait_key: str, payload: JsonObject) -> RunState:
        """Answer a run's wait and advance it; errors are those of `Runtime.resume`."""
        spec = self.registry.get_or_raise(self.runtime.get_state(run_id).workflow_id)
        return self.runtime.resume(workflow=spec, run_id=run_id, wait_key=wait_key, payload=payload)

    def emit_event(
        self,
        *,
        name: str,
        payload: JsonObject,
        scope: str = "session",
        session_id: str | None = None,
        workflow_id: str | None = None,
        run_id: str | None = None,
        max_steps: int = 100,
    ) -> list[RunState]:
        """Deliver an event to every run that waits for it, advance those runs, and return their states."""
        key = build_event_wait_key(
            scope=scope, name=name, session_id=session_id, workflow_id=workflow_id, run_id=run_id
        )
        event = Event(
            key=key,
            name=name.strip(),
            scope=scope,
            payload=as_object(payload),
            emitter={"source": "external"},
            session_id=session_id,
            emitted_at=to_iso(self.runtime.clock.now()),
        )
        reached = [entry["run_id"] for entry in self.runtime.transact(lambda draft: deliver(draft, event))]
        return [self._tick_state(run_id, max_steps) for run_id in reached]

    def find_waiting_runs(
        self, *, wait_reason: WaitReason | None = None, workflow_id: str | None = None, limit: int = 100
    ) -> list[RunState]:
        """Return waiting runs, the latest updated first."""
        return self._runs.list_runs(
            status=RunStatus.WAITING, wait_reason=wait_reason, workflow_id=workflow_id, limit=limit
        )

    def cancel_with_children(self, run_id: str, *, reason: str | None = None) -> list[RunState]:
        """Cancel a run and everything below it; return the runs that are cancelled now, the root first."""
        return [state for state in self._cancel_tree([run_id], reason) if state.status is RunStatus.CANCELLED]

    def _cancel_tree(self, run_ids: Iterable[str], reason: str | None) -> Iterable[RunState]:
        queue = list(run_ids)
        for run_id in queue:
            if self.runtime.stores.runs.open(run_id) is None:
                continue
            yield self.runtime.cancel_run(run_id, reason=reason)
            queue += self.runtime.stores.runs.children_of(run_id)

    def _poll_until_stopped(self) -> None:
        while not self._stopping.wait(self.poll_interval_s):
            try:
                self.poll_once()
            except Exception as error:  # the thread must outlive whatever a store or a callback raises
                self._note_error(error)

    def _tick(self, run: RunState) -> int:
        if lifecycle.is_paused(run) or self.runtime.is_driven(run.run_id):
            return 0
        try:
            state = self._tick_state(run.run_id, 100)
        except Exception as error:  # one run's failure must not keep the others from their turn
            self.stats.runs_failed += 1
            self._note_error(error)
            self._call(self._on_run_failed, run.run_id, error)
            return 0
        self.stats.runs_resumed += 1
        self._call(self._on_run_resumed, state)
        return 1

    def _tick_state(self, run_id: str, max_steps: int) -> RunState:
        spec = self.registry.get_or_raise(self.runtime.get_state(run_id).workflow_id)
        return self.runtime.tick(workflow=spec, run_id=run_id, max_steps=max_steps)

    def _call(self, callback: Callable[..., object] | None, *arguments: object) -> None:
        if callback is None:
            return
        try:
            callback(*arguments)
        except Exception as error:  # an embedding program's callback must not stop the scheduler
            self._note_error(error)

    def _note_error(self, error: Exception) -> None:
        _log.warning("scheduler: %s: %s", type(error).__name__, error)
        self.stats.errors.append(f"{self.stats.last_poll_at}: {type(error).__name__}: {error}")
        del self.stats.errors[: -self._max_errors_kept]


@dataclass
class ScheduledRuntime:
    """A runtime, a scheduler and a registry that belong together."""

    runtime: Runtime
    scheduler: Scheduler
    registry: WorkflowRegistry

    @property
    def is_running(self) -> bool:
        return self.scheduler.is_running

    @property
    def stats(self) -> SchedulerStats:
        return self.scheduler.stats

    def run(
        self,
        workflow: WorkflowSpec,
        *,
        vars: JsonObject | None = None,
        actor_id: str | None = None,
        session_id: str | None = None,
        max_steps: int = 100,
    ) -> tuple[str, RunState]:
        """Start a run, advance it, and return its id and state; the workflow is registered when it is new."""
        run_id = self.start(workflow=workflow, vars=vars, actor_id=actor_id, session_id=session_id)
        return run_id, self.tick(run_id, max_steps=max_steps)

    def start(
        self,
        *,
        workflow: WorkflowSpec,
        vars: JsonObject | None = None,
        actor_id: str | None = None,
        session_id: str | None = None,
    ) -> str:
        if workflow.workflow_id not in self.registry:
            self.registry.register(workflow)
        return self.runtime.start(workflow=workflow, vars=vars, actor_id=actor_id, session_id=session_id)

    def tick(self, run_id: str, *, max_steps: int = 100) -> RunState:
        spec = self.registry.get_or_raise(self.get_state(run_id).workflow_id)
        return self.runtime.tick(workflow=spec, run_id=run_id, max_steps=max_steps)

    def respond(self, run_id: str, payload: JsonObject) -> RunState:
        """Answer whatever key the run waits on. Raises `Conflict` when it waits on none."""
        waiting = self.get_state(run_id).waiting
        if waiting is None or waiting.wait_key is None:
            raise Conflict(f"run {run_id!r} is not waiting for an answer", code="not_waiting")
        return self.scheduler.resume_event(run_id=run_id, wait_key=waiting.wait_key, payload=payload)

    def resume_event(self, *, run_id: str, wait_key: str, payload: JsonObject) -> RunState:
        return self.scheduler.resume_event(run_id=run_id, wait_key=wait_key, payload=payload)

    def get_state(self, run_id: str) -> RunState:
        return self.runtime.get_state(run_id)

    def get_ledger(self, run_id: str) -> list[JsonObject]:
        return self.runtime.get_ledger(run_id)

    def find_waiting_runs(
        self, *, wait_reason: WaitReason | None = None, workflow_id: str | None = None, limit: int = 100
    ) -> list[RunState]:
        return self.scheduler.find_waiting_runs(wait_reason=wait_reason, workflow_id=workflow_id, limit=limit)

    def cancel_run(self, run_id: str, *, reason: str | None = None) -> RunState:
        return self.runtime.cancel_run(run_id, reason=reason)

    def cancel_with_children(self, run_id: str, *, reason: str | None = None) -> list[RunState]:
        return self.scheduler.cancel_with_children(run_id, reason=reason)

    def start_scheduler(self) -> None:
        self.scheduler.start()

    def stop(self, timeout: float = 5.0) -> None:
        self.scheduler.stop(timeout)


def create_scheduled_runtime(
    *,
    stores: KernelStores | None = None,
    run_store: object | None = None,
    ledger_store: object | None = None,
    effect_policy: EffectPolicy | None = None,
    in_doubt: Mapping[EffectType, InDoubt] | None = None,
    in_doubt_tools: Mapping[str, InDoubt] | None = None,
    reconcilers: Mapping[EffectType, Reconciler] | None = None,
    workflows: Iterable[WorkflowSpec] = (),
    effect_handlers: dict[EffectType, ExternalEffect] | None = None,
    poll_interval_s: float = 1.0,
    auto_start: bool = True,
    on_run_resumed: Callable[[RunState], object] | None = None,
    on_run_failed: Callable[[str, Exception], object] | None = None,
) -> ScheduledRuntime:
    """Return a runtime whose scheduler thread runs already (unless `auto_start` is False).

    Without stores everything is kept in memory. Raises `Invalid` when only one of `run_store` and `ledger_store` is
    given.
    """
    if stores is None and run_store is None and ledger_store is None:
        stores = _memory_stores()
    registry = WorkflowRegistry()
    for workflow in workflows:
        registry.register(workflow)
    runtime = Runtime(
        stores=stores,
        run_store=run_store,
        ledger_store=ledger_store,
        effect_handlers=effect_handlers,
        workflow_registry=registry,
        effect_policy=effect_policy,
        in_doubt=in_doubt,
        in_doubt_tools=in_doubt_tools,
        reconcilers=reconcilers,
    )
    scheduler = Scheduler(
        runtime=runtime,
        registry=registry,
        poll_interval_s=poll_interval_s,
        on_run_resumed=on_run_resumed,
        on_run_failed=on_run_failed,
    )
    if auto_start:
        scheduler.start()
    return ScheduledRuntime(runtime=runtime, scheduler=scheduler, registry=registry)


def _memory_stores() -> KernelStores:
    """Find the default stores by name: the kernel imports no store."""
    stores: KernelStores = pkgutil.resolve_name("abstractgateway.stores:open_memory_stores")()
    return stores
