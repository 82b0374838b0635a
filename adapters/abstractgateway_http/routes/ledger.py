"""Ledgers: pages and streams."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..fields import Field, cursor_of, cursors, one_of, seconds, whole
from ..frames import CONTENT_TYPE, EVENTS, TREE_EVENTS, OnePage
from ..render import awaited_answer, ledger_answer, ledgers_answer, stream_answer
from ..route import API, Answer, Call, Route
from ..sessions import of_runs
from ..shapes import ANYTHING, named
from ..stream import StreamRequest
from .inputs import AFTER, LAST_EVENT_ID, LIMIT, switch


def read_ledger(call: Call) -> Response:
    """Return a page of a run's ledger, at once or as soon as it has a record; an unknown run has an empty one."""
    run_id, after, limit, wait = call.path["run_id"], *(call.query[name] for name in ("after", "limit", "wait"))
    page = call.gateway.ledger.read(run_id, after, limit)
    if page.records or not wait or not call.gateway.ledger.may_grow(run_id, after):
        return ledger_answer(page.records, page.next_after, is_full=len(page.records) == limit)
    return awaited_answer(call.open_stream(StreamRequest(run_id, after, wait, OnePage(limit))))


def read_ledgers(call: Call) -> Response:
    """Return pages of several runs' ledgers; unknown runs have empty ones."""
    return ledgers_answer(call.gateway.ledger.read_many(call.body["runs"], call.body["limit"]))


def stream_ledger(call: Call) -> Response:
    """Replay a run's ledger after a cursor, then follow it until the run ends."""
    run_id, last_id = call.path["run_id"], call.headers["Last-Event-ID"]
    after = max(call.query["after"], cursor_of(last_id))
    # Only the question whether the run exists: its 404 must come before the first byte of a stream.
    call.gateway.ledger.tail(run_id, after, 1)
    is_tree = call.query["include"] is not None
    wanted = StreamRequest(
        run_id,
        call.gateway.ledger.place_in_tree(last_id, after) if is_tree else after,
        call.query["heartbeat_s"],
        TREE_EVENTS if is_tree else EVENTS,
        call.query["deltas"],
    )
    return stream_answer(call.open_stream(wanted))


# A page of each has at most 2,000 records; clients ask for the runs that they show.
_MOST_RUNS = 1_000

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{API}/runs/{{run_id}}/ledger",
        read_ledger,
        answers=(Answer("The records after the cursor.", named("LedgerPage")),),
        query=(
            AFTER,
            LIMIT,
            Field(
                "wait",
                whole(0, 30),
                default=lambda: 0,
                about="For how many seconds to wait for a record when there is none yet.",
            ),
        ),
    ),
    Route(
        "POST",
        f"{API}/runs/ledger/batch",
        read_ledgers,
        scope="read",
        session=of_runs,
        answers=(Answer("A page of each run.", named("LedgerPages")),),
        body=(
            Field("runs", cursors(_MOST_RUNS), required=True, about="Objects with `run_id` and `after` (default 0)."),
            Field("limit", whole(1, 2000), default=lambda: 200, about="How many records of each run at most."),
        ),
    ),
    Route(
        "GET",
        f"{API}/runs/{{run_id}}/ledger/stream",
        stream_ledger,
        answers=(
            Answer(
                "`step` events with `cursor` and `record`, `delta` events where asked for, then `done` when the run "
                "has ended.",
                ANYTHING,
                CONTENT_TYPE,
            ),
        ),
        query=(
            AFTER,
            Field(
                "heartbeat_s",
                seconds(0.1, 60.0),
                default=lambda: 5.0,
                about="A comment is sent after so many seconds without a record.",
            ),
            Field(
                "include",
                one_of("children"),
                about="`children`: the records of the runs below the run come as well, each with its `run_id`.",
            ),
            switch("deltas", "Whether to send the pieces of models' answers as `delta` events while they are written."),
        ),
        headers=(LAST_EVENT_ID,),
        refusals=(404,),
    ),
)
