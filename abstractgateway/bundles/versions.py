"""The versions of one bundle: which is next, and where a version comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..jsonvalue import JsonObject

FIRST_VERSION = "0.0.0"


@dataclass(frozen=True)
class BundleVersions:
    """`created` says when each version was made, `latest` which counts as the latest; `unusable` ones do not load."""

    created: Mapping[str, str] = field(default_factory=dict)
    latest: str | None = None
    unusable: frozenset[str] = frozenset()

    @property
    def taken(self) -> frozenset[str]:
        """Every version that is there."""
        return frozenset(self.created) | self.unusable

    def following(self) -> str:
        """Return the version after the latest that is not taken."""
        version = FIRST_VERSION if self.latest is None else bumped(self.latest)
        while version in self.taken:
            version = bumped(version)
        return version

    def lineage(self, version: str) -> JsonObject:
        """Return `{origin_bundle_version, previous_bundle_version?}` of a version that is about to be made."""
        origin = min(self.created, key=lambda known: (self.created[known], known), default=version)
        before = self.latest if self.latest != version else None
        return {"origin_bundle_version": origin, **({"previous_bundle_version": before} if before else {})}


def bumped(version: str) -> str:
    """Return a version with its third number one higher; one that is not made of numbers gets `.1` at its end."""
    parts = version.split(".") if version else []
    if not all(part.isascii() and part.isdecimal() for part in parts):
        return f"{version}.1"
    numbers = [*map(int, parts), 0, 0, 0][:3]
    return f"{numbers[0]}.{numbers[1]}.{numbers[2] + 1}"
