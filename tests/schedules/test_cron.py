from __future__ import annotations

import calendar
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractgateway.errors import Invalid
from abstractgateway.schedules.cron import parse_cron
from abstractgateway.schedules.series import Calendar

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
BOUNDS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]


def numbers(field: str, low: int, high: int, names: list[str]) -> set[int]:
    """Return what a field means, by the plainest reading of it."""
    found: set[int] = set()
    for item in field.lower().split(","):
        body, _, step = item.partition("/")
        first, _, last = body.partition("-")
        first = str(names.index(first) + low) if first in names else first
        last = str(names.index(last) + low) if last in names else last
        begin, end = (low, high) if first == "*" else (int(first), int(last or first))
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


def is_meant(expression: str, local: datetime) -> bool:
    """Say whether an expression means a minute, by looking at nothing but that minute."""
    minute, hour, day, month, weekday = expression.split()
    last_day = calendar.monthrange(local.year, local.month)[1]
    days = {last_day if item == "L" else None for item in day.split(",")} - {None}
    rest = ",".join(item for item in day.split(",") if item != "L")
    by_month = local.day in days | (numbers(rest, 1, 31, []) if rest else set())
    by_week = local.isoweekday() % 7 in {number % 7 for number in numbers(weekday, 0, 7, DAYS)}
    is_day = by_month and by_week if "*" in (day[0], weekday[0]) else by_month or by_week
    return (
        is_day
        and local.minute in numbers(minute, 0, 59, [])
        and local.hour in numbers(hour, 0, 23, [])
        and local.month in numbers(month, 1, 12, MONTHS)
    )


def brute_force(expression: str, zone: ZoneInfo, begin: datetime, minutes: int) -> list[datetime]:
    """Go through real time minute by minute, as cron daemons do, and return when the expression fires."""
    minute, hour, *_ = expression.split()
    is_periodic = "*" in (minute[0], hour[0])
    fired: list[datetime] = []
    shown = begin.astimezone(zone).replace(tzinfo=None) - timedelta(minutes=1)
    latest = shown
    for number in range(minutes):
        instant = begin + timedelta(minutes=number)
        local = instant.astimezone(zone).replace(tzinfo=None)
        passed = [latest + timedelta(minutes=gap) for gap in range(1, int((local - latest).total_seconds() / 60) + 1)]
        meant = [local] if is_periodic else passed
        if any(is_meant(expression, each) for each in meant):
            fired.append(instant)
        latest = max(latest, local)
    return fired


def field(low: int, high: int, names: list[str]) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spelt = number.map(lambda value: names[(value - low) % len(names)] if names else str(value))
    ranges = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.one_of(st.just("*"), ranges), st.integers(1, 20)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    items = st.lists(st.one_of(number.map(str), spelt, ranges, stepped), min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), items)


EXPRESSIONS = st.tuples(
    field(0, 59, []), field(0, 23, []), field(1, 28, []), field(1, 12, MONTHS), field(0, 6, DAYS)
).map(" ".join)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo"]
CHANGES = [
    datetime(2018, 2, 17),
    datetime(2018, 11, 3),
    datetime(2026, 3, 28),
    datetime(2026, 10, 24),
    date(2026, 4, 4),
]


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, st.sampled_from(ZONES), st.sampled_from(CHANGES), st.integers(0, 86_400))
def test_the_times_are_those_that_a_look_at_every_minute_finds(
    expression: str, name: str, day: date, seconds: int
) -> None:
    zone = ZoneInfo(name)
    begin = datetime(day.year, day.month, day.day, tzinfo=timezone.utc) + timedelta(seconds=seconds // 60 * 60)
    expected = brute_force(expression, zone, begin, 3 * 1440)

    series = Calendar(parse_cron(expression), zone)
    found: list[datetime] = []
    following = series.first(begin)
    while following < begin + timedelta(days=3):
        found.append(following)
        after = series.following(following)
        assert after is not None
        following = after

    assert found == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 L * *", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("0 0 1,L 2 *", ["2026-02-01", "2026-02-28", "2027-02-01", "2027-02-28", "2028-02-01", "2028-02-29"]),
        ("0 0 29 feb *", ["2028-02-29", "2032-02-29"]),
        ("0 0 13 * fri", ["2026-01-02", "2026-01-09", "2026-01-13"]),
        ("0 0 */2 * mon", ["2026-01-05", "2026-01-19", "2026-02-09"]),
        ("0 0 * * 7", ["2026-01-04", "2026-01-11"]),
        ("0 0 1 Jan-Mar/2 *", ["2026-03-01", "2027-01-01"]),
        ("@yearly", ["2027-01-01"]),
        ("@Annually", ["2027-01-01"]),
        ("@monthly", ["2026-02-01"]),
        ("@weekly", ["2026-01-04"]),
        ("@daily", ["2026-01-02", "2026-01-03"]),
        ("@midnight", ["2026-01-02"]),
    ],
)
def test_an_expression_means_these_days(expression: str, expected: list[str]) -> None:
    series = Calendar(parse_cron(expression), timezone.utc)
    following: datetime | None = datetime(2026, 1, 1, tzinfo=timezone.utc)
    found = []
    for _ in expected:
        assert following is not None
        following = series.following(following)
        found.append(str(following)[:10])

    assert found == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' has 0 fields; there are five: minute, hour, day of month, month and day of week"),
        ("0 0 * * * *", "has 6 fields"),
        ("@reboot", "'@reboot' is not one of @yearly, "),
        ("60 * * * *", "'60' is not a minute; those are 0 to 59"),
        ("* 24 * * *", "'24' is not a hour; those are 0 to 23"),
        ("* * 0 * *", "'0' is not a day of month; those are 1 to 31"),
        ("* * * 13 *", "'13' is not a month; those are 1 to 12"),
        ("* * * * 8", "'8' is not a day of week; those are 0 to 7"),
        ("* * * * monday", "'monday' is not a day of week"),
        ("jan * * * *", "'jan' is not a minute"),
        ("*/0 * * * *", "'*/0' has the step 0"),
        ("5/10 * * * *", "'5/10' has a step and no range; write 5-59/10"),
        ("5-3 * * * *", "'5-3' is a range that ends before it begins"),
        ("*-3 * * * *", "'*-3' is not a minute"),
        ("1,,2 * * * *", "'' is not a minute"),
        ("-1 * * * *", "'-1' is not a minute"),
        ("１ * * * *", "is not a minute"),
        ("* L * * *", "'l' is not a hour"),
        ("0 0 31 4,6,9,11 *", "means no day of any year"),
        ("99999999999999999999 * * * *", "is not a minute"),
    ],
)
def test_a_text_that_is_no_expression_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_cron(text)

    assert str(caught.value).startswith("Invalid cron: ")
    assert why in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=30), st.text("*/-,0123456789 LMOJANl@", max_size=20)))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        cron = parse_cron(text)
    except Invalid:
        return

    assert Calendar(cron, timezone.utc).first(datetime(2026, 1, 1, tzinfo=timezone.utc)).year <= 2026 + 41
