"""The WSGI app: decide, find the route, read its inputs, call its handler, and shape whatever went wrong.

It runs on any WSGI server. Where the server puts a `StreamDoor` into the environ, streams leave their worker thread.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import MethodNotAllowed, NotFound, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from abstractgateway.errors import GatewayError
from abstractgateway.ids import new_hex
from abstractgateway.security import Deny, RequestFacts, SecurityPolicy, cors_headers, preflight_headers

from .blocking import BlockingStreams
from .fields import ValidationFailed, read_body, read_form, read_headers, read_query
from .refusal import Refused
from .render import REQUEST_ID, denial, gateway_problem, problem, redirect_answer
from .route import Call, Route, RouteTable
from .routes import ROUTES
from .stream import DOOR_KEY, StreamRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger("abstractgateway.http")

# Two of a server's threads are kept free of streams that cannot leave them.
_THREADS_KEPT_FREE = 2
_SANE_REQUEST_ID = re.compile(r"[!-~]{1,128}")


class GatewayApp:
    """A WSGI callable over a gateway service; `close` ends streams that hold a worker thread."""

    def __init__(self, gateway: Any, *, bound_host: str | None = None) -> None:
        self._gateway = gateway
        self._policy = SecurityPolicy.from_config(gateway.config, bound_host=bound_host)
        self._table = RouteTable(ROUTES)
        self._blocking = BlockingStreams(gateway, gateway.config.http_threads - _THREADS_KEPT_FREE)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ, populate_request=False)
        request_id = _request_id(request.headers.get(REQUEST_ID))
        response = self._answer(request, request_id)
        response.headers.extend(cors_headers(self._policy, request.headers.get("Origin")))
        response.headers[REQUEST_ID] = request_id
        return response(environ, start_response)

    def read_limit(self, path: str, authorization: str | None) -> int:
        """Return how many bytes of a body a server should read before it calls the app; 0 for no limit."""
        return self._policy.read_limit(path, authorization)

    def close(self) -> None:
        """End the streams that hold a worker thread; called by a server that stops."""
        self._blocking.stop()

    def _answer(self, request: Request, request_id: str) -> Response:
        try:
            decision = self._policy.decide(_facts(request))
            return denial(decision, request_id) if isinstance(decision, Deny) else self._dispatch(request)
        except Refused as refused:
            return denial(refused.deny, request_id)
        except ValidationFailed as failure:
            return problem(422, failure.code, failure.problems, request_id)
        except GatewayError as error:
            return gateway_problem(error, request_id) or _failure(request, request_id)
        except Exception:
            # The boundary of the process: a client is told an id, the log is told the reason.
            return _failure(request, request_id)

    def _dispatch(self, request: Request) -> Response:
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _preflight(request)
        try:
            route, path = self._table.find(request.method, request.path)
        except MethodNotAllowed as refusal:
            allowed = ", ".join(sorted(refusal.valid_methods or ()))
            raise Refused(405, "method_not_allowed", "Method Not Allowed", (("Allow", allowed),)) from refusal
        except NotFound as refusal:
            return self._without_slash(request) or _nowhere(refusal)
        try:
            return route.handler(self._call(request, route, path))
        finally:
            request.close()

    def _without_slash(self, request: Request) -> Response | None:
        stripped = request.path.rstrip("/")
        if stripped == request.path or not self._table.has_path(stripped):
            return None
        query = request.query_string.decode("latin-1")
        return redirect_answer(quote(stripped, safe="/:@") + (f"?{query}" if query else ""))

    def _call(self, request: Request, route: Route, path: Mapping[str, str]) -> Call:
        return Call(
            gateway=self._gateway,
            path=path,
            query=read_query(route.query, _last_values(request.args)) if route.query else {},
            body=self._body(request, route) if route.body is not None else {},
            headers=read_headers(route.headers, _header_values(request, route)) if route.headers else {},
            open_stream=partial(self._open, request),
            request=request,
        )

    def _body(self, request: Request, route: Route) -> Mapping[str, Any]:
        fields = route.body or ()
        request.max_content_length = self._policy.body_limit(request.path) or None
        try:
            if route.is_form:
                return read_form(fields, _form_values(request))
            raw = self._json_bytes(request, may_lack=route.may_lack_body)
            return read_body(fields, raw or b"{}") if route.may_lack_body else read_body(fields, raw)
        except RequestEntityTooLarge as refusal:
            # A body without a declared length was cut off while it was read.
            limit = self._policy.body_limit(request.path)
            raise Refused(413, "payload_too_large", self._policy.too_large_text(None, limit)) from refusal

    def _json_bytes(self, request: Request, *, may_lack: bool) -> bytes:
        given = request.headers.get("Content-Type")
        if not request.is_json and not (may_lack and given is None and not request.content_length):
            detail = f"a JSON body needs the header 'Content-Type: application/json', not {given!r}"
            raise Refused(415, "unsupported_media_type", detail)
        return request.get_data(cache=False)

    def _open(self, request: Request, wanted: StreamRequest) -> Iterable[bytes]:
        # Iterators: of a list, Werkzeug would send the length, and the response would end there.
        if request.method == "HEAD":
            return iter(())
        door = request.environ.get(DOOR_KEY)
        if door is None:
            return self._blocking.open(wanted, request.environ.get("waitress.client_disconnected", _never))
        door.admit(wanted)
        return iter((wanted.framing.opening,))


def create_app(gateway: Any, *, bound_host: str | None = None) -> GatewayApp:
    """Return the WSGI app of a gateway service.

    `bound_host` is the address the server listens on; requests that name another `Host` than it, loopback or the
    configured ones are refused.
    """
    return GatewayApp(gateway, bound_host=bound_host)


def _facts(request: Request) -> RequestFacts:
    headers = request.headers
    return RequestFacts(
        method=request.method,
        path=request.path,
        host=headers.get("Host"),
        origin=headers.get("Origin"),
        authorization=headers.get("Authorization"),
        content_length=request.content_length,
        client=request.remote_addr,
    )


def _request_id(given: str | None) -> str:
    return given if given and _SANE_REQUEST_ID.fullmatch(given) else new_hex()


def _last_values(values: MultiDict[str, Any]) -> dict[str, Any]:
    return {name: found[-1] for name, found in values.lists()}


def _header_values(request: Request, route: Route) -> dict[str, str]:
    found = {field.name: request.headers.get(field.name) for field in route.headers}
    return {name: value for name, value in found.items() if value is not None}


def _form_values(request: Request) -> dict[str, Any]:
    if request.mimetype != "multipart/form-data":
        given = request.headers.get("Content-Type")
        detail = f"a form with files needs the header 'Content-Type: multipart/form-data', not {given!r}"
        raise Refused(415, "unsupported_media_type", detail)
    return {**_last_values(request.form), **_last_values(request.files)}


def _preflight(request: Request) -> Response:
    response = Response(b"", 200)
    response.headers.extend(preflight_headers(request.headers.get("Access-Control-Request-Headers")))
    return response


def _nowhere(refusal: NotFound) -> NoReturn:
    raise Refused(404, "route_not_found", "Not Found") from refusal


def _failure(request: Request, request_id: str) -> Response:
    log.exception("request %s failed: %s %r", request_id, request.method, request.path)
    detail = f"internal error; the server's log has the reason under request id {request_id!r}"
    return problem(500, "internal_error", detail, request_id)


def _never() -> bool:
    return False
