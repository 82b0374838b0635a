"""What a caller may do: the scopes of its token, and the session that the token may be bound to.

`read` looks, `run` starts, `command` changes runs that there are, `admin` does everything. The first three do not
contain each other: a token that starts runs need not be able to read what they answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import Invalid

Scope = Literal["read", "run", "command", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True)
class Caller:
    """Who makes a request. With a `session_id` only the runs of that session exist for it.

    `name` is that of a named token, empty for the plain one and for requests that need none.
    """

    name: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)
    session_id: str | None = None

    def may(self, scope: Scope) -> bool:
        """Say whether the caller has a scope."""
        return scope in self.scopes or "admin" in self.scopes


ANYONE = Caller()


def checked_scopes(texts: Iterable[str], session_id: str | None) -> tuple[str, ...]:
    """Return the scopes of a new token in their usual order.

    Raises `Invalid` for none, an unknown one, and `admin` for a single session, which would be no restriction.
    """
    given = {text.strip().lower() for text in texts if text.strip()}
    unknown = sorted(given.difference(SCOPES))
    if unknown or not given:
        wrong = f"{unknown[0]!r} is not one of them" if unknown else "none is given"
        raise Invalid("scopes", f"{wrong}; there are {', '.join(SCOPES)}")
    if session_id is not None and "admin" in given:
        raise Invalid("scopes", "'admin' reaches every session; a token for one session has others")
    return tuple(scope for scope in SCOPES if scope in given)
