"""Where runs, ledgers, commands and artifacts are kept; every backend keeps the same contract.

`open_memory_stores()`, `open_file_stores(directory)` and `open_sqlite_stores(directory)` return the same `Stores`.
"""

from __future__ import annotations

from .memory import InMemoryCommandStore, InMemoryLedgerStore, InMemoryRunStore, open_memory_stores

__all__ = ["InMemoryCommandStore", "InMemoryLedgerStore", "InMemoryRunStore", "open_memory_stores"]
