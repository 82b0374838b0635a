"""Attachments of a call: what they are, and their bytes."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from abstractgateway.jsonvalue import JsonObject

from .calls import objects
from .errors import ModelError

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
PDF = "application/pdf"
_TEXTS = ("application/json", "application/xml", "application/yaml", "application/x-yaml")


@dataclass(frozen=True)
class Medium:
    """One attachment: its bytes in base64, or a URL where the provider fetches it itself."""

    content_type: str
    data: str = ""
    url: str = ""
    name: str = ""

    @property
    def data_url(self) -> str:
        return self.url or f"data:{self.content_type};base64,{self.data}"

    @property
    def text(self) -> str | None:
        """The attachment as a part of the prompt, or None when it is no text."""
        if not (self.content_type.startswith("text/") or self.content_type in _TEXTS) or self.url:
            return None
        try:
            content = base64.b64decode(self.data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ModelError(f"the attachment {self.name!r} is no UTF-8 text") from error
        return f"{self.name or 'attachment'}:\n{content}"


def media_of(call: JsonObject) -> list[Medium]:
    """Return the attachments of a call. Raises `ModelError` for a type that models do not take."""
    return [_medium(item) for item in objects(call.get("media"))]


def _medium(item: JsonObject) -> Medium:
    url = str(item.get("url") or "")
    given = str(item.get("content_type") or ("image/png" if url else ""))
    medium = Medium(
        given.partition(";")[0].strip().lower(), str(item.get("data") or ""), url, str(item.get("name") or "")
    )
    if medium.text is None and medium.content_type not in (*IMAGES, PDF):
        raise ModelError(f"an attachment of type {medium.content_type!r} cannot be given to a model")
    if url and not url.startswith("https://"):
        raise ModelError("an attachment's URL must begin with https://")
    return medium
