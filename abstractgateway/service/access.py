"""What a gateway keeps about its callers: their named tokens, and the log of what they changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..clock import Clock
from ..config import GatewayConfig
from ..stores.shelf import SharedShelf
from .audit import AuditLog
from .shared_tokens import SharedTokens
from .tokens import FILE_NAME, NamedTokens, TokenFile


@dataclass(frozen=True)
class Access:
    """Both; by default there are no named tokens and there is no log."""

    tokens: NamedTokens = field(default_factory=NamedTokens)
    audit: AuditLog = field(default_factory=AuditLog)

    @staticmethod
    def of(config: GatewayConfig, clock: Clock, shelf: SharedShelf | None = None) -> Access:
        """Return those of the data directory, with a shelf the tokens of that; stores in memory keep neither."""
        return Access(named_tokens(config, shelf, clock), AuditLog.of(config, clock))


def named_tokens(config: GatewayConfig, shelf: SharedShelf | None = None, clock: Clock | None = None) -> NamedTokens:
    """Return the named tokens of the data directory, or of a shelf, which takes over those of the directory.

    Raises `Unavailable` where they cannot be read at first.
    """
    file = TokenFile(tokens_path(config))
    return NamedTokens(SharedTokens(shelf, before=file) if shelf is not None else file, clock)


def tokens_path(config: GatewayConfig) -> Path | None:
    """Return the file of the named tokens, None where nothing is kept."""
    return None if config.store_backend == "memory" else Path(config.data_dir) / FILE_NAME
