"""Time as a port, and the one text form of an instant.

Stored timestamps are UTC with the offset `+00:00` (what AbstractRuntime writes); readers accept any ISO 8601 text
with an offset, `Z`, or none (then UTC). Instants are compared as instants, never as text.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Protocol

from .errors import Invalid


class Clock(Protocol):
    """Where the library learns what time it is."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards, for measuring durations."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        return time.monotonic()


def to_iso(instant: datetime) -> str:
    """Return the stored text of an instant, such as `2026-11-21T07:21:50.517935+00:00`."""
    return instant.astimezone(timezone.utc).isoformat()


def parse_iso(text: str, *, field: str = "timestamp") -> datetime:
    """Return the instant that an ISO 8601 text names.

    A text without an offset is UTC. Raises `Invalid(field, …)` for anything else.
    """
    cleaned = text.strip()
    if cleaned[-1:] in ("Z", "z"):
        cleaned = cleaned[:-1] + "+00:00"
    try:
        instant = datetime.fromisoformat(_with_six_digits(cleaned))
        return instant.replace(tzinfo=timezone.utc) if instant.tzinfo is None else instant.astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:  # an offset may lead out of the years that there are
        raise Invalid(field, f"{text!r} is not an ISO 8601 time such as '2026-11-21T07:00:00+00:00'") from error


def _with_six_digits(text: str) -> str:
    """Python 3.10 reads fractions of three or six digits only."""
    head, dot, rest = text.partition(".")
    if not dot:
        return text
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return f"{head}.{rest[:digits][:6]:0<6}{rest[digits:]}"
