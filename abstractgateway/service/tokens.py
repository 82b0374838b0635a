"""The named tokens of a data directory: kept in one file, and read again as soon as it changes."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ..clock import Clock, SystemClock
from ..errors import Conflict, Invalid, NotFound, Unavailable
from ..jsonvalue import JsonObject
from ..security.tokens import MOST_NAMED, NamedToken, new_token

FILE_NAME = "gateway_tokens.json"
MODE = 0o600

log = logging.getLogger("abstractgateway.tokens")

Seen = tuple[int, int, int]


class NamedTokens:
    """The tokens with names and scopes; without a path there are none. Several processes may use one file."""

    def __init__(self, path: Path | None, clock: Clock | None = None) -> None:
        self.path = path
        self._clock = clock or SystemClock()
        self._seen: Seen | None = None
        self._tokens: tuple[NamedToken, ...] = ()

    def current(self) -> tuple[NamedToken, ...]:
        """Return the tokens as they are now, the same object while the file is the same.

        A file that cannot be read gives none: what was revoked must not come back because of damage.
        """
        seen = self._look()
        if seen != self._seen:
            self._tokens = self._read_or_none()
            self._seen = seen
        return self._tokens

    def listed(self) -> list[JsonObject]:
        """Return what may be shown of each token, the oldest first. Raises `Unavailable` for a damaged file."""
        now = self._clock.now()
        return [token.public(now) for token in self._read()]

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
        with self._changing() as tokens:
            if any(known.name == token.name for known in tokens):
                raise Conflict(f"there is a token {token.name!r}; revoke it first, or take another name")
            if len(tokens) >= MOST_NAMED:
                raise Conflict(f"there are {MOST_NAMED} tokens; revoke one first")
            tokens.append(token)
        return token.public(now), text

    def revoke(self, name: str) -> JsonObject:
        """Take a token away, by name or id, and return what may be shown of it. Raises `NotFound`."""
        with self._changing() as tokens:
            found = next((token for token in tokens if name in (token.name, token.id)), None)
            if found is None:
                raise NotFound(f"there is no token {name!r}", code="token_not_found")
            tokens.remove(found)
        return found.public(self._clock.now())

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
            return tuple(self._read())
        except Unavailable as error:
            log.error("no named token is accepted: %s", error)
            return ()

    def _read(self) -> list[NamedToken]:
        if self.path is None:
            return []
        try:
            rows = json.loads(self.path.read_bytes())["tokens"]
            return [NamedToken.of(row) for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, Invalid) as error:
            raise Unavailable(f"{FILE_NAME} cannot be read: {error}", code="tokens_unusable") from error

    @contextmanager
    def _changing(self) -> Iterator[list[NamedToken]]:
        """Give the list to change, and store it durably; changes of several processes follow each other."""
        if self.path is None:
            raise Unavailable("stores in memory keep no named tokens", code="tokens_unusable")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = self._read()
            yield tokens
            self._write(tokens)
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
