from __future__ import annotations

import pytest

from abstractgateway.config import GatewayConfig
from abstractgateway.security import SecurityPolicy, cors_headers, preflight_headers
from abstractgateway.security.origins import OriginList


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        ("http://localhost:*", "http://localhost:3000", True),
        ("http://localhost:*", "http://localhost", False),
        ("http://localhost:*", "https://localhost:3000", False),
        ("http://localhost:*", "http://localhost:3000.evil.example", False),
        ("http://localhost:*", "http://localhost:3000/x", False),
        ("http://localhost:*", "http://localhost:", False),
        ("http://localhost:*", "xhttp://localhost:3000", False),
        ("http://localhost:*", "http://localhost:3000\n", False),
        ("http://127.0.0.1:*", "http://127a0b0c1:80", False),
        ("http://[::1]:*", "http://[::1]:3000", True),
        ("https://*.ngrok.app", "https://a-b.ngrok.app", True),
        ("https://*.ngrok.app", "https://evil.example/.ngrok.app", False),
        ("https://*.ngrok.app", "https://evil@x.ngrok.app", False),
        ("https://*.ngrok.app", "https://ngrok.app", False),
        ("https://app.example", "https://app.example", True),
        ("https://app.example/", "https://app.example", True),
        ("https://app.example", "https://app.example.evil", False),
        ("https://app?.example", "https://app1.example", True),
        ("https://app?.example", "https://app/.example", False),
        ("https://app[0-3].example", "https://app2.example", True),
        ("https://app[0-3].example", "https://app4.example", False),
        ("https://app[!0-3].example", "https://app4.example", True),
        ("https://app[!0-3].example", "https://app/.example", False),
        ("*", "https://anything.example", True),
        ("*", "null", False),
        ("null", "null", False),
        ("n*", "null", False),
    ],
)
def test_a_pattern_admits_origins_and_nothing_that_only_looks_like_one(pattern, origin, allowed):
    assert OriginList.of([pattern]).is_allowed(origin) is allowed


def policy(**settings):
    return SecurityPolicy.from_config(GatewayConfig(**settings))


def test_an_allowed_origin_is_reflected_with_credentials():
    headers = dict(cors_headers(policy(), "http://localhost:3000"))

    assert headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Vary"] == "Origin"


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example"])
def test_another_origin_gets_nothing_but_the_hint_for_caches(origin):
    assert cors_headers(policy(), origin) == (("Vary", "Origin"),)


def test_a_star_reflects_without_credentials():
    headers = dict(cors_headers(policy(allowed_origins=("*",)), "https://any.example"))

    assert headers["Access-Control-Allow-Origin"] == "https://any.example"
    assert "Access-Control-Allow-Credentials" not in headers


def test_security_off_lets_every_page_read():
    assert dict(cors_headers(policy(security=False), "https://x"))["Access-Control-Allow-Origin"] == "https://x"


@pytest.mark.parametrize(
    ("requested", "answered"),
    [
        ("x-client-id, authorization", "x-client-id, authorization"),
        (None, "Authorization, Content-Type, Last-Event-ID, X-Request-Id"),
        ("a\r\nSet-Cookie: x", "Authorization, Content-Type, Last-Event-ID, X-Request-Id"),
    ],
)
def test_a_preflight_echoes_header_names_only(requested, answered):
    assert dict(preflight_headers(requested))["Access-Control-Allow-Headers"] == answered
