"""The nominal times of a schedule: at one moment, at the points of a grid, or as a cron expression says.

Instants go in and come out as aware datetimes in UTC. A series never gives the same instant twice.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Protocol

from .cron import Cron

_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
KEPT_TIMES = 20
"""How many nominal times of a stretch are listed one by one; of the others, the first, the last and the count."""


@dataclass(frozen=True)
class Stretch:
    """Nominal times that follow each other: how many, the first and last of them, and the time that comes next."""

    count: int
    times: tuple[datetime, ...]
    last: datetime
    following: datetime | None


class Series(Protocol):
    """Where nominal times come from."""

    def first(self, start: datetime) -> datetime:
        """Return the first nominal time at an instant or after it."""

    def following(self, instant: datetime) -> datetime | None:
        """Return the nominal time after one, or after any instant a grid of which began there; None at the end."""

    def latest(self, nominal: datetime, limit: datetime) -> datetime:
        """Return the last nominal time up to a limit, from a nominal time on that is not after the limit."""

    def stretch(self, nominal: datetime, end: datetime, most: int) -> Stretch | None:
        """Return up to about `most` nominal times from one on that come before an end; None when it does not."""


@dataclass(frozen=True)
class Once:
    """One nominal time."""

    def first(self, start: datetime) -> datetime:
        return start

    def following(self, instant: datetime) -> datetime | None:
        return None

    def latest(self, nominal: datetime, limit: datetime) -> datetime:
        return nominal

    def stretch(self, nominal: datetime, end: datetime, most: int) -> Stretch | None:
        return Stretch(1, (nominal,), nominal, None) if nominal < end else None


@dataclass(frozen=True)
class Grid:
    """A nominal time after each interval, counted in real time: a day has 24 hours on every day of the year."""

    interval: timedelta

    def first(self, start: datetime) -> datetime:
        return start

    def following(self, instant: datetime) -> datetime | None:
        return instant + self.interval

    def latest(self, nominal: datetime, limit: datetime) -> datetime:
        return nominal + (limit - nominal) // self.interval * self.interval

    def stretch(self, nominal: datetime, end: datetime, most: int) -> Stretch | None:
        count = -((nominal - end) // self.interval)
        if count <= 0:
            return None
        times = tuple(nominal + number * self.interval for number in range(min(count, KEPT_TIMES)))
        last = nominal + (count - 1) * self.interval
        return Stretch(count, times, last, last + self.interval)


@dataclass(frozen=True)
class Calendar:
    """The local times that a cron expression means in a time zone.

    Where the clocks go forward, a local time that does not exist is taken to be the first instant after the gap; where
    they go back, one that comes twice is meant the first time. An expression whose minutes or hours begin with `*` is
    about real time instead: it goes on during the repeated hour, and what would lie in the gap does not exist.
    """

    cron: Cron
    zone: tzinfo

    def first(self, start: datetime) -> datetime:
        found = self.following(start - timedelta(microseconds=1))
        assert found is not None
        return found

    def following(self, instant: datetime) -> datetime | None:
        local_day = instant.astimezone(self.zone).date()
        for day in self.cron.days_from(local_day - _DAY):  # the day before may end in a gap that leads into this one
            instants = _instants(self, day)
            place = bisect_right(instants, instant)
            if place < len(instants):
                return instants[place]
        return None

    def latest(self, nominal: datetime, limit: datetime) -> datetime:
        found, back = nominal, timedelta(hours=1)
        while limit - back > nominal:
            candidate = self.following(limit - back)
            if candidate is not None and candidate <= limit:
                found = candidate
                break
            back *= 4
        while (after := self.following(found)) is not None and after <= limit:
            found = after
        return found

    def stretch(self, nominal: datetime, end: datetime, most: int) -> Stretch | None:
        times: list[datetime] = []
        following: datetime | None = nominal
        count, last = 0, nominal
        while following is not None and following < end and count < most:
            if len(times) < KEPT_TIMES:
                times.append(following)
            count, last = count + 1, following
            following = self.following(following)
        return Stretch(count, tuple(times), last, following) if count else None


@lru_cache(maxsize=64)
def _instants(series: Calendar, day: date) -> tuple[datetime, ...]:
    """Return the instants that a cron expression means on a local day, in order."""
    midnight = datetime.combine(day, time())
    if _has_no_change(midnight, series.zone):
        begin = midnight.replace(tzinfo=series.zone).astimezone(timezone.utc)
        return tuple(begin + timedelta(minutes=minute) for minute in series.cron.minutes)
    found: set[datetime] = set()
    for minute in series.cron.minutes:
        found |= _meanings(midnight + timedelta(minutes=minute), series)
    return tuple(sorted(found))


def _has_no_change(midnight: datetime, zone: tzinfo) -> bool:
    offsets = {
        (midnight + timedelta(hours=hours)).replace(tzinfo=zone, fold=fold).utcoffset()
        for hours in (0, 6, 12, 18, 24)
        for fold in (0, 1)
    }
    return len(offsets) == 1


def _meanings(local: datetime, series: Calendar) -> set[datetime]:
    """Return the instants that a local time means: usually one."""
    early, late = (local.replace(tzinfo=series.zone, fold=fold).astimezone(timezone.utc) for fold in (0, 1))
    if early == late:
        return {early}
    if early.astimezone(series.zone).replace(tzinfo=None) == local:
        return {early, late} if series.cron.is_periodic else {early}
    return set() if series.cron.is_periodic else {_end_of_gap(late, early, series.zone)}


def _end_of_gap(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """Return the minute at which the clocks go forward, which lies between two instants."""
    low, high = before, after
    new = high.astimezone(zone).utcoffset()
    while high - low > _MINUTE:
        middle = low + ((high - low) / 2 // _MINUTE) * _MINUTE
        if middle.astimezone(zone).utcoffset() == new:
            high = middle
        else:
            low = middle
    return high
