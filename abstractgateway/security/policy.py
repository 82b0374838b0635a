"""The one decision about every HTTP request: its facts in, `Allow` or `Deny` out.

Everything is refused unless a rule lets it through: a path is open only when it is listed in `OPEN_PATHS`, so a route
that is added later is protected before anybody thinks of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..config import GatewayConfig
from .hosts import HostList, is_loopback
from .origins import OriginList
from .tokens import TokenSet

OPEN_PATHS = frozenset(
    {"/api/health", "/livez", "/readyz", "/openapi.json", "/docs", "/docs/page.js", "/docs/page.css", "/redoc"}
)
BUNDLE_UPLOAD = "/api/gateway/bundles/upload"
FORM_BYTES = 2 * 1_048_576
"""What a form may have around the file that it brings."""

_READS = frozenset({"GET", "HEAD"})
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RequestFacts:
    """What the decision needs to know about a request; header values are None when the header is absent."""

    method: str
    path: str
    host: str | None = None
    origin: str | None = None
    authorization: str | bytes | None = None
    content_length: int | None = None
    client: str | None = None


@dataclass(frozen=True)
class Allow:
    """The request may be handled."""


@dataclass(frozen=True)
class Deny:
    """The request is answered with this status and text instead."""

    status: int
    code: str
    detail: str
    headers: Headers = ()


@dataclass(frozen=True)
class SecurityPolicy:
    """Who may call what; built from the settings, without state."""

    enabled: bool
    hosts: HostList
    origins: OriginList
    tokens: TokenSet
    protect_read: bool
    protect_write: bool
    open_reads_on_loopback: bool
    max_body_bytes: int
    upload_limits: tuple[tuple[str, int], ...]

    @staticmethod
    def from_config(config: GatewayConfig, *, bound_host: str | None = None) -> SecurityPolicy:
        """Return the policy that the settings describe for a server bound to `bound_host` (None: unknown)."""
        return SecurityPolicy(
            enabled=config.security,
            hosts=HostList.of(config.allowed_hosts, bound_host=bound_host),
            origins=OriginList.of(config.allowed_origins),
            tokens=TokenSet.of(config.auth_tokens),
            protect_read=config.protect_read,
            protect_write=config.protect_write,
            open_reads_on_loopback=config.dev_read_no_auth,
            max_body_bytes=config.max_body_bytes if config.security else 0,
            upload_limits=((BUNDLE_UPLOAD, config.max_bundle_bytes + FORM_BYTES),) if config.security else (),
        )

    def body_limit(self, path: str) -> int:
        """Return how many bytes the body of a request to this path may have; 0 for no limit."""
        return next((limit for known, limit in self.upload_limits if known == path), self.max_body_bytes)

    def read_limit(self, path: str, authorization: str | bytes | None) -> int:
        """Return how many bytes of a body are worth reading before the request is decided on; 0 for no limit.

        An upload of somebody without a token is refused anyway, and fills no disk until then.
        """
        limit = self.body_limit(path)
        if self.protect_write and 0 < self.max_body_bytes < limit and not self.tokens.admits(authorization):
            return self.max_body_bytes
        return limit

    def decide(self, facts: RequestFacts) -> Allow | Deny:
        """Return the first refusal among host, origin, token and size, else `Allow`."""
        if not self.enabled:
            return Allow()
        return next((denial for check in _CHECKS if (denial := check(self, facts)) is not None), Allow())

    def needs_token(self, facts: RequestFacts) -> bool:
        """Say whether the request must carry a token. `OPTIONS` tells nothing and needs none."""
        if facts.method == "OPTIONS" or facts.path.rstrip("/") in OPEN_PATHS:
            return False
        if facts.method in _READS:
            opened = self.open_reads_on_loopback and is_loopback(facts.client or "")
            return self.protect_read and not opened
        return self.protect_write or facts.method not in _WRITES

    @staticmethod
    def too_large_text(size: int | None, limit: int) -> str:
        """Return what a client is told about a body over the limit; None stands for a size that is not known."""
        found = f"{size} bytes > " if size is not None else "more than "
        return f"Payload Too Large ({found}{limit} bytes)"


def _check_host(policy: SecurityPolicy, facts: RequestFacts) -> Deny | None:
    if policy.hosts.is_allowed(facts.host):
        return None
    detail = f"Forbidden (host {facts.host!r} not allowed; add its name to ABSTRACTGATEWAY_ALLOWED_HOSTS)"
    return Deny(403, "host_not_allowed", detail)


def _check_origin(policy: SecurityPolicy, facts: RequestFacts) -> Deny | None:
    if facts.origin is None or policy.origins.is_allowed(facts.origin):
        return None
    return Deny(403, "origin_not_allowed", "Forbidden (origin not allowed)")


def _check_token(policy: SecurityPolicy, facts: RequestFacts) -> Deny | None:
    if not policy.needs_token(facts):
        return None
    if not policy.tokens:
        return Deny(503, "no_token_configured", "Gateway auth required but no token configured")
    if policy.tokens.admits(facts.authorization):
        return None
    return Deny(401, "unauthorized", "Unauthorized", (("WWW-Authenticate", "Bearer"),))


def _check_size(policy: SecurityPolicy, facts: RequestFacts) -> Deny | None:
    size, limit = facts.content_length, policy.body_limit(facts.path)
    if size is None or not limit or facts.method not in _WRITES or size <= limit:
        return None
    return Deny(413, "payload_too_large", policy.too_large_text(size, limit))


# The order is part of the contract: a foreign page learns nothing, a client without a token nothing about limits.
_CHECKS: tuple[Callable[[SecurityPolicy, RequestFacts], Deny | None], ...] = (
    _check_host,
    _check_origin,
    _check_token,
    _check_size,
)
