"""The use cases of a gateway, grouped by noun: the only door for adapters and the command line."""

from __future__ import annotations

from .commands import Receipt
from .gateway import GatewayService
from .ledger import LedgerEntry, LedgerTail

__all__ = ["GatewayService", "LedgerEntry", "LedgerTail", "Receipt"]
