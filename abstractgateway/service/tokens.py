"""The named tokens: kept in a file of the data directory, which is read again as soon as it changes, or elsewhere."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ..clock import Clock, SystemClock
from ..errors import Conflict, Invalid, NotFound, Unavailable
from ..jsonvalue import JsonObject
from ..security.tokens import MOST_NAMED, NamedToken, new_token

FILE_NAME = "gateway_tokens.json"
MODE = 0o600

log = logging.getLogger("abstractgateway.tokens")

Seen = tuple[int, int, int]


class TokenStore(Protocol):
    """Where named tokens are kept; no two have the same name. Several processes may change them at once."""

    def current(self) -> tuple[NamedToken, ...]:
        """Return the tokens that are accepted, the same object while they are the same; it never fails."""

    def read(self) -> list[NamedToken]:
        """Return all tokens as they are now, the oldest first. Raises `Unavailable`, also when one is damaged."""

    def add(self, token: NamedToken) -> None:
        """Keep a token durably. Raises `Conflict` for a name that is taken and for one token too many."""

    def take(self, name: str) -> NamedToken | None:
        """Take a token away, durably, by name or id; return it, or None when there is none."""


class NamedTokens:
    """The tokens with names and scopes; without a store there are none."""

    def __init__(self, kept: TokenStore | None = None, clock: Clock | None = None) -> None:
        self._kept = kept or TokenFile(None)
        self._clock = clock or SystemClock()
        self.current = self._kept.current

    def listed(self) -> list[JsonObject]:
        """Return what may be shown of each token, the oldest first. Raises `Unavailable` where one is damaged."""
        now = self._clock.now()
        return [token.public(now) for token in self._kept.read()]

    def create(
        self,
        name: str,
        scopes: Iterable[str],
        *,
        session_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[JsonObject, str]:
        """Make a token and return what may be shown of it, and its text, which is kept nowhere.

        Raises `Invalid` for wrong fields and `Conflict` for a name that is taken.
        """
        now = self._clock.now()
        token, text = new_token(name, scopes, session_id=session_id, expires_at=expires_at, now=now)
        self._kept.add(token)
        return token.public(now), text

    def revoke(self, name: str) -> JsonObject:
        """Take a token away, by name or id, and return what may be shown of it. Raises `NotFound`."""
        found = self._kept.take(name)
        if found is None:
            raise NotFound(f"there is no token {name!r}", code="token_not_found")
        return found.public(self._clock.now())


def check_room(token: NamedToken, names: Iterable[str]) -> None:
    """Raise `Conflict` for a token that cannot be kept beside those of these names."""
    known = set(names)
    if token.name in known:
        raise name_taken(token.name)
    if len(known) >= MOST_NAMED:
        raise Conflict(f"there are {MOST_NAMED} tokens; revoke one first")


def name_taken(name: str) -> Conflict:
    """Return the error of a name that another token has."""
    return Conflict(f"there is a token {name!r}; revoke it first, or take another name")


class TokenFile:
    """The tokens of a data directory, in one file; without a path there are none."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._seen: Seen | None = None
        self._tokens: tuple[NamedToken, ...] = ()

    def current(self) -> tuple[NamedToken, ...]:
        """A file that cannot be read gives none: what was revoked must not come back because of damage."""
        seen = self._look()
        if seen != self._seen:
            self._tokens = self._read_or_none()
            self._seen = seen
        return self._tokens

    def read(self) -> list[NamedToken]:
        if self.path is None:
            return []
        try:
            rows = json.loads(self.path.read_bytes())["tokens"]
            return [NamedToken.of(row) for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, Invalid) as error:
            raise Unavailable(f"{FILE_NAME} cannot be read: {error}", code="tokens_unusable") from error

    def add(self, token: NamedToken) -> None:
        with self._changing() as tokens:
            check_room(token, (known.name for known in tokens))
            tokens.append(token)

    def take(self, name: str) -> NamedToken | None:
        with self._changing() as tokens:
            found = next((token for token in tokens if name in (token.name, token.id)), None)
            if found is not None:
                tokens.remove(found)
        return found

    def replace(self, tokens: Iterable[NamedToken]) -> None:
        """Keep these tokens durably, in place of all that there are."""
        with self._changing() as kept:
            kept[:] = tokens

    def _look(self) -> Seen | None:
        if self.path is None:
            return None
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read_or_none(self) -> tuple[NamedToken, ...]:
        try:
            return tuple(self.read())
        except Unavailable as error:
            log.error("no named token is accepted: %s", error)
            return ()

    @contextmanager
    def _changing(self) -> Iterator[list[NamedToken]]:
        """Give the list to change, and store it durably; changes of several processes follow each other."""
        if self.path is None:
            raise Unavailable("stores in memory keep no named tokens", code="tokens_unusable")
        try:
            with self._locked(self.path):
                tokens = self.read()
                before = tuple(tokens)
                yield tokens
                if tuple(tokens) != before:
                    self._write(tokens)
        except OSError as error:
            raise Unavailable(f"{FILE_NAME} cannot be written: {error}", code="tokens_unusable") from error

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, tokens: Iterable[NamedToken]) -> None:
        assert self.path is not None
        text = json.dumps({"version": 1, "tokens": [token.to_dict() for token in tokens]}, indent=1)
        temporary = self.path.with_suffix(".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, MODE)
            file.write(text + "\n")
            file.flush()
            os.fsync(fd)
        os.replace(temporary, self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
