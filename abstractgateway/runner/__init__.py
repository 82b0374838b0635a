"""The runner: applies commands and drives runs."""

from __future__ import annotations

from .commands import COMMAND_TYPES, CommandApplier
from .lock import Holder, RunnerElsewhere, RunnerLock, Watch
from .runner import Runner
from .tenure import COMMANDS, Tenure

__all__ = [
    "COMMANDS",
    "COMMAND_TYPES",
    "CommandApplier",
    "Holder",
    "Runner",
    "RunnerElsewhere",
    "RunnerLock",
    "Tenure",
    "Watch",
]
