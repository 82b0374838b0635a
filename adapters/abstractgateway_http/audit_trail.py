"""What the audit log is told about a request: every one that may change something, and every refused read."""

from __future__ import annotations

from typing import Any

from abstractgateway.clock import Clock, to_iso
from abstractgateway.security import WRITES, fingerprint
from abstractgateway.security.audit import copied_headers, query_names, shortened

from .refusal import Refused
from .visit import Visit

_REFUSED_READS = frozenset({401, 403})


class AuditTrail:
    """Writes requests into an audit log; without a log it does nothing."""

    def __init__(self, log: Any, clock: Clock) -> None:
        self._log = log
        self._clock = clock

    def check(self, visit: Visit) -> None:
        """Raise `Refused` for a request that may change something while the log must be written and cannot be."""
        problem = self._log.problem() if visit.request.method in WRITES else None
        if problem is not None:
            detail = f"the audit log cannot be written ({problem}); nothing is changed without it"
            raise Refused(503, "audit_unavailable", detail, (("Retry-After", "1"),))

    def tell(self, visit: Visit, status: int, code: str | None) -> None:
        """Note a request, its status and the code of its refusal, where the log is about such requests."""
        if self._log.is_on and (visit.request.method in WRITES or status in _REFUSED_READS):
            self._log.note(self._entry(visit, status, code))

    def _entry(self, visit: Visit, status: int, code: str | None) -> dict[str, Any]:
        request = visit.request
        authorization, agent = request.headers.get("Authorization"), request.headers.get("User-Agent")
        about = {**visit.asked, **visit.made}
        optional = {
            "auth_token_fp": fingerprint(authorization),
            "caller": visit.caller.name or None,
            "caller_session": visit.caller.session_id,
            "origin": request.headers.get("Origin"),
            "user_agent": shortened(agent) if agent else None,
            "bytes_in": request.content_length,
            "headers": copied_headers(self._log.headers, request.headers.get) or None,
            "about": {name: shortened(str(value)) for name, value in about.items()} or None,
            "error": code,
        }
        return {
            "ts": to_iso(self._clock.now()),
            "request_id": visit.request_id,
            "ip": visit.client,
            "method": request.method,
            "path": shortened(request.path),
            "query": query_names(request.query_string.decode("latin-1")),
            "status": status,
            "duration_ms": int((self._clock.monotonic() - visit.began) * 1000),
            "auth_required": visit.needs_token,
            **{name: value for name, value in optional.items() if value is not None},
        }
