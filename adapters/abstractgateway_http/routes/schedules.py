"""Schedules: making them, and what they do next."""

from __future__ import annotations

from typing import Any

from werkzeug.wrappers import Response

from ..fields import Field, Mismatch, Reader, choice, json_object, key_text, whole
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..sessions import into_session
from ..shapes import named
from .inputs import optional_text, required_text, switch


def start_schedule(call: Call) -> Response:
    """Run a flow at times; the schedule is durable when the answer is sent."""
    key = call.headers["Idempotency-Key"]
    run_id = call.made["run_id"] = call.gateway.schedules.create(**call.body, idempotency_key=key)
    return json_answer({"run_id": run_id})


def get_next_times(call: Call) -> Response:
    """Return the next times of a schedule."""
    return json_answer(call.gateway.schedules.next(call.path["run_id"], **call.query))


def _read_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Mismatch("float_type", "Input should be a valid number")
    return value


def _seconds(name: str, about: str) -> Field:
    return Field(name, Reader(_read_number, {"type": "number", "minimum": 0}), nullable=True, about=about)


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{API}/runs/schedule",
        start_schedule,
        scope="run",
        session=into_session,
        audited=("bundle_id", "bundle_version", "flow_id", "session_id"),
        answers=(Answer("The schedule is stored durably, as a run, and will be driven.", named("Started")),),
        body=(
            required_text("bundle_id", "The bundle, or `id@version`."),
            required_text("flow_id", "The flow, or `bundle:flow`."),
            optional_text("bundle_version", "Its version; without it, the latest now, for all times."),
            Field("input_data", json_object, default=dict, about="The variables that each execution starts with."),
            optional_text("start_at", "The first time, ISO 8601; `now` or nothing for now."),
            optional_text("interval", "How far the times are apart: `30s`, `15m`, `1.5h`, `2d`, `500ms`."),
            optional_text("cron", "Five fields, or a name such as `@daily`; instead of an interval."),
            optional_text("timezone", "The IANA name of the zone that `cron` is about; without it, UTC."),
            Field("repeat_count", whole(-(2**31)), nullable=True, about="After how many executions it ends."),
            optional_text("repeat_until", "The time, ISO 8601, after which there is no further one."),
            Field(
                "overlap",
                choice("skip", "queue", "cancel_previous", "allow"),
                nullable=True,
                about="What becomes of a time at which the execution before is not over; without it, `skip`.",
            ),
            _seconds("catch_up", "How many seconds late a missed time is made up for; without it, the latest is."),
            _seconds("jitter", "Up to how many seconds after its time an execution begins."),
            switch("share_context", "Whether the executions share the schedule's session.", on=True),
            optional_text("session_id", "The session of the schedule; without it, one of its own."),
            Field("limits", json_object, nullable=True, about="What each execution may use, as for `/runs/start`."),
        ),
        headers=(
            Field(
                "Idempotency-Key",
                key_text(255),
                about="The same key again answers with the run of the first request; with another body it is refused.",
            ),
        ),
        refusals=(400, 404, 409),
    ),
    Route(
        "GET",
        f"{API}/runs/{{run_id}}/schedule/next",
        get_next_times,
        answers=(Answer("The times, as if none were skipped.", named("ScheduleTimes")),),
        query=(Field("count", whole(1, 1000), default=lambda: 10, about="How many."),),
        refusals=(404, 409),
    ),
)
