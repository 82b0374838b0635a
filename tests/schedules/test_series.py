from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractgateway.errors import Invalid
from abstractgateway.schedules import zones
from abstractgateway.schedules.cron import parse_cron
from abstractgateway.schedules.intervals import parse_interval
from abstractgateway.schedules.series import KEPT_TIMES, Calendar, Grid, Once, Series
from abstractgateway.schedules.zones import zone_of

UTC = timezone.utc
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def local_times(expression: str, zone: str, begin: str, count: int) -> list[str]:
    """Return the next times after a local time, with their offsets."""
    series = Calendar(parse_cron(expression), zone_of(zone))
    instant = datetime.fromisoformat(begin).replace(tzinfo=series.zone).astimezone(UTC)
    found = []
    for _ in range(count):
        following = series.following(instant)
        assert following is not None
        instant = following
        found.append(
            instant.astimezone(series.zone).isoformat()[:-9] + instant.astimezone(series.zone).isoformat()[-6:]
        )
    return found


def test_a_time_in_the_gap_is_taken_to_be_the_end_of_the_gap() -> None:
    found = local_times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00", 3)

    assert found == ["2026-03-28T02:30+01:00", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]


def test_several_times_in_the_gap_are_one() -> None:
    found = local_times("0,20,40 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00", 4)

    assert found == [
        "2026-03-29T03:00+02:00",
        "2026-03-29T03:20+02:00",
        "2026-03-29T03:40+02:00",
        "2026-03-30T02:00+02:00",
    ]


def test_a_time_that_comes_twice_is_meant_the_first_time() -> None:
    found = local_times("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00", 2)

    assert found == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]


def test_an_hourly_expression_goes_on_while_the_hour_repeats() -> None:
    found = local_times("30 * * * *", "Europe/Berlin", "2026-10-25T01:00", 4)

    assert found == [
        "2026-10-25T01:30+02:00",
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:30+01:00",
    ]


def test_an_hourly_expression_has_nothing_in_the_gap() -> None:
    found = local_times("30 * * * *", "Europe/Berlin", "2026-03-29T01:00", 2)

    assert found == ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]


def test_clocks_that_move_by_half_an_hour() -> None:
    forward = local_times("15 2 * * *", "Australia/Lord_Howe", "2026-10-04T00:00", 1)
    back = local_times("45 1 * * *", "Australia/Lord_Howe", "2026-04-05T00:00", 2)

    assert forward == ["2026-10-04T02:30+11:00"]
    assert back == ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"]


def test_a_day_that_a_country_left_out_is_made_up_for_at_once() -> None:
    found = local_times("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00", 3)

    assert found == ["2011-12-29T12:00-10:00", "2011-12-31T00:00+14:00", "2011-12-31T12:00+14:00"]


def test_midnight_that_does_not_exist() -> None:
    found = local_times("@daily", "America/Sao_Paulo", "2018-11-03T12:00", 2)

    assert found == ["2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00"]


SERIES: list[Series] = [
    Grid(timedelta(hours=7)),
    Grid(timedelta(milliseconds=300)),
    Calendar(parse_cron("17 */5 * * *"), zone_of("America/New_York")),
    Calendar(parse_cron("0 9 * * mon-fri"), zone_of("Europe/Berlin")),
]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(SERIES), st.integers(0, 10**9), st.integers(0, 10**6))
def test_a_stretch_and_the_latest_time_are_what_going_step_by_step_finds(series: Series, at: int, room: int) -> None:
    first = series.first(BEGIN + timedelta(seconds=at))
    span = min(room, 600) if isinstance(series, Grid) and series.interval < timedelta(seconds=1) else room
    end = first + timedelta(seconds=span)
    times = [first]
    while (following := series.following(times[-1])) is not None and following <= end:
        times.append(following)

    stretch = series.stretch(first, end + timedelta(microseconds=1), 10**6)

    assert series.latest(first, end) == times[-1]
    assert stretch is not None
    assert (stretch.count, stretch.last, stretch.following) == (len(times), times[-1], following)
    assert list(stretch.times) == times[:KEPT_TIMES]


def test_a_stretch_of_a_calendar_stops_where_it_is_told_to_and_goes_on_from_there() -> None:
    series = Calendar(parse_cron("* * * * *"), UTC)

    stretch = series.stretch(BEGIN, BEGIN + timedelta(days=1), 100)

    assert stretch is not None
    assert (stretch.count, stretch.following) == (100, BEGIN + timedelta(minutes=100))


def test_a_grid_has_no_drift_in_a_thousand_years() -> None:
    series = Grid(parse_interval("0.1s"))

    assert series.latest(BEGIN, BEGIN.replace(year=3026)) == BEGIN.replace(year=3026)


def test_a_single_time_has_no_other_after_it() -> None:
    assert Once().following(BEGIN) is None
    assert Once().stretch(BEGIN, BEGIN, 10) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15m", 900), ("1h", 3600), ("2d", 172_800), (" 1.5 H ", 5400), ("0.1s", 0.1), ("500ms", 0.5), ("10ms", 0.01)],
)
def test_an_interval_is_understood(text: str, seconds: float) -> None:
    assert parse_interval(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "15", "m", "-1m", "1w", "1h30m", "1e3s", "9ms", "0d", "40000d", "٣m", "1.m", "1\n2s"]
)
def test_a_text_that_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="Invalid interval: invalid interval"):
        parse_interval(text)


def test_a_machine_without_a_time_zone_database_says_so_and_knows_utc(monkeypatch: Any) -> None:
    monkeypatch.setattr(zones, "_look_up", lambda name: None)

    with pytest.raises(Invalid) as caught:
        zone_of("Antarctica/Troll")

    assert caught.value.code == "no_time_zones"
    assert "install the system's tzdata" in str(caught.value)
    assert zone_of("UTC") is UTC


@pytest.mark.parametrize(
    "name", ["", "Europe", "Nowhere/Town", "../../etc/passwd", "/etc/localtime", "a\0b", "x" * 5000]
)
def test_a_name_that_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="is not a time zone; use an IANA name such as 'Europe/Berlin'"):
        zone_of(name)
