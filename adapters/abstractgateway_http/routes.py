"""The routes: a table of method, path, inputs and handler.

A handler takes checked values, calls the service once and renders what it returns. It holds no state and no rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Response

from .fields import Field, flag, json_object, query_text, seconds, text, whole
from .render import json_answer, ledger_answer, stream_answer
from .stream import StreamRequest

_API = "/api/gateway"


@dataclass(frozen=True)
class Call:
    """A request that passed every check: what its route was asked, as values."""

    gateway: Any
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    last_event_id: int
    open_stream: Callable[[StreamRequest], Any]


Handler = Callable[[Call], Response]


@dataclass(frozen=True)
class Route:
    """One row: where a handler is found, and what it takes."""

    method: str
    path: str
    handler: Handler
    query: tuple[Field, ...] = ()
    body: tuple[Field, ...] | None = None
    needs_token: bool = True


class RouteTable:
    """Finds the route of a request."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        rules = [Rule(_rule_text(route.path), methods=[route.method], endpoint=route) for route in routes]
        self._paths = Map(rules, strict_slashes=True, merge_slashes=False, redirect_defaults=False).bind("gateway")

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """Return the route and the values in its path; HEAD goes with GET.

        Raises werkzeug's `NotFound`, or its `MethodNotAllowed` with the methods that the path knows.
        """
        return self._paths.match(path, method)

    def has_path(self, path: str) -> bool:
        """Say whether any method is known at the path."""
        try:
            self._paths.match(path, "GET")
        except MethodNotAllowed:
            return True
        except NotFound:
            return False
        return True


def _rule_text(path: str) -> str:
    return path.replace("{", "<").replace("}", ">")


def health(call: Call) -> Response:
    """Say that the process answers; nothing is looked at."""
    return json_answer({"status": "healthy", "service": "abstractgateway"})


def list_bundles(call: Call) -> Response:
    """List the loaded bundles and their entrypoints."""
    return json_answer(call.gateway.bundles.list(**call.query))


def get_bundle(call: Call) -> Response:
    """Describe one bundle: entrypoints, inputs, flows, metadata."""
    return json_answer(call.gateway.bundles.get(call.path["bundle_id"], **call.query))


def start_run(call: Call) -> Response:
    """Start a run; it is durable when the answer is sent."""
    return json_answer({"run_id": call.gateway.runs.start(**call.body)})


def list_runs(call: Call) -> Response:
    """List runs, the most recently changed first."""
    return json_answer(call.gateway.runs.list(**call.query))


def get_run(call: Call) -> Response:
    """Describe one run."""
    return json_answer(call.gateway.runs.get(call.path["run_id"]))


def read_ledger(call: Call) -> Response:
    """Return a page of a run's ledger; an unknown run has an empty one."""
    page = call.gateway.ledger.read(call.path["run_id"], **call.query)
    return ledger_answer(page.records, page.next_after)


def stream_ledger(call: Call) -> Response:
    """Replay a run's ledger after a cursor, then follow it until the run ends."""
    run_id = call.path["run_id"]
    after = max(call.query["after"], call.last_event_id)
    # Only the question whether the run exists: its 404 must come before the first byte of a stream.
    call.gateway.ledger.tail(run_id, after, 1)
    return stream_answer(call.open_stream(StreamRequest(run_id, after, call.query["heartbeat_s"])))


def submit_command(call: Call) -> Response:
    """Accept a command into the durable inbox; whether it could be applied is its outcome."""
    command_id = call.body["command_id"]
    receipt = call.gateway.commands.submit(**{**call.body, "command_id": command_id if command_id.strip() else None})
    return json_answer({"accepted": receipt.accepted, "duplicate": receipt.duplicate, "seq": receipt.seq})


def get_command(call: Call) -> Response:
    """Return what became of a command."""
    return json_answer(call.gateway.commands.outcome(call.path["command_id"]))


_AFTER = Field("after", whole(0), default=lambda: 0)


def _switch(name: str, *, on: bool = False) -> Field:
    return Field(name, flag, default=lambda: on)


def _optional_text(name: str) -> Field:
    return Field(name, text, nullable=True)


def _required_text(name: str) -> Field:
    return Field(name, text, required=True)


ROUTES: tuple[Route, ...] = (
    Route("GET", "/api/health", health, needs_token=False),
    Route("GET", f"{_API}/bundles", list_bundles, query=(_switch("all_versions"), _switch("include_deprecated"))),
    Route("GET", f"{_API}/bundles/{{bundle_id}}", get_bundle, query=(Field("bundle_version", query_text),)),
    Route(
        "POST",
        f"{_API}/runs/start",
        start_run,
        body=(
            _optional_text("bundle_id"),
            _optional_text("bundle_version"),
            _optional_text("flow_id"),
            Field("input_data", json_object, default=dict),
            _optional_text("session_id"),
        ),
    ),
    Route(
        "GET",
        f"{_API}/runs",
        list_runs,
        query=(
            Field("limit", whole(1, 500), default=lambda: 50),
            Field("status", query_text),
            Field("workflow_id", query_text),
            Field("session_id", query_text),
            _switch("root_only"),
            _switch("include_ledger_len", on=True),
            _switch("include_metrics"),
        ),
    ),
    Route("GET", f"{_API}/runs/{{run_id}}", get_run),
    Route(
        "GET",
        f"{_API}/runs/{{run_id}}/ledger",
        read_ledger,
        query=(_AFTER, Field("limit", whole(1, 2000), default=lambda: 200)),
    ),
    Route(
        "GET",
        f"{_API}/runs/{{run_id}}/ledger/stream",
        stream_ledger,
        query=(_AFTER, Field("heartbeat_s", seconds(0.1, 60.0), default=lambda: 5.0)),
    ),
    Route(
        "POST",
        f"{_API}/commands",
        submit_command,
        body=(
            _required_text("command_id"),
            _required_text("run_id"),
            _required_text("type"),
            Field("payload", json_object, default=dict),
            _optional_text("ts"),
            _optional_text("client_id"),
        ),
    ),
    Route("GET", f"{_API}/commands/{{command_id}}", get_command),
)
