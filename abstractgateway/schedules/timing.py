"""When a schedule fires: what may be said about it, and which combinations make sense."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any

from ..clock import parse_iso, to_iso
from ..errors import Invalid
from ..jsonvalue import JsonObject
from .cron import parse_cron
from .intervals import parse_interval
from .series import Calendar, Grid, Once, Series
from .zones import zone_of

OVERLAPS = ("skip", "queue", "cancel_previous", "allow")
MAX_REPEATS = 10_000
LAST_YEAR = 9000
"""So far before the end of the calendar that what comes next is inside it."""
MAX_JITTER_S = 86_400.0
MAX_CATCH_UP_S = 10 * 366 * 86_400.0


@dataclass(frozen=True)
class Timing:
    """The times of a schedule and what becomes of a firing that cannot happen at its own.

    `start_at` and `repeat_until` are stored times, `interval` and `cron` texts of which at most one is there.
    `catch_up` and `jitter` are seconds; without `catch_up` the latest missed firing is made up for, however late.
    """

    start_at: str | None = None
    interval: str | None = None
    cron: str | None = None
    timezone: str = "UTC"
    repeat_count: int | None = None
    repeat_until: str | None = None
    overlap: str = "skip"
    catch_up: float | None = None
    jitter: float = 0.0

    @staticmethod
    def of(data: Mapping[str, Any]) -> Timing:
        """Return the timing that a run was stored with; what is missing is as it was before there was such a field."""
        known = {name: data[name] for name in _NAMES if data.get(name) is not None}
        return Timing(**known)

    def to_dict(self) -> JsonObject:
        return {name: getattr(self, name) for name in _NAMES}

    @property
    def is_recurrent(self) -> bool:
        return self.interval is not None or self.cron is not None

    @property
    def series(self) -> Series:
        """Where the nominal times come from. Raises `Invalid` for texts that name none."""
        return _series(self.interval, self.cron, self.timezone)

    @property
    def zone(self) -> tzinfo:
        return zone_of(self.timezone)

    def is_over(self, nominal: datetime | None, executions: int) -> bool:
        """Say whether there is nothing more to fire when this is the next nominal time."""
        if nominal is None:
            return True
        if self.repeat_until is not None:
            return nominal > parse_iso(self.repeat_until)
        return self.repeat_count is not None and executions >= self.repeat_count

    def due_at(self, run_id: str, nominal: datetime) -> datetime:
        """Return when a firing is due: up to `jitter` after its nominal time, and before the next nominal time.

        The delay is made from the schedule's run id and the nominal time, so it is the same whenever it is asked for.
        """
        if not self.jitter:
            return nominal
        following = self.series.following(nominal)
        room = self.jitter if following is None else min(self.jitter, (following - nominal).total_seconds())
        digest = hashlib.sha256(f"{run_id}\0{to_iso(nominal)}".encode()).digest()
        return nominal + timedelta(seconds=room * (int.from_bytes(digest[:6], "big") / 2**48))


_NAMES = tuple(item.name for item in fields(Timing))


@lru_cache(maxsize=1024)
def _series(interval: str | None, cron: str | None, zone: str) -> Series:
    if cron is not None:
        return Calendar(parse_cron(cron), zone_of(zone))
    return Grid(parse_interval(interval)) if interval is not None else Once()


def check_timing(given: Timing, now: datetime) -> Timing:
    """Return a timing in the form that is stored, after the decision table of docs/schedules.md.

    Raises `Invalid` for values that mean nothing and for combinations that contradict each other.
    """
    timing = _check_policies(_check_repeats(given))
    if timing.cron is not None and timing.interval is not None:
        raise _refused("cron cannot be combined with interval")
    if timing.timezone != "UTC":
        zone_of(timing.timezone)
    start = _instant("start_at", timing.start_at)
    until = _instant("repeat_until", timing.repeat_until)
    timing = _replaced(timing, start_at=to_iso(start) if start else None, repeat_until=to_iso(until) if until else None)
    first = timing.series.first(start or now)
    if until is not None:
        return _bounded(timing, start or now, first, until)
    if timing.repeat_count == 1 and timing.interval is not None:
        return _replaced(timing, interval=None)
    return timing


def _check_repeats(timing: Timing) -> Timing:
    count = timing.repeat_count
    if count is not None and count < 1:
        raise _refused("repeat_count must be >= 1")
    if timing.repeat_until is not None and count is not None:
        raise _refused("repeat_until cannot be combined with repeat_count")
    if timing.repeat_until is not None and not timing.is_recurrent:
        raise _refused("repeat_until requires interval or cron")
    if count is not None and count > 1 and not timing.is_recurrent:
        raise _refused("repeat_count > 1 requires interval or cron")
    if count is not None and count > MAX_REPEATS:
        raise _refused(f"Failed to build schedule wrapper: repeat_count is too large (max {MAX_REPEATS})")
    return timing


def _check_policies(timing: Timing) -> Timing:
    if timing.overlap not in OVERLAPS:
        raise _refused(f"Invalid overlap: {timing.overlap!r} is not one of {', '.join(OVERLAPS)}")
    catch_up = _seconds("catch_up", timing.catch_up, MAX_CATCH_UP_S) if timing.catch_up is not None else None
    return _replaced(timing, catch_up=catch_up, jitter=_seconds("jitter", timing.jitter, MAX_JITTER_S))


def _seconds(name: str, value: Any, most: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= most:
        raise _refused(f"Invalid {name}: {value!r} is not a number of seconds from 0 to {most:,.0f}")
    return float(value)


def _instant(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = parse_iso(text, field=name)
    except Invalid as error:
        raise _refused(f"Invalid {name}: {error.why}") from error
    if instant.year > LAST_YEAR:
        raise _refused(f"Invalid {name}: {text!r} is after the year {LAST_YEAR}")
    return instant


def _bounded(timing: Timing, start: datetime, first: datetime, until: datetime) -> Timing:
    """Return a timing that ends at an instant; of a grid, the count of its times is kept for whoever shows it."""
    if until < start:
        raise _refused("repeat_until must be >= start_at")
    if timing.interval is None:
        return timing
    stretch = timing.series.stretch(first, until + timedelta(microseconds=1), MAX_REPEATS)
    count = stretch.count if stretch is not None else 1
    if count > MAX_REPEATS:
        raise _refused(f"repeat_until implies too many executions (max {MAX_REPEATS})")
    return _replaced(timing, interval=None if count == 1 else timing.interval, repeat_count=count)


def _replaced(timing: Timing, **changed: Any) -> Timing:
    return Timing(**{**timing.to_dict(), **changed})


def _refused(why: str) -> Invalid:
    return Invalid("", why, code="schedule_invalid")


UPDATABLE = ("interval", "cron", "timezone", "overlap", "catch_up", "jitter", "repeat_count", "repeat_until")
_TEXTS = frozenset({"interval", "cron", "timezone", "overlap", "repeat_until"})
_MAY_BE_NULL = frozenset({"catch_up", "repeat_count", "repeat_until"})


def changed_timing(timing: Timing, given: Mapping[str, Any], now: datetime) -> Timing:
    """Return a timing with some of its fields changed. Raises `Invalid` when that makes no sense.

    A new interval takes the place of a cron expression and the other way round, and so do the two ways to end.
    """
    for name, value in given.items():
        _check_kind(name, value)
    cleared: JsonObject = {}
    for one, other in (("interval", "cron"), ("repeat_count", "repeat_until")):
        if given.get(one) is not None and given.get(other) is None:
            cleared[other] = None
        if given.get(other) is not None and given.get(one) is None:
            cleared[one] = None
    if timing.repeat_until is not None and "repeat_count" not in given:
        cleared["repeat_count"] = None  # it was the count of the times until then
    new = _replaced(timing, **{**cleared, **given})
    checked = check_timing(_replaced(new, start_at=None), now)
    repeats = checked.repeat_count if new.repeat_until is not None else new.repeat_count
    return _replaced(checked, start_at=timing.start_at, interval=new.interval, repeat_count=repeats)


def _check_kind(name: str, value: Any) -> None:
    if value is None and name in _MAY_BE_NULL:
        return
    if name in _TEXTS and not isinstance(value, str):
        raise _refused(f"Invalid {name}: {value!r} is not a text")
    if name == "repeat_count" and (isinstance(value, bool) or not isinstance(value, int)):
        raise _refused(f"Invalid {name}: {value!r} is not a whole number")
