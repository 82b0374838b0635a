"""One run being advanced in memory by its owner.

An execution takes as many steps as it may; they accumulate in a draft. It stops when the run waits or ends, when its
budget of steps is used, or when an effect on the outside world has to be performed. Its owner then commits what
`to_commit` gives, and only after that performs `pending` and brings the outcome to `settle` (promise G3):

    execution.advance(256); commit; [perform pending; execution.settle(outcome)]; and again

What was not committed may be executed again after a crash: nobody has seen it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from ..clock import Clock, parse_iso, to_iso
from ..errors import GatewayError, Invalid, Unavailable
from ..jsonvalue import JsonObject, dumps, loads
from . import budgets, journal, lifecycle, records, replay
from .commit import Commit, KernelStores, StoredRun
from .context import StepContext
from .draft import Draft, OpenRun
from .effects import INTERNAL_EFFECTS, EffectRequest, InternalEffect
from .effects.request import GLOBAL_RUN_ID
from .idempotency import key_of_visit, with_call_ids
from .journal import InFlight
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
    WaitState,
    WorkflowSpec,
)
from .offloading import check_whole
from .paths import namespace, store_at
from .policy import DefaultEffectPolicy, EffectPolicy, InDoubt, InDoubtRules, Reconciler, time_limit
from .registry import WorkflowRegistry
from .traces import note_step
from .turns import forget_pending_media, keep_turn

SLICE_S = 0.05
"""How long steps may accumulate before they are committed, so that readers see the progress of slow nodes."""

INTERRUPTED = "it was interrupted before its outcome was known, and is not performed again"


_THEN: Mapping[InDoubt, str] = {"retry": "again", "ask": "ask", "fail": "give_up"}
"""What comes next for an effect in doubt, by the rule for it."""


@dataclass(frozen=True)
class EffectRules:
    """How effects are performed: those of the kernel's own, how often the others are tried, and what a crash means.

    `reconcilers` are asked about an effect in doubt before the rule for it applies. `global_memory` is the id of the
    run that holds the memory of everybody.
    """

    internal: Mapping[EffectType, InternalEffect] = field(default_factory=lambda: INTERNAL_EFFECTS)
    policy: EffectPolicy = field(default_factory=DefaultEffectPolicy)
    in_doubt: InDoubtRules = field(default_factory=InDoubtRules.of)
    reconcilers: Mapping[EffectType, Reconciler] = field(default_factory=dict)
    global_memory: str = GLOBAL_RUN_ID


class PendingEffect(NamedTuple):
    """An effect whose intent is in the ledger and that is to be performed once the commit is durable.

    It may take `timeout_s` seconds. One that is in doubt is not performed: its reconciler is asked what became of it.
    """

    effect: Effect
    record: StepRecord
    cursor: int
    next_node: str | None
    started: float
    timeout_s: float | None = None
    is_in_doubt: bool = False


class Execution:
    """A run, its workflow, and what has happened to it since it was last committed."""

    def __init__(
        self,
        *,
        stores: KernelStores,
        clock: Clock,
        workflow: WorkflowSpec,
        stored: StoredRun,
        rules: EffectRules | None = None,
        registry: WorkflowRegistry | None = None,
        epoch: int | None = None,
        draft: Draft | None = None,
        max_inline_bytes: int | None = None,
        max_run_bytes: int | None = None,
    ) -> None:
        self.workflow = workflow
        self._max_run_bytes = max_run_bytes
        self.pending: PendingEffect | None = None
        self._history: replay.History | None = None
        self._clock = clock
        self._registry = registry
        self._rules = rules or EffectRules()
        self._draft = draft or Draft(stores, clock, epoch=epoch, max_inline_bytes=max_inline_bytes)
        self._run = self._draft.adopt(OpenRun(stored, self._draft.offloading))
        check_whole(self._run.state)
        self._is_timed = budgets.is_timed(self.state.vars)
        self._counted_until = clock.now()

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

    def advance(self, max_steps: int, *, slice_s: float = SLICE_S) -> int:
        """Take up to `max_steps` steps in memory, or as many as `slice_s` seconds allow, and return how many."""
        if max_steps > 0 and self.pending is None and lifecycle.is_due(self.state, self._draft):
            self._draft.begin_instant()
            lifecycle.fire_timer(self._draft, self._run)
        if self._is_timed and max_steps > 0 and self.pending is None:
            self._check_time()
        until = self._clock.monotonic() + slice_s
        taken = 0
        while taken < max_steps and self.pending is None and self.state.status is RunStatus.RUNNING:
            found = journal.recall(self.state.vars)
            if found is None:
                self._step()
            else:
                self._take_up(found)
            taken += 1
            if self._clock.monotonic() > until:
                break
        return taken

    def to_commit(self) -> Commit:
        """Return what has happened since the last commit.

        Raises `Invalid` when the variables cannot be stored, or have more bytes than a run may have.
        """
        commit = self._draft.to_commit()
        most = self._max_run_bytes
        if most and self._run.body_bytes > most and not self.state.status.is_terminal:
            raise Invalid("vars", f"have {self._run.body_bytes:,} bytes as JSON; a run may have {most:,}")
        return commit

    def settle_commit(self) -> None:
        """Note that the commit is durable."""
        self._draft.settle_commit(keep=self.state.run_id)

    def settle(self, pending: PendingEffect, outcome: EffectOutcome) -> None:
        """Take in what performing the pending effect led to, or what its reconciler says.

        When the run has ended meanwhile, or another owner has taken the effect over, the outcome is recorded as
        discarded and changes nothing else.
        """
        self.pending = None
        self._draft.begin_instant()
        found = journal.recall(self.state.vars)
        is_wanted = found is not None and found.then is None and found.cursor == pending.cursor
        is_known = not (pending.is_in_doubt and outcome.status is StepStatus.STARTED)
        if is_known:
            outcome = _storable(outcome)
        if not is_wanted:
            if is_known:
                self._run.append(records.discarded(self._run, pending.record, outcome, now=self._draft.now_iso()))
            return
        if pending.is_in_doubt:
            self._note_reconciled(pending, outcome)
        elif self._is_timed:
            self._count_time(since=pending.record.started_at)
        if not is_known:
            journal.decide(self.state.vars, _THEN[self._rules.in_doubt.rule_of(pending.effect)])
            return
        journal.forget(self.state.vars)
        if lifecycle.is_pause_wait(self.state.waiting):
            self._settle_paused(pending, outcome)
            return
        self._finish(pending, outcome)

    def _note_reconciled(self, pending: PendingEffect, outcome: EffectOutcome) -> None:
        now = self._draft.now_iso()
        self._run.touch(now)
        self._run.append(records.reconciled(self._run, pending.record, outcome, cursor=pending.cursor, now=now))

    def _settle_paused(self, pending: PendingEffect, outcome: EffectOutcome) -> None:
        """A run that was paused during its effect keeps the outcome, and is paused after the step instead of before."""
        waiting = self.state.waiting
        assert waiting is not None
        self.state.waiting, self.state.status = None, RunStatus.RUNNING
        self._finish(pending, outcome)
        if self.state.status is RunStatus.RUNNING:
            waiting.resume_to_node = self.state.current_node
            self.state.waiting, self.state.status = waiting, RunStatus.WAITING

    def _step(self) -> None:
        self._draft.begin_instant()
        state = self._run.state
        own = namespace(state.vars, "_runtime")
        own["steps"] = own.get("steps", 0) + 1
        context = StepContext(self._clock, state.run_id, own["steps"])
        try:
            plan = self.workflow.get_node(state.current_node)(state, context)
        except Exception as error:  # a node's code may raise anything; it fails its run, never the process
            self._fail_node(error)
            return
        if self._is_timed:
            self._count_time()
        try:
            self._follow(plan)
        except (Unavailable, OSError):  # the store's trouble is not the run's: it is tried again from what is stored
            raise
        except Exception as error:  # a plan may hold anything; what cannot be followed fails the run
            self._fail_node(error)

    def _follow(self, plan: StepPlan) -> None:
        if not isinstance(plan, StepPlan):
            raise Invalid("plan", f"is {type(plan).__name__}, not a StepPlan")
        if plan.complete_output is not None:
            lifecycle.complete(self._draft, self._run, plan.complete_output)
        elif plan.effect is not None:
            self._begin(plan, plan.effect)
        elif plan.next_node:
            lifecycle.move(self._draft, self._run, plan.next_node)
        else:
            raise Invalid("plan", "has neither an effect, a next node nor an output")

    def _begin(self, plan: StepPlan, effect: Effect) -> None:
        state = self._run.state
        own = namespace(state.vars, "_runtime")
        replay.note_history(self._run, own)
        visit = journal.count_visit(own, plan.node_id)
        base = self._rules.policy.idempotency_key(run=state, node_id=plan.node_id, effect=effect)
        key = key_of_visit(base, visit)
        effect = with_call_ids(effect, key)
        if replay.SLOT in own and self._find_again(plan, effect, key):
            return
        self._attempt(plan.node_id, effect, key, plan.next_node, attempt=1)

    def _find_again(self, plan: StepPlan, effect: Effect, key: str) -> bool:
        """Take the result of the effect from the ledger, and say whether it is there; nothing is recorded again."""
        if self._history is None:
            last = int(self.state.vars["_runtime"][replay.SLOT])
            self._history = replay.History(self._draft.stores.ledger, self._draft.offloading, self.state.run_id, last)
        found = self._history.find(key)
        if found is None:
            return False
        cursor, record = found
        self._run.touch(self._draft.now_iso())
        note_step(self.state.vars, record, len(dumps(record.to_dict(), field="record")), 0.0, is_reused=True)
        pending = PendingEffect(effect, record, cursor, plan.next_node, self._clock.monotonic())
        self._take_result(pending, record.result)
        return True

    def _attempt(self, node_id: str, effect: Effect, key: str, next_node: str | None, *, attempt: int) -> None:
        """Record the intent, and perform the effect if it is the kernel's own; others wait for the commit.

        One that the run's budget does not allow is not begun: a person is asked first.
        """
        perform = self._rules.internal.get(effect.type)
        breach = budgets.breach(self.state.vars, effect) if perform is None else None
        if breach is not None:
            self._hold(breach, node_id, effect, key, next_node, attempt)
            return
        now = self._draft.now_iso()
        self._run.touch(now)
        record = records.started(self._run, node_id, effect, now=now, attempt=attempt, key=key)
        cursor = self._run.next_cursor
        self._run.append(record, effect=effect.text)
        pending = PendingEffect(effect, record, cursor, next_node, self._clock.monotonic())
        if perform is None:
            self._await(pending)
        else:
            self._finish(pending, self._perform_here(perform, pending))

    def _check_time(self) -> None:
        """Ask whether a run whose time is up may go on, before it takes another step."""
        breach = budgets.breach(self.state.vars) if self.state.status is RunStatus.RUNNING else None
        if breach is not None:
            self._draft.begin_instant()
            self._hold(breach, self.state.current_node)

    def _count_time(self, *, since: str | None = None) -> None:
        """Count the time that has passed since it was last counted, or since an effect of an earlier owner began."""
        now = self._clock.now()
        begun = self._counted_until if since is None else min(self._counted_until, parse_iso(since))
        budgets.spend(self.state.vars, {"wall_s": max(0.0, (now - begun).total_seconds())})
        self._counted_until = now

    def _hold(
        self,
        breach: budgets.Breach,
        node_id: str,
        effect: Effect | None = None,
        key: str | None = None,
        next_node: str | None = None,
        attempt: int = 1,
    ) -> None:
        """Stand still before an effect, or before the next step, until a person has raised the limit in the way."""
        cursor, now = self._run.next_cursor, self._draft.now_iso()
        wait = budgets.question(self.state, breach, node_id, cursor)
        self._run.append(records.held(self._run, node_id, wait, now=now, effect=effect, attempt=attempt, key=key))
        if effect is not None:
            journal.remember(self.state.vars, InFlight(cursor, next_node, "held"))
        lifecycle.ask(self._draft, self._run, wait)

    def _await(self, pending: PendingEffect) -> None:
        limit = time_limit(self._rules.policy, pending.effect)
        self.pending = pending._replace(timeout_s=limit)
        found = InFlight(
            pending.cursor,
            pending.next_node,
            effect=pending.effect.type.value,
            since=pending.record.started_at,
            timeout_s=limit,
        )
        journal.remember(self.state.vars, found)

    def _perform_here(self, perform: InternalEffect, pending: PendingEffect) -> EffectOutcome:
        given = (self._draft, self._run, pending.effect, pending.record.node_id, pending.next_node, self._registry)
        try:
            return perform(EffectRequest(*given, self._rules.global_memory))
        except Invalid as error:
            return EffectOutcome.failed(str(error))

    def _take_up(self, found: InFlight) -> None:
        """Go on with an effect that has no outcome: after a failed attempt, a crash, or an answer about the budget."""
        self._draft.begin_instant()
        if found.call is not None:
            self._begin_approved(found, found.call)
            return
        record = self._record_at(found.cursor)
        if record is None or record.effect is None:
            journal.forget(self.state.vars)
            self._fail_node(Invalid("ledger", f"has no effect at {found.cursor}, where the run has one in flight"))
            return
        effect = _stored_effect(record.effect)
        if found.then is None and effect.type in self._rules.reconcilers:
            limit, started = time_limit(self._rules.policy, effect), self._clock.monotonic()
            self.pending = PendingEffect(effect, record, found.cursor, found.next_node, started, limit, True)
            return
        then = found.then or _THEN[self._rules.in_doubt.rule_of(effect)]
        journal.forget(self.state.vars)
        if then in ("again", "held"):
            key, attempt = str(record.idempotency_key), record.attempt + (then == "again")
            self._attempt(record.node_id, effect, key, found.next_node, attempt=attempt)
        elif then == "ask":
            self._ask(record, found)
        else:
            self._run.append(records.closed(record, EffectOutcome.failed(INTERRUPTED), now=self._draft.now_iso()))
            lifecycle.fail(self._draft, self._run, _failure(record, INTERRUPTED))

    def _begin_approved(self, found: InFlight, call: JsonObject) -> None:
        """Perform an effect that somebody has agreed to, under the key of the effect that asked."""
        journal.forget(self.state.vars)
        self._attempt(str(call["node_id"]), _stored_effect(call), str(call["key"]), found.next_node, attempt=1)

    def _record_at(self, cursor: int) -> StepRecord | None:
        data = self._run.own_record(cursor) or self._draft.stores.ledger.read_record(self.state.run_id, cursor)
        return StepRecord.from_dict(self._draft.offloading.rehydrate_record(data)) if data is not None else None

    def _ask(self, record: StepRecord, found: InFlight) -> None:
        """Let a person decide about an effect that may or may not have happened."""
        wait = journal.question(self.state, record.effect, record.node_id, found.cursor)
        self._run.append(records.closed(record, EffectOutcome.waiting(wait), now=self._draft.now_iso()))
        journal.remember(self.state.vars, InFlight(found.cursor, found.next_node, "asked"))
        lifecycle.rest(self._draft, self._run, wait)

    def _finish(self, pending: PendingEffect, outcome: EffectOutcome) -> None:
        record = records.closed(pending.record, outcome, now=self._draft.now_iso())
        size = self._run.append(record, effect=pending.effect.text)
        note_step(self.state.vars, record, size, 1000 * (self._clock.monotonic() - pending.started))
        budgets.count(self.state.vars, pending.effect, outcome)
        if outcome.status is StepStatus.FAILED:
            self._retry_or_fail(pending, outcome.error)
        elif outcome.status is StepStatus.WAITING and outcome.wait is not None:
            lifecycle.wait(self._draft, self._run, outcome.wait)
        else:
            self._take_result(pending, outcome.result)

    def _retry_or_fail(self, pending: PendingEffect, error: str | None) -> None:
        attempt = pending.record.attempt
        if attempt >= self._rules.policy.max_attempts(pending.effect):
            lifecycle.fail(self._draft, self._run, _failure(pending.record, error))
            return
        journal.remember(self.state.vars, InFlight(pending.cursor, pending.next_node, "again"))
        rest_s = self._rules.policy.backoff_seconds(effect=pending.effect, attempt=attempt)
        if rest_s > 0:
            until = to_iso(self._clock.now() + timedelta(seconds=rest_s))
            wait = journal.retry_wait(self.state, until=until, attempt=attempt + 1, error=error)
            lifecycle.rest(self._draft, self._run, wait)

    def _take_result(self, pending: PendingEffect, result: object) -> None:
        vars, effect = self._run.state.vars, pending.effect
        if effect.type is EffectType.LLM_CALL:
            note_usage(vars, result)
            keep_turn(vars, effect, pending.record.node_id, result)
            forget_pending_media(vars)
        if effect.result_key and result is not None:
            store_at(vars, effect.result_key, result)
        next_node = _node_after(pending)
        if next_node:
            lifecycle.move(self._draft, self._run, next_node)
        else:
            lifecycle.complete(self._draft, self._run, {"success": True, "result": result}, record=False)

    def _fail_node(self, error: Exception) -> None:
        state = self.state
        text = printable(f"node {state.current_node!r}: {type(error).__name__}: {error}")
        if state.status.is_terminal:
            raise GatewayError(f"run {state.run_id!r} broke after it had ended: {text}", code="kernel_fault") from error
        self.pending = None
        self._run.append(records.node_failed(self._run, text, now=self._draft.now_iso()))
        lifecycle.fail(self._draft, self._run, text)


def timed_out(pending: PendingEffect) -> EffectOutcome:
    """Return what becomes of an effect that is not over when its time is: it failed; a reconciler could not tell."""
    error = f"timed out after the {pending.timeout_s:g} s it may take"
    return journal.unknown(error) if pending.is_in_doubt else EffectOutcome.failed(error)


def discard(draft: Draft, run: OpenRun, record: StepRecord, outcome: EffectOutcome) -> None:
    """Record the outcome of a started effect that nobody waits for any more; it changes nothing else."""
    run.append(records.discarded(run, record, _storable(outcome), now=draft.now_iso()))


def _node_after(pending: PendingEffect) -> str | None:
    """Return where a run goes after an effect; a wait that is over at once leads where it would have led later."""
    if pending.effect.type in (EffectType.WAIT_EVENT, EffectType.WAIT_UNTIL):
        wished = pending.effect.payload.get("resume_to_node")
        return str(wished) if wished else pending.next_node
    return pending.next_node


def printable(text: str) -> str:
    """Return a text that JSON can hold: a lone surrogate, as in undecodable file names, is spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _failure(record: StepRecord, error: str | None) -> str:
    return f"Effect failed after {record.attempt} attempts: {error} (node {record.node_id!r})"


def _storable(outcome: EffectOutcome) -> EffectOutcome:
    """Return the outcome as it will be read back, so that a run goes on alike with and without a restart."""
    try:
        status = StepStatus(outcome.status)
        if status is StepStatus.COMPLETED:
            return EffectOutcome.completed(loads(dumps(outcome.result, field="result")))
        if status is StepStatus.WAITING and outcome.wait is not None:
            return EffectOutcome.waiting(WaitState.from_dict(loads(dumps(vars(outcome.wait), field="wait"))))
        if status is not StepStatus.FAILED:
            return EffectOutcome.failed(f"an effect cannot end as {status.value} without what it waits for")
        return EffectOutcome.failed(printable(str(outcome.error)), loads(dumps(outcome.result, field="result")))
    except (TypeError, ValueError) as error:
        return EffectOutcome.failed(printable(f"the result cannot be stored: {error}"))


def _stored_effect(data: JsonObject) -> Effect:
    return Effect(EffectType(data["type"]), data.get("payload") or {}, data.get("result_key"))
