"""A runner on real stores, driven by hand or by its threads, for the tests of the runner."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

from abstractgateway.errors import NotFound
from abstractgateway.runner import Runner
from abstractgateway.runtime import (
    CommandOutcome,
    CommandRecord,
    EffectType,
    RunState,
    Runtime,
    WorkflowRegistry,
    WorkflowSpec,
)
from abstractgateway.stores import open_memory_stores
from abstractgateway.testing import ManualClock
from tests.runtime.workflows import Json

PATIENCE_S = 15.0


class Bench:
    """Stores, a clock and workflows that outlive any one runner; `runner()` makes one as a restarted process would."""

    def __init__(self, stores: Any = None, *, clock: Any = None) -> None:
        self.stores = stores if stores is not None else open_memory_stores()
        self.clock = clock if clock is not None else ManualClock()
        self.registry = WorkflowRegistry()
        self.handlers: dict[EffectType, Callable[..., Any]] = {}
        self.options: dict[str, Any] = {}
        self._numbers = itertools.count(1)
        self._runtime: Runtime | None = None

    def runtime(self) -> Runtime:
        return Runtime(
            stores=self.stores,
            effect_handlers=self.handlers,
            workflow_registry=self.registry,
            clock=self.clock,
            **self.options,
        )

    def runner(self, **options: Any) -> Runner:
        settings = {"inline": True, "advance_workers": 3, "effect_workers": 8, **options}
        return Runner(
            stores=self.stores,
            runtime=self.runtime(),
            find_workflow=self.registry.get_or_raise,
            clock=self.clock,
            **settings,
        )

    def know(self, *workflows: WorkflowSpec) -> None:
        for workflow in workflows:
            self.registry.register(workflow)

    def start(self, workflow: WorkflowSpec, vars: Json | None = None, *, actor_id: str = "gateway", **ids: Any) -> str:
        if workflow.workflow_id not in self.registry:
            self.registry.register(workflow)
        return self.runtime().start(workflow=workflow, vars=vars, actor_id=actor_id, **ids)

    def send(self, run_id: str, type: str, payload: Json | None = None, command_id: str | None = None) -> str:
        """Put a command into the inbox and return its id."""
        command_id = command_id or f"c-{next(self._numbers)}"
        command = CommandRecord(command_id, run_id, type, payload or {}, "2026-01-01T00:00:00+00:00", "me")
        self.stores.commands.append(command)
        return command_id

    def outcome(self, command_id: str) -> tuple[str, str | None]:
        """Return what became of a command, and why."""
        found: CommandOutcome | None = self.stores.commands.outcome(command_id)
        return (found.status, found.reason) if found is not None else ("pending", None)

    def state(self, run_id: str) -> RunState:
        stored = self.stores.runs.open(run_id)
        if stored is None:
            raise NotFound(run_id)
        state: RunState = stored.state
        return state

    def ledger(self, run_id: str) -> list[Json]:
        records: list[Json] = self.stores.ledger.list(run_id)
        return records

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, looking after every commit."""
        changed = threading.Event()
        unsubscribe = self.stores.subscribe(lambda changes: changed.set())
        try:
            while not condition():
                assert changed.wait(PATIENCE_S), "nothing changes any more"
                changed.clear()
        finally:
            unsubscribe()

    def wait_for_end(self, *run_ids: str) -> None:
        self.wait_for(lambda: all(self.stores.runs.row(run_id).status.is_terminal for run_id in run_ids))
