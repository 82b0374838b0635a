"""Named tokens that the processes of a fleet share."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress

from ..errors import GatewayError, Invalid, Unavailable
from ..jsonvalue import dumps, loads
from ..security.tokens import NamedToken
from ..stores.shelf import NEVER_ANYTHING, NOTHING, SharedShelf
from .tokens import TokenFile, check_room, log, name_taken

DRAWER = "tokens"


class SharedTokens:
    """The tokens of a shelf, one file each under its name. What is accepted is in memory; no request asks for it.

    The shelf tells of changes. While it cannot be reached, the tokens that are known go on being accepted. Those that a
    file has from `before` are taken over, each name once for all time. Safe to use from many threads.
    """

    def __init__(self, shelf: SharedShelf, *, before: TokenFile | None = None) -> None:
        self._shelf = shelf
        self._looking = threading.Lock()
        self._digests: dict[str, str] = {}
        self._tokens: tuple[NamedToken, ...] = ()
        for token in not_taken_over(shelf, before) if before is not None else ():
            shelf.put(DRAWER, token.name, _content_of(token), instead_of=NEVER_ANYTHING)
        shelf.subscribe(self._look)
        self._look()
        if before is not None:
            self._tell_of_others(before.read())

    def current(self) -> tuple[NamedToken, ...]:
        return self._tokens

    def read(self) -> list[NamedToken]:
        self._look()
        if self._damaged():
            self._look()  # it may have been revoked that moment
        for name in self._damaged():
            raise Unavailable(
                f"the token {name!r} in the database is damaged; remove it: abstractgateway token revoke {name!r}",
                code="tokens_unusable",
            )
        return list(self._tokens)

    def add(self, token: NamedToken) -> None:
        check_room(token, self._names())
        if not self._shelf.put(DRAWER, token.name, _content_of(token), instead_of=NOTHING):
            raise name_taken(token.name)
        self._look_if_possible()

    def take(self, name: str) -> NamedToken | None:
        self._look()
        found = next((token for token in self._tokens if name in (token.name, token.id)), None) or _unknown(name)
        is_gone = self._shelf.remove(DRAWER, [found.name]) > 0
        self._look_if_possible()
        return found if is_gone else None

    def _names(self) -> set[str]:
        return {item.name for item in self._shelf.list(DRAWER)}

    def _damaged(self) -> list[str]:
        with self._looking:
            return sorted(self._digests.keys() - {token.name for token in self._tokens})

    def _look_if_possible(self) -> None:
        """Know of an own change at once; the shelf tells of it in any case."""
        with suppress(GatewayError):
            self._look()

    def _look(self) -> None:
        """Read the tokens again if there are others than before. One that is damaged is not accepted."""
        with self._looking:
            digests = {item.name: item.sha256 for item in self._shelf.list(DRAWER)}
            if digests == self._digests:
                return
            found = self._shelf.read(DRAWER, digests)
            tokens = [token for name in digests if (token := _token_of(name, found.get(name, b""))) is not None]
            self._tokens = tuple(sorted(tokens, key=lambda token: (token.created_at, token.name)))
            self._digests = digests

    def _tell_of_others(self, had: Iterable[NamedToken]) -> None:
        """Say which tokens of a file do not count, as the database has another one of their name."""
        ids = {token.name: token.id for token in self._tokens}
        for token in had:
            if ids.get(token.name, token.id) != token.id:
                log.warning("the token %r of this data directory is not accepted: the database has another", token.name)


def not_taken_over(shelf: SharedShelf, before: TokenFile) -> list[NamedToken]:
    """Return the tokens of a file whose names the shelf never had."""
    had = before.read()
    known = {item.name for item in shelf.list(DRAWER)} | shelf.removed(DRAWER) if had else set()
    return [token for token in had if token.name not in known]


def _content_of(token: NamedToken) -> bytes:
    return dumps(token.to_dict())


def _token_of(name: str, content: bytes) -> NamedToken | None:
    """Return the token that a file holds under a name, None for a damaged one."""
    try:
        token = NamedToken.of(loads(content, field=DRAWER))
        if token.name != name:
            raise Invalid(DRAWER, f"it is that of {token.name!r}")
    except Invalid as error:
        log.error("the token %r in the database is not accepted: %s", name, error)
        return None
    return token


def _unknown(name: str) -> NamedToken:
    """Return what can be shown of a token that is damaged: its name."""
    return NamedToken(name, name, "", (), None, "", None)
