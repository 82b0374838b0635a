"""The workspace: what clients may reach, finding files in it and reading them."""

from __future__ import annotations

import math

from werkzeug.wrappers import Response

from ..fields import Field, Mismatch, Reader, query_text, text, whole
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..shapes import named

_LEAST_PERCENT, _MOST_PERCENT = 1, 25


def get_workspace_policy(call: Call) -> Response:
    """Return what of the server's files clients may reach."""
    return json_answer(call.gateway.workspace.policy())


def search_files(call: Call) -> Response:
    """Find files by a part of their path, the best first."""
    return json_answer(call.gateway.workspace.search(**call.query))


def read_file(call: Call) -> Response:
    """Return lines of a text file with their numbers."""
    return json_answer(call.gateway.workspace.read(**call.query))


def skim_file(call: Call) -> Response:
    """Return the first and last lines of a text file, and some between."""
    return json_answer(call.gateway.workspace.skim(**call.query))


def _read_percent(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Mismatch("float_parsing", "Input should be a valid number, unable to parse string as a number")
    if number < _LEAST_PERCENT:
        raise Mismatch("greater_than_equal", f"Input should be greater than or equal to {_LEAST_PERCENT}", ge=1)
    if number > _MOST_PERCENT:
        raise Mismatch("less_than_equal", f"Input should be less than or equal to {_MOST_PERCENT}", le=25)
    return number


_PERCENT = Reader(_read_percent, {"type": "number", "minimum": _LEAST_PERCENT, "maximum": _MOST_PERCENT})
_PATH = Field("path", text, required=True, about="The file, relative to the workspace, or `mount/path`.")
_SCOPE = (
    Field("workspace_root", query_text, about="The directory, where clients may choose one."),
    Field("workspace_access_mode", query_text, about="A mode of `/workspace/policy`, where clients may choose one."),
    Field("workspace_allowed_paths", query_text, about="More directories, a line each, where clients may choose."),
    Field("workspace_ignored_paths", query_text, about="What is left out, a line each, where clients may choose."),
)

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{API}/workspace/policy",
        get_workspace_policy,
        answers=(Answer("The policy.", named("WorkspacePolicy")),),
    ),
    Route(
        "GET",
        f"{API}/files/search",
        search_files,
        answers=(Answer("The files; `error` where some could not be listed.", named("FilesFound")),),
        query=(
            Field("query", query_text, about="A part of the path, in any case; without it nothing is found."),
            Field("limit", whole(1, 200), default=lambda: 20, about="How many at most."),
            *_SCOPE,
        ),
    ),
    Route(
        "GET",
        f"{API}/files/read",
        read_file,
        answers=(Answer("The lines; for a missing file a text that begins with `Error:`.", named("FileText")),),
        query=(
            _PATH,
            Field("start_line", whole(1), default=lambda: 1, about="The first line."),
            Field("end_line", whole(1), about="The last line; without it, the end of the file."),
            *_SCOPE,
        ),
        refusals=(400,),
    ),
    Route(
        "GET",
        f"{API}/files/skim",
        skim_file,
        answers=(Answer("The lines; for a missing file a text that begins with `Error:`.", named("FileText")),),
        query=(
            _PATH,
            Field("target_percent", _PERCENT, default=lambda: 8, about="How much of the lines between, in percent."),
            Field("head_lines", whole(0, 500), default=lambda: 25, about="How many lines of the beginning."),
            Field("tail_lines", whole(0, 500), default=lambda: 25, about="How many lines of the end."),
            *_SCOPE,
        ),
        refusals=(400,),
    ),
)
