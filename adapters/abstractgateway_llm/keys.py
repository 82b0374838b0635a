"""Keys: checked before they are used, and taken out of whatever comes back."""

from __future__ import annotations

from .errors import ModelError

HIDDEN = "[key]"
_LEAST_IN_ERRORS = 4
_LEAST_IN_ANSWERS = 16
"""Local servers are often given words such as `ollama` for a key; those may well be a part of an answer."""


class Key:
    """The key of a provider, or none. Its text is shown by no `repr` and no error."""

    def __init__(self, text: str | None, *, provider: str) -> None:
        if text is not None and not (text.isascii() and text.isprintable() and " " not in text):
            raise ModelError(f"the key of provider {provider!r} has characters that no key has, such as blanks")
        self._text = text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return f"Key({HIDDEN if self._text else None})"

    def reveal(self) -> str:
        """Return the text, for the header that it is sent in."""
        return self._text or ""

    def hidden_in_error(self, text: str) -> str:
        """Return a text about a failure without the key."""
        return self._without(text, _LEAST_IN_ERRORS)

    def hidden_in_answer(self, text: str) -> str:
        """Return what a provider answered without the key."""
        return self._without(text, _LEAST_IN_ANSWERS)

    def hidden_in_pieces(self) -> Pieces:
        """Return what hides the key in an answer that comes in pieces."""
        return Pieces(self._text if self._text and len(self._text) >= _LEAST_IN_ANSWERS else "")

    def _without(self, text: str, least: int) -> str:
        return text.replace(self._text, HIDDEN) if self._text and len(self._text) >= least else text


class Pieces:
    """Hides a secret in a text that comes in pieces: what may be the beginning of it is held back."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._held = ""

    def shown(self, piece: str) -> str:
        """Return what can be shown now."""
        if not self._secret:
            return piece
        text = (self._held + piece).replace(self._secret, HIDDEN)
        longest = min(len(text), len(self._secret) - 1)
        size = next((size for size in range(longest, 0, -1) if self._secret.startswith(text[-size:])), 0)
        self._held = text[len(text) - size :]
        return text[: len(text) - size]

    def rest(self) -> str:
        """Return what was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held
