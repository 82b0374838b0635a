"""Ledgers: pages and streams."""

from __future__ import annotations

from ..fields import Field, seconds
from ..frames import CONTENT_TYPE
from ..render import ledger_answer, stream_answer
from ..route import API, Answer, Call, Response, Route
from ..shapes import TEXT, named
from ..stream import StreamRequest
from .inputs import AFTER, LAST_EVENT_ID, LIMIT


def read_ledger(call: Call) -> Response:
    """Return a page of a run's ledger; an unknown run has an empty one."""
    page = call.gateway.ledger.read(call.path["run_id"], **call.query)
    return ledger_answer(page.records, page.next_after)


def stream_ledger(call: Call) -> Response:
    """Replay a run's ledger after a cursor, then follow it until the run ends."""
    run_id = call.path["run_id"]
    after = max(call.query["after"], call.headers["Last-Event-ID"])
    # Only the question whether the run exists: its 404 must come before the first byte of a stream.
    call.gateway.ledger.tail(run_id, after, 1)
    return stream_answer(call.open_stream(StreamRequest(run_id, after, call.query["heartbeat_s"])))


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{API}/runs/{{run_id}}/ledger",
        read_ledger,
        answers=(Answer("The records after the cursor.", named("LedgerPage")),),
        query=(AFTER, LIMIT),
    ),
    Route(
        "GET",
        f"{API}/runs/{{run_id}}/ledger/stream",
        stream_ledger,
        answers=(
            Answer("`step` events with `cursor` and `record`, then `done` when the run has ended.", TEXT, CONTENT_TYPE),
        ),
        query=(
            AFTER,
            Field(
                "heartbeat_s",
                seconds(0.1, 60.0),
                default=lambda: 5.0,
                about="A comment is sent after so many seconds without a record.",
            ),
        ),
        headers=(LAST_EVENT_ID,),
        refusals=(404,),
    ),
)
