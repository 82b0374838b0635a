"""Which browser origins may call: exact texts and anchored patterns.

An origin is `scheme://host[:port]` (RFC 6454) and never has a path or a user. A `*` therefore never stands for `/` or
`@`, and a pattern that ends in `:*` admits port digits only: `http://localhost:*` does not admit
`http://localhost:1.evil.example`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

ANY = "*"
_OPAQUE = "null"
_PORT_WILDCARD = ":*"
_WILDCARDS = re.compile(r"\*|\?|\[[^\]:]+\]")


@dataclass(frozen=True)
class OriginList:
    """The allowed origins of a gateway, ready to be asked."""

    allows_any: bool
    patterns: tuple[re.Pattern[str], ...]

    @staticmethod
    def of(texts: Iterable[str]) -> OriginList:
        """Return the list that the texts describe; a text is an origin, a pattern, or `*` alone for any."""
        cleaned = [text.rstrip("/") for text in texts]
        patterns = tuple(re.compile(_expression(text)) for text in cleaned if text != ANY)
        return OriginList(allows_any=ANY in cleaned, patterns=patterns)

    def is_listed(self, origin: str) -> bool:
        """Say whether a text other than `*` admits the origin. The opaque origin `null` cannot be listed."""
        return origin != _OPAQUE and any(pattern.fullmatch(origin) for pattern in self.patterns)

    def is_allowed(self, origin: str) -> bool:
        """Say whether the origin may call. `null` never may: any page can have it, by a sandboxed frame."""
        return self.is_listed(origin) or (self.allows_any and origin != _OPAQUE)


def _expression(text: str) -> str:
    body, port = (text[: -len(_PORT_WILDCARD)], r":[0-9]{1,5}") if text.endswith(_PORT_WILDCARD) else (text, "")
    parts = []
    position = 0
    for found in _WILDCARDS.finditer(body):
        parts += [re.escape(body[position : found.start()]), _wildcard(found.group())]
        position = found.end()
    return "".join([*parts, re.escape(body[position:]), port])


def _wildcard(text: str) -> str:
    if text == "*":
        return "[^/@]*"
    if text == "?":
        return "[^/@]"
    inner = re.escape(text[1:-1].lstrip("!")).replace(r"\-", "-")
    return f"(?![/@])[{'^' if text[1] == '!' else ''}{inner}]"
