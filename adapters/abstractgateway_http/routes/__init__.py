"""The routes: one table, put together from the tables of each noun.

A handler takes checked values, calls the service once and renders what it returns. It holds no state and no rules.
"""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..openapi import openapi_bytes
from ..render import json_bytes_answer
from ..route import Answer, Call, Route
from . import (
    artifacts,
    attachments,
    audit,
    bundles,
    commands,
    discovery,
    embeddings,
    files,
    knowledge,
    ledger,
    media,
    pages,
    process,
    prompt_cache,
    runner,
    runs,
    schedules,
    talk,
    visualflows,
)


def openapi(call: Call) -> Response:
    """Describe every route of the gateway as an OpenAPI 3.1 document."""
    return json_bytes_answer(openapi_bytes(ROUTES))


ROUTES: tuple[Route, ...] = (
    *process.ROUTES,
    *pages.ROUTES,
    Route(
        "GET",
        "/openapi.json",
        openapi,
        answers=(Answer("The document.", {"type": "object"}),),
        needs_token=False,
        is_listed=False,
    ),
    *bundles.ROUTES,
    *runs.ROUTES,
    *runner.ROUTES,
    *schedules.ROUTES,
    *ledger.ROUTES,
    *commands.ROUTES,
    *artifacts.ROUTES,
    *knowledge.ROUTES,
    *visualflows.ROUTES,
    *attachments.ROUTES,
    *files.ROUTES,
    *embeddings.ROUTES,
    *discovery.ROUTES,
    *talk.ROUTES,
    *media.ROUTES,
    *prompt_cache.ROUTES,
    *audit.ROUTES,
)

__all__ = ["ROUTES"]
