"""Server-sent events: the frames of a stream, as they arrive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ..errors import GatewayError

MAX_LINE_BYTES = 67_108_864
"""How long a line, and the data of an event, may be: longer than any record that a gateway keeps inline, short enough
not to fill the memory."""

_PAUSE_MS = re.compile(r"[0-9]{1,9}")


class Lines(Protocol):
    """Something that lines can be read from, such as a response."""

    def readline(self, limit: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class Frame:
    """One event: its kind, its data, the id that the stream stands at after it, and the pause that it asks for."""

    event: str
    data: str
    last_id: str
    retry_s: float | None


def frames(source: Lines) -> Iterator[Frame]:
    """Return the events of a stream until it ends; one that it ends inside of is left out.

    A frame without data, which only sets the id or the pause, is given as an event without data.
    """
    kind, data, last_id, retry_s = "message", list[str](), "", None
    is_begun, size = False, 0
    while raw := source.readline(MAX_LINE_BYTES):
        if not raw.endswith(b"\n"):
            if len(raw) >= MAX_LINE_BYTES:
                raise GatewayError(f"a line of the stream has more than {MAX_LINE_BYTES} bytes", code="line_too_long")
            return  # the connection was lost inside a line
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if is_begun:
                yield Frame(kind, "\n".join(data), last_id, retry_s)
            kind, data, retry_s, is_begun, size = "message", [], None, False, 0
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        is_begun = is_begun or bool(name)
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
            size += len(raw)
            if size > MAX_LINE_BYTES:
                raise GatewayError(f"an event of the stream has more than {MAX_LINE_BYTES} bytes", code="line_too_long")
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and _PAUSE_MS.fullmatch(value):
            retry_s = int(value) / 1000
