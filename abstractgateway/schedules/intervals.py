"""Intervals as people write them: `90s`, `15m`, `1.5h`, `2d`, `500ms`."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction

from ..errors import Invalid

_INTERVAL = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d)\s*", re.IGNORECASE | re.ASCII)
_MICROSECONDS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
SHORTEST = timedelta(milliseconds=10)
"""A schedule that fires more often keeps the gateway from everything else."""
LONGEST = timedelta(days=100 * 365)


def parse_interval(text: str) -> timedelta:
    """Return the interval that a text names; days have 24 hours.

    Raises `Invalid` for anything else, and for one that is shorter than 10 ms or longer than a hundred years.
    """
    found = _INTERVAL.fullmatch(text)
    if found is None:
        raise _refused("invalid interval (expected like '15m', '1h', '2d')")
    interval = timedelta(microseconds=round(Fraction(found[1]) * _MICROSECONDS[found[2].lower()]))
    if not SHORTEST <= interval <= LONGEST:
        raise _refused(f"invalid interval ({text.strip()!r} is not between 10ms and 36500d)")
    return interval


def _refused(why: str) -> Invalid:
    return Invalid("", f"Invalid interval: {why}", code="schedule_invalid")
