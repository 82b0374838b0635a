"""Runs: starting them and looking at them."""

from __future__ import annotations

from ..fields import Field, json_object, query_text, whole
from ..render import json_answer
from ..route import API, Answer, Call, Response, Route
from ..shapes import named
from .inputs import optional_text, switch


def start_run(call: Call) -> Response:
    """Start a run; it is durable when the answer is sent."""
    return json_answer({"run_id": call.gateway.runs.start(**call.body)})


def list_runs(call: Call) -> Response:
    """List runs, the most recently changed first."""
    return json_answer(call.gateway.runs.list(**call.query))


def get_run(call: Call) -> Response:
    """Describe one run."""
    return json_answer(call.gateway.runs.get(call.path["run_id"]))


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{API}/runs/start",
        start_run,
        answers=(Answer("The run is stored durably and will be driven.", named("Started")),),
        body=(
            optional_text("bundle_id", "The bundle, or `id@version`."),
            optional_text("bundle_version", "Its version; without it, the latest."),
            optional_text("flow_id", "The flow; without it, the bundle's only or default entrypoint."),
            Field("input_data", json_object, default=dict, about="The variables that the run starts with."),
            optional_text("session_id", "The session the run belongs to; without it, one of its own."),
        ),
        refusals=(400, 404, 409),
    ),
    Route(
        "GET",
        f"{API}/runs",
        list_runs,
        answers=(Answer("The runs.", named("RunList")),),
        query=(
            Field("limit", whole(1, 500), default=lambda: 50, about="How many at most."),
            Field("status", query_text, about="`running`, `waiting`, `completed`, `failed` or `cancelled`."),
            Field("workflow_id", query_text, about="Exactly this workflow."),
            Field("session_id", query_text, about="Exactly this session."),
            switch("root_only", "No runs that another run started."),
            switch("include_ledger_len", "`ledger_len` of each run.", on=True),
            switch("include_metrics", "Steps, model calls, tool calls and tokens of each run."),
        ),
        refusals=(400,),
    ),
    Route(
        "GET",
        f"{API}/runs/{{run_id}}",
        get_run,
        answers=(Answer("The run.", named("Run")),),
        refusals=(404,),
    ),
)
