"""Runs: starting them and looking at them."""

from __future__ import annotations

from functools import partial
from typing import Any

from werkzeug.wrappers import Response

from ..awaiting import Fields, answer_when, prefer
from ..fields import Field, choice, json_object, key_text, query_text, text, whole
from ..render import json_answer, tagged_answer
from ..route import API, Answer, Call, Route
from ..sessions import into_session, listed
from ..shapes import named
from .inputs import optional_text, switch


def start_run(call: Call) -> Response:
    """Start a run; it is durable when the answer is sent."""
    key = call.headers["Idempotency-Key"]
    run_id = call.made["run_id"] = call.gateway.runs.start(**call.body, idempotency_key=key)
    runs = call.gateway.runs
    return answer_when(call, run_id, {"run_id": run_id}, partial(_settled, runs, run_id), partial(_as_is, runs, run_id))


def _settled(runs: Any, run_id: str) -> Fields | None:
    return _as_is(runs, run_id) if runs.is_settled(run_id) else None


def _as_is(runs: Any, run_id: str) -> Fields:
    body, _ = runs.snapshot(run_id)
    return {"run": body}


def list_runs(call: Call) -> Response:
    """List runs, the most recently changed first."""
    return json_answer(call.gateway.runs.list(**call.query))


def get_run(call: Call) -> Response:
    """Describe one run."""
    body, revision = call.gateway.runs.snapshot(call.path["run_id"])
    return tagged_answer(call.request, body, revision)


def get_input_data(call: Call) -> Response:
    """Return what a run was given."""
    return json_answer(call.gateway.inputs.get(call.path["run_id"]))


def get_history_bundle(call: Call) -> Response:
    """Return the history of a run as one document: the run, its ledgers, and the turns of its session."""
    return json_answer(call.gateway.runs.history_bundle(call.path["run_id"], **call.query))


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{API}/runs/start",
        start_run,
        scope="run",
        session=into_session,
        audited=("bundle_id", "bundle_version", "flow_id", "session_id"),
        answers=(Answer("The run is stored durably and will be driven.", named("Started")),),
        body=(
            optional_text("bundle_id", "The bundle, or `id@version`."),
            optional_text("bundle_version", "Its version; without it, the latest."),
            optional_text("flow_id", "The flow; without it, the bundle's only or default entrypoint."),
            Field("input_data", json_object, default=dict, about="The variables that the run starts with."),
            optional_text("session_id", "The session the run belongs to; without it, one of its own."),
            Field(
                "limits",
                json_object,
                nullable=True,
                about="What the run may use: `tokens`, `model_calls`, `tool_calls`, `wall_s`, up to the settings.",
            ),
        ),
        headers=(
            Field(
                "Idempotency-Key",
                key_text(255),
                about="The same key again answers with the run of the first start; with another body it is refused.",
            ),
            prefer("answer with the `run` as soon as it has ended or waits for something from outside"),
        ),
        refusals=(400, 404, 409),
    ),
    Route(
        "GET",
        f"{API}/runs",
        list_runs,
        session=listed,
        answers=(Answer("The runs.", named("RunList")),),
        query=(
            Field("limit", whole(1, 500), default=lambda: 50, about="How many at most."),
            Field("status", query_text, about="`running`, `waiting`, `completed`, `failed` or `cancelled`."),
            Field("workflow_id", query_text, about="Exactly this workflow."),
            Field("session_id", query_text, about="Exactly this session."),
            Field("parent_run_id", query_text, about="Only the runs that this run started."),
            Field("updated_from", query_text, about="Only runs updated at this time (ISO 8601) or later."),
            Field("updated_to", query_text, about="Only runs updated before this time."),
            Field("cursor", query_text, about="The `next_cursor` of the page before."),
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
        answers=(
            Answer("The run, with an `ETag`.", named("Run")),
            Answer("The run is still what `If-None-Match` names.", status=304),
        ),
        headers=(Field("If-None-Match", text, about="The `ETag` of an earlier answer."),),
        refusals=(404, 412),
    ),
    Route(
        "GET",
        f"{API}/runs/{{run_id}}/input_data",
        get_input_data,
        answers=(Answer("Its inputs, as they are now.", named("InputData")),),
        refusals=(404,),
    ),
    Route(
        "GET",
        f"{API}/runs/{{run_id}}/history_bundle",
        get_history_bundle,
        answers=(Answer("The document, version 1.", named("HistoryBundle")),),
        query=(
            switch("include_subruns", "The runs below it as well.", on=True),
            switch("include_session", "The turns of its session."),
            Field("session_turn_limit", whole(1, 500), default=lambda: 200, about="How many turns at most."),
            Field("ledger_mode", choice("tail", "full"), default=lambda: "tail", about="`tail` or `full`."),
            Field(
                "ledger_max_items",
                whole(0, 20_000),
                default=lambda: 2_000,
                about="How many of the last records of each run; 0 for all.",
            ),
        ),
        refusals=(400, 404),
    ),
)
