"""The one decision about every HTTP request: its facts in, `Allow` or `Deny` out.

Everything is refused unless a rule lets it through: a path is open only when it is listed in `OPEN_PATHS`, so a route
that is added later is protected before anybody thinks of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ..config import GatewayConfig
from .decision import Allow, Deny, too_many
from .hosts import HostList, is_loopback
from .origins import OriginList
from .scopes import ANYONE, Caller, Scope
from .tokens import NamedToken, TokenSet

OPEN_PATHS = frozenset(
    {
        *("/api/health", "/livez", "/readyz", "/openapi.json"),
        *("/docs", "/redoc", "/docs/plain", "/docs/page.js", "/docs/page.css"),
        *("/docs/swagger.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon-32x32.png"),
    }
)
METRICS = "/metrics"
BUNDLE_UPLOAD = "/api/gateway/bundles/upload"
ATTACHMENT_UPLOAD = "/api/gateway/attachments/upload"
FORM_BYTES = 2 * 1_048_576
"""What a form may have around the file that it brings."""

READS = frozenset({"GET", "HEAD"})
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True)
class RequestFacts:
    """What the decision needs to know about a request; header values are None when the header is absent.

    `client` is the address of the client, as far as it is known, and `is_relayed` says that a proxy nobody trusts
    claims to speak for another one. `url_bytes` is the length of path and query, `now` the time in seconds since the
    epoch, and `locked_s` for how long the client is locked out.
    """

    method: str
    path: str
    host: str | None = None
    origin: str | None = None
    authorization: str | bytes | None = None
    content_length: int | None = None
    client: str | None = None
    is_relayed: bool = False
    url_bytes: int = 0
    now: float = 0.0
    locked_s: float = 0.0


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
    max_url_bytes: int = 0
    open_metrics: bool = False

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
            upload_limits=_upload_limits(config) if config.security else (),
            max_url_bytes=config.max_url_bytes if config.security else 0,
            open_metrics=config.open_metrics,
        )

    def with_named(self, config: GatewayConfig, named: Iterable[NamedToken]) -> SecurityPolicy:
        """Return the policy that accepts these named tokens beside the plain ones of the settings."""
        return replace(self, tokens=TokenSet.of(config.auth_tokens, named))

    def body_limit(self, path: str) -> int:
        """Return how many bytes the body of a request to this path may have; 0 for no limit."""
        return next((limit for known, limit in self.upload_limits if known == path), self.max_body_bytes)

    def read_limit(self, path: str, authorization: str | bytes | None) -> int:
        """Return how many bytes of a body are worth reading before the request is decided on; 0 for no limit.

        An upload of somebody without a token is refused anyway, and fills no disk until then.
        """
        limit = self.body_limit(path)
        if self.protect_write and 0 < self.max_body_bytes < limit and self.tokens.caller(authorization, 0.0) is None:
            return self.max_body_bytes
        return limit

    def decide(self, facts: RequestFacts) -> Allow | Deny:
        """Return the first refusal among host, origin, token, lockout and size, else `Allow` with the caller."""
        if not self.enabled:
            return Allow()
        caller = self.tokens.caller(facts.authorization, facts.now)
        for check in _CHECKS:
            denial = check(self, facts, caller)
            if denial is not None:
                return denial
        return Allow(caller or ANYONE)

    def needs_token(self, facts: RequestFacts) -> bool:
        """Say whether the request must carry a token. `OPTIONS` tells nothing and needs none."""
        if facts.method == "OPTIONS" or facts.path.rstrip("/") in OPEN_PATHS:
            return False
        if facts.method in READS:
            if self.open_metrics and facts.path.rstrip("/") == METRICS:
                return False
            opened = self.open_reads_on_loopback and not facts.is_relayed and is_loopback(facts.client or "")
            return self.protect_read and not opened
        return self.protect_write or facts.method not in WRITES

    @staticmethod
    def too_large_text(size: int | None, limit: int) -> str:
        """Return what a client is told about a body over the limit; None stands for a size that is not known."""
        found = f"{size} bytes > " if size is not None else "more than "
        return f"Payload Too Large ({found}{limit} bytes)"


def _upload_limits(config: GatewayConfig) -> tuple[tuple[str, int], ...]:
    """Return the routes that take larger bodies, and how many bytes they take."""
    files = ((BUNDLE_UPLOAD, config.max_bundle_bytes), (ATTACHMENT_UPLOAD, config.max_attachment_bytes))
    bound = config.max_upload_body_bytes or math.inf
    return tuple((path, int(min(most + FORM_BYTES, bound))) for path, most in files)


def locked_out(seconds: float) -> Deny:
    """Return the refusal of a client that sent wrong tokens and has to wait."""
    return too_many("locked_out", "auth lockout", math.ceil(seconds))


def scope_denial(caller: Caller, scope: Scope) -> Deny | None:
    """Return the refusal of a caller whose token lacks a scope, as RFC 6750 words it."""
    if caller.may(scope):
        return None
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    detail = f"Forbidden (this token lacks the scope {scope!r})"
    return Deny(403, "scope_missing", detail, (("WWW-Authenticate", challenge),))


def _check_host(policy: SecurityPolicy, facts: RequestFacts, caller: Caller | None) -> Deny | None:
    if policy.hosts.is_allowed(facts.host):
        return None
    detail = f"Forbidden (host {facts.host!r} not allowed; add its name to ABSTRACTGATEWAY_ALLOWED_HOSTS)"
    return Deny(403, "host_not_allowed", detail)


def _check_origin(policy: SecurityPolicy, facts: RequestFacts, caller: Caller | None) -> Deny | None:
    if facts.origin is None or policy.origins.is_allowed(facts.origin):
        return None
    return Deny(403, "origin_not_allowed", "Forbidden (origin not allowed)")


def _check_token(policy: SecurityPolicy, facts: RequestFacts, caller: Caller | None) -> Deny | None:
    if not policy.needs_token(facts):
        return None
    if not policy.tokens:
        return Deny(503, "no_token_configured", "Gateway auth required but no token configured")
    if caller is not None:
        return None
    if facts.locked_s > 0:
        return locked_out(facts.locked_s)
    return Deny(401, "unauthorized", "Unauthorized", (("WWW-Authenticate", "Bearer"),))


def _check_url(policy: SecurityPolicy, facts: RequestFacts, caller: Caller | None) -> Deny | None:
    if not policy.max_url_bytes or facts.url_bytes <= policy.max_url_bytes:
        return None
    detail = f"URI Too Long ({facts.url_bytes} bytes > {policy.max_url_bytes} bytes)"
    return Deny(414, "url_too_long", detail)


def _check_size(policy: SecurityPolicy, facts: RequestFacts, caller: Caller | None) -> Deny | None:
    size, limit = facts.content_length, policy.body_limit(facts.path)
    if size is None or not limit or facts.method not in WRITES or size <= limit:
        return None
    return Deny(413, "payload_too_large", policy.too_large_text(size, limit))


# The order is part of the contract: a foreign page learns nothing, a client without a token nothing about limits.
_CHECKS: tuple[Callable[[SecurityPolicy, RequestFacts, Caller | None], Deny | None], ...] = (
    _check_host,
    _check_origin,
    _check_token,
    _check_url,
    _check_size,
)
