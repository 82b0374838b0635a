"""Figures of several rounds, and how they are printed: median, range, and the multiple of a base column."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

Value = float | str
"""A figure; a text where there is none, which says why."""

Figures = dict[str, Value]


class Column:
    """The figures of one subject, those of each round."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[Value]] = {}

    def add(self, figures: Mapping[str, Value]) -> None:
        """Take in the figures of a round."""
        for name, value in figures.items():
            self._rounds.setdefault(name, []).append(value)

    @property
    def names(self) -> list[str]:
        return list(self._rounds)

    def median(self, name: str) -> float | None:
        """Return the middle one of the rounds; None when a round has no figure."""
        numbers = self._numbers(name)
        return statistics.median(numbers) if numbers else None

    def cell(self, name: str, base: float | None) -> str:
        """Return a figure as it is printed, with its range when there were several rounds."""
        rounds, numbers = self._rounds.get(name), self._numbers(name)
        if rounds is None:
            return "-"
        if not numbers:
            return str(next(value for value in rounds if isinstance(value, str)))
        middle = statistics.median(numbers)
        spread = f" [{_told(min(numbers))} to {_told(max(numbers))}]" if len(numbers) > 1 else ""
        return f"{_told(middle)}{spread}" + (f" ({middle / base:,.2f} x)" if base else "")

    def _numbers(self, name: str) -> list[float]:
        values = self._rounds.get(name, [])
        numbers = [value for value in values if not isinstance(value, str)]
        return numbers if len(numbers) == len(values) else []


def _told(value: float) -> str:
    return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


def print_table(title: str, columns: Mapping[str, Column], base: str | None) -> None:
    """Print one line per figure; with a base, what each column is as a multiple of it."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column.names))
    if not names:
        return
    rows = [[title, *columns]]
    for name in names:
        divisor = columns[base].median(name) if base in columns and base is not None else None
        rows.append([name, *(column.cell(name, divisor) for column in columns.values())])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    print()
    for name, *cells in rows:
        aligned = (f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        print(f"{name:{widths[0]}}" + "".join(aligned))


def percentile(values: list[float], share: float) -> float:
    """Return the value that so large a share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
