"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone


class ManualClock:
    """Starts at 2026-01-01 00:00 UTC, or where it is told to."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=timezone.utc)
        self._elapsed = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    def move(self, seconds: float) -> None:
        """Let time pass; the monotonic clock moves as well."""
        self._now += timedelta(seconds=seconds)
        self._elapsed += seconds

    def set(self, instant: datetime) -> None:
        """Set the wall clock, as an administrator would: the monotonic clock does not move."""
        self._now = instant
