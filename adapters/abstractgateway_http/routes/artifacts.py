"""Artifacts: the files of a run."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..render import content_answer, json_answer
from ..route import API, Answer, Call, Route
from ..shapes import ANYTHING, named
from .inputs import LIMIT


def list_artifacts(call: Call) -> Response:
    """List the artifacts of a run, the newest first."""
    return json_answer(call.gateway.artifacts.list(call.path["run_id"], **call.query))


def get_artifact(call: Call) -> Response:
    """Describe one artifact."""
    return json_answer(call.gateway.artifacts.get(call.path["run_id"], call.path["artifact_id"]))


def get_artifact_content(call: Call) -> Response:
    """Return the bytes of an artifact, or the range of them that is asked for."""
    return content_answer(call.request, call.gateway.artifacts.open(call.path["run_id"], call.path["artifact_id"]))


_ARTIFACTS = f"{API}/runs/{{run_id}}/artifacts"
_ANY = "*/*"

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        _ARTIFACTS,
        list_artifacts,
        answers=(Answer("The artifacts.", named("ArtifactList")),),
        query=(LIMIT,),
        refusals=(404,),
    ),
    Route(
        "GET",
        f"{_ARTIFACTS}/{{artifact_id}}",
        get_artifact,
        answers=(Answer("What is known of it.", named("Artifact")),),
        refusals=(400, 404),
    ),
    Route(
        "GET",
        f"{_ARTIFACTS}/{{artifact_id}}/content",
        get_artifact_content,
        answers=(
            Answer("All bytes, with the content type they were stored with.", ANYTHING, _ANY),
            Answer("The range of bytes that `Range` asks for.", ANYTHING, _ANY, status=206),
            Answer("The bytes that `If-None-Match` names are the current ones.", status=304),
        ),
        refusals=(400, 404, 412, 416),
    ),
)
