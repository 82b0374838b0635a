"""What it takes to talk to a kind of provider, as a port."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from abstractgateway.jsonvalue import JsonObject

from .keys import Key

SCHEMA = "response_schema"
"""The name under which a native answer to a schema can be refused and left out."""


@dataclass
class Draft:
    """A request as a provider wants it, and what of the call could not be put into it."""

    body: JsonObject
    optional: set[str] = field(default_factory=set)
    """The fields of the body that may be left out when the provider refuses them."""
    unused: list[str] = field(default_factory=list)
    is_schema_native: bool = False


class Assembly(Protocol):
    """Puts the events of a streamed answer together."""

    def add(self, event: JsonObject) -> JsonObject:
        """Take an event and return what it adds, `{content}` or `{reasoning}`, possibly nothing."""

    def body(self) -> JsonObject | None:
        """Return the answer as if it had not been streamed, or None while it is not complete."""


class Wire(Protocol):
    """How requests to a kind of provider are written, and its answers read."""

    def url(self, base: str) -> str:
        """Return where requests are sent."""

    def headers(self, key: Key) -> dict[str, str]:
        """Return the headers that carry the key, and those that the provider insists on."""

    def draft(self, call: JsonObject, *, is_streamed: bool, left_out: frozenset[str]) -> Draft:
        """Return the request for a call, without the optional fields that were refused before."""

    def assembly(self) -> Assembly:
        """Return what puts one streamed answer together."""

    def answer(self, body: JsonObject) -> JsonObject:
        """Return the answer of the port `LanguageModel`. Raises `ModelError` for a body that is none."""
