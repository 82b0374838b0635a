"""The WSGI app: decide, find the route, read its inputs, call its handler, and shape whatever went wrong.

It runs on any WSGI server. Where the server puts a `StreamDoor` into the environ, streams leave their worker thread.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from abstractgateway.clock import Clock, SystemClock
from abstractgateway.errors import GatewayError
from abstractgateway.ids import new_hex
from abstractgateway.security import (
    Deny,
    Guard,
    Proxies,
    Redactor,
    RequestFacts,
    SecurityPolicy,
    Shares,
    Tally,
    client_key,
    cors_headers,
    preflight_headers,
    scope_denial,
    too_many,
)

from .access_log import note_request
from .audit_trail import AuditTrail
from .awaiting import Aside
from .blocking import BlockingStreams
from .client_limits import CountedStream
from .fields import ValidationFailed, read_body, read_form, read_headers, read_query
from .forms import FormRequest
from .measures import NO_ROUTE, RequestMeasures, lockout_families
from .refusal import Refused
from .render import REQUEST_ID, Problem, denial, gateway_problem, problem, redirect_answer, send
from .route import Call, Route
from .route_tree import RouteTree
from .routes import ROUTES
from .sessions import rule_of
from .stream import DOOR_KEY, StreamRequest
from .visit import Visit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger("abstractgateway.http")
_STREAM_SUFFIX = "/ledger/stream"
_MANY = 2**31

# What says nothing about keeping it is not kept, and nothing is taken for what it does not say that it is.
_ALWAYS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
# Two of a server's threads are kept free of streams that cannot leave them.
_THREADS_KEPT_FREE = 2
# Where the route of a request is noted in its environ once it is found.
_ROUTE_KEY = "abstractgateway.route"
_SANE_REQUEST_ID = re.compile(r"[!-~]{1,128}")


class GatewayApp:
    """A WSGI callable over a gateway service; `close` ends streams that hold a worker thread."""

    def __init__(self, gateway: Any, *, bound_host: str | None = None, clock: Clock | None = None) -> None:
        config = gateway.config
        self._gateway = gateway
        self._clock = clock or SystemClock()
        self._guard = Guard(config, self._clock, gateway.access.tokens.current, bound_host=bound_host)
        self._proxies = Proxies.of(config.trusted_proxies, trusts_any=config.trust_proxy)
        self._shares = Shares(
            config.max_concurrency if config.security else _MANY,
            config.max_client_concurrency if config.security else 0,
        )
        self._streams = Tally(config.max_client_sse if config.security else 0)
        self._clean = Redactor.of(config).answer
        self._audit = AuditTrail(gateway.access.audit, self._clock)
        self._routes = RouteTree(ROUTES)
        self._blocking = BlockingStreams(gateway, config.http_threads - _THREADS_KEPT_FREE)
        self.aside = Aside()
        self._measures = RequestMeasures()
        gateway.metrics.add("requests", self._measures.families)
        gateway.metrics.add("lockouts", lambda: lockout_families(self._guard.lockout.locked()))
        gateway.metrics.add("streams", self._blocking.families)
        gateway.metrics.add("audit", gateway.access.audit.families)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun = time.perf_counter()
        request = FormRequest(environ, populate_request=False)
        visit = Visit(request, _request_id(environ.get("HTTP_X_REQUEST_ID")), began=self._clock.monotonic())
        response = self._answer(visit)
        for name, value in _ALWAYS:
            response.headers.setdefault(name, value)
        response.headers.extend(cors_headers(self._guard.policy, environ.get("HTTP_ORIGIN")))
        response.headers[REQUEST_ID] = visit.request_id
        code = response.code if isinstance(response, Problem) else None
        route = environ.get(_ROUTE_KEY, NO_ROUTE)
        self._audit.tell(visit, response.status_code, code)
        note_request(visit, response, begun)
        self._measures.note(route, response.status_code, time.perf_counter() - begun, code)
        return send(response, environ, start_response)

    def read_limit(self, path: str, authorization: str | None) -> int:
        """Return how many bytes of a body a server should read before it calls the app; 0 for no limit."""
        return self._guard.policy.read_limit(path, authorization)

    def close(self) -> None:
        """End the streams that hold a worker thread; called by a server that stops."""
        self._blocking.stop()

    def _answer(self, visit: Visit) -> Response:
        try:
            self._admit(visit)
            return self._dispatch(visit) if visit.is_stream else self._in_turn(visit)
        except Refused as refused:
            return denial(refused.deny, visit.request_id)
        except ValidationFailed as failure:
            return problem(422, failure.code, failure.problems, visit.request_id)
        except GatewayError as error:
            return gateway_problem(error, visit.request_id, self._clean) or _failure(visit)
        except Exception:
            # The boundary of the process: a client is told an id, the log is told the reason.
            return _failure(visit)

    def _admit(self, visit: Visit) -> None:
        """Let the policy decide. Raises `Refused`."""
        facts = self._facts(visit.request)
        visit.client = facts.client or ""
        policy = self._guard.policy
        visit.needs_token = policy.enabled and policy.needs_token(facts)
        decision = self._guard.decide(facts)
        if isinstance(decision, Deny):
            raise Refused.of(decision)
        visit.caller = decision.caller
        visit.is_stream = facts.path.endswith(_STREAM_SUFFIX)
        self._audit.check(visit)

    def _in_turn(self, visit: Visit) -> Response:
        """Dispatch as soon as a place is free. Raises `Refused` when none is."""
        client = client_key(visit.client)
        busy = self._shares.take(client)
        if busy is not None:
            raise Refused.of(busy)
        try:
            return self._dispatch(visit)
        finally:
            self._shares.give(client)

    def _facts(self, request: Request) -> RequestFacts:
        environ = request.environ
        peer, forwarded = environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR")
        return RequestFacts(
            method=request.method,
            path=request.path,
            host=environ.get("HTTP_HOST"),
            origin=environ.get("HTTP_ORIGIN"),
            authorization=environ.get("HTTP_AUTHORIZATION"),
            content_length=request.content_length,
            client=self._proxies.client(peer, forwarded) if forwarded else peer,
            is_relayed=forwarded is not None and not self._proxies.trusts(peer),
            url_bytes=len(environ.get("PATH_INFO", "")) + len(environ.get("QUERY_STRING", "")),
            now=self._clock.now().timestamp(),
        )

    def _dispatch(self, visit: Visit) -> Response:
        request = visit.request
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _preflight(request)
        found = self._routes.find(request.method, request.path)
        if found is None:
            return self._without_slash(request) or self._nowhere(request)
        route, path = found
        request.environ[_ROUTE_KEY] = f"{route.method} {route.path}"
        lacking = scope_denial(visit.caller, route.needed_scope) if route.needs_token else None
        if lacking is not None:
            raise Refused.of(lacking)
        try:
            call = self._call(visit, route, path)
            visit.note(route.audited, call)
            return route.handler(call)
        finally:
            request.close()

    def _without_slash(self, request: Request) -> Response | None:
        stripped = request.path.rstrip("/")
        if stripped == request.path or not self._routes.methods(stripped):
            return None
        query = request.query_string.decode("latin-1")
        return redirect_answer(quote(stripped, safe="/:@") + (f"?{query}" if query else ""))

    def _nowhere(self, request: Request) -> NoReturn:
        methods = self._routes.methods(request.path)
        if methods:
            allowed = ", ".join(sorted(methods))
            raise Refused(405, "method_not_allowed", "Method Not Allowed", (("Allow", allowed),))
        raise Refused(404, "route_not_found", "Not Found")

    def _call(self, visit: Visit, route: Route, path: Mapping[str, str]) -> Call:
        request, session_id = visit.request, visit.caller.session_id
        call = Call(
            gateway=self._gateway,
            path=path,
            query=read_query(route.query, _query_values(request)) if route.query else {},
            body=self._body(request, route) if route.body is not None else {},
            headers=read_headers(route.headers, _header_values(request, route)) if route.headers else {},
            open_stream=partial(self._open, visit),
            request=request,
            aside=self.aside,
            caller=visit.caller,
        )
        return call if session_id is None else rule_of(route)(call, session_id)

    def _body(self, request: Request, route: Route) -> Mapping[str, Any]:
        fields = route.body or ()
        request.max_content_length = self._guard.policy.body_limit(request.path) or None
        try:
            if route.is_form:
                return read_form(fields, _form_values(request))
            raw = self._json_bytes(request, may_lack=route.may_lack_body)
            return read_body(fields, raw or b"{}") if route.may_lack_body else read_body(fields, raw)
        except RequestEntityTooLarge as refusal:
            # A body without a declared length was cut off while it was read.
            limit = self._guard.policy.body_limit(request.path)
            raise Refused(413, "payload_too_large", SecurityPolicy.too_large_text(None, limit)) from refusal

    def _json_bytes(self, request: Request, *, may_lack: bool) -> bytes:
        given = request.headers.get("Content-Type")
        if not request.is_json and not (may_lack and given is None and not request.content_length):
            detail = f"a JSON body needs the header 'Content-Type: application/json', not {given!r}"
            raise Refused(415, "unsupported_media_type", detail)
        return request.get_data(cache=False)

    def _open(self, visit: Visit, wanted: StreamRequest) -> Iterable[bytes]:
        # Iterators: of a list, Werkzeug would send the length, and the response would end there.
        if visit.request.method == "HEAD":
            return iter(())
        client = client_key(visit.client)
        if not self._streams.add(client):
            raise Refused.of(too_many("client_busy", "streams of one client", 2))
        left = partial(self._streams.drop, client)
        try:
            return self._opened(visit.request, wanted, left)
        except GatewayError:
            left()
            raise

    def _opened(self, request: Request, wanted: StreamRequest, left: Callable[[], None]) -> Iterable[bytes]:
        door = request.environ.get(DOOR_KEY)
        if door is None:
            is_gone = request.environ.get("waitress.client_disconnected", _never)
            return CountedStream(self._blocking.open(wanted, is_gone), left)
        door.admit(wanted, left)
        return iter((wanted.framing.opening,))


def create_app(gateway: Any, *, bound_host: str | None = None, clock: Clock | None = None) -> GatewayApp:
    """Return the WSGI app of a gateway service.

    `bound_host` is the address the server listens on; requests that name another `Host` than it, loopback or the
    configured ones are refused. `clock` is for tests.
    """
    return GatewayApp(gateway, bound_host=bound_host, clock=clock)


def _request_id(given: str | None) -> str:
    return given if given and _SANE_REQUEST_ID.fullmatch(given) else new_hex()


def _last_values(values: MultiDict[str, Any]) -> dict[str, Any]:
    return {name: found[-1] for name, found in values.lists()}


def _query_values(request: Request) -> dict[str, Any]:
    try:
        return _last_values(request.args)
    except UnicodeDecodeError as error:  # raw bytes, which no client that knows HTTP sends
        message = "Input should be percent-encoded UTF-8"
        problem = {"type": "string_unicode", "loc": ["query"], "msg": message, "input": None}
        raise ValidationFailed([problem]) from error


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


def _failure(visit: Visit) -> Response:
    log.exception("request %s failed: %s %r", visit.request_id, visit.request.method, visit.request.path)
    detail = f"internal error; the server's log has the reason under request id {visit.request_id!r}"
    return problem(500, "internal_error", detail, visit.request_id)


def _never() -> bool:
    return False
