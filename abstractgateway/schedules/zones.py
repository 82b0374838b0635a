"""Time zones by their IANA names."""

from __future__ import annotations

from datetime import timezone, tzinfo
from functools import lru_cache

from ..errors import Invalid

_UTC_NAMES = frozenset({"UTC", "Etc/UTC"})
_ALWAYS_THERE = "Europe/London"
"""A zone that every time zone database has."""


@lru_cache(maxsize=256)
def zone_of(name: str) -> tzinfo:
    """Return the time zone of a name such as `Europe/Berlin`; UTC needs no database.

    Raises `Invalid` for a name that is none, and says so where the machine has no time zone database at all.
    """
    if name in _UTC_NAMES:
        return timezone.utc
    found = _look_up(name)
    if found is not None:
        return found
    if _look_up(_ALWAYS_THERE) is None:
        raise Invalid(
            "timezone",
            f"{name!r} is not known, because this machine has no time zone database; install the system's tzdata, "
            "or run pip install tzdata",
            code="no_time_zones",
        )
    raise Invalid(
        "timezone", f"{name!r} is not a time zone; use an IANA name such as 'Europe/Berlin'", code="schedule_invalid"
    )


def _look_up(name: str) -> tzinfo | None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # most gateways need no zone, and start without it

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
