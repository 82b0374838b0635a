"""What the policy answers: `Allow` with the caller, or `Deny` with everything that the refusal says."""

from __future__ import annotations

from dataclasses import dataclass

from .scopes import ANYONE, Caller

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Allow:
    """The request may be handled, with the rights of this caller."""

    caller: Caller = ANYONE


@dataclass(frozen=True)
class Deny:
    """The request is answered with this status and text instead."""

    status: int
    code: str
    detail: str
    headers: Headers = ()


def too_many(code: str, what: str, seconds: int) -> Deny:
    """Return the refusal of a request that may be sent again after so many seconds."""
    return Deny(429, code, f"Too Many Requests ({what})", (("Retry-After", str(seconds)),))
