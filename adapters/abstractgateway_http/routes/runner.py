"""The runner: which process drives the runs."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..shapes import COUNT, TEXT, maybe, shape


def get_runner(call: Call) -> Response:
    """Say which process drives the runs, since when, and whether another stands by."""
    return json_answer(call.gateway.runner_status.get())


_PROCESS = maybe(shape(pid=COUNT, host=maybe(TEXT), since=maybe(TEXT)))

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{API}/runner",
        get_runner,
        answers=(
            Answer(
                "`owner` drives the runs, null where nobody does; `standby` takes over when it is gone. `last_seen` is "
                "when there was last known to be an owner.",
                shape(owner=_PROCESS, standby=_PROCESS, last_seen=maybe(TEXT)),
            ),
        ),
    ),
)
