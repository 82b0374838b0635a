"""What others wrote, as a terminal shows it: it obeys none of it, and lines fit."""

from __future__ import annotations

import os
import re
import unicodedata
from typing import TextIO

# Escape sequences begin with one of these; the others turn the direction of writing around.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text with its control characters as escapes such as `\\x1b`; ends of lines and tabs stay."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a line takes."""
    return sum(map(_columns_of_character, text))


def padded(text: str, columns: int) -> str:
    """Return a line with blanks after it, so that it takes that many columns."""
    return text + " " * (columns - columns_of(text))


def fitted(text: str, columns: int) -> str:
    """Return a line that takes at most that many columns."""
    if columns_of(text) <= columns:
        return text
    kept, left = "", columns - 1
    for character in text:
        left -= _columns_of_character(character)
        if left < 0:
            break
        kept += character
    return kept + "…"


def terminal_columns(output: TextIO) -> int | None:
    """Return how wide the terminal is that a file writes to; None when there is none, or it does not say."""
    try:
        return os.get_terminal_size(output.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _columns_of_character(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
