"""Answers as values: JSON, joined ledger records, streams and errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

from werkzeug.wrappers import Response

from abstractgateway import jsonvalue
from abstractgateway.errors import GatewayError, Unavailable
from abstractgateway.ids import new_hex
from abstractgateway.security import Deny

from .error_codes import CODE_OF_STATUS, STATUS_OF
from .frames import CONTENT_TYPE

JSON_TYPE = "application/json"
REQUEST_ID = "X-Request-Id"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def json_answer(payload: Any) -> Response:
    """Return a 200 with the JSON of a value."""
    return json_bytes_answer(jsonvalue.dumps(payload, field="response"))


def json_bytes_answer(body: bytes) -> Response:
    """Return a 200 with JSON that is encoded already."""
    return Response(body, 200, content_type=JSON_TYPE)


def page_answer(body: bytes, content_type: str) -> Response:
    """Return a file of the documentation page, which may load nothing but files of this server."""
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _PAGE_POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(body, 200, content_type=content_type, headers=headers)


def ledger_answer(records: Sequence[bytes], next_after: int) -> Response:
    """Return a page of stored records; their bytes are joined, never decoded."""
    body = b'{"items":[%b],"next_after":%d}' % (b",".join(records), next_after)
    return Response(body, 200, content_type=JSON_TYPE)


def stream_answer(frames: Iterable[bytes]) -> Response:
    """Return the head of an event stream; proxies are asked neither to keep nor to gather it."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(frames, 200, content_type=CONTENT_TYPE, headers=headers)


def redirect_answer(location: str) -> Response:
    """Return a 307, which keeps method and body."""
    return Response(b"", 307, headers={"Location": location}, content_type=JSON_TYPE)


def problem(status: int, code: str, detail: Any, request_id: str) -> Response:
    """Return an error in the one shape that all have."""
    return Response(error_body(code, detail, request_id), status, content_type=JSON_TYPE)


def denial(deny: Deny, request_id: str) -> Response:
    """Return what the security policy refused."""
    response = problem(deny.status, deny.code, deny.detail, request_id)
    response.headers.extend(deny.headers)
    return response


def gateway_problem(error: GatewayError, request_id: str) -> Response | None:
    """Return the answer to an error that the service raised on purpose, or None when its class is not for clients."""
    status = next((status for kind, status in STATUS_OF if isinstance(error, kind)), None)
    if status is None:
        return None
    response = problem(status, error.code, error.message, request_id)
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
