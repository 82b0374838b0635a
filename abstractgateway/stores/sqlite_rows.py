"""Writing many rows with few statements.

A row in a statement of its own costs 1.3 µs, among others 0.8 µs (measured, 600 bytes); and every statement gives
Python's interpreter lock away and has to wait until a busy thread hands it back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

MAX_VALUES = 900
"""SQLite before 3.32 takes 999 values in one statement."""
SIZES = (256, 64, 16, 4, 1)
"""How many rows a statement may have; few sizes, so that each statement is prepared once."""


class Rows:
    """An INSERT statement without its VALUES, for rows of so many columns, and what follows the VALUES."""

    def __init__(self, insert: str, columns: int, then: str = "") -> None:
        self._insert = insert
        self._columns = columns
        self._then = then

    def write(self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write the rows, in order. Raises `sqlite3.Error`."""
        at = 0
        while at < len(rows):
            count = next(size for size in SIZES if size <= len(rows) - at and size * self._columns <= MAX_VALUES)
            values = tuple(chain.from_iterable(rows[at : at + count]))
            connection.execute(_statement(self._insert, self._columns, count, self._then), values)
            at += count


@lru_cache
def _statement(insert: str, columns: int, count: int, then: str) -> str:
    marks = f"({', '.join('?' * columns)})"
    return f"{insert} VALUES {', '.join([marks] * count)} {then}".rstrip()
