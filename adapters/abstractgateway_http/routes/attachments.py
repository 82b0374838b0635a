"""Attachments: files for a session."""

from __future__ import annotations

from typing import Any

from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response

from ..fields import Field, Mismatch, Reader, text
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..sessions import into_session
from ..shapes import named
from .inputs import TEXTS, optional_text, required_text


def upload_attachment(call: Call) -> Response:
    """Attach a file to a session, as an artifact of the run that holds what belongs to the session."""
    given = dict(call.body)
    part: FileStorage = given.pop("file")
    told = {"part_filename": part.filename, "part_content_type": part.content_type}
    return json_answer(call.gateway.attachments.upload(part.stream, **given, **told))


def ingest_attachment(call: Call) -> Response:
    """Attach a file of the server's workspace to a session, as it is now."""
    return json_answer(call.gateway.attachments.ingest(**call.body))


def _read_part(value: Any) -> FileStorage:
    if isinstance(value, FileStorage):
        return value
    raise Mismatch("value_error", "Value error, Expected a file part of multipart/form-data")


_PART = Reader(_read_part, {"type": "string", "format": "binary"})
_SESSION = "The session that it is for."

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{API}/attachments/upload",
        upload_attachment,
        scope="run",
        session=into_session,
        audited=("session_id", "filename"),
        answers=(Answer("It is stored durably.", named("Attached")),),
        body=(
            required_text("session_id", _SESSION),
            Field("file", _PART, required=True, about="The file."),
            Field("filename", text, about="Its name; without it, that of the file part."),
            Field("content_type", text, about="Its type; without it, that of the file part, or a guess from the name."),
        ),
        is_form=True,
        refusals=(400,),
    ),
    Route(
        "POST",
        f"{API}/attachments/ingest",
        ingest_attachment,
        scope="run",
        audited=("session_id", "path"),
        answers=(Answer("It is stored durably.", named("Attached")),),
        body=(
            required_text("session_id", _SESSION),
            required_text("path", "The file, relative to the workspace, or `mount/path`."),
            optional_text("filename", "Its name; without it, the last one of the path."),
            optional_text("content_type", "Its type; without it, a guess from the name."),
            optional_text("workspace_root", "The directory, where clients may choose one."),
            optional_text("workspace_access_mode", "A mode of `/workspace/policy`, where clients may choose one."),
            Field("workspace_allowed_paths", TEXTS, nullable=True, about="More directories, where clients may choose."),
            Field("workspace_ignored_paths", TEXTS, nullable=True, about="What is left out, where clients may choose."),
        ),
        refusals=(400, 404),
    ),
)
