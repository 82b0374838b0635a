"""Identifiers: how new ones are made, and which texts may become part of a file name."""

from __future__ import annotations

import re
import uuid

from .errors import Invalid

_SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:@-]{0,254}\Z")


def new_id() -> str:
    """Return a fresh random id in the UUID text form that run and step ids have."""
    return str(uuid.uuid4())


def new_hex() -> str:
    """Return a fresh random id of 32 hexadecimal digits, the form of command ids."""
    return uuid.uuid4().hex


def is_safe_id(text: str) -> bool:
    """Say whether a text may be used in a file name: no separators, no leading dot, at most 255 characters."""
    return _SAFE_ID.match(text) is not None


def check_safe_id(text: str, *, field: str) -> str:
    """Return the text, or raise `Invalid(field, …)` when it could not be part of a file name."""
    if not is_safe_id(text):
        raise Invalid(field, f"{text!r} may contain only letters, digits and '_-.:@', and at most 255 of them")
    return text
