"""The process itself: that it answers, and the pages that describe its routes."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..console import page, script, style
from ..render import METRICS_TYPE, json_answer, metrics_answer, page_answer
from ..route import Answer, Call, Route
from ..shapes import TEXT, shape


def health(call: Call) -> Response:
    """Say that the process answers; nothing is looked at."""
    return json_answer({"status": "healthy", "service": "abstractgateway"})


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


def docs(call: Call) -> Response:
    """Show every route on a page, with forms that try them."""
    return page_answer(page(), "text/html; charset=utf-8")


def docs_script(call: Call) -> Response:
    """Return the script of the page."""
    return page_answer(script(), "text/javascript; charset=utf-8")


def docs_style(call: Call) -> Response:
    """Return the style sheet of the page."""
    return page_answer(style(), "text/css; charset=utf-8")


_HTML = (Answer("The page.", TEXT, "text/html"),)

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/api/health",
        health,
        answers=(Answer("The process answers.", shape(status=TEXT, service=TEXT)),),
        needs_token=False,
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
    Route("GET", "/docs", docs, answers=_HTML, needs_token=False, is_listed=False),
    Route("GET", "/redoc", docs, answers=_HTML, needs_token=False, is_listed=False),
    Route("GET", "/docs/page.js", docs_script, answers=_HTML, needs_token=False, is_listed=False),
    Route("GET", "/docs/page.css", docs_style, answers=_HTML, needs_token=False, is_listed=False),
)
