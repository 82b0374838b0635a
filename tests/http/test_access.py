from __future__ import annotations

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.security import OPEN_PATHS
from abstractgateway_http.routes import ROUTES
from tests.http.conftest import packed

TOKEN = "a-token-of-some-length"


def test_every_route_but_the_open_ones_refuses_a_request_without_a_token(make_gateway, serve_gateway, connect_to):
    gateway = make_gateway(lockout_base_s=0.0)
    server = serve_gateway(gateway)
    protected = [route for route in ROUTES if route.needs_token]

    answers = [
        connect_to(server)
        .send(route.method, route.path.replace("{", "").replace("}", ""), "Authorization: none")
        .answer()
        for route in protected
    ]

    assert len(protected) > 20
    assert {answer.status for answer in answers} == {401}
    assert all(answer.headers["www-authenticate"] == "Bearer" for answer in answers)
    assert all(answer.json["detail"] == "Unauthorized" for answer in answers)
    assert gateway.calls == []


def test_only_the_documented_paths_are_open():
    assert sorted(OPEN_PATHS) == [
        "/api/health",
        "/docs",
        "/docs/favicon-32x32.png",
        "/docs/page.css",
        "/docs/page.js",
        "/docs/plain",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
        "/docs/swagger.js",
        "/livez",
        "/openapi.json",
        "/readyz",
        "/redoc",
    ]


def test_open_paths_tell_strangers_nothing_about_runs_and_bundles(live, connect_to):
    assert live.upload(packed("tell-nobody")).status == 200
    run_id = live.start(bundle_id="tell-nobody", input_data={"prompt": "a secret of the client"})

    told = [connect_to(live.server).send("GET", path, "Authorization: none").answer().body for path in OPEN_PATHS]

    private = (run_id.encode(), b"tell-nobody", b"secret of")
    assert not [body for body in told if any(word in body for word in private)]


def test_no_route_tells_a_stranger_anything_but_that_a_token_is_needed(go_live, connect_to):
    live = go_live(lockout_base_s=0.0)
    live.upload(packed())
    run_id = live.start(bundle_id="echo")
    names = {"{run_id}": run_id, "{bundle_id}": "echo", "{flow_id}": "root", "{workflow_id}": "echo:root"}
    paths = {route.path for route in ROUTES if route.needs_token}
    for name, value in names.items():
        paths = {path.replace(name, value) for path in paths}

    told = {connect_to(live.server).send("GET", path, "Authorization: none").answer().json["detail"] for path in paths}

    assert told == {"Unauthorized"}


def test_the_table_and_the_policy_agree_on_what_is_open():
    assert {route.path for route in ROUTES if not route.needs_token} == OPEN_PATHS


def test_a_path_that_does_not_exist_is_not_told_to_strangers(ask):
    assert ask("GET", "/api/gateway/secret", "Authorization: none").status == 401


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer t\xf6ken", f"Bearer {TOKEN}, {TOKEN}"],
)
def test_a_wrong_token_is_refused(ask, header):
    answer = ask("GET", "/api/gateway/runs", f"Authorization: {header}")

    assert (answer.status, answer.json["code"]) == (401, "unauthorized")


def test_a_gateway_without_tokens_says_so(make_gateway, serve_gateway, connect_to):
    server = serve_gateway(make_gateway(auth_tokens=()))

    answer = connect_to(server).send("GET", "/api/gateway/runs").answer()

    assert answer.status == 503
    assert answer.json["detail"] == "Gateway auth required but no token configured"


@pytest.mark.parametrize("path", ["/api/health", "/api/gateway/runs", "/nothing"])
def test_a_foreign_origin_is_refused_everywhere_and_may_not_read_the_answer(ask, path):
    answer = ask("GET", path, "Origin: https://evil.example")

    assert answer.status == 403
    assert answer.json["detail"] == "Forbidden (origin not allowed)"
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("path", ["/api/health", "/api/gateway/runs"])
def test_a_foreign_host_is_refused_with_the_setting_that_would_allow_it(ask, path):
    answer = ask("GET", path, "Host: evil.example:8080")

    assert answer.status == 403
    assert answer.json["code"] == "host_not_allowed"
    assert "'evil.example:8080'" in answer.json["detail"]
    assert "ABSTRACTGATEWAY_ALLOWED_HOSTS" in answer.json["detail"]


def test_an_allowed_origin_may_read_every_answer(ask):
    answers = [
        ask("GET", "/api/gateway/runs", "Origin: http://localhost:3000"),
        ask("GET", "/api/gateway/runs", "Origin: http://localhost:3000", "Authorization: none"),
        ask("GET", "/api/gateway/nothing", "Origin: http://localhost:3000"),
    ]

    assert [answer.status for answer in answers] == [200, 401, 404]
    assert all(answer.headers["access-control-allow-origin"] == "http://localhost:3000" for answer in answers)


def test_a_preflight_of_an_allowed_origin_is_answered_without_a_token(ask):
    answer = ask(
        "OPTIONS",
        "/api/gateway/commands",
        "Authorization: none",
        "Origin: http://localhost:3000",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: authorization, content-type",
    )

    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
    assert answer.headers["access-control-max-age"] == "600"


def test_a_preflight_of_a_foreign_origin_is_refused(ask):
    answer = ask("OPTIONS", "/api/gateway/runs", "Origin: https://evil.example", "Access-Control-Request-Method: GET")

    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers


def test_security_off_opens_everything(make_gateway, serve_gateway, connect_to):
    server = serve_gateway(make_gateway(security=False))

    answer = (
        connect_to(server)
        .send("GET", "/api/gateway/runs", "Authorization: none", "Host: any", "Origin: https://x")
        .answer()
    )

    assert answer.status == 200


def test_an_error_of_the_store_shows_neither_paths_nor_secrets(gateway, ask):
    gateway.failure = Unavailable(f"cannot write with {TOKEN}: [Errno 28] No space left on device: '/srv/data/x.json'")

    answer = ask("GET", "/api/gateway/runs")

    assert answer.json["detail"] == "cannot write with [redacted]: [Errno 28] No space left on device"


def test_a_failure_shows_neither_its_text_nor_where_it_was(gateway, ask):
    gateway.failure = RuntimeError("SELECT secret FROM /srv/data")

    answer = ask("GET", "/api/gateway/runs", "X-Request-Id: r-1")

    assert answer.status == 500
    assert answer.json["detail"] == "internal error; the server's log has the reason under request id 'r-1'"
    assert answer.headers["x-request-id"] == "r-1"


def test_an_opaque_origin_is_refused_even_where_any_origin_may_call(make_gateway, serve_gateway, connect_to):
    server = serve_gateway(make_gateway(allowed_origins=("*",)))

    answers = [
        connect_to(server).send("GET", "/api/gateway/runs", f"Origin: {origin}").answer()
        for origin in ("null", "https://any.example")
    ]

    assert [answer.status for answer in answers] == [403, 200]
    assert "access-control-allow-origin" not in answers[0].headers
    assert answers[1].headers["access-control-allow-origin"] == "https://any.example"
    assert "access-control-allow-credentials" not in answers[1].headers


def test_refusals_by_limits_can_be_read_by_an_allowed_page(make_gateway, serve_gateway, connect_to):
    server = serve_gateway(make_gateway(lockout_after=1, max_url_bytes=60))
    origin = "Origin: http://localhost:3000"

    locked = connect_to(server).send("GET", "/api/gateway/runs", origin, "Authorization: Bearer wrong").answer()
    long = connect_to(server).send("GET", f"/api/gateway/runs?{'x' * 60}", origin).answer()

    assert [locked.status, long.status] == [429, 414]
    for answer in (locked, long):
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "Retry-After" in answer.headers["access-control-expose-headers"]


def test_no_answer_is_kept_unless_it_says_so_or_taken_for_something_else(live):
    run_id = live.start(bundle_id="echo")
    live.finish(run_id)

    answers = [
        live.ask("GET", path)
        for path in (
            "/runs",
            "/bundles",
            "/nowhere",
            f"/runs/{run_id}",
            f"/runs/{run_id}/ledger?limit=1",
            "/runs?limit=x",
        )
    ]

    kept = [answer.headers["cache-control"] for answer in answers]
    assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}
    assert kept[:3] == ["no-store"] * 3 and kept[5] == "no-store"
    assert kept[3:5] == ["private, no-cache", "private, max-age=31536000, immutable"]
