from __future__ import annotations

import json
import re

import pytest

from abstractgateway.errors import Conflict, Denied, GatewayError, Invalid, NotFound, Unavailable
from abstractgateway_http.fields import LARGEST

JSON = "Content-Type: application/json"
RUNS = "/api/gateway/runs"


def post(ask, path: str, body: object, *headers: str):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask("POST", path, JSON, *headers, body=raw)


def test_health_is_open_and_exact(ask):
    answer = ask("GET", "/api/health", "Authorization: none")

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == b'{"status":"healthy","service":"abstractgateway"}'


def test_head_answers_like_get_without_the_body(ask):
    answer = ask("HEAD", "/api/health", has_body=False)

    assert answer.status == 200
    assert answer.headers["content-length"] == "48"


@pytest.mark.parametrize(
    ("target", "call", "given"),
    [
        ("/api/gateway/bundles", "bundles.list", {"all_versions": False, "include_deprecated": False}),
        (
            "/api/gateway/bundles?all_versions=YES&include_deprecated=1",
            "bundles.list",
            {"all_versions": True, "include_deprecated": True},
        ),
        ("/api/gateway/bundles/ask@dev", "bundles.get", {"bundle_id": "ask@dev", "bundle_version": None}),
        ("/api/gateway/bundles/ask?bundle_version=dev", "bundles.get", {"bundle_id": "ask", "bundle_version": "dev"}),
        (
            RUNS,
            "runs.list",
            {
                "limit": 50,
                "status": None,
                "workflow_id": None,
                "session_id": None,
                "parent_run_id": None,
                "updated_from": None,
                "updated_to": None,
                "cursor": None,
                "root_only": False,
                "include_ledger_len": True,
                "include_metrics": False,
            },
        ),
        (
            RUNS
            + "?limit=500&status=waiting&workflow_id=w&session_id=s&root_only=on&include_ledger_len=off&status=failed"
            + "&parent_run_id=p&updated_from=2026-11-21T07:00:00Z&updated_to=2026-11-22&cursor=1.5,r1",
            "runs.list",
            {
                "limit": 500,
                "status": "failed",
                "workflow_id": "w",
                "session_id": "s",
                "parent_run_id": "p",
                "updated_from": "2026-11-21T07:00:00Z",
                "updated_to": "2026-11-22",
                "cursor": "1.5,r1",
                "root_only": True,
                "include_ledger_len": False,
                "include_metrics": False,
            },
        ),
        ("/api/gateway/commands/c-1", "commands.outcome", {"command_id": "c-1"}),
    ],
)
def test_a_read_becomes_one_call_of_the_service(gateway, ask, target, call, given):
    answer = ask("GET", target)

    assert answer.status == 200
    assert gateway.calls == [(call, given)]


def test_starting_a_run_passes_the_fields_and_their_defaults(gateway, ask):
    answer = post(ask, RUNS + "/start", {"bundle_id": "ask", "session_id": None, "unknown": 1})

    assert answer.status == 200
    assert answer.body == b'{"run_id":"run-1"}'
    assert gateway.calls == [
        (
            "runs.start",
            {
                "bundle_id": "ask",
                "bundle_version": None,
                "flow_id": None,
                "input_data": {},
                "session_id": None,
                "limits": None,
                "idempotency_key": None,
            },
        )
    ]


def test_a_command_is_acknowledged_with_its_receipt(gateway, ask):
    body = {"command_id": " ", "run_id": "r", "type": "pause"}

    answer = post(ask, "/api/gateway/commands", body)

    assert answer.json == {"accepted": True, "duplicate": False, "seq": 7}
    assert gateway.calls[0][1].pop("command_id").strip()
    assert gateway.calls[0][1] == {
        "run_id": "r",
        "type": "pause",
        "payload": {},
        "ts": None,
        "client_id": None,
    }


def test_a_ledger_page_is_made_of_the_stored_bytes(gateway, ask):
    gateway.ledger.append("r", b'{"n": 1.0}', b'{"n":\t2}', b'{"n":3}')

    answer = ask("GET", RUNS + "/r/ledger?after=1&limit=1")

    assert answer.body == b'{"items":[{"n":\t2}],"next_after":2}'


def test_the_ledger_of_an_unknown_run_is_empty(ask):
    answer = ask("GET", RUNS + "/nope/ledger")

    assert answer.status == 200
    assert answer.json == {"items": [], "next_after": 0}


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (
            RUNS + "?limit=0",
            {
                "type": "greater_than_equal",
                "loc": ["query", "limit"],
                "msg": "Input should be greater than or equal to 1",
                "input": "0",
                "ctx": {"ge": 1},
            },
        ),
        (
            RUNS + "?limit=501",
            {
                "type": "less_than_equal",
                "loc": ["query", "limit"],
                "msg": "Input should be less than or equal to 500",
                "input": "501",
                "ctx": {"le": 500},
            },
        ),
        (
            RUNS + "?limit=ten",
            {
                "type": "int_parsing",
                "loc": ["query", "limit"],
                "msg": "Input should be a valid integer, unable to parse string as an integer",
                "input": "ten",
            },
        ),
        (
            RUNS + "?root_only=maybe",
            {
                "type": "bool_parsing",
                "loc": ["query", "root_only"],
                "msg": "Input should be a valid boolean, unable to interpret input",
                "input": "maybe",
            },
        ),
        (
            RUNS + f"/r/ledger?after={LARGEST + 1}",
            {
                "type": "less_than_equal",
                "loc": ["query", "after"],
                "msg": f"Input should be less than or equal to {LARGEST}",
                "input": str(LARGEST + 1),
                "ctx": {"le": LARGEST},
            },
        ),
        (
            RUNS + "/r/ledger/stream?heartbeat_s=0.1",
            {
                "type": "greater_than",
                "loc": ["query", "heartbeat_s"],
                "msg": "Input should be greater than 0.1",
                "input": "0.1",
                "ctx": {"gt": 0.1},
            },
        ),
        (
            RUNS + "/r/ledger/stream?heartbeat_s=60.1",
            {
                "type": "less_than_equal",
                "loc": ["query", "heartbeat_s"],
                "msg": "Input should be less than or equal to 60",
                "input": "60.1",
                "ctx": {"le": 60.0},
            },
        ),
        (
            RUNS + "/r/ledger/stream?heartbeat_s=nan",
            {
                "type": "float_parsing",
                "loc": ["query", "heartbeat_s"],
                "msg": "Input should be a valid number, unable to parse string as a number",
                "input": "nan",
            },
        ),
    ],
)
def test_a_wrong_query_is_answered_with_a_list_of_what_is_wrong(gateway, ask, target, problem):
    answer = ask("GET", target)

    assert answer.status == 422
    assert answer.json["detail"] == [problem]
    assert answer.json["code"] == "validation_failed"
    assert gateway.calls == []


def test_every_wrong_field_of_a_body_is_listed_at_once(gateway, ask):
    answer = post(ask, "/api/gateway/commands", {"run_id": 5, "type": "pause", "payload": []})

    assert answer.status == 422
    assert answer.json["detail"] == [
        {
            "type": "missing",
            "loc": ["body", "command_id"],
            "msg": "Field required",
            "input": {"run_id": 5, "type": "pause", "payload": []},
        },
        {"type": "string_type", "loc": ["body", "run_id"], "msg": "Input should be a valid string", "input": 5},
        {"type": "dict_type", "loc": ["body", "payload"], "msg": "Input should be a valid dictionary", "input": []},
    ]
    assert gateway.calls == []


def test_half_a_surrogate_pair_is_not_a_text(gateway, ask):
    answer = post(ask, "/api/gateway/commands", b'{"command_id":"c","run_id":"\\ud800","type":"cancel"}')

    assert answer.status == 422
    assert [problem["type"] for problem in answer.json["detail"]] == ["string_unicode"]
    assert gateway.calls == []


@pytest.mark.parametrize(
    ("raw", "loc", "reason"),
    [
        (b'{"a": }', ["body", 6], "Expecting value"),
        (b"{'a': 1}", ["body", 1], "Expecting property name enclosed in double quotes"),
        (b'{"input_data": {"x": NaN}}', ["body"], "NaN"),
        (b'{"input_data": {"x": -Infinity}}', ["body"], "-Infinity"),
        (b'{"input_data": ' + b'{"a":' * 100_000, ["body"], "nested too deeply"),
        (b'{"x": "\xff"}', ["body"], "utf-8"),
        (b'{"x": ' + b"9" * 5_000 + b"}", ["body"], "digits"),
    ],
)
def test_a_body_that_is_not_strict_json_is_refused_where_it_breaks(
    make_gateway, serve_gateway, connect_to, raw, loc, reason
):
    gateway = make_gateway(max_body_bytes=2_000_000)
    client = connect_to(serve_gateway(gateway))

    answer = client.send("POST", RUNS + "/start", JSON, body=raw).answer()

    assert answer.status == 422
    assert answer.json["code"] == "json_invalid"
    assert answer.json["detail"][0]["type"] == "json_invalid"
    assert answer.json["detail"][0]["loc"] == loc
    assert reason in answer.json["detail"][0]["ctx"]["error"]
    assert gateway.calls == []


@pytest.mark.parametrize(
    ("raw", "kind"), [(b"", "missing"), (b"[]", "model_attributes_type"), (b"3", "model_attributes_type")]
)
def test_a_body_that_is_not_an_object_is_refused(ask, raw, kind):
    answer = ask("POST", RUNS + "/start", JSON, f"Content-Length: {len(raw)}", body=raw)

    assert answer.status == 422
    assert answer.json["detail"][0]["type"] == kind
    assert answer.json["detail"][0]["loc"] == ["body"]


def test_a_refused_value_that_is_not_unicode_is_quoted_in_valid_json(ask):
    answer = post(ask, "/api/gateway/commands", b'{"command_id":"c","run_id":"r","type":"t","payload":"\\ud800"}')

    assert answer.status == 422
    assert answer.json["detail"][0]["input"] == "\ud800"


@pytest.mark.parametrize(
    "header", ["Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded", "X-None: 1"]
)
def test_a_write_that_does_not_say_it_is_json_is_refused(gateway, ask, header):
    answer = ask("POST", RUNS + "/start", header, body=b'{"bundle_id":"ask"}')

    assert answer.status == 415
    assert answer.json["code"] == "unsupported_media_type"
    assert "Content-Type: application/json" in answer.json["detail"]
    assert gateway.calls == []


@pytest.mark.parametrize("size", [300_000, 3_000_000])
def test_a_body_over_the_limit_is_refused_with_its_size(gateway, ask, size):
    answer = ask("POST", RUNS + "/start", JSON, f"Content-Length: {size}", body=b" " * min(size, 300_000))

    assert answer.status == 413
    assert answer.json["detail"] == f"Payload Too Large ({size} bytes > 256000 bytes)"
    assert (answer.headers.get("connection") == "close") is (size == 3_000_000)
    assert answer.json["code"] == "payload_too_large"
    assert gateway.calls == []


def test_a_client_without_a_token_learns_nothing_about_limits(ask):
    answer = ask("POST", RUNS + "/start", JSON, "Authorization: x", "Content-Length: 3000000", body=b" ")

    assert answer.status == 401


def test_a_chunked_body_over_the_limit_is_refused_while_it_is_read(gateway, ask):
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"

    answer = ask("POST", RUNS + "/start", JSON, "Transfer-Encoding: chunked", body=chunk * 30)

    assert answer.status == 413
    assert answer.json["detail"].startswith("Payload Too Large (")
    assert gateway.calls == []


def test_a_chunked_body_within_the_limit_is_read(gateway, ask):
    raw = b'{"bundle_id":"ask"}'

    answer = ask(
        "POST", RUNS + "/start", JSON, "Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw)
    )

    assert answer.status == 200


def test_zero_means_no_limit_for_bodies(make_gateway, serve_gateway, connect_to):
    gateway = make_gateway(max_body_bytes=0)
    body = json.dumps({"bundle_id": "ask", "input_data": {"x": "y" * 2_000_000}}).encode()

    answer = connect_to(serve_gateway(gateway)).send("POST", RUNS + "/start", JSON, body=body).answer()

    assert answer.status == 200


@pytest.mark.parametrize(
    ("error", "status", "detail", "code"),
    [
        (NotFound("Run 'x' not found"), 404, "Run 'x' not found", "not_found"),
        (Conflict("it is deprecated"), 409, "it is deprecated", "conflict"),
        (Invalid("status", "'x' is not a status"), 400, "status: 'x' is not a status", "invalid"),
        (Denied("not yours"), 403, "not yours", "denied"),
        (Unavailable("later", retry_after=1.2), 503, "later", "unavailable"),
        (GatewayError("a secret of the store"), 500, None, "internal_error"),
        (RuntimeError("a secret of the process"), 500, None, "internal_error"),
    ],
)
def test_an_error_of_the_service_becomes_its_status(gateway, ask, caplog, error, status, detail, code):
    gateway.failure = error

    answer = ask("GET", RUNS + "/x")

    assert answer.status == status
    assert answer.json["code"] == code
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert detail is None or answer.json["detail"] == detail
    assert "secret" not in answer.body.decode()
    assert (answer.json["request_id"] in caplog.text) == (status == 500)
    assert answer.headers.get("retry-after") == ("2" if status == 503 else None)


def test_the_server_goes_on_after_a_failure(gateway, connect):
    gateway.failure = RuntimeError("once")
    client = connect()
    failed = client.send("GET", RUNS + "/x").answer()

    gateway.failure = None

    assert failed.status == 500
    assert client.send("GET", RUNS).answer().status == 200


def test_an_unknown_path_is_not_found(ask):
    answer = ask("GET", "/api/gateway/nothing")

    assert (answer.status, answer.json["detail"], answer.json["code"]) == (404, "Not Found", "route_not_found")


@pytest.mark.parametrize(
    ("method", "allow"), [("POST", "GET, HEAD"), ("DELETE", "GET, HEAD"), ("OPTIONS", "GET, HEAD")]
)
def test_a_method_that_a_path_does_not_know_is_refused_with_those_it_knows(ask, method, allow):
    answer = ask(method, RUNS, body=b"{}")

    assert answer.status == 405
    assert answer.json["detail"] == "Method Not Allowed"
    assert answer.headers["allow"] == allow


def test_a_trailing_slash_is_redirected_with_its_query(ask):
    answer = ask("GET", RUNS + "/a%20b/?x=1&y=%26")

    assert answer.status == 307
    assert answer.headers["location"] == RUNS + "/a%20b?x=1&y=%26"


def test_an_encoded_slash_in_a_name_is_not_found(ask):
    assert ask("GET", RUNS + "/a%2Fb").status == 404


def test_a_sane_request_id_is_echoed(ask):
    answer = ask("GET", "/api/health", "X-Request-Id: client-7/a")

    assert answer.headers["x-request-id"] == "client-7/a"


@pytest.mark.parametrize("given", ["x" * 129, "two words", "caf\xe9", ""])
def test_another_request_id_is_replaced(ask, given):
    answer = ask("GET", "/api/health", f"X-Request-Id: {given}")

    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET /api/health HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 300_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
    ],
)
def test_what_is_not_http_gets_the_same_shape_of_error(connect, raw, status, code):
    client = connect()

    client.sock.sendall(raw)
    answer = client.answer()

    assert answer.status == status
    assert answer.json["code"] == code
    assert answer.json["request_id"] == answer.headers["x-request-id"]
