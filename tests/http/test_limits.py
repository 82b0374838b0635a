from __future__ import annotations

import threading

import pytest

API = "/api/gateway"
RUNS = f"{API}/runs"


def test_a_long_url_is_refused_and_says_the_limit(serve_gateway, make_gateway, connect_to):
    server = serve_gateway(make_gateway(max_url_bytes=100))

    def answer(length):
        return connect_to(server).send("GET", f"{RUNS}?x=".ljust(length + 1, "y")).answer()

    fitting, refused = answer(100), answer(101)

    assert (fitting.status, refused.status) == (200, 414)
    assert (refused.json["code"], refused.json["detail"]) == ("url_too_long", "URI Too Long (101 bytes > 100 bytes)")


def test_a_stranger_with_a_long_url_is_told_only_that_a_token_is_needed(serve_gateway, make_gateway, connect_to):
    server = serve_gateway(make_gateway(max_url_bytes=100))

    answer = connect_to(server).send("GET", f"{RUNS}?x={'y' * 200}", "Authorization: none").answer()

    assert answer.status == 401


def test_a_long_head_is_refused(serve_gateway, make_gateway, connect_to):
    server = serve_gateway(make_gateway(max_header_bytes=2_000))

    answer = connect_to(server).send("GET", RUNS, f"X-Long: {'y' * 3_000}").answer()

    assert (answer.status, answer.json["code"]) == (431, "headers_too_large")


def test_uploads_have_a_bound_of_their_own(serve_gateway, make_gateway, connect_to):
    server = serve_gateway(make_gateway(max_upload_body_bytes=1_000))
    kind = "Content-Type: multipart/form-data; boundary=b"

    answers = [
        connect_to(server).send("POST", f"{API}/{path}/upload", kind, body=b"x" * 1_001).answer()
        for path in ("bundles", "attachments")
    ]

    assert [answer.json["detail"] for answer in answers] == ["Payload Too Large (1001 bytes > 1000 bytes)"] * 2


@pytest.fixture
def held(make_gateway):
    """Makes a gateway whose `runs.list` waits until it is told to go on."""
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def make(**settings):
        gateway = make_gateway(http_threads=8, **settings)

        def list_runs(**given):
            begun.release()
            assert go_on.wait(10)
            return {"items": []}

        gateway.runs.list = list_runs
        return gateway

    yield make, begun, go_on
    go_on.set()


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"max_concurrency": 2}, "concurrency_limit"), ({"max_client_concurrency": 2}, "client_busy")],
)
def test_more_requests_at_once_than_may_be_are_refused(held, serve_gateway, connect_to, settings, code):
    make, begun, go_on = held
    server = serve_gateway(make(**settings))
    waiting = [connect_to(server).send("GET", RUNS) for _ in range(2)]
    assert all(begun.acquire(timeout=10) for _ in waiting)

    refused = connect_to(server).send("GET", RUNS).answer()
    go_on.set()

    assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (429, code, "1")
    assert [client.answer().status for client in waiting] == [200, 200]
    assert connect_to(server).send("GET", RUNS).answer().status == 200


def test_with_fewer_threads_than_may_be_at_once_requests_wait_and_none_is_refused(held, serve_gateway, connect_to):
    make, begun, go_on = held
    gateway = make(max_concurrency=9)
    server = serve_gateway(gateway)

    sent = [connect_to(server).send("GET", RUNS) for _ in range(20)]
    assert all(begun.acquire(timeout=10) for _ in range(8))
    assert not begun.acquire(blocking=False)
    go_on.set()

    assert [client.answer().status for client in sent] == [200] * 20


def test_a_client_has_only_so_many_streams_and_may_have_others_when_they_end(serve_gateway, make_gateway, connect_to):
    gateway = make_gateway(max_client_sse=2)
    gateway.ledger.append("r", b"{}")
    server = serve_gateway(gateway)
    streams = [connect_to(server).stream("r") for _ in range(2)]

    refused = connect_to(server).send("GET", f"{RUNS}/r/ledger/stream").answer()
    gateway.ledger.end("r")
    for stream in streams:
        stream.read_to_end()

    assert (refused.status, refused.json["code"]) == (429, "client_busy")
    assert server.hub.wait_streams(0, 10)
    assert server.app._streams["127.0.0.1"] == 0
    connect_to(server).stream("r")


def test_a_stream_of_an_unknown_run_and_a_stream_too_many_count_nothing(serve_gateway, make_gateway, connect_to):
    gateway = make_gateway(max_client_sse=2, max_sse=1)
    gateway.ledger.append("r", b"{}")
    server = serve_gateway(gateway)
    stream = connect_to(server).stream("r")

    unknown = connect_to(server).send("GET", f"{RUNS}/x/ledger/stream").answer()
    full = connect_to(server).send("GET", f"{RUNS}/r/ledger/stream").answer()
    head = connect_to(server).send("HEAD", f"{RUNS}/r/ledger/stream").answer(has_body=False)

    assert (unknown.status, full.status, head.status) == (404, 503, 200)
    assert server.app._streams["127.0.0.1"] == 1
    stream.close()


def test_an_address_has_only_so_many_connections(serve_gateway, make_gateway, connect_to):
    server = serve_gateway(make_gateway(max_client_connections=3))
    clients = [connect_to(server) for _ in range(3)]
    for client in clients:
        assert client.send("GET", RUNS).answer().status == 200

    fourth = connect_to(server)

    with pytest.raises((AssertionError, ConnectionError)):
        fourth.send("GET", RUNS).answer()
    assert clients[0].send("GET", RUNS).answer().status == 200
    clients[0].send("GET", RUNS, "Connection: close").read_to_end()
    assert _becomes_free(server, connect_to)


def _becomes_free(server, connect_to):
    """The server closes its end a moment after the client has read the last byte."""
    for _ in range(200):
        try:
            return connect_to(server).send("GET", RUNS).answer().status == 200
        except (AssertionError, ConnectionError):
            continue
    return False


def test_a_trusted_proxy_has_any_number_of_connections(serve_gateway, make_gateway, connect_to):
    server = serve_gateway(make_gateway(max_client_connections=1, trusted_proxies=("127.0.0.1",)))

    clients = [connect_to(server) for _ in range(5)]

    assert [client.send("GET", RUNS).answer().status for client in clients] == [200] * 5


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /api/health HTTP/1.1\r\nHost: 127",
        b"POST /api/gateway/runs/start HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{",
    ],
)
def test_a_request_that_does_not_arrive_in_time_ends_its_connection(serve_gateway, make_gateway, connect_to, begun):
    server = serve_gateway(make_gateway(request_timeout_s=0.1))
    slow, quick = connect_to(server), connect_to(server)
    slow.sock.sendall(begun)

    assert slow.sock.recv(1) == b""
    assert quick.send("GET", RUNS).answer().status == 200


def test_without_security_nothing_is_limited(serve_gateway, make_gateway, connect_to):
    settings = {"max_client_connections": 1, "max_url_bytes": 20, "max_client_sse": 1}
    server = serve_gateway(make_gateway(security=False, **settings))

    clients = [connect_to(server) for _ in range(3)]

    assert [client.send("GET", f"{RUNS}?x=y").answer().status for client in clients] == [200] * 3


@pytest.mark.parametrize(
    "body",
    [
        b'{"bundle_id":"ask","input_data":{"n":' + b"9" * 5_000 + b"}}",
        b'{"bundle_id":"ask","input_data":{"n":1e999}}',
        b'{"bundle_id":"ask","input_data":{"n":-Infinity}}',
        b'{"bundle_id":"ask","input_data":{"\\ud800":1}}',
        b'{"bundle_id":"ask","input_data":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"bundle_id":"ask"}{}',
        b"\xff\xfe{\x00}\x00",
        b'[{"bundle_id":"ask"}]',
        b"{'bundle_id':'ask'}",
    ],
    ids=range(9),
)
def test_json_that_others_would_read_otherwise_is_refused_and_starts_nothing(live, body):
    answer = live.ask("POST", "/runs/start", "Content-Type: application/json", body=body)

    assert 400 <= answer.status < 500
    assert live.ask("GET", "/runs").json["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/runs/start", b'{"bundle_id":"ask","session_id":"a","session_id":"b"}'),
        ("POST", "/runs/start", b'{"bundle_id":"ask","input_data":{"list":[{"session_id":1,"session_id":1}]}}'),
        ("POST", "/runs/start", b'{"bundle_id":"ask","session_id":"a","session\\u005fid":"b"}'),
        ("POST", "/commands", b'{"command_id":"c","run_id":"a","run_id":"b","type":"cancel"}'),
        ("POST", "/runs/ledger/batch", b'{"runs":[{"run_id":"a","session_id":0,"session_id":1}]}'),
        ("POST", "/visualflows", b'{"name":"n","nodes":[{"session_id":"a","session_id":"b"}]}'),
    ],
)
def test_a_key_that_comes_twice_is_refused_by_name_and_nothing_happens(live, method, path, body):
    answer = live.ask(method, path, "Content-Type: application/json", body=body)

    assert (answer.status, answer.json["code"]) == (422, "json_invalid")
    key = "run_id" if path == "/commands" else "session_id"
    assert f"the key '{key}' comes more than once" in answer.json["detail"][0]["ctx"]["error"]
    assert live.ask("GET", "/runs").json["items"] == []
    assert live.ask("GET", "/visualflows").json == []
