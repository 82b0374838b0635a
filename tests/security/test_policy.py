from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abstractgateway.config import GatewayConfig
from abstractgateway.security import OPEN_PATHS, Allow, Deny, RequestFacts, SecurityPolicy

TOKEN = "a-token-of-some-length"
RIGHT = f"Bearer {TOKEN}"
PROTECTED = [
    "/",
    "/api/healthz",
    "/api/health/x",
    "//api/health",
    "/api/gateway",
    "/openapi.json/x",
    "/docs/x",
    "/API/HEALTH",
]
OURS = [None, "", "localhost", "LOCALHOST:8080", "localhost.", "127.4.4.4:1", "[::1]:8080", "[::1]", "::1", "my.box:80"]
FOREIGN = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.5", "my.box.evil", "0.0.0.0"]


def decide(settings: dict[str, object] | None = None, bound_host: str | None = None, **facts: object) -> Allow | Deny:
    config = GatewayConfig(**{"auth_tokens": (TOKEN,), **(settings or {})})
    asked = RequestFacts(**{"method": "GET", "path": "/api/gateway/runs", "authorization": f"Bearer {TOKEN}", **facts})
    return SecurityPolicy.from_config(config, bound_host=bound_host).decide(asked)


def test_a_request_with_a_token_is_allowed():
    assert decide() == Allow()


@pytest.mark.parametrize("header", [RIGHT, f"bearer   {TOKEN} ", f"BEARER {TOKEN}", RIGHT.encode()])
def test_the_scheme_is_read_in_any_case_and_blanks_do_not_count(header):
    assert decide(authorization=header) == Allow()


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", RIGHT[:-1], f"{RIGHT}x", "Bearer \xff\xfe", b"\xff"],
)
def test_anything_else_is_unauthorized(header):
    denied = decide(authorization=header)

    assert denied == Deny(401, "unauthorized", "Unauthorized", (("WWW-Authenticate", "Bearer"),))


@pytest.mark.parametrize("position", [0, 1, 2])
def test_each_of_several_tokens_is_accepted(position):
    tokens = ("first-token-of-three", "second-token-of-three", "third-token-of-three")

    assert decide({"auth_tokens": tokens}, authorization=f"Bearer {tokens[position]}") == Allow()


def test_a_token_beyond_ascii_is_compared_as_bytes():
    token = "tökén-of-some-length"

    accepted = decide({"auth_tokens": (token,)}, authorization=f"Bearer {token}".encode().decode("latin-1"))
    refused = decide({"auth_tokens": (token,)}, authorization=f"Bearer {token}")

    assert accepted == Allow()
    assert refused.status == 401


def test_an_empty_token_is_no_token():
    assert decide({"auth_tokens": ("",)}, authorization="Bearer ").code == "no_token_configured"


@given(st.text(alphabet=st.characters(max_codepoint=255)) | st.binary())
def test_no_header_but_the_right_one_opens_the_gateway(header):
    raw = header.encode("latin-1") if isinstance(header, str) else header

    denied = decide(authorization=header)

    assert isinstance(denied, Deny) or raw.strip().lower().startswith(b"bearer")


def test_without_a_configured_token_protected_requests_get_503():
    denied = decide({"auth_tokens": ()})

    assert denied == Deny(503, "no_token_configured", "Gateway auth required but no token configured")


@pytest.mark.parametrize("path", [*sorted(OPEN_PATHS), "/api/health/"])
def test_open_paths_need_no_token(path):
    assert decide(path=path, authorization=None) == Allow()


@pytest.mark.parametrize("path", PROTECTED)
def test_every_other_path_is_protected(path):
    assert decide(path=path, authorization=None).status == 401


@pytest.mark.parametrize(
    ("settings", "open_methods"),
    [
        ({}, set()),
        ({"protect_read": False}, {"GET", "HEAD"}),
        ({"protect_write": False}, {"POST", "PUT", "PATCH", "DELETE"}),
    ],
)
def test_protection_can_be_switched_off_by_kind_of_method(settings, open_methods):
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get"]

    allowed = {method for method in methods if decide(settings, method=method, authorization=None) == Allow()}

    assert allowed == open_methods


def test_options_needs_no_token_but_an_allowed_origin():
    assert decide(method="OPTIONS", authorization=None, origin="http://localhost:1") == Allow()
    assert decide(method="OPTIONS", authorization=None, origin="https://evil.example").status == 403


@pytest.mark.parametrize(
    ("client", "allowed"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("127.9.9.9", True),
        ("10.0.0.1", False),
        ("", False),
        (None, False),
        ("0.0.0.0", False),
    ],
)
def test_the_developer_switch_opens_reads_to_this_machine_only(client, allowed):
    decision = decide({"dev_read_no_auth": True}, client=client, authorization="Bearer wrong")

    assert (decision == Allow()) is allowed


def test_the_developer_switch_does_not_open_writes():
    assert decide({"dev_read_no_auth": True}, method="POST", client="127.0.0.1", authorization=None).status == 401


@pytest.mark.parametrize(
    ("size", "limit", "allowed"),
    [(256_000, 256_000, True), (256_001, 256_000, False), (10**12, 0, True), (None, 5, True)],
)
def test_a_declared_size_is_compared_with_the_limit(size, limit, allowed):
    decision = decide({"max_body_bytes": limit}, method="POST", content_length=size)

    assert (decision == Allow()) is allowed


def test_a_body_over_the_limit_is_refused_with_both_numbers():
    denied = decide(method="POST", content_length=300_000)

    assert denied == Deny(413, "payload_too_large", "Payload Too Large (300000 bytes > 256000 bytes)")


def test_the_size_of_a_read_does_not_matter():
    assert decide(method="GET", content_length=10**9) == Allow()


def test_a_refusal_tells_no_more_than_the_caller_may_know():
    foreign = decide(
        method="POST", host="evil.example", origin="https://evil.example", authorization=None, content_length=10**9
    )
    page = decide(method="POST", origin="https://evil.example", authorization=None, content_length=10**9)
    stranger = decide(method="POST", authorization=None, content_length=10**9)

    assert [foreign.code, page.code, stranger.code] == ["host_not_allowed", "origin_not_allowed", "unauthorized"]


def test_security_off_allows_everything():
    assert (
        decide({"security": False, "auth_tokens": ()}, authorization=None, host="x", origin="null", method="POST")
        == Allow()
    )


@pytest.mark.parametrize("host", OURS)
def test_loopback_and_configured_names_are_ours(host):
    assert decide({"allowed_hosts": ("My.Box",)}, host=host) == Allow()


@pytest.mark.parametrize("host", FOREIGN)
def test_another_host_is_refused_on_every_path(host):
    denied = [
        decide({"allowed_hosts": ("my.box",)}, host=host, path=path) for path in ("/api/health", "/api/gateway/runs")
    ]

    assert [denial.code for denial in denied] == ["host_not_allowed"] * 2
    assert repr(host) in denied[0].detail


@pytest.mark.parametrize(
    ("bound", "host", "allowed"),
    [
        ("192.168.1.5", "192.168.1.5:8080", True),
        ("192.168.1.5", "192.168.1.6:8080", False),
        ("gateway.lan", "gateway.lan", True),
        ("0.0.0.0", "192.168.1.6:8080", True),
        ("::", "[2001:db8::1]:8080", True),
        ("0.0.0.0", "evil.example", False),
        ("127.0.0.1", "192.168.1.5", False),
    ],
)
def test_the_address_a_server_is_bound_to_is_ours(bound, host, allowed):
    assert (decide(bound_host=bound, host=host) == Allow()) is allowed


def test_a_star_admits_any_host():
    assert decide({"allowed_hosts": ("*",)}, host="evil.example") == Allow()
