"""The durable kernel: runs, their transitions, and the loop that advances them.

It decides and remembers; it opens no file or socket and starts no thread except the `Scheduler`'s.
"""

from __future__ import annotations

from .commit import CommandAppendResult, CommandOutcome, CommandRecord, Commit, CommitReceipt, RunWrite, StoredRun
from .effects.events import build_event_wait_key
from .execution import Execution, PendingEffect
from .idempotency import compute_idempotency_key
from .limits import RuntimeConfig
from .models import (
    Effect,
    EffectOutcome,
    EffectType,
    NodeHandler,
    RunState,
    RunStatus,
    StepPlan,
    StepRecord,
    StepStatus,
    WaitReason,
    WaitState,
    WorkflowSpec,
)
from .registry import WorkflowRegistry
from .runtime import Runtime
from .scheduler import ScheduledRuntime, Scheduler, SchedulerStats, create_scheduled_runtime

__all__ = [
    "CommandAppendResult",
    "CommandOutcome",
    "CommandRecord",
    "Commit",
    "CommitReceipt",
    "Effect",
    "EffectOutcome",
    "EffectType",
    "Execution",
    "NodeHandler",
    "PendingEffect",
    "RunState",
    "RunStatus",
    "RunWrite",
    "Runtime",
    "RuntimeConfig",
    "ScheduledRuntime",
    "Scheduler",
    "SchedulerStats",
    "StepPlan",
    "StepRecord",
    "StepStatus",
    "StoredRun",
    "WaitReason",
    "WaitState",
    "WorkflowRegistry",
    "WorkflowSpec",
    "build_event_wait_key",
    "compute_idempotency_key",
    "create_scheduled_runtime",
]
