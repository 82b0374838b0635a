"""What a server must not start with, and what it should warn about: a table of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..config import GatewayConfig
from .clients import Proxies
from .hosts import is_loopback
from .origins import ANY
from .tokens import is_weak

MAKE_A_TOKEN = (
    "make one and start again: "
    "export ABSTRACTGATEWAY_AUTH_TOKEN=\"$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')\""
)
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class StartupProblems(NamedTuple):
    """Sentences for the operator: with any refusal the server must not start."""

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Facts:
    secured: bool
    exposed: bool
    has_token: bool
    has_weak_token: bool
    reads_protected: bool
    writes_protected: bool
    has_public_origins: bool
    trusts_any_proxy: bool
    has_idle_limit: bool


@dataclass(frozen=True)
class _Rule:
    refuses: bool
    applies: Callable[[_Facts], bool]
    text: str


def startup_problems(config: GatewayConfig, host: str, *, has_named_tokens: bool = False) -> StartupProblems:
    """Return why a server with these settings should not listen on `host`, and what deserves a warning."""
    facts = _facts(config, host, has_named_tokens)
    found = [rule for rule in _RULES if rule.applies(facts)]
    return StartupProblems(
        refusals=tuple(rule.text for rule in found if rule.refuses),
        warnings=tuple(rule.text for rule in found if not rule.refuses),
    )


def is_public_origin(pattern: str) -> bool:
    """Say whether an origin pattern admits pages from anywhere on the internet."""
    if ANY not in pattern:
        return False
    return "ngrok" in pattern or not any(name in pattern for name in _LOCAL_NAMES)


def _facts(config: GatewayConfig, host: str, has_named_tokens: bool) -> _Facts:
    return _Facts(
        secured=config.security,
        exposed=not is_loopback(host),
        has_token=has_named_tokens or any(config.auth_tokens),
        has_weak_token=any(is_weak(token) for token in config.auth_tokens),
        reads_protected=config.protect_read,
        writes_protected=config.protect_write,
        has_public_origins=any(is_public_origin(pattern) for pattern in config.allowed_origins),
        trusts_any_proxy=Proxies.of(config.trusted_proxies, trusts_any=config.trust_proxy).trusts_any,
        has_idle_limit=_has_idle_limit(config),
    )


def _has_idle_limit(config: GatewayConfig) -> bool:
    """Say whether somebody set a limit of requests at once that so many threads never reach."""
    is_set = config.max_concurrency != GatewayConfig.max_concurrency
    return (is_set and config.max_concurrency > config.http_threads) or (
        config.max_client_concurrency > config.http_threads
    )


_RULES = (
    _Rule(
        True,
        lambda facts: facts.secured and facts.writes_protected and not facts.has_token,
        f"Missing gateway auth token. Writes are protected and no client could make one; {MAKE_A_TOKEN}",
    ),
    _Rule(
        True,
        lambda facts: facts.secured and facts.exposed and facts.has_weak_token,
        "Refusing to start: weak auth token detected while binding to a non-loopback host. "
        f"A token needs 15 characters that nobody can guess; {MAKE_A_TOKEN}",
    ),
    _Rule(
        True,
        lambda facts: facts.secured and facts.exposed and facts.has_weak_token and facts.has_public_origins,
        "Refusing to start: weak auth token detected while using public wildcard origins. "
        f"Name the origins in ABSTRACTGATEWAY_ALLOWED_ORIGINS, or {MAKE_A_TOKEN}",
    ),
    _Rule(
        False,
        lambda facts: facts.secured and facts.reads_protected and not facts.writes_protected and not facts.has_token,
        f"Reads are protected and no token is configured: every read will be answered with 503; {MAKE_A_TOKEN}",
    ),
    _Rule(
        False,
        lambda facts: facts.exposed,
        "Listening on a non-loopback address: everybody who reaches it may try tokens, and tokens travel in clear "
        "text; put a TLS proxy in front, or use --host 127.0.0.1.",
    ),
    _Rule(
        False,
        lambda facts: facts.secured and facts.has_public_origins,
        "ABSTRACTGATEWAY_ALLOWED_ORIGINS admits pages from anywhere: a page that gets hold of a token can use it from "
        "any browser; name the origins you use.",
    ),
    _Rule(
        False,
        lambda facts: facts.secured and facts.trusts_any_proxy,
        "ABSTRACTGATEWAY_TRUST_PROXY=1 believes whoever connects about who the client is; name the proxies in "
        "ABSTRACTGATEWAY_TRUSTED_PROXIES instead.",
    ),
    _Rule(
        False,
        lambda facts: facts.secured and facts.has_idle_limit,
        "ABSTRACTGATEWAY_MAX_CONCURRENCY or ABSTRACTGATEWAY_MAX_CLIENT_CONCURRENCY is above "
        "ABSTRACTGATEWAY_HTTP_THREADS and limits nothing: no more requests are worked on at once than there are "
        "threads; raise the threads, or lower the limit.",
    ),
    _Rule(
        False,
        lambda facts: not facts.secured,
        "ABSTRACTGATEWAY_SECURITY=0: no token, origin, host or size is checked; use this on closed test systems only.",
    ),
)
