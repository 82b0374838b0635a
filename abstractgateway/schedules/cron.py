"""Cron expressions: five fields, and the local times that they mean.

The rules are those of Vixie cron. Where both the day of the month and the day of the week are restricted, either is
enough; a field that begins with `*` counts as not restricted.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from ..errors import Invalid

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_ITEM = re.compile(r"(\*|[a-z0-9]+)(?:-([a-z0-9]+))?(?:/([0-9]{1,4}))?", re.ASCII)
_LAST_DAY = "l"
SEARCHED_YEARS = 41
"""The 29th of February falls on each day of the week within 40 years, also across a year such as 2100."""


@dataclass(frozen=True)
class _Field:
    """The place of a field: what it is called, the values it may have, and the names of some of them."""

    name: str
    least: int
    most: int
    names: Mapping[str, int]


_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)


@dataclass(frozen=True)
class Cron:
    """A parsed expression. `minutes` are those of a day, from 0 to 1439, in order.

    `is_periodic` says that the minutes or the hours begin with `*`, which decides what a change of the clocks means.
    """

    text: str
    minutes: tuple[int, ...]
    days: frozenset[int]
    has_last_day: bool
    months: frozenset[int]
    weekdays: frozenset[int]
    needs_both: bool
    is_periodic: bool

    def has_day(self, day: date) -> bool:
        """Say whether the expression means a day."""
        if day.month not in self.months:
            return False
        by_month = day.day in self.days or (self.has_last_day and _is_last(day))
        by_week = day.isoweekday() % 7 in self.weekdays
        return by_month and by_week if self.needs_both else by_month or by_week

    def days_from(self, day: date) -> Iterator[date]:
        """Return the days that the expression means, from a day on, for as many years as make sure there is one."""
        last = day.year + SEARCHED_YEARS
        while day.year <= min(last, 9998):
            if day.month not in self.months:
                day = _next_month(day)
                continue
            if self.has_day(day):
                yield day
            day += timedelta(days=1)


def parse_cron(text: str) -> Cron:
    """Return the meaning of `minute hour day-of-month month day-of-week`, or of a name such as `@daily`.

    Fields are `*`, numbers, the English names of months and days (three letters), ranges, steps and lists; the day of
    the month may be `L`, the last one. Raises `Invalid` for anything else, and for an expression that no day matches.
    """
    lowered = text.strip().lower()
    if lowered.startswith("@") and lowered not in _MACROS:
        raise _refused(f"{text.strip()!r} is not one of {', '.join(_MACROS)}")
    parts = _MACROS.get(lowered, lowered).split()
    if len(parts) != len(_FIELDS):
        wanted = "minute, hour, day of month, month and day of week"
        raise _refused(f"{text.strip()!r} has {len(parts)} fields; there are five: {wanted}")
    cron = _of_fields(text.strip(), parts)
    if next(cron.days_from(date(2000, 1, 1)), None) is None:
        raise _refused(f"{text.strip()!r} means no day of any year")
    return cron


def _of_fields(text: str, parts: list[str]) -> Cron:
    minutes, hours = _values(parts[0], _FIELDS[0]), _values(parts[1], _FIELDS[1])
    listed = parts[2].split(",")
    numbered = ",".join(item for item in listed if item != _LAST_DAY)
    return Cron(
        text=text,
        minutes=tuple(60 * hour + minute for hour in sorted(hours) for minute in sorted(minutes)),
        days=_values(numbered, _FIELDS[2]) if numbered or _LAST_DAY not in listed else frozenset(),
        has_last_day=_LAST_DAY in listed,
        months=_values(parts[3], _FIELDS[3]),
        weekdays=frozenset(number % 7 for number in _values(parts[4], _FIELDS[4])),
        needs_both=parts[2].startswith("*") or parts[4].startswith("*"),
        is_periodic=parts[0].startswith("*") or parts[1].startswith("*"),
    )


def _values(text: str, field: _Field) -> frozenset[int]:
    return frozenset(number for item in text.split(",") for number in _range(item, field))


def _range(item: str, field: _Field) -> range:
    found = _ITEM.fullmatch(item)
    if found is None:
        raise _refused(f"{item!r} is not a {field.name}")
    first, last, step = found.groups()
    if step is not None and int(step) == 0:
        raise _refused(f"{item!r} has the step 0")
    if first == "*":
        if last is not None:
            raise _refused(f"{item!r} is not a {field.name}")
        return range(field.least, field.most + 1, int(step or 1))
    if step is not None and last is None:
        raise _refused(f"{item!r} has a step and no range; write {first}-{field.most}/{step}")
    low = _number(first, field)
    high = _number(last, field) if last is not None else low
    if high < low:
        raise _refused(f"{item!r} is a range that ends before it begins")
    return range(low, high + 1, int(step or 1))


def _number(text: str, field: _Field) -> int:
    number = field.names.get(text)
    if number is None and text.isdecimal() and len(text) <= 4:
        number = int(text)
    if number is None or not field.least <= number <= field.most:
        raise _refused(f"{text!r} is not a {field.name}; those are {field.least} to {field.most}")
    return number


def _is_last(day: date) -> bool:
    return (day + timedelta(days=1)).month != day.month


def _next_month(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


def _refused(why: str) -> Invalid:
    return Invalid("", f"Invalid cron: {why}", code="schedule_invalid")
