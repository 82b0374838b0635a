"""Small workflows, and a kernel in memory whose time stands still, for the tests of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from abstractgateway.runtime import (
    Effect,
    EffectOutcome,
    EffectType,
    RunState,
    Runtime,
    StepPlan,
    WorkflowRegistry,
    WorkflowSpec,
)
from abstractgateway.runtime.models import NodeHandler
from abstractgateway.stores import open_memory_stores
from abstractgateway.testing import ManualClock

Json = dict[str, Any]


class Crash(BaseException):
    """The process ends here: nothing of the kernel catches it."""


def effect(
    node_id: str, type: EffectType, payload: Json | None = None, *, then: str | None = None, key: str | None = None
) -> NodeHandler:
    """Return a node that asks for an effect, stores its result at `key` and goes to `then`."""
    return lambda run, ctx: StepPlan(node_id, effect=Effect(type, payload or {}, key), next_node=then)


def end(node_id: str = "end", *names: str) -> NodeHandler:
    """Return a node that ends the run with these variables as its output."""
    return lambda run, ctx: StepPlan(node_id, complete_output={name: run.vars.get(name) for name in names})


def spec(workflow_id: str = "wf", **nodes: NodeHandler) -> WorkflowSpec:
    """Return a workflow of these nodes; the first is where it begins."""
    return WorkflowSpec(workflow_id=workflow_id, entry_node=next(iter(nodes)), nodes=nodes)


def ask_then_end(payload: Json | None = None) -> WorkflowSpec:
    asked = effect("ask", EffectType.ASK_USER, payload or {"prompt": "Continue?"}, then="end", key="answer")
    return spec("asks", ask=asked, end=end("end", "answer"))


def call_then_end(type: EffectType = EffectType.LLM_CALL, payload: Json | None = None) -> WorkflowSpec:
    called = effect("call", type, payload or {"prompt": "hi"}, then="end", key="said")
    return spec("calls", call=called, end=end("end", "said"))


def loop(times: int, type: EffectType, payload: Json) -> WorkflowSpec:
    """Return a workflow whose node asks for the same effect again and again."""

    def again(run: RunState, ctx: Any) -> StepPlan:
        run.vars["round"] = run.vars.get("round", 0) + 1
        if run.vars["round"] > times:
            return StepPlan("again", complete_output={"rounds": times})
        return StepPlan("again", effect=Effect(type, payload), next_node="again")

    return spec("loops", again=again)


class Calls:
    """A handler that remembers how it was called, and answers from a list or with what it is told."""

    def __init__(self, *outcomes: Any, then: Any = None) -> None:
        self.effects: list[Effect] = []
        self._outcomes = list(outcomes)
        self._then = then if then is not None else EffectOutcome.completed({"ok": True})

    def __call__(self, run: RunState, effect: Effect, default_next_node: str | None) -> Any:
        self.effects.append(effect)
        outcome = self._outcomes.pop(0) if self._outcomes else self._then
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome(run) if callable(outcome) else outcome

    def __len__(self) -> int:
        return len(self.effects)


class World:
    """Stores, a clock and a registry that outlive any one runtime: a new runtime is a restarted process."""

    def __init__(self, stores: Any = None) -> None:
        self.clock = ManualClock()
        self.stores = stores if stores is not None else open_memory_stores()
        self.registry = WorkflowRegistry()

    def runtime(
        self, handlers: Mapping[EffectType, Callable[..., Any]] | None = None, *workflows: WorkflowSpec, **options: Any
    ) -> Runtime:
        for workflow in workflows:
            if workflow.workflow_id not in self.registry:
                self.registry.register(workflow)
        return Runtime(
            stores=self.stores,
            effect_handlers=handlers or {},
            workflow_registry=self.registry,
            clock=self.clock,
            **options,
        )

    def ledger(self, run_id: str) -> list[Json]:
        return self.stores.ledger.list(run_id)

    def state(self, run_id: str) -> RunState:
        stored = self.stores.runs.open(run_id)
        assert stored is not None
        return stored.state


def outline(records: list[Json]) -> list[tuple[str, str, str | None]]:
    """Return node, status and effect type of each record."""
    return [(record["node_id"], record["status"], (record["effect"] or {}).get("type")) for record in records]
