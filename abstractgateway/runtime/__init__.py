"""The durable kernel: runs, their transitions, and the loop that advances them.

It decides and remembers; it opens no file or socket and starts no thread except the `Scheduler`'s.
"""

from __future__ import annotations

import pkgutil
from typing import Any

from .commit import CommandAppendResult, CommandOutcome, CommandRecord, Commit, CommitReceipt, RunWrite, StoredRun
from .effects.events import build_event_wait_key
from .execution import Execution, PendingEffect
from .idempotency import compute_idempotency_key
from .limits import LimitWarning, RuntimeConfig
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
from .policy import DefaultEffectPolicy, EffectPolicy, NoRetryPolicy, RetryPolicy
from .registry import WorkflowRegistry
from .runtime import Runtime
from .scheduler import ScheduledRuntime, Scheduler, SchedulerStats, create_scheduled_runtime
from .snapshots import InMemorySnapshotStore, Snapshot, SnapshotStore

__all__ = [
    "CommandAppendResult",
    "CommandOutcome",
    "CommandRecord",
    "Commit",
    "CommitReceipt",
    "DefaultEffectPolicy",
    "Effect",
    "EffectOutcome",
    "EffectPolicy",
    "EffectType",
    "Execution",
    "InMemorySnapshotStore",
    "LimitWarning",
    "NoRetryPolicy",
    "NodeHandler",
    "PendingEffect",
    "RetryPolicy",
    "RunState",
    "RunStatus",
    "RunWrite",
    "Runtime",
    "RuntimeConfig",
    "ScheduledRuntime",
    "Scheduler",
    "SchedulerStats",
    "Snapshot",
    "SnapshotStore",
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

_STORES = ("InMemoryLedgerStore", "InMemoryRunStore", "JsonFileRunStore", "JsonlLedgerStore")


def __getattr__(name: str) -> Any:
    """Find the stores that AbstractRuntime's programs import from the kernel; the kernel itself imports none."""
    if name in _STORES:
        return pkgutil.resolve_name(f"abstractgateway.stores:{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
