"""What processes on one database share besides runs: small files in named drawers, such as bundles and drawn flows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

ANYTHING = "anything"
NOTHING = "nothing"
"""What a file may be put in place of: whatever there is, or only where there is none now."""
NEVER_ANYTHING = "never anything"
"""Only where there never was one: what was taken away stays away."""


@dataclass(frozen=True)
class Shelved:
    """A file on the shelf: its name, the SHA-256 of its content, and the revision of the shelf that brought it."""

    name: str
    sha256: str
    revision: int


class Shelf(Protocol):
    """Files by drawer and name, each read and changed as a whole; safe to use from many threads and processes.

    Every change gives the shelf a higher revision, in the order in which changes can be seen. Everything raises
    `Unavailable` when the shelf cannot be reached; with the code `outcome_unknown` a change may have been made.
    """

    @property
    def told(self) -> int:
        """A number that grows with the changes that this process knows of: its own at once, others' within moments."""

    def newest(self) -> int:
        """Ask whether there are changes, and return `told` then: all that was acknowledged anywhere is part of it."""

    def list(self, drawer: str) -> list[Shelved]:
        """Return what is in a drawer, by name."""

    def read(self, drawer: str, names: Collection[str]) -> dict[str, bytes]:
        """Return the contents of files, as they are at one moment, by name.

        Files that are not there, or that are damaged, are left out.
        """

    def put(self, drawer: str, name: str, content: bytes, *, instead_of: str = ANYTHING) -> bool:
        """Keep a file durably, unless what it is to take the place of is not what there is; say whether it is kept.

        `instead_of` is `ANYTHING`, `NOTHING`, `NEVER_ANYTHING`, or the SHA-256 of the content that is known.
        """

    def remove(self, drawer: str, names: Collection[str]) -> int:
        """Take files away durably, all at once, and return how many were there."""


class SharedShelf(Shelf, Protocol):
    """A shelf of processes with files of their own: it tells of changes, and knows what was taken away."""

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have something called within moments after each change, at the latest when this process looks on its own.

        It is called in a thread of the shelf, and again later when it raises `GatewayError`.
        """

    def removed(self, drawer: str) -> set[str]:
        """Return the names of what was in a drawer once and is not there now."""
