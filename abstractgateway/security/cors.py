"""What a browser may do with our answers: headers for allowed origins, none for others."""

from __future__ import annotations

import re

from .decision import Headers
from .policy import SecurityPolicy

_VARY: Headers = (("Vary", "Origin"),)
_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_READABLE = "Accept-Ranges, Content-Disposition, Content-Range, ETag, Location, Retry-After, X-Request-Id"
_DEFAULT_HEADERS = "Authorization, Content-Type, Last-Event-ID, X-Request-Id"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
_PREFLIGHT_SECONDS = "600"


def cors_headers(policy: SecurityPolicy, origin: str | None) -> Headers:
    """Return the headers that let a page of `origin` read an answer, refusals included.

    Only an allowed origin is reflected, never `*`. Credentials are offered to origins that are listed by name or
    pattern, not to those that only `*` admits.
    """
    if origin is None or (policy.enabled and not policy.origins.is_allowed(origin)):
        return _VARY
    headers = (*_VARY, ("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", _READABLE))
    if policy.origins.is_listed(origin):
        return (*headers, ("Access-Control-Allow-Credentials", "true"))
    return headers


def preflight_headers(requested: str | None) -> Headers:
    """Return what a preflight answer adds to `cors_headers`; `requested` is `Access-Control-Request-Headers`."""
    named = requested if requested and _HEADER_NAMES.fullmatch(requested.strip()) else _DEFAULT_HEADERS
    return (
        ("Access-Control-Allow-Methods", _METHODS),
        ("Access-Control-Allow-Headers", named.strip()),
        ("Access-Control-Max-Age", _PREFLIGHT_SECONDS),
    )
