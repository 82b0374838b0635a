"""What a gateway keeps about its callers: their named tokens, and the log of what they changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..clock import Clock
from ..config import GatewayConfig
from .audit import AuditLog
from .tokens import FILE_NAME, NamedTokens


@dataclass(frozen=True)
class Access:
    """Both; by default there are no named tokens and there is no log."""

    tokens: NamedTokens = field(default_factory=lambda: NamedTokens(None))
    audit: AuditLog = field(default_factory=AuditLog)

    @staticmethod
    def of(config: GatewayConfig, clock: Clock) -> Access:
        """Return those of the data directory; stores in memory keep neither."""
        return Access(NamedTokens(tokens_path(config), clock), AuditLog.of(config, clock))


def tokens_path(config: GatewayConfig) -> Path | None:
    """Return the file of the named tokens, None where nothing is kept."""
    return None if config.store_backend == "memory" else Path(config.data_dir) / FILE_NAME
