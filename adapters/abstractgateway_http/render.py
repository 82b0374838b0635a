"""Answers as values: JSON, joined ledger records, streams and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from mimetypes import guess_extension
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import quote
from zlib import crc32

from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import parse_range_header
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import wrap_file

from abstractgateway import jsonvalue
from abstractgateway.errors import GatewayError, Unavailable
from abstractgateway.ids import new_hex
from abstractgateway.security import Deny

from .error_codes import CODE_OF_STATUS, STATUS_OF, STATUS_OF_CODE
from .frames import CONTENT_TYPE, LedgerPage, page_of
from .refusal import Refused

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Artifact(Protocol):
    """What is known of an artifact, as the service returns it."""

    artifact_id: str
    content_type: str
    size_bytes: int
    blob_id: str
    tags: dict[str, str]


class ArtifactFile(Protocol):
    """An artifact to read from, as the service opens it."""

    @property
    def metadata(self) -> Artifact: ...

    def part(self, start: int, length: int) -> IO[bytes]: ...


_UNSAFE_IN_NAME = re.compile(r'[\x00-\x1f\x7f/\\"]')
JSON_TYPE = "application/json"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CONTENT_PART = 262_144
"""How many bytes of an artifact are in memory at once while it is sent."""
REQUEST_ID = "X-Request-Id"
_BODILESS = frozenset({204, 304})
_CONDITIONS = frozenset({"HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"})
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_POLICY_WITH_IMAGES = f"{PAGE_POLICY}; img-src 'self' data: blob:"
"""For a page whose style sheet has its icons inside, and which shows images that it fetched."""


def send(response: Response, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a WSGI request; for what most answers are, Werkzeug's own way takes a tenth of the request's time."""
    status, parts = response.status_code, response.response
    is_plain = (
        status >= 200 and status not in _BODILESS and isinstance(parts, list) and "Location" not in response.headers
    )
    if not is_plain or environ["REQUEST_METHOD"] == "HEAD":
        return response(environ, start_response)
    start_response(response.status, response.headers.to_wsgi_list())
    return cast("list[bytes]", parts)


def json_answer(payload: Any) -> Response:
    """Return a 200 with the JSON of a value."""
    return json_bytes_answer(jsonvalue.dumps(payload, field="response"))


def json_bytes_answer(body: bytes) -> Response:
    """Return a 200 with JSON that is encoded already."""
    return Response(body, 200, content_type=JSON_TYPE)


def tagged_answer(request: Request, body: bytes, revision: int) -> Response:
    """Return a 200 with encoded JSON and its `ETag`, or a 304 when the client has this very value.

    Raises `Refused` when `If-Match` names another one.
    """
    headers = {"ETag": f'"{revision}-{crc32(body):08x}"', "Cache-Control": "private, no-cache"}
    response = Response(body, 200, headers=headers, content_type=JSON_TYPE)
    if not _CONDITIONS.isdisjoint(request.environ):
        response.make_conditional(request.environ)
    return _kept_to(response)


def content_answer(request: Request, file: ArtifactFile) -> Response:
    """Return the bytes of an artifact, or a range of them; browsers save them and never run them.

    They are read while they are sent, by the server's own loop where it offers that (`wsgi.file_wrapper`), so that a
    slow reader holds no worker thread. Raises `Refused` where `If-Match` names others, or the range lies outside.
    """
    metadata = file.metadata
    size = metadata.size_bytes
    response = Response(None, 200, content_type=metadata.content_type)
    response.content_length = size
    response.headers["Content-Disposition"] = _disposition(_file_name(metadata))
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "private, no-cache"
    response.set_etag(metadata.blob_id or metadata.artifact_id)
    try:
        response.make_conditional(_with_one_range(request.environ), accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable as error:
        detail = f"the content has {size} bytes; ask for a range inside them"
        headers = (("Content-Range", f"bytes */{size}"),)
        raise Refused(416, "range_not_satisfiable", detail, headers) from error
    return _with_bytes(_kept_to(response), request, file)


def _kept_to(response: Response) -> Response:
    """Return a response that met its conditions. Raises `Refused` for one that did not."""
    if response.status_code == 412:
        raise Refused(412, "precondition_failed", f"the current ETag is {response.headers['ETag']}")
    return response


def _with_one_range(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return the environ without a `Range` that is to be ignored (RFC 9110, 14.2): of another unit, or several."""
    asked = parse_range_header(environ.get("HTTP_RANGE"))
    if asked is not None and asked.units == "bytes" and len(asked.ranges) == 1:
        return environ
    return {name: value for name, value in environ.items() if name != "HTTP_RANGE"}


def _with_bytes(response: Response, request: Request, file: ArtifactFile) -> Response:
    """Give a head the bytes that it announces, if any."""
    if request.method == "HEAD" or response.status_code in _BODILESS:
        return response
    start = response.content_range.start or 0  # of an answer with everything, there is none
    part = file.part(start, response.content_length or 0)
    response.response = wrap_file(request.environ, part, CONTENT_PART)
    response.direct_passthrough = True
    return response


def _file_name(metadata: Artifact) -> str:
    given = metadata.tags.get("filename", "") if isinstance(metadata.tags, dict) else ""
    name = _UNSAFE_IN_NAME.sub("_", str(given)).strip(". ")
    return name or metadata.artifact_id + (guess_extension(metadata.content_type.partition(";")[0]) or ".bin")


def _disposition(name: str) -> str:
    # RFC 6266: a plain name for old readers, and the real one beside it.
    plain = name.encode("ascii", "replace").decode("ascii").replace("?", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def metrics_answer(body: bytes) -> Response:
    """Return measures as text."""
    return Response(body, 200, content_type=METRICS_TYPE, headers={"Cache-Control": "no-store"})


def page_answer(body: bytes, content_type: str, policy: str) -> Response:
    """Return a file of a documentation page; `policy` says what it may load, which is nothing of other servers."""
    return Response(body, 200, content_type=content_type, headers=_page_headers(policy))


def file_answer(request: Request, path: Path, content_type: str) -> Response:
    """Return an installed file of a documentation page, or a 304 when the client has it.

    It is read while it is sent, so that many slow readers take no memory. Raises `Refused` where `If-Match` names
    another one.
    """
    found = path.stat()
    response = Response(None, 200, content_type=content_type, headers=_page_headers(PAGE_POLICY))
    response.content_length = found.st_size
    response.set_etag(f"{found.st_mtime_ns:x}-{found.st_size:x}")
    _kept_to(response.make_conditional(request.environ))
    if request.method != "HEAD" and response.status_code not in _BODILESS:
        response.response = wrap_file(request.environ, path.open("rb"), CONTENT_PART)
        response.direct_passthrough = True
    return response


def _page_headers(policy: str) -> dict[str, str]:
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def ledger_answer(records: Sequence[bytes], next_after: int, *, is_full: bool = False) -> Response:
    """Return a page of stored records; a full one never changes, so that clients may keep it."""
    response = Response(page_of(records, next_after), 200, content_type=JSON_TYPE)
    if is_full:
        response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return response


def ledgers_answer(pages: Mapping[str, LedgerPage]) -> Response:
    """Return pages of several runs, by run id."""
    named = (b"%b:%b" % (jsonvalue.dumps(name), page_of(page.records, page.next_after)) for name, page in pages.items())
    return Response(b'{"runs":{%b}}' % b",".join(named), 200, content_type=JSON_TYPE)


def awaited_answer(parts: Iterable[bytes]) -> Response:
    """Return the head of JSON that comes later."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(parts, 200, content_type=JSON_TYPE, headers=headers)


def stream_answer(frames: Iterable[bytes]) -> Response:
    """Return the head of an event stream; proxies are asked neither to keep nor to gather it."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(frames, 200, content_type=CONTENT_TYPE, headers=headers)


def redirect_answer(location: str) -> Response:
    """Return a 307, which keeps method and body."""
    return Response(b"", 307, headers={"Location": location}, content_type=JSON_TYPE)


class Problem(Response):
    """An error in the one shape that all have, with its code."""

    code = ""


def problem(status: int, code: str, detail: Any, request_id: str) -> Response:
    """Return an error in the one shape that all have."""
    response = Problem(error_body(code, detail, request_id), status, content_type=JSON_TYPE)
    response.code = code
    return response


def denial(deny: Deny, request_id: str) -> Response:
    """Return what the security policy refused."""
    response = problem(deny.status, deny.code, deny.detail, request_id)
    response.headers.extend(deny.headers)
    return response


def gateway_problem(error: GatewayError, request_id: str, clean: Callable[[str], str] = str) -> Response | None:
    """Return the answer to an error that the service raised on purpose, or None when its class is not for clients.

    `clean` takes secrets out of its text.
    """
    of_class = next((status for kind, status in STATUS_OF if isinstance(error, kind)), None)
    status = STATUS_OF_CODE.get(error.code, of_class)
    if status is None:
        return None
    response = problem(status, error.code, clean(error.message), request_id)
    if isinstance(error, Unavailable):
        response.headers["Retry-After"] = str(max(1, ceil(error.retry_after)))
    return response


def error_body(code: str, detail: Any, request_id: str) -> bytes:
    """Return the bytes of an error.

    `detail` may quote what the client sent, lone surrogates included; their backslash form is what JSON calls them too.
    """
    text = json.dumps({"detail": detail, "code": code, "request_id": request_id}, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


def waitress_error(status: int, reason: str, detail: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return status line, headers and body for a request that never reached the app."""
    request_id = new_hex()
    body = error_body(CODE_OF_STATUS.get(status, "bad_request"), detail, request_id)
    return f"{status} {reason}", [("Content-Type", JSON_TYPE), (REQUEST_ID, request_id)], body
