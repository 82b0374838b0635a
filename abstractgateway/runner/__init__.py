"""The runner: applies commands and drives runs."""

from __future__ import annotations

from .commands import COMMAND_TYPES, CommandApplier
from .lock import RunnerElsewhere, RunnerLock
from .runner import Runner

__all__ = ["COMMAND_TYPES", "CommandApplier", "Runner", "RunnerElsewhere", "RunnerLock"]
