"""For tests of flows and of programs that embed the gateway."""

from __future__ import annotations

from .clock import ManualClock
from .disk import FaultyDisk, PowerLoss
from .harness import GatewayHarness, RunOutcome
from .model import ScriptedModel

__all__ = ["FaultyDisk", "GatewayHarness", "ManualClock", "PowerLoss", "RunOutcome", "ScriptedModel"]
