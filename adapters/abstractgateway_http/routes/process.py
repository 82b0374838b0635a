"""The process itself: that it answers, and what it measures."""

from __future__ import annotations

from datetime import datetime, timezone

from werkzeug.wrappers import Response

from abstractgateway.clock import to_iso

from ..render import METRICS_TYPE, json_answer, metrics_answer
from ..route import API, Answer, Call, Route
from ..shapes import FLAG, TEXT, shape


def health(call: Call) -> Response:
    """Say that the process answers; nothing is looked at."""
    return json_answer({"status": "healthy", "service": "abstractgateway"})


def ping(call: Call) -> Response:
    """Say that the token is accepted; nothing is looked at."""
    now = to_iso(datetime.now(timezone.utc))
    return json_answer({"ok": True, "status": "healthy", "service": "abstractgateway", "time": now})


def livez(call: Call) -> Response:
    """Say that the process is alive."""
    return json_answer({"status": "ok"})


def readyz(call: Call) -> Response:
    """Say whether the store can be read and the data directory be written."""
    call.gateway.readiness.check()
    return json_answer({"status": "ready"})


def metrics(call: Call) -> Response:
    """Return what the gateway measures, in the text format of Prometheus."""
    return metrics_answer(call.gateway.metrics.text())


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/health",
        health,
        answers=(Answer("The process answers.", shape(status=TEXT, service=TEXT)),),
        needs_token=False,
    ),
    Route(
        "GET",
        f"{API}/ping",
        ping,
        answers=(Answer("It is.", shape(ok=FLAG, status=TEXT, service=TEXT, time=TEXT)),),
    ),
    Route("GET", "/livez", livez, answers=(Answer("It is.", shape(status=TEXT)),), needs_token=False),
    Route(
        "GET",
        "/readyz",
        readyz,
        answers=(Answer("They can.", shape(status=TEXT)),),
        refusals=(503,),
        needs_token=False,
    ),
    Route(
        "GET",
        "/metrics",
        metrics,
        answers=(Answer("The measures as they are now.", TEXT, METRICS_TYPE),),
        refusals=(503,),
    ),
)
