"""One run being advanced in memory by its owner.

An execution takes as many steps as it may; they accumulate in a draft. It stops when the run waits or ends, when its
budget of steps is used, or when an effect on the outside world has to be performed. Its owner then commits what
`to_commit` gives, and only after that performs `pending` and brings the outcome to `settle` (promise G3):

    execution.advance(256); commit; [perform pending; execution.settle(outcome)]; and again

What was not committed may be executed again after a crash: nobody has seen it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..clock import Clock, to_iso
from ..errors import GatewayError, Invalid
from ..jsonvalue import JsonObject, dumps, loads
from . import lifecycle, records
from .commit import Commit, KernelStores, StoredRun
from .context import StepContext
from .draft import Draft, OpenRun
from .effects import INTERNAL_EFFECTS, EffectRequest
from .idempotency import compute_idempotency_key, with_call_ids
from .limits import note_usage
from .models import (
    Effect,
    EffectOutcome,
    EffectType,
    RunState,
    RunStatus,
    StepPlan,
    StepRecord,
    StepStatus,
    WorkflowSpec,
)
from .paths import namespace, store_at
from .registry import WorkflowRegistry
from .traces import note_step


@dataclass(frozen=True)
class PendingEffect:
    """An effect whose intent is in the ledger and that is to be performed once the commit is durable."""

    effect: Effect
    record: StepRecord
    cursor: int
    next_node: str | None
    started: float


class Execution:
    """A run, its workflow, and what has happened to it since it was last committed."""

    def __init__(
        self,
        *,
        stores: KernelStores,
        clock: Clock,
        workflow: WorkflowSpec,
        stored: StoredRun,
        registry: WorkflowRegistry | None = None,
        epoch: int | None = None,
    ) -> None:
        self.workflow = workflow
        self.pending: PendingEffect | None = None
        self._clock = clock
        self._registry = registry
        self._draft = Draft(stores, clock, epoch=epoch)
        self._run = self._draft.adopt(OpenRun(stored))

    @property
    def state(self) -> RunState:
        return self._run.state

    @property
    def revision(self) -> int:
        """The revision of the run that this execution stands on."""
        return self._run.revision

    @property
    def may_advance(self) -> bool:
        """Whether there is a step to take now, without anything from outside."""
        return self.pending is None and (
            self.state.status is RunStatus.RUNNING or lifecycle.is_due(self.state, self._draft)
        )

    @property
    def has_changes(self) -> bool:
        return self._run.is_changed

    def advance(self, max_steps: int) -> int:
        """Take up to `max_steps` steps in memory and return how many were taken."""
        if self.pending is None and lifecycle.is_due(self.state, self._draft):
            lifecycle.fire_timer(self._draft, self._run)
        if self.pending is None and self.state.status is RunStatus.RUNNING:
            self._recover_in_flight()
        taken = 0
        while taken < max_steps and self.pending is None and self.state.status is RunStatus.RUNNING:
            self._step()
            taken += 1
        return taken

    def to_commit(self) -> Commit:
        """Return what has happened since the last commit."""
        return self._draft.to_commit()

    def settle_commit(self) -> None:
        """Note that the commit is durable."""
        self._draft.settle_commit(keep=self.state.run_id)

    def settle(self, pending: PendingEffect, outcome: EffectOutcome) -> None:
        """Take in what performing the pending effect led to.

        When the run has ended meanwhile, or another owner has taken the effect over, the outcome is recorded as
        discarded and changes nothing else.
        """
        self.pending = None
        now = self._draft.now_iso()
        in_flight = namespace(self.state.vars, "_runtime").get("in_flight")
        if not isinstance(in_flight, dict) or in_flight.get("cursor") != pending.cursor:
            self._run.append(records.discarded(self._run, pending.record, _as_json(outcome), now=now))
            return
        namespace(self.state.vars, "_runtime").pop("in_flight", None)
        if lifecycle.is_pause_wait(self.state.waiting):
            self._settle_paused(pending, outcome)
            return
        self._finish(pending, _as_json(outcome))

    def _settle_paused(self, pending: PendingEffect, outcome: EffectOutcome) -> None:
        """A run that was paused during its effect keeps the outcome, and is paused after the step instead of before."""
        waiting = self.state.waiting
        assert waiting is not None
        self.state.waiting, self.state.status = None, RunStatus.RUNNING
        self._finish(pending, _as_json(outcome))
        if self.state.status is RunStatus.RUNNING:
            waiting.resume_to_node = self.state.current_node
            self.state.waiting, self.state.status = waiting, RunStatus.WAITING

    def _step(self) -> None:
        state = self.state
        self._run.touch(self._draft.now_iso())
        own = namespace(state.vars, "_runtime")
        own["steps"] = own.get("steps", 0) + 1
        context = StepContext(self._clock, state.run_id, own["steps"])
        try:
            plan = self.workflow.get_node(state.current_node)(state, context)
            self._follow(plan)
        except Exception as error:  # a node's code may raise anything; it fails its run, never the process
            self._fail_node(f"node {state.current_node!r}: {type(error).__name__}: {error}")

    def _follow(self, plan: StepPlan) -> None:
        if plan.complete_output is not None:
            lifecycle.complete(self._draft, self._run, plan.complete_output)
        elif plan.effect is not None:
            self._begin(plan, plan.effect)
        elif plan.next_node:
            lifecycle.move(self._draft, self._run, plan.next_node)
        else:
            raise Invalid("plan", "has neither an effect, a next node nor an output")

    def _begin(self, plan: StepPlan, effect: Effect) -> None:
        visit = self._count_visit(plan.node_id)
        key = compute_idempotency_key(run_id=self.state.run_id, node_id=plan.node_id, effect=effect, visit=visit)
        pending = self._announce(plan.node_id, with_call_ids(effect, key), key, plan.next_node, attempt=1)
        perform = INTERNAL_EFFECTS.get(pending.effect.type)
        if perform is None:
            self._journal(pending)
            return
        request = EffectRequest(
            draft=self._draft,
            run=self._run,
            effect=pending.effect,
            node_id=plan.node_id,
            next_node=plan.next_node,
            visit=visit,
            registry=self._registry,
        )
        self._finish(pending, perform(request))

    def _announce(
        self, node_id: str, effect: Effect, key: str, next_node: str | None, *, attempt: int
    ) -> PendingEffect:
        now = self._draft.now_iso()
        record = records.started(self._run, node_id, effect, now=now, attempt=attempt, key=key)
        cursor = self._run.next_cursor
        self._run.append(record)
        return PendingEffect(effect, record, cursor, next_node, started=self._clock.monotonic())

    def _journal(self, pending: PendingEffect) -> None:
        """Leave word in the run that its effect is under way, for whoever finds it after a crash."""
        self.pending = pending
        namespace(self.state.vars, "_runtime")["in_flight"] = {
            "cursor": pending.cursor,
            "next_node": pending.next_node,
        }

    def _recover_in_flight(self) -> None:
        """Perform again, under the same key and recorded as a further attempt, what a crash left without outcome."""
        in_flight = namespace(self.state.vars, "_runtime").pop("in_flight", None)
        if not isinstance(in_flight, dict):
            return
        found = self._draft.stores.ledger.read_record(self.state.run_id, int(in_flight["cursor"]))
        if found is None or found.get("effect") is None:
            raise Invalid("run", f"{self.state.run_id!r} has an effect in flight that its ledger does not know")
        effect = _stored_effect(found["effect"])
        self._run.touch(self._draft.now_iso())
        attempt = int(found.get("attempt") or 1) + 1
        key = str(found["idempotency_key"])
        self._journal(self._announce(found["node_id"], effect, key, in_flight.get("next_node"), attempt=attempt))

    def _finish(self, pending: PendingEffect, outcome: EffectOutcome) -> None:
        now = self._draft.now_iso()
        record = records.closed(pending.record, outcome, now=now)
        size = self._run.append(record)
        note_step(self.state.vars, record, size, 1000 * (self._clock.monotonic() - pending.started))
        if outcome.status is StepStatus.FAILED:
            lifecycle.fail(self._draft, self._run, f"Effect failed after {record.attempt} attempts: {outcome.error}")
        elif outcome.status is StepStatus.WAITING and outcome.wait is not None:
            lifecycle.wait(self._draft, self._run, outcome.wait)
        else:
            self._take_result(pending, outcome.result)

    def _take_result(self, pending: PendingEffect, result: object) -> None:
        vars = self.state.vars
        if pending.effect.type is EffectType.LLM_CALL:
            note_usage(vars, result)
        if pending.effect.result_key and result is not None:
            store_at(vars, pending.effect.result_key, result)
        if pending.next_node:
            lifecycle.move(self._draft, self._run, pending.next_node)
        else:
            lifecycle.complete(self._draft, self._run, {"success": True, "result": result}, record=False)

    def _fail_node(self, error: str) -> None:
        self.pending = None
        if self.state.status.is_terminal:
            raise GatewayError(f"run {self.state.run_id!r} broke after it had ended: {error}", code="kernel_fault")
        self._run.append(records.node_failed(self._run, error, now=to_iso(self._clock.now())))
        lifecycle.fail(self._draft, self._run, error)

    def _count_visit(self, node_id: str) -> int:
        visits = namespace(namespace(self.state.vars, "_runtime"), "visits")
        visits[node_id] = visits.get(node_id, 0) + 1
        return int(visits[node_id])


def _as_json(outcome: EffectOutcome) -> EffectOutcome:
    """Return the outcome as it will be read back, so that a run goes on alike with and without a restart."""
    if outcome.status is not StepStatus.COMPLETED or outcome.result is None:
        return outcome
    try:
        result: JsonObject = loads(dumps(outcome.result, field="result"))
    except Invalid as error:
        return EffectOutcome.failed(f"the result cannot be stored: {error}")
    return EffectOutcome.completed(result)


def _stored_effect(data: JsonObject) -> Effect:
    return Effect(EffectType(data["type"]), data.get("payload") or {}, data.get("result_key"))
