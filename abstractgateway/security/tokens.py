"""Bearer tokens: reading the header, comparing without leaking time, and telling weak ones."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

LEAST_LENGTH = 15
_GUESSABLE = frozenset(
    {"dev-token", "devtoken", "token", "changeme", "password", "admin", "god", "zeus", "root", "superuser"}
)


@dataclass(frozen=True)
class TokenSet:
    """The accepted tokens, kept as digests: comparisons take the same time whatever is sent, and a dump shows none."""

    digests: tuple[bytes, ...]

    @staticmethod
    def of(tokens: Iterable[str]) -> TokenSet:
        return TokenSet(tuple(_digest(token.encode()) for token in tokens if token))

    def __bool__(self) -> bool:
        return bool(self.digests)

    def admits(self, authorization: str | bytes | None) -> bool:
        """Say whether an `Authorization` header carries one of the tokens; text is read as latin-1 (PEP 3333)."""
        presented = _digest(bearer_token(authorization))
        matches = [hmac.compare_digest(presented, digest) for digest in self.digests]
        return any(matches)


def bearer_token(authorization: str | bytes | None) -> bytes:
    """Return the token of an `Authorization: Bearer …` header, or nothing for other schemes."""
    raw = authorization.encode("latin-1", "replace") if isinstance(authorization, str) else authorization or b""
    scheme, _, token = raw.strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def is_weak(token: str) -> bool:
    """Say whether a token could be guessed: a well-known word, or shorter than 15 characters."""
    return len(token) < LEAST_LENGTH or token.lower() in _GUESSABLE


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
