"""The physical limit: the same rows in plain SQLite transactions, WAL and `synchronous=FULL`.

A step is two ledger rows of about 600 bytes and an update of a run of about 2 KB.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time

ROW, STATE = "r" * 600, "s" * 2048


def timed(path: str, steps: int, per_transaction: int) -> float:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    connection.executescript(
        "CREATE TABLE run (id TEXT PRIMARY KEY, revision INTEGER, state TEXT);"
        "CREATE TABLE ledger (run TEXT, seq INTEGER, body TEXT, PRIMARY KEY (run, seq)) WITHOUT ROWID;"
        "INSERT INTO run VALUES ('r', 0, '')"
    )
    begin = time.perf_counter()
    for first in range(0, steps, per_transaction):
        connection.execute("BEGIN IMMEDIATE")
        rows = [("r", 2 * (first + number) + half, ROW) for number in range(per_transaction) for half in (0, 1)]
        connection.executemany("INSERT INTO ledger VALUES (?, ?, ?)", rows)
        for _ in range(per_transaction):
            connection.execute("UPDATE run SET revision = revision + 1, state = ? WHERE id = 'r'", (STATE,))
        connection.execute("COMMIT")
    took = time.perf_counter() - begin
    connection.close()
    return steps / took


def two_commits(path: str, steps: int) -> float:
    """Return the steps per second when every step is an intent and an outcome, each a transaction."""
    return timed(path, 2 * steps, 1) / 2


with tempfile.TemporaryDirectory(prefix="bench-") as directory:
    figures = {
        "1 run x 100 steps": timed(f"{directory}/a", 100, 1),
        "1 run x 1,000 steps": timed(f"{directory}/b", 1000, 1),
        "1 run x 10,000 steps": timed(f"{directory}/c", 10_000, 1),
        "200 runs x 10 steps": timed(f"{directory}/d", 2000, 100),
        "1 run x 300 outside effects": two_commits(f"{directory}/e", 300),
    }
print(json.dumps(figures))
