"""Inputs that several routes take."""

from __future__ import annotations

from typing import Any

from ..fields import Field, Reader, event_id, flag, query_text, text, whole

AFTER = Field("after", whole(0), default=lambda: 0, about="The cursor after which to read: how many records are known.")
LIMIT = Field("limit", whole(1, 2000), default=lambda: 200, about="How many at most.")
BUNDLE_VERSION = Field("bundle_version", query_text, about="A version of the bundle; without it, the latest.")
LAST_EVENT_ID = Field(
    "Last-Event-ID",
    event_id,
    default=lambda: "",
    about="The last `id` a stream sent; the larger of it and `after` counts.",
)


def _read_texts(value: Any) -> str | list[str]:
    for item in value if isinstance(value, list) else [value]:
        text.read(item)
    found: str | list[str] = value
    return found


TEXTS = Reader(_read_texts, {"type": ["string", "array"], "items": {"type": "string"}})
"""A text, or a list of texts."""


def switch(name: str, about: str, *, on: bool = False) -> Field:
    """Return a boolean field."""
    return Field(name, flag, default=lambda: on, about=about)


def optional_text(name: str, about: str) -> Field:
    """Return a text of a body that may be null or missing."""
    return Field(name, text, nullable=True, about=about)


def required_text(name: str, about: str) -> Field:
    """Return a text of a body that must be there."""
    return Field(name, text, required=True, about=about)
