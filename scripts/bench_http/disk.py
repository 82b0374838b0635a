"""What the disk allows: appends with fsync, and plain SQLite transactions with `synchronous=FULL`."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from .figures import Figures

_LINE = b"x" * 2048 + b"\n"
_COUNT = 1000


def limits(directory: Path) -> Figures:
    return {"append + fdatasync/s": _appends(directory), "SQLite FULL transactions/s": _transactions(directory)}


def _appends(directory: Path) -> float:
    fd = os.open(directory / "append.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    begin = time.perf_counter()
    for _ in range(_COUNT):
        os.write(fd, _LINE)
        os.fdatasync(fd)
    rate = _COUNT / (time.perf_counter() - begin)
    os.close(fd)
    return rate


def _transactions(directory: Path) -> float:
    database = sqlite3.connect(directory / "plain.sqlite3", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
    begin = time.perf_counter()
    for _ in range(_COUNT):
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO t (body) VALUES (?)", (_LINE.decode(),))
        database.execute("COMMIT")
    rate = _COUNT / (time.perf_counter() - begin)
    database.close()
    return rate
