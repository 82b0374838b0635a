"""Where runs, ledgers, commands and artifacts are kept; every backend keeps the same contract.

`open_memory_stores()`, `open_file_stores(directory)` and `open_sqlite_stores(directory)` return the same `Stores`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .base import Stores
from .file_ports import JsonFileRunStore, JsonlLedgerStore
from .files import open_file_stores
from .memory import InMemoryCommandStore, InMemoryLedgerStore, InMemoryRunStore, open_memory_stores
from .snapshots import JsonSnapshotStore

if TYPE_CHECKING:
    from .sqlite import SqliteStores


def open_sqlite_stores(
    directory: str | Path, *, database: str | Path | None = None, is_durable: bool = True
) -> SqliteStores:
    """Return stores in `<directory>/gateway.sqlite3`, or in the file that `database` names; both are made if missing.

    Raises `Unavailable` for a file that is no database, `Conflict` for one of a later version.
    """
    from .sqlite import open_sqlite_stores as open_stores  # SQLite's module is loaded by whoever uses it

    return open_stores(directory, database=database, is_durable=is_durable)


__all__ = [
    "InMemoryCommandStore",
    "InMemoryLedgerStore",
    "InMemoryRunStore",
    "JsonFileRunStore",
    "JsonSnapshotStore",
    "JsonlLedgerStore",
    "Stores",
    "open_file_stores",
    "open_memory_stores",
    "open_sqlite_stores",
]
