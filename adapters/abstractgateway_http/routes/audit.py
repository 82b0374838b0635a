"""The audit log: who changed what."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..fields import Field, whole
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..shapes import COUNT, FLAG, TEXT, shape


def tail_audit_log(call: Call) -> Response:
    """Return the end of the audit log, as whole lines of JSON."""
    return json_answer(call.gateway.access.audit.tail(call.query["max_bytes"]))


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{API}/audit/tail",
        tail_audit_log,
        scope="admin",
        answers=(Answer("The last lines.", shape(ok=FLAG, bytes=COUNT, truncated=FLAG, content=TEXT)),),
        query=(Field("max_bytes", whole(1024, 400_000), default=lambda: 80_000, about="How many bytes at most."),),
    ),
)
