from __future__ import annotations

import pytest

from abstractgateway.config import GatewayConfig
from abstractgateway.security import startup_problems
from abstractgateway.security.startup import is_public_origin

STRONG = "a-token-that-is-long-enough"
PUBLIC = ("https://*.example.com",)


def starts(host: str = "127.0.0.1", **settings):
    refusals, warnings = startup_problems(GatewayConfig(**{"auth_tokens": (STRONG,), **settings}), host)
    return [text.split(". ")[0] for text in refusals], len(warnings)


def test_a_strong_token_on_loopback_starts_without_a_word():
    assert starts() == ([], 0)


def test_a_missing_token_is_refused_with_how_to_make_one():
    refusals, _ = startup_problems(GatewayConfig(), "127.0.0.1")

    assert refusals[0].startswith("Missing gateway auth token.")
    assert "ABSTRACTGATEWAY_AUTH_TOKEN" in refusals[0]
    assert "secrets.token_urlsafe(32)" in refusals[0]


def test_an_open_gateway_for_writes_needs_no_token_and_warns_about_its_reads():
    assert starts(auth_tokens=(), protect_write=False) == ([], 1)
    assert starts(auth_tokens=(), protect_write=False, protect_read=False) == ([], 0)


@pytest.mark.parametrize("token", ["changeme", "SuperUser", "fourteen-chars"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gateway.lan", ""])
def test_a_weak_token_is_refused_beyond_loopback(token, host):
    refusals, warnings = starts(host, auth_tokens=(STRONG, token))

    assert refusals == ["Refusing to start: weak auth token detected while binding to a non-loopback host"]
    assert warnings == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_weak_token_is_accepted_on_loopback(host):
    assert starts(host, auth_tokens=("token",)) == ([], 0)


def test_a_strong_token_beyond_loopback_starts_with_a_warning():
    assert starts("0.0.0.0") == ([], 1)


def test_public_origins_with_a_weak_token_are_refused_beyond_loopback():
    refusals, warnings = starts("0.0.0.0", auth_tokens=("token",), allowed_origins=PUBLIC)

    assert refusals[1] == "Refusing to start: weak auth token detected while using public wildcard origins"
    assert warnings == 2


def test_public_origins_on_loopback_are_warned_about():
    assert starts(allowed_origins=PUBLIC) == ([], 1)


def test_security_off_starts_with_a_warning():
    assert starts(security=False, auth_tokens=()) == ([], 1)


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ({}, 0),
        ({"max_concurrency": 16}, 1),
        ({"max_concurrency": 16, "http_threads": 16}, 0),
        ({"max_concurrency": 4}, 0),
        ({"max_client_concurrency": 9}, 1),
        ({"max_client_concurrency": 8}, 0),
        ({"max_concurrency": 16, "security": False}, 1),  # that of the security
    ],
)
def test_a_limit_of_requests_that_the_threads_never_reach_is_warned_about(settings, warnings):
    assert starts(**settings) == ([], warnings)


@pytest.mark.parametrize(
    ("pattern", "public"),
    [
        ("*", True),
        ("https://*.example.com", True),
        ("https://*.ngrok-free.app", True),
        ("http://localhost.ngrok.app:*", True),
        ("http://localhost:*", False),
        ("http://[::1]:*", False),
        ("https://app.example.com", False),
    ],
)
def test_a_pattern_is_public_when_anybody_could_have_such_an_origin(pattern, public):
    assert is_public_origin(pattern) is public
