"""Answers that wait until something has come about, as `Prefer: wait=N` asks (RFC 7240); they hold no worker thread."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from werkzeug.wrappers import Response

from abstractgateway.clock import SystemClock
from abstractgateway.errors import GatewayError
from abstractgateway.jsonvalue import JsonObject, dumps

from .fields import Field, Reader
from .frames import Batch
from .refusal import Refused
from .render import awaited_answer, json_answer
from .route import Call
from .stream import StreamRequest

LONGEST_S = 30
_LOOK_S = 0.5
"""Whoever waits is told by commits of this process; so often it looks itself, for those of others."""
_SECONDS = re.compile(r'"?([0-9]{1,9})"?', re.ASCII)

Told = Callable[[], "JsonObject | None"]
"""Returns what to add to the answer once it has come about, None until then."""


def _wait_of(value: str) -> int:
    """Return the seconds of the first `wait` among preferences; 0 without one, or for one that makes no sense."""
    for preference in value.split(","):
        name, _, given = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            found = _SECONDS.fullmatch(given.strip())
            return min(int(found[1]), LONGEST_S) if found is not None else 0
    return 0


def prefer(about: str) -> Field:
    """Return the header with which a client says how long it would wait."""
    text = f"`wait=N`: {about}, or after N seconds (up to {LONGEST_S}), with `Preference-Applied`."
    return Field("Prefer", Reader(_wait_of, {"type": "string"}), default=int, about=text)


@dataclass(frozen=True, eq=False)
class OneAnswer:
    """How an answer looks on the wire that is made when something has come about, or at a time (monotonic seconds)."""

    known: JsonObject
    told: Told
    late: Told
    until: float
    is_tree = False
    reads_ledger = False
    opening = b" "  # white space before a JSON value means nothing

    def batch(self, run_id: str, after: int, tail: Any) -> Batch:
        more = self._asked(self.told)
        if more is None and SystemClock().monotonic() < self.until:
            return Batch(b"", after, False)
        return Batch(self._body(more), after, True)

    def idle(self, cursor: int) -> Batch:
        return Batch(self.opening, cursor, False)  # whoever has gone is noticed; sending it looks again

    def farewell(self, cursor: int) -> bytes:
        return self._body(None)

    def _body(self, more: JsonObject | None) -> bytes:
        return dumps({**self.known, **(more or self._asked(self.late) or {})}, field="response")

    def _asked(self, told: Told) -> JsonObject | None:
        try:
            return told()
        except GatewayError:
            return None  # what was accepted is durable, and `known` says so; the rest can be asked for


def answer_when(call: Call, watched: str, known: JsonObject, told: Told, late: Told) -> Response:
    """Return what is known at once, or with more as soon as it is told, where the client prefers to wait.

    `watched` is the run or command whose news may change what is told; `late` is asked when the time is over.
    """
    wait_s = call.headers["Prefer"]
    if not wait_s:
        return json_answer(known)
    framing = OneAnswer(known, told, late, SystemClock().monotonic() + wait_s)
    try:
        parts = call.open_stream(StreamRequest(watched, 0, _LOOK_S, framing))
    except (GatewayError, Refused):
        return json_answer(known)  # it is done, so it must not look refused; a preference may be ignored
    response = awaited_answer(parts)
    response.headers["Preference-Applied"] = f"wait={wait_s}"
    return response
