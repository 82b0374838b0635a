"""The two ends of a migration, whatever they are: who else is there, what is there, and whether it is whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from ..errors import Conflict
from .base import Stores


class Standing(Enum):
    """What a backend holds; `UNFINISHED` is what a migration that was interrupted has left."""

    EMPTY = "empty"
    UNFINISHED = "unfinished"
    FILLED = "filled"


@dataclass(frozen=True)
class DatabaseFacts:
    """What can be seen of a database without using it; `schema_version` is 0 where it has no tables yet.

    `runners` have a lease, `gateways` are the processes that have it open. `syncs` says that what it commits is on the
    disk, `clock_ahead_s` by how many seconds its clock is ahead of the one here, and `lacking` which rights the user
    would have to be granted.
    """

    place: str
    server: str
    schema_version: int
    runners: int
    gateways: int
    is_unfinished: bool
    syncs: bool
    clock_ahead_s: float
    lacking: tuple[str, ...]


class MigrationEnd(Protocol):
    """The stores of one backend at one place, as a migration reads or fills them."""

    place: str
    """Where they are, as people are told; without a password."""

    def take(self) -> None:
        """Keep gateways away until `release`. Raises `Conflict` while some of them use the stores."""

    def release(self) -> None:
        """Let gateways come again, where `take` has kept them away; this end is of no use afterwards."""

    def standing(self) -> Standing:
        """Say what is there; nothing is made or changed."""

    def begin(self, *, anew: bool) -> None:
        """Have gateways refuse what is there from now on, and with `anew` remove it."""

    def open(self) -> Stores:
        """Return the stores, also unfinished ones."""

    def finish(self) -> None:
        """Let gateways open what is there, now that it is whole and durable."""


def unfinished_mark(directory: Path, backend: str) -> Path:
    """Return the file that is in a data directory while the stores of a backend are being filled."""
    return directory / f"migration-to-{backend}.unfinished"


def unfinished(place: str) -> Conflict:
    """Return the error of stores that have not been filled to the end."""
    return Conflict(
        f"a migration into {place} was interrupted, so that it lacks a part: run the same 'abstractgateway migrate' "
        "again to go on with it, or with --overwrite to begin anew; after a restore that was interrupted, remove the "
        "directory and restore again",
        code="migration_unfinished",
    )
