"""The values the kernel works with: runs, steps, effects and waits.

Field names, values and JSON field order are those of AbstractRuntime 0.4.9, so that its run files and ledgers can be
read by this library and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from json.encoder import encode_basestring
from typing import Any

from ..clock import to_iso
from ..errors import Invalid, NotFound
from ..ids import new_id
from ..jsonvalue import JsonObject, canonical_text


class RunStatus(str, Enum):
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_STATUSES


TERMINAL_STATUSES = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})


class WaitReason(str, Enum):
    EVENT = "event"
    UNTIL = "until"
    USER = "user"
    JOB = "job"
    SUBWORKFLOW = "subworkflow"


class StepStatus(str, Enum):
    STARTED = "started"
    COMPLETED = "completed"
    WAITING = "waiting"
    FAILED = "failed"


class EffectType(str, Enum):
    WAIT_EVENT = "wait_event"
    WAIT_UNTIL = "wait_until"
    ASK_USER = "ask_user"
    ANSWER_USER = "answer_user"
    EMIT_EVENT = "emit_event"
    LLM_CALL = "llm_call"
    TOOL_CALLS = "tool_calls"
    MEMORY_QUERY = "memory_query"
    MEMORY_TAG = "memory_tag"
    MEMORY_COMPACT = "memory_compact"
    MEMORY_NOTE = "memory_note"
    MEMORY_REHYDRATE = "memory_rehydrate"
    MEMORY_KG_ASSERT = "memory_kg_assert"
    MEMORY_KG_QUERY = "memory_kg_query"
    MEMORY_KG_RESOLVE = "memory_kg_resolve"
    VARS_QUERY = "vars_query"
    START_SUBWORKFLOW = "start_subworkflow"
    RUN_CODE = "run_code"
    READ_FILE = "read_file"
    WRITE_FILE = "write_file"
    SKIP_FIRINGS = "skip_firings"


@dataclass(frozen=True)
class Effect:
    """A side effect that a node asks for; `result_key` is the dotted path in `run.vars` that receives its result."""

    type: EffectType
    payload: JsonObject = field(default_factory=dict)
    result_key: str | None = None

    def to_dict(self) -> JsonObject:
        return {"type": self.type.value, "payload": self.payload, "result_key": self.result_key}

    @property
    def payload_text(self) -> str:
        """The canonical JSON of the payload, made once. Raises `Invalid` for values JSON lacks."""
        return self._made_once("_payload_text", lambda: canonical_text(self.payload, field="effect.payload"))

    @property
    def text(self) -> str:
        """The canonical JSON of the stored form, made once."""
        return self._made_once("_text", self._encoded)

    def _encoded(self) -> str:
        key = "null" if self.result_key is None else encode_basestring(self.result_key)
        return f'{{"payload":{self.payload_text},"result_key":{key},"type":{encode_basestring(self.type)}}}'

    def _made_once(self, name: str, make: Callable[[], str]) -> str:
        text: str | None = self.__dict__.get(name)
        if text is None:
            text = self.__dict__[name] = make()
        return text


@dataclass(frozen=True)
class StepPlan:
    """What a node handler decides: an effect to perform, the node to go to, or the output that ends the run.

    `complete_output` wins over the other two; `{}` counts as an output.
    """

    node_id: str
    effect: Effect | None = None
    next_node: str | None = None
    complete_output: JsonObject | None = None


@dataclass
class WaitState:
    """Why a run stands still, and what makes it go on."""

    reason: WaitReason
    wait_key: str | None = None
    until: str | None = None
    resume_to_node: str | None = None
    result_key: str | None = None
    prompt: str | None = None
    choices: list[str] | None = None
    allow_free_text: bool = True
    details: JsonObject | None = None

    def to_dict(self) -> JsonObject:
        """Return the stored form; `choices` and `details` are shared, not copied."""
        return {**self.__dict__, "reason": self.reason.value}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> WaitState:
        if "reason" not in data:
            raise Invalid("waiting", "has no 'reason'")
        known = {name: data[name] for name in WaitState.__dataclass_fields__ if data.get(name) is not None}
        return WaitState(**{**known, "reason": WaitReason(data["reason"])})


def _now() -> str:
    return to_iso(datetime.now(timezone.utc))


@dataclass
class RunState:
    """The durable checkpoint of one run; everything a workflow may remember is in `vars`."""

    run_id: str
    workflow_id: str
    status: RunStatus
    current_node: str
    vars: JsonObject = field(default_factory=dict)
    waiting: WaitState | None = None
    output: JsonObject | None = None
    error: str | None = None
    created_at: str = field(default_factory=_now)
    updated_at: str = field(default_factory=_now)
    actor_id: str | None = None
    session_id: str | None = None
    parent_run_id: str | None = None

    @staticmethod
    def new(
        *,
        workflow_id: str,
        entry_node: str,
        actor_id: str | None = None,
        session_id: str | None = None,
        vars: JsonObject | None = None,
        parent_run_id: str | None = None,
    ) -> RunState:
        """Return a run that stands before its first step, with a random id."""
        return RunState(
            run_id=new_id(),
            workflow_id=workflow_id,
            status=RunStatus.RUNNING,
            current_node=entry_node,
            vars=vars if vars is not None else {},
            actor_id=actor_id,
            session_id=session_id,
            parent_run_id=parent_run_id,
        )

    def to_dict(self) -> JsonObject:
        """Return the stored form; `vars` and `output` are shared, not copied."""
        data = {name: getattr(self, name) for name in RunState.__dataclass_fields__}
        data["status"] = self.status.value
        data["waiting"] = self.waiting.to_dict() if self.waiting is not None else None
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> RunState:
        """Return the run of a stored form, ignoring unknown fields. Raises `Invalid` for one that is not a run."""
        try:
            known: dict[str, Any] = {name: data.get(name) for name in RunState.__dataclass_fields__}
            known["status"] = RunStatus(data["status"])
            known["waiting"] = WaitState.from_dict(data["waiting"]) if data.get("waiting") else None
            known["vars"] = data.get("vars") or {}
            for name in ("run_id", "workflow_id", "current_node"):
                known[name] = str(data[name])
            return RunState(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise Invalid("run", f"is not a stored run: {type(error).__name__}: {error}") from error


@dataclass
class StepRecord:
    """One entry of a run's ledger; a started record and the one that closes it share `step_id`."""

    run_id: str
    step_id: str
    node_id: str
    status: StepStatus
    effect: JsonObject | None = None
    result: JsonObject | None = None
    error: str | None = None
    started_at: str = field(default_factory=_now)
    ended_at: str | None = None
    actor_id: str | None = None
    session_id: str | None = None
    attempt: int = 1
    idempotency_key: str | None = None
    prev_hash: str | None = None
    record_hash: str | None = None
    signature: str | None = None

    def to_dict(self) -> JsonObject:
        data = {name: getattr(self, name) for name in StepRecord.__dataclass_fields__}
        data["status"] = StepStatus(self.status).value
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> StepRecord:
        """Return the record of a stored form, ignoring unknown fields."""
        known = {name: data[name] for name in StepRecord.__dataclass_fields__ if name in data}
        return StepRecord(**{**known, "status": StepStatus(data["status"])})

    @staticmethod
    def start(
        run: RunState, node_id: str, effect: Effect | None, attempt: int = 1, idempotency_key: str | None = None
    ) -> StepRecord:
        """Return the record that announces a step of this run."""
        return StepRecord(
            run_id=run.run_id,
            step_id=new_id(),
            node_id=node_id,
            status=StepStatus.STARTED,
            effect=effect.to_dict() if effect is not None else None,
            actor_id=run.actor_id,
            session_id=run.session_id,
            attempt=attempt,
            idempotency_key=idempotency_key,
        )

    def finish_success(self, result: JsonObject | None) -> StepRecord:
        return self._finish(StepStatus.COMPLETED, result=result)

    def finish_waiting(self, wait: WaitState) -> StepRecord:
        return self._finish(StepStatus.WAITING, result={"wait": wait.to_dict()})

    def finish_failure(self, error: str) -> StepRecord:
        return self._finish(StepStatus.FAILED, error=error)

    def _finish(self, status: StepStatus, *, result: JsonObject | None = None, error: str | None = None) -> StepRecord:
        self.status, self.result, self.error, self.ended_at = status, result, error, _now()
        return self


NodeHandler = Callable[[RunState, Any], StepPlan]


@dataclass(frozen=True)
class WorkflowSpec:
    """A workflow: its nodes by id, each a function of the run and a context that returns a `StepPlan`.

    A handler may change `run.vars`; it performs no side effect itself.
    """

    workflow_id: str
    entry_node: str
    nodes: Mapping[str, NodeHandler]

    def get_node(self, node_id: str) -> NodeHandler:
        try:
            return self.nodes[node_id]
        except KeyError:
            raise NotFound(f"workflow {self.workflow_id!r} has no node {node_id!r}") from None


@dataclass(frozen=True)
class EffectOutcome:
    """What performing an effect led to: a result, a wait, or a failure."""

    status: StepStatus
    result: Any = None
    wait: WaitState | None = None
    error: str | None = None

    @staticmethod
    def completed(result: Any = None) -> EffectOutcome:
        return EffectOutcome(StepStatus.COMPLETED, result=result)

    @staticmethod
    def waiting(wait: WaitState) -> EffectOutcome:
        return EffectOutcome(StepStatus.WAITING, wait=wait)

    @staticmethod
    def failed(error: str, result: Any = None) -> EffectOutcome:
        """A failure; what it used, for instance, is told in `result`."""
        return EffectOutcome(StepStatus.FAILED, result=result, error=error)
