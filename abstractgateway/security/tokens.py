"""Bearer tokens: reading the header, comparing without leaking time, telling weak ones, and the form of named ones.

A named token is stored as the SHA-256 of its text. The text has 256 random bits, so that a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ..clock import parse_iso, to_iso
from ..errors import Invalid
from ..jsonvalue import JsonObject
from .scopes import Caller, checked_scopes

LEAST_LENGTH = 15
PREFIX = "agw"
MOST_NAMED = 1_000
"""Every request is compared with all of them."""

_GUESSABLE = frozenset(
    {"dev-token", "devtoken", "token", "changeme", "password", "admin", "god", "zeus", "root", "superuser"}
)
_FINGERPRINT_DIGITS = 12
_MOST_NAME = 100


@dataclass(frozen=True)
class NamedToken:
    """What is kept of a token with a name: everything but its text. Times are ISO 8601, `sha256` is hexadecimal."""

    id: str
    name: str
    sha256: str
    scopes: tuple[str, ...]
    session_id: str | None
    created_at: str
    expires_at: str | None

    def to_dict(self) -> JsonObject:
        """Return the row that is stored."""
        return {**asdict(self), "scopes": list(self.scopes)}

    @staticmethod
    def of(row: Mapping[str, Any]) -> NamedToken:
        """Return the token of a stored row. Raises `Invalid` for one that is not as it was written."""
        try:
            token = NamedToken(**{**row, "scopes": tuple(row["scopes"])})
            whole = len(bytes.fromhex(token.sha256)) == hashlib.sha256().digest_size and token.id and token.name
            checked_scopes(token.scopes, token.session_id)
            token.expires_epoch()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Invalid("tokens", f"a row is damaged ({error})") from error
        if not whole:
            raise Invalid("tokens", "a row is damaged (id, name and a SHA-256 are needed)")
        return token

    def expires_epoch(self) -> float:
        """Return when it expires, in seconds since the epoch; infinity for never."""
        return parse_iso(self.expires_at).timestamp() if self.expires_at else math.inf

    def public(self, now: datetime) -> JsonObject:
        """Return what may be shown of it: no digest."""
        shown = {name: value for name, value in self.to_dict().items() if name != "sha256"}
        return {**shown, "expired": self.expires_epoch() <= now.timestamp()}


def new_token(
    name: str,
    scopes: Iterable[str],
    *,
    session_id: str | None = None,
    expires_at: datetime | None = None,
    now: datetime,
) -> tuple[NamedToken, str]:
    """Return a new named token and its text, which exists nowhere else.

    Raises `Invalid` for a blank name, wrong scopes, a blank session and an expiry that is over.
    """
    if not name.strip() or len(name) > _MOST_NAME or not name.isprintable():
        raise Invalid("name", f"must be one printable line of 1 to {_MOST_NAME} characters")
    if session_id is not None and not session_id.strip():
        raise Invalid("session", "is blank; leave it out for a token of all sessions")
    if expires_at is not None and expires_at <= now:
        raise Invalid("expires", f"{to_iso(expires_at)} is over")
    token_id = secrets.token_hex(4)
    text = f"{PREFIX}_{token_id}_{secrets.token_urlsafe(32)}"
    token = NamedToken(
        id=token_id,
        name=name.strip(),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        scopes=checked_scopes(scopes, session_id),
        session_id=session_id,
        created_at=to_iso(now),
        expires_at=to_iso(expires_at) if expires_at is not None else None,
    )
    return token, text


@dataclass(frozen=True)
class Accepted:
    """One accepted token: its digest, whose it is, and when it expires, in seconds since the epoch."""

    digest: bytes
    caller: Caller
    expires_at: float = math.inf


@dataclass(frozen=True)
class TokenSet:
    """The accepted tokens, kept as digests: comparisons take the same time whatever is sent, and a dump shows none."""

    accepted: tuple[Accepted, ...]

    @staticmethod
    def of(tokens: Iterable[str], named: Iterable[NamedToken] = ()) -> TokenSet:
        """Return the set of plain tokens, which have all rights, and of named ones, which have their own."""
        plain = [Accepted(_digest(token.encode()), Caller()) for token in tokens if token]
        return TokenSet((*plain, *map(_accepted, named)))

    def __bool__(self) -> bool:
        return bool(self.accepted)

    def caller(self, authorization: str | bytes | None, now: float) -> Caller | None:
        """Return whose token an `Authorization` header carries at a time in seconds since the epoch.

        Text is read as latin-1 (PEP 3333). None for a token that is unknown or expired.
        """
        presented = _digest(bearer_token(authorization))
        matches = [known for known in self.accepted if hmac.compare_digest(presented, known.digest)]
        return next((known.caller for known in matches if now < known.expires_at), None)


def _accepted(token: NamedToken) -> Accepted:
    caller = Caller(token.name, frozenset(token.scopes), token.session_id)
    return Accepted(bytes.fromhex(token.sha256), caller, token.expires_epoch())


def bearer_token(authorization: str | bytes | None) -> bytes:
    """Return the token of an `Authorization: Bearer …` header, or nothing for other schemes."""
    raw = authorization.encode("latin-1", "replace") if isinstance(authorization, str) else authorization or b""
    scheme, _, token = raw.strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def fingerprint(authorization: str | bytes | None) -> str | None:
    """Return what a log may show of the presented token, right or wrong: twelve digits of its SHA-256."""
    token = bearer_token(authorization)
    return hashlib.sha256(token).hexdigest()[:_FINGERPRINT_DIGITS] if token else None


def is_weak(token: str) -> bool:
    """Say whether a token could be guessed: a well-known word, or shorter than 15 characters."""
    return len(token) < LEAST_LENGTH or token.lower() in _GUESSABLE


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
