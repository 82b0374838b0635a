"""The kernel as an embedding program uses it: start, tick, resume, pause and cancel runs, in the calling thread."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from ..clock import Clock, SystemClock
from ..errors import Conflict, Invalid, NotFound, StaleWrite
from ..jsonvalue import JsonObject, dumps, loads
from . import budgets, lifecycle, records
from .commit import Commit, KernelStores, StoredRun
from .draft import Draft, OpenRun
from .driving import driven_of
from .effects import INTERNAL_EFFECTS, ExternalEffect
from .effects.memory.compact import COMPACT_WORKFLOW_ID
from .effects.memory.summary import summarise_with
from .effects.request import GLOBAL_RUN_ID
from .execution import EffectRules, Execution, PendingEffect, printable
from .hiding import HidesSecrets, without_secrets
from .journal import unknown, without_kernel_keys
from .limits import LimitWarning, RuntimeConfig, change_limits, limit_status, limit_warnings
from .models import EffectOutcome, EffectType, RunState, RunStatus, StepStatus, WorkflowSpec
from .offloading import check_whole
from .policy import EffectPolicy, InDoubt, InDoubtRules, NoRetryPolicy, Reconciler
from .registry import WorkflowRegistry, kernel_workflow
from .signals import NO_SIGNALS, Signals
from .traces import trace_of, traces_of

Result = TypeVar("Result")

Performer = Callable[[RunState, PendingEffect, Signals], object]

MAX_ATTEMPTS = 50
"""How often a transition is repeated on a run that others keep changing before the caller is told."""


class Runtime:
    """Runs workflows on stores.

    `stores` is what `abstractgateway.stores.open_memory_stores()` and its siblings return; `run_store` and
    `ledger_store` may be given instead, as for AbstractRuntime. `effect_handlers` perform the effects that reach
    outside (`llm_call`, `tool_calls`, …), each called `(run, effect, default_next_node)` or, where they take two
    parameters, `(run, effect)`; one that has a parameter `timeout_s` is told how many seconds it may take, or None,
    and one that has `idempotency_key` the name of this performance, the same for every attempt. In a gateway, one that
    has `stop` is given a `Stop`, and one that has `on_delta` a function for pieces of its result; elsewhere they are
    None.
    One given for an effect of the kernel's own takes its place. `effect_policy` says how long effects may take and how
    often failed ones are tried again, `in_doubt` what becomes of an effect that a crash interrupted: `retry` (model
    calls), `ask` (everything else) or `fail`; `in_doubt_tools` says it for calls of single tools, by name, and
    `reconcilers` are asked first, by effect type. `chat_summarizer` does the summaries of `memory_compact` in place of
    the model. Values of more than `max_inline_bytes` leave ledger records and ended runs for artifacts; by default
    none do. A run whose state grows beyond `max_run_bytes` of JSON fails; by default it may grow. `secrets` takes what
    must not be kept out of results and errors of effects on the outside world; by default everything is kept.
    """

    def __init__(
        self,
        *,
        stores: KernelStores | None = None,
        run_store: object | None = None,
        ledger_store: object | None = None,
        effect_handlers: Mapping[EffectType, ExternalEffect] | None = None,
        workflow_registry: WorkflowRegistry | None = None,
        effect_policy: EffectPolicy | None = None,
        in_doubt: Mapping[EffectType, InDoubt] | None = None,
        in_doubt_tools: Mapping[str, InDoubt] | None = None,
        reconcilers: Mapping[EffectType, Reconciler] | None = None,
        config: RuntimeConfig | None = None,
        chat_summarizer: object | None = None,
        clock: Clock | None = None,
        epoch: int | None = None,
        max_inline_bytes: int | None = None,
        max_run_bytes: int | None = None,
        global_memory_run_id: str = GLOBAL_RUN_ID,
        secrets: HidesSecrets | None = None,
    ) -> None:
        self._secrets = secrets
        self.stores = stores if stores is not None else _paired(run_store, ledger_store)
        self.run_store = run_store if run_store is not None else self.stores.runs
        self.ledger_store = ledger_store if ledger_store is not None else self.stores.ledger
        self.workflow_registry = workflow_registry
        self.config = config or RuntimeConfig()
        self.clock = clock or SystemClock()
        self.epoch = epoch
        self.max_inline_bytes = max_inline_bytes
        self._max_run_bytes = max_run_bytes
        self._summarizer = chat_summarizer
        self._handlers = {type: _performer(handler) for type, handler in (effect_handlers or {}).items()}
        self._rules = EffectRules(
            internal={type: effect for type, effect in INTERNAL_EFFECTS.items() if type not in self._handlers},
            policy=effect_policy or NoRetryPolicy(),
            in_doubt=InDoubtRules.of(in_doubt, in_doubt_tools),
            reconcilers=_checked(reconcilers),
            global_memory=global_memory_run_id,
        )
        self._driven = driven_of(self.stores)

    @property
    def effect_policy(self) -> EffectPolicy:
        """The rules by which failed effects are tried again."""
        return self._rules.policy

    def set_workflow_registry(self, registry: WorkflowRegistry) -> None:
        self.workflow_registry = registry

    def start(
        self,
        *,
        workflow: WorkflowSpec,
        vars: JsonObject | None = None,
        actor_id: str | None = None,
        session_id: str | None = None,
        parent_run_id: str | None = None,
    ) -> str:
        """Create a run that stands before its first step, durably, and return its id.

        Raises `Invalid` when `vars` is not a JSON object.
        """
        state = self.new_run(workflow, vars, actor_id=actor_id, session_id=session_id, parent_run_id=parent_run_id)
        draft = self._draft()
        draft.create(state)
        self.stores.commit(draft.to_commit())
        return state.run_id

    def new_run(
        self,
        workflow: WorkflowSpec,
        vars: JsonObject | None,
        *,
        actor_id: str | None = None,
        session_id: str | None = None,
        parent_run_id: str | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> RunState:
        """Return a run that stands before its first step, in memory only; its vars are a copy.

        `limits` is its budget, `{tokens, model_calls, tool_calls, wall_s}`, as far as the configuration allows it.
        """
        if vars is not None and not isinstance(vars, dict):
            raise Invalid("vars", f"must be an object, not {type(vars).__name__}")
        copied: JsonObject = loads(dumps(vars or {}, field="vars"), field="vars")
        if isinstance(copied.get("_runtime"), dict):
            copied["_runtime"] = without_kernel_keys(copied["_runtime"])
        budgets.begin(copied, ceiling=self.config.budget, wished=limits)
        self.config.seed(copied)
        state = RunState.new(
            workflow_id=workflow.workflow_id,
            entry_node=workflow.entry_node,
            actor_id=actor_id,
            session_id=session_id,
            vars=copied,
            parent_run_id=parent_run_id,
        )
        state.created_at = state.updated_at = self._draft().now_iso()
        return state

    def tick(self, *, workflow: WorkflowSpec, run_id: str, max_steps: int = 100) -> RunState:
        """Advance a run until it waits, ends, or has taken `max_steps` steps, and return its state.

        While another thread of this process advances the run, wait for it and go on from there. Raises `NotFound` for
        an unknown run, `Conflict` when an effect of the run itself calls it, or when other processes keep changing it.
        """
        with self._driven.hold(run_id):
            left = max_steps
            while True:
                left -= self._drive(workflow, run_id, left)
                state = self.get_state(run_id)
                child = _child_to_drive(state)
                if child is None or left <= 0 or not self._drive_child(child, left):
                    return state

    def is_driven(self, run_id: str) -> bool:
        """Say whether a thread of this process advances the run just now."""
        return self._driven.is_held(run_id)

    def open_execution(self, workflow: WorkflowSpec, run_id: str) -> Execution:
        """Return an execution of the run as it is stored now. Raises `NotFound` for an unknown run."""
        stored = self.stores.runs.open(run_id)
        if stored is None:
            raise NotFound(f"Unknown run_id: {run_id!r}", code="unknown_run")
        return self.execution_of(workflow, stored)

    def execution_of(
        self,
        workflow: WorkflowSpec,
        stored: StoredRun,
        *,
        draft: Draft | None = None,
        registry: WorkflowRegistry | None = None,
    ) -> Execution:
        """Return an execution of a run that was read just now; what it does is part of the draft, if one is given.

        Its children's workflows are looked for in `registry`, by default in this runtime's.
        """
        return Execution(
            stores=self.stores,
            clock=self.clock,
            workflow=workflow,
            stored=stored,
            rules=self._rules,
            registry=registry if registry is not None else self.workflow_registry,
            epoch=self.epoch,
            draft=draft,
            max_inline_bytes=self.max_inline_bytes,
            max_run_bytes=self._max_run_bytes,
        )

    def _drive(self, workflow: WorkflowSpec, run_id: str, max_steps: int) -> int:
        """Advance, commit and perform effects until the run stops or `max_steps` are taken; return how many were."""
        execution = self.open_execution(workflow, run_id)
        settling: tuple[PendingEffect, EffectOutcome] | None = None
        taken = stale = 0
        while True:
            if settling is not None:
                execution.settle(*settling)
            advanced = execution.advance(max_steps - taken)
            try:
                if not self._commit(execution):
                    return taken + advanced
            except StaleWrite:
                stale += 1
                if stale > MAX_ATTEMPTS:
                    raise
                execution = self.open_execution(workflow, run_id)
                continue
            taken, stale, settling = taken + advanced, 0, None
            if execution.pending is not None:
                settling = (execution.pending, self.perform(execution.state, execution.pending))
            elif taken >= max_steps or not execution.may_advance:
                return taken

    def _commit(self, execution: Execution) -> bool:
        """Make what an execution did durable; False when its variables cannot be stored, and the run failed instead."""
        if not execution.has_changes:
            return True
        try:
            commit = execution.to_commit()
        except Invalid as error:
            self.fail_run(execution.state.run_id, f"node {execution.state.current_node!r}: {error}")
            return False
        self.stores.commit(commit)
        execution.settle_commit()
        return True

    def perform(self, state: RunState, pending: PendingEffect, signals: Signals = NO_SIGNALS) -> EffectOutcome:
        """Perform an effect on the outside world, in this thread; whatever it raises is its failure.

        Of an effect in doubt, find out what became of it; the outcome has the status `started` when nobody can tell.
        """
        outcome = self._reconcile(state, pending) if pending.is_in_doubt else self._handle(state, pending, signals)
        return outcome if self._secrets is None else without_secrets(outcome, self._secrets)

    def _handle(self, state: RunState, pending: PendingEffect, signals: Signals) -> EffectOutcome:
        effect = pending.effect
        handler = self._handler_of(state, effect.type)
        if handler is None:
            return EffectOutcome.failed(f"No effect handler registered for {effect.type.value}")
        try:
            outcome: object = handler(state, pending, signals)
        except (Exception, SystemExit) as error:  # a handler may raise anything; it fails the effect, not the process
            return EffectOutcome.failed(f"{type(error).__name__}: {error}")
        if not isinstance(outcome, EffectOutcome):
            answered = type(outcome).__name__
            return EffectOutcome.failed(f"the handler of {effect.type.value} returned {answered}, not an EffectOutcome")
        return outcome

    def _reconcile(self, state: RunState, pending: PendingEffect) -> EffectOutcome:
        effect, key = pending.effect, str(pending.record.idempotency_key)
        try:
            found: object = self._rules.reconcilers[effect.type](state, effect, key)
        except (Exception, SystemExit) as error:  # it may raise anything; then nobody knows more than before
            return unknown(printable(f"{type(error).__name__}: {error}"))
        if isinstance(found, EffectOutcome) and found.status != StepStatus.STARTED:
            return found
        answered = type(found).__name__
        return unknown(None if found is None else f"the reconciler of {effect.type.value} returned {answered}")

    def _handler_of(self, state: RunState, type: EffectType) -> Performer | None:
        if self._summarizer is not None and state.workflow_id == COMPACT_WORKFLOW_ID:
            return _performer(summarise_with(self._summarizer, self.stores.artifacts))
        return self._handlers.get(type)

    def resume(
        self,
        *,
        workflow: WorkflowSpec,
        run_id: str,
        wait_key: str | None,
        payload: JsonObject,
        max_steps: int = 100,
    ) -> RunState:
        """Answer the run's wait and advance it; `wait_key` None answers whatever it waits for.

        Raises `NotFound` for an unknown run, `Conflict` when it is paused, not waiting or waits on another key, and
        `Invalid` when the answer is not one of the choices.
        """
        self.transact(lambda draft: lifecycle.resume(draft, draft.open(run_id), wait_key, payload))
        if max_steps <= 0:
            return self.get_state(run_id)
        return self.tick(workflow=workflow, run_id=run_id, max_steps=max_steps)

    def pause_run(self, run_id: str, *, reason: str | None = None) -> RunState:
        """Pause a run; one that has ended, is paused or waits for a person stays as it is."""
        self.transact(lambda draft: lifecycle.pause(draft, draft.open(run_id), reason))
        return self.get_state(run_id)

    def resume_run(self, run_id: str) -> RunState:
        """Take the pause off a run; nothing is advanced."""
        self.transact(lambda draft: lifecycle.unpause(draft, draft.open(run_id)))
        return self.get_state(run_id)

    def cancel_run(self, run_id: str, *, reason: str | None = None) -> RunState:
        """Cancel a run; one that has ended stays as it is. Its children are not touched."""
        self.transact(lambda draft: lifecycle.cancel(draft, draft.open(run_id), reason))
        return self.get_state(run_id)

    def fail_run(self, run_id: str, error: str) -> RunState:
        """End a run as failed, from whatever was last stored of it."""
        self.transact(lambda draft: _fail(draft, draft.open(run_id), error))
        return self.get_state(run_id)

    def get_state(self, run_id: str) -> RunState:
        """Return a copy of a run's state, offloaded values included.

        Raises `NotFound` for an unknown id, and `Unavailable` when one of those values cannot be read back.
        """
        found = self._draft().peek(run_id)
        if found is None:
            raise NotFound(f"Unknown run_id: {run_id!r}", code="unknown_run")
        return check_whole(found)

    def get_ledger(self, run_id: str) -> list[JsonObject]:
        """Return the records of a run, oldest first; an unknown run has none."""
        return list(self.ledger_store.list(run_id))  # type: ignore[attr-defined]

    def get_node_traces(self, run_id: str) -> JsonObject:
        """Return a copy of the traces of a run's nodes, by node id. Raises `NotFound` for an unknown run."""
        return traces_of(self.get_state(run_id).vars)

    def get_node_trace(self, run_id: str, node_id: str) -> JsonObject:
        """Return a copy of one node's trace, `{node_id, steps, …}`; a node that did nothing has no steps."""
        return trace_of(self.get_state(run_id).vars, node_id)

    def get_limit_status(self, run_id: str) -> JsonObject:
        """Return how much of its limits a run has used: `{iterations, tokens, history}`, shares in percent."""
        return limit_status(self.get_state(run_id).vars, self.config)

    def check_limits(self, run: RunState) -> list[LimitWarning]:
        """Return the limits that a run has reached or come near to; the kernel itself enforces none."""
        return limit_warnings(run.vars, self.config)

    def update_limits(self, run_id: str, updates: Mapping[str, object]) -> None:
        """Set some of the fields of a run's `vars._limits`, durably; its `updated_at` stays, other names are ignored.

        Raises `NotFound` for an unknown run and `Invalid` for a value that is neither a whole number nor null.
        """
        self.transact(lambda draft: _update_limits(draft.open(run_id), updates))

    def transact(self, change: Callable[[Draft], Result], *, on_stale: Callable[[int], None] | None = None) -> Result:
        """Apply a change to a fresh draft and commit it, again when somebody else was faster.

        `on_stale` is called with the number of the attempt (from 1) that came too late.
        """
        return transact(
            self.stores,
            self.clock,
            change,
            epoch=self.epoch,
            max_inline_bytes=self.max_inline_bytes,
            on_stale=on_stale,
        )

    def _draft(self) -> Draft:
        return Draft(self.stores, self.clock, epoch=self.epoch, max_inline_bytes=self.max_inline_bytes)

    def _drive_child(self, run_id: str, max_steps: int) -> bool:
        """Advance a child its parent waits for in line; say whether that ended it."""
        state = self.get_state(run_id)
        registry = self.workflow_registry
        spec = registry.get_or_raise(state.workflow_id) if registry is not None else kernel_workflow(state.workflow_id)
        if spec is None or state.status.is_terminal:
            return False
        return self.tick(workflow=spec, run_id=run_id, max_steps=max_steps).status.is_terminal


def transact(
    stores: KernelStores,
    clock: Clock,
    change: Callable[[Draft], Result],
    *,
    epoch: int | None = None,
    max_inline_bytes: int | None = None,
    to_commit: Callable[[Draft, Result], Commit] | None = None,
    on_stale: Callable[[int], None] | None = None,
) -> Result:
    """Apply a change to a fresh draft and commit it; repeat from the start when a run in it was changed meanwhile.

    `on_stale` is called with the number of the attempt (from 1) that came too late. Raises `Conflict` with the code
    `busy` when none was in time.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        draft = Draft(stores, clock, epoch=epoch, max_inline_bytes=max_inline_bytes)
        result = change(draft)
        commit = to_commit(draft, result) if to_commit is not None else draft.to_commit()
        if commit.is_empty:
            return result
        try:
            stores.commit(commit)
            return result
        except StaleWrite as error:
            last = error
            if on_stale is not None:
                on_stale(attempt)
    raise Conflict(f"the run is changed too often by others: {last}", code="busy")


def _update_limits(run: OpenRun, updates: Mapping[str, object]) -> None:
    run.is_changed = change_limits(run.state.vars, updates) or run.is_changed


def _fail(draft: Draft, run: OpenRun, error: str) -> None:
    if not run.state.status.is_terminal:
        error = printable(error)
        run.append(records.node_failed(run, error, now=draft.now_iso()))
        lifecycle.fail(draft, run, error)


_TOLD: Mapping[str, Callable[[PendingEffect, Signals], object]] = {
    "timeout_s": lambda pending, signals: pending.timeout_s,
    "idempotency_key": lambda pending, signals: pending.record.idempotency_key,
    "stop": lambda pending, signals: signals.stop,
    "on_delta": lambda pending, signals: signals.on_delta,
}
"""What a handler is told that has a parameter of this name."""


def _performer(handler: ExternalEffect) -> Performer:
    """Return a function that calls a handler with what it takes.

    That is `(run, effect[, default_next_node])`, and what `_TOLD` has by the names of its other parameters.
    """
    try:
        signature = inspect.signature(handler)
    except ValueError:
        return lambda run, pending, _: handler(run, pending.effect, pending.next_node)  # a builtin tells no signature
    told = {name: tell for name, tell in _TOLD.items() if name in signature.parameters}
    takes_node = _takes(signature, 3, told)

    def perform(run: RunState, pending: PendingEffect, signals: Signals) -> EffectOutcome:
        arguments = (run, pending.effect, pending.next_node) if takes_node else (run, pending.effect)
        return handler(*arguments, **{name: tell(pending, signals) for name, tell in told.items()})

    return perform


def _takes(signature: inspect.Signature, count: int, named: Mapping[str, object]) -> bool:
    try:
        signature.bind(*[None] * count, **named)
    except TypeError:
        return False
    return True


def _checked(reconcilers: Mapping[EffectType, Reconciler] | None) -> dict[EffectType, Reconciler]:
    for type, reconcile in (reconcilers or {}).items():
        if type not in tuple(EffectType):
            raise Invalid("reconcilers", f"{type!r} is not a type of effect")
        if not callable(reconcile):
            raise Invalid("reconcilers", f"for {type!r} has {reconcile!r}, which cannot be called")
    return dict(reconcilers or {})


def _child_to_drive(state: RunState) -> str | None:
    """Return the child that a waiting parent started synchronously."""
    if state.status is RunStatus.WAITING and state.waiting is not None and (state.waiting.details or {}).get("sync"):
        return lifecycle.awaited_child(state)
    return None


def _paired(run_store: object | None, ledger_store: object | None) -> KernelStores:
    """Return one store made of the two ports that programs written for AbstractRuntime give."""
    if run_store is None or ledger_store is None:
        raise Invalid("stores", "is missing; give Runtime stores=..., or run_store=... and ledger_store=...")
    join = getattr(run_store, "join_ledger", None)
    if join is None:
        raise Invalid("run_store", f"{type(run_store).__name__} is not one of the stores of abstractgateway.stores")
    joined: KernelStores = join(ledger_store)
    return joined
