from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.schedules.years import CATCH_UPS, OVERLAPS, check, live

CALENDAR: dict[str, Any] = {"cron": "30 2 * 3,10 sun", "timezone": "Europe/Berlin"}
"""A few times a year, and every one at which the clocks are changed."""
GRID: dict[str, Any] = {"interval": "20d", "jitter": 3600.0}
SEEDS = dict(zip(itertools.product(OVERLAPS, CATCH_UPS), range(99), strict=False))


@pytest.mark.parametrize("catch_up", CATCH_UPS)
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_in_ten_years_every_time_of_a_calendar_is_fired_or_skipped_once(catch_up: float | None, overlap: str) -> None:
    timing = {**CALENDAR, "catch_up": catch_up, "overlap": overlap}

    table = live(SEEDS[overlap, catch_up], years=10, step_hours=1000, **timing)
    fired, skipped = check(table, **timing)

    assert fired > 15
    assert fired + skipped > 80


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_in_ten_years_every_time_of_a_grid_is_fired_or_skipped_once(overlap: str) -> None:
    timing = {**GRID, "catch_up": 2_000_000.0, "overlap": overlap}

    table = live(SEEDS[overlap, 0.0], years=10, step_hours=1000, **timing)
    fired, skipped = check(table, **timing)

    assert fired > 50
    assert fired + skipped > 150
