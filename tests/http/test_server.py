from __future__ import annotations

import os
import signal
import socket
import threading

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from abstractgateway.errors import Invalid, Unavailable
from abstractgateway_http import create_app, handover, serve
from abstractgateway_http.hub import StreamHub
from abstractgateway_http.server import GatewayServer
from abstractgateway_http.sockets import listen, socket_budget

STREAM = "/api/gateway/runs/r/ledger/stream"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_taken_port_is_refused_with_the_cure(server, gateway):
    with pytest.raises(Unavailable) as refusal:
        GatewayServer(gateway, port=server.port)

    assert refusal.value.code == "port_in_use"
    assert f"port {server.port} on '127.0.0.1' is already in use" in str(refusal.value)
    assert "--port" in str(refusal.value)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "198.51.100.7", "a" * 300])
def test_an_address_that_is_not_ours_is_refused(gateway, host):
    with pytest.raises(Invalid):
        GatewayServer(gateway, host)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_serving_in_order_and_the_handlers_are_put_back(gateway, number):
    before = signal.getsignal(number)
    urls = []

    def ready(server):
        urls.append(server.url)
        os.kill(os.getpid(), number)

    serve(gateway, port=0, on_ready=ready)

    assert urls[0].startswith("http://127.0.0.1:")
    assert signal.getsignal(number) is before
    assert gateway.ledger.listeners == []


def test_an_event_ends_serving(gateway):
    stop = threading.Event()

    serve(gateway, port=0, stop=stop, on_ready=lambda server: stop.set())

    assert gateway.ledger.listeners == []


def test_a_request_that_is_being_worked_on_is_finished_before_the_server_ends(gateway, server, connect):
    entered, leave = threading.Event(), threading.Event()

    def slow_list(**given):
        entered.set()
        leave.wait(5)
        return {"items": []}

    gateway.runs.list = slow_list
    client = connect().send("GET", "/api/gateway/runs")
    entered.wait(5)
    stopping = threading.Thread(target=server.stop)
    stopping.start()

    leave.set()
    answer = client.answer()
    stopping.join(10)

    assert answer.status == 200
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_an_answer_that_is_on_its_way_is_sent_to_its_end_before_the_server_ends(gateway, server, connect):
    text = "x" * 8_000_000
    gateway.runs.list = lambda **given: {"items": [text]}
    client = connect(receive_buffer=8_192).send("GET", "/api/gateway/runs")
    client.read_until(b"\r\n\r\n")
    stopping = threading.Thread(target=server.stop)

    stopping.start()
    body = client.read_to_end()
    stopping.join(10)

    assert len(body) == len(text) + len('{"items":[""]}')


def test_a_server_that_was_never_started_gives_its_port_back(gateway):
    server = GatewayServer(gateway)

    server.stop()

    assert [sock.close() for sock in listen("127.0.0.1", server.port)] == [None]


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_a_name_with_two_addresses_streams_on_both(gateway, monkeypatch):
    gateway.ledger.append("r", b"{}")
    gateway.ledger.end("r")
    received = []
    first = listen("127.0.0.1", 0)
    both = [*first, *listen("::1", first[0].getsockname()[1])]
    monkeypatch.setattr("abstractgateway_http.server.listen", lambda host, port: both)

    with GatewayServer(gateway, "localhost") as server:
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, server.port), timeout=5) as sock:
                sock.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n" % STREAM.encode())
                sock.sendall(b"Authorization: Bearer a-token-of-some-length\r\n\r\n")
                received.append(b"".join(iter(lambda sock=sock: sock.recv(65_536), b"")))

    assert all(b"event: done" in data for data in received)


def test_streams_never_get_all_the_files_a_process_may_open():
    small, large = socket_budget(1_024, 10_000), socket_budget(20_000, 10_000)

    assert small.streams + small.connections <= 1_024 - 256
    assert small.connections >= small.streams
    assert (large.streams, large.connections) == (9_872, 5_000)


def test_this_waitress_has_every_name_that_the_hand_over_needs():
    assert handover.missing_names() == []


def test_a_leaving_channel_is_neither_polled_nor_closed_by_the_server(server, gateway):
    listener = server._listeners[0]
    ours, theirs = socket.socketpair()
    channel = listener.channel_class(listener, ours, ("", 0), listener.adj, map={})
    hub = StreamHub(gateway.ledger.tail)

    channel.close_when_flushed = True
    channel.hand_over(None, False)
    channel.handle_write()

    assert not channel.readable()
    assert not channel.writable()
    assert ours.fileno() >= 0
    server._mailbox._posted.clear()
    channel.leaving = False
    channel.handle_close()
    theirs.close()
    hub.stop()


@pytest.fixture
def plain_server(gateway, monkeypatch, serve_gateway):
    """A server on a waitress that cannot hand connections over."""
    monkeypatch.setattr(handover, "missing_names", lambda: ["HTTPChannel.outbufs"])
    return serve_gateway(gateway)


def test_without_the_hand_over_streams_are_served_by_threads(gateway, plain_server, connect_to):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect_to(plain_server).stream("r", query="?heartbeat_s=0.11")

    replayed = client.read_until(b"}}\n\n")
    kept = client.read_until(b": keep-alive\n\n")
    gateway.ledger.append("r", b'{"n":2}')
    gateway.ledger.end("r")
    rest = client.read_to_end()

    assert plain_server.hub is None
    assert b"id: 1\n" in replayed
    assert kept.endswith(b": keep-alive\n\n")
    assert b"id: 2\n" in rest
    assert b"event: done\n" in rest


def test_without_the_hand_over_two_threads_are_kept_free(gateway, plain_server, connect_to):
    gateway.ledger.append("r")
    opened = [connect_to(plain_server).stream("r", query="?heartbeat_s=0.11") for _ in range(2)]

    refused = connect_to(plain_server).send("GET", STREAM).answer()
    health = connect_to(plain_server).send("GET", "/api/health").answer()

    assert len(opened) == 2
    assert refused.status == 503
    assert refused.headers["retry-after"] == "2"
    assert "ABSTRACTGATEWAY_HTTP_THREADS" in refused.json["detail"]
    assert health.status == 200


def test_without_the_hand_over_a_stopping_server_ends_streams_with_a_hint(gateway, plain_server, connect_to):
    gateway.ledger.append("r")
    client = connect_to(plain_server).stream("r")

    plain_server.stop()

    assert client.read_to_end().endswith(b"retry: 2000\n\n\r\n0\r\n\r\n")


def test_the_app_streams_on_any_wsgi_server(gateway):
    gateway.ledger.append("r", b'{"n":1}')
    gateway.ledger.end("r")
    headers = {"Authorization": "Bearer a-token-of-some-length", "Host": "127.0.0.1"}

    chunks, status, _ = run_wsgi_app(create_app(gateway), create_environ(STREAM, headers=headers))
    body = b"".join(chunks)
    chunks.close()

    assert status == "200 OK"
    assert body.startswith(b"retry: 1000\n\nid: 1\n")
    assert gateway.ledger.listeners == []
