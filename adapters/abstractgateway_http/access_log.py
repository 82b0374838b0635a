"""A line in the log for each request, without the values of its query."""

from __future__ import annotations

import logging
import time
from typing import Any

from werkzeug.wrappers import Response

from .visit import Visit

_log = logging.getLogger("abstractgateway.http.access")
_IDS = ("run_id", "command_id")


def note_request(visit: Visit, response: Response, begun: float) -> None:
    """Log an answered request; `begun` is in seconds of `time.perf_counter`. Of a stream, that is its beginning."""
    if not _log.isEnabledFor(logging.INFO):
        return
    request = visit.request
    known: dict[str, Any] = {**visit.asked, **visit.made}
    fields = {
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "ms": round((time.perf_counter() - begun) * 1000, 1),
        "bytes": response.content_length,
        "request_id": visit.request_id,
        "token": visit.caller.name,
        **{name: known.get(name) for name in _IDS},
    }
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    _log.info("%s %s %d", request.method, request.path, response.status_code, extra=given)
