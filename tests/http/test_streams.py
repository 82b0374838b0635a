from __future__ import annotations

import re
import socket
import struct

import pytest

STREAM = "/api/gateway/runs/{}/ledger/stream"
EVENT_IDS = re.compile(rb"id: (\d+)\nevent: step\n")


def records(count: int, size: int = 7) -> list[bytes]:
    return [b'{"n":%d,"x":"%b"}' % (number, b"x" * size) for number in range(1, count + 1)]


def test_a_stream_over_http_1_1_is_chunked_and_carries_the_records_of_the_run(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')

    client = connect().send("GET", STREAM.format("r"))
    head = client.read_until(b"\r\n\r\n")
    first = client.read_until(b"retry: 1000\n\n\r\n")
    rest = client.read_until(b"\n\n\r\n")

    assert b"HTTP/1.1 200 OK" in head
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Type: text/event-stream; charset=utf-8" in head
    assert b"Cache-Control: no-cache" in head
    assert b"X-Accel-Buffering: no" in head
    assert first == b"D\r\nretry: 1000\n\n\r\n"
    assert rest == b'3A\r\nid: 1\nevent: step\ndata: {"cursor": 1, "record": {"n":1}}\n\n\r\n'


def test_a_record_that_is_committed_later_arrives_on_the_open_stream(gateway, connect):
    gateway.ledger.append("r")
    client = connect().stream("r")

    gateway.ledger.append("r", b'{"n":1}')

    assert b'data: {"cursor": 1, "record": {"n":1}}' in client.read_until(b"}}\n\n")


@pytest.mark.parametrize("headers", [(), ("Connection: keep-alive",)])
def test_a_stream_over_http_1_0_is_not_chunked_and_ends_with_the_connection(gateway, connect, headers):
    gateway.ledger.append("r", b'{"n":1}')
    gateway.ledger.end("r")

    everything = connect().send("GET", STREAM.format("r"), *headers, version="1.0").read_to_end()

    head, _, body = everything.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"Connection: close" in head
    assert body == (
        b'retry: 1000\n\nid: 1\nevent: step\ndata: {"cursor": 1, "record": {"n":1}}\n\n'
        b'event: done\ndata: {"run_id": "r", "cursor": 1, "status": "terminal"}\n\n'
    )


def test_a_terminal_run_is_replayed_and_closed_with_done_and_the_last_chunk(gateway, connect):
    gateway.ledger.append("r", *records(3))
    gateway.ledger.end("r")

    everything = connect().send("GET", STREAM.format("r"), "Connection: close").read_to_end()

    assert EVENT_IDS.findall(everything) == [b"1", b"2", b"3"]
    assert everything.endswith(b'{"run_id": "r", "cursor": 3, "status": "terminal"}\n\n\r\n0\r\n\r\n')


def test_a_run_that_ends_closes_its_open_streams_with_done(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect().stream("r")
    client.read_until(b"}}\n\n")

    gateway.ledger.end("r")

    assert client.read_to_end().endswith(b'"cursor": 1, "status": "terminal"}\n\n\r\n0\r\n\r\n')


@pytest.mark.parametrize(
    ("query", "headers", "first"),
    [
        ("?after=3", (), 4),
        ("", ("Last-Event-ID: 3",), 4),
        ("?after=2", ("Last-Event-ID: 4",), 5),
        ("?after=4", ("Last-Event-ID: 2",), 5),
        ("?after=1", ("Last-Event-ID: not-a-cursor",), 2),
        ("?after=1", ("Last-Event-ID: -3",), 2),
    ],
)
def test_a_reconnecting_client_gets_what_it_does_not_have(gateway, connect, query, headers, first):
    gateway.ledger.append("r", *records(5))
    gateway.ledger.end("r")

    everything = connect().send("GET", STREAM.format("r") + query, *headers).read_to_end()

    assert EVENT_IDS.findall(everything) == [b"%d" % cursor for cursor in range(first, 6)]


def test_an_unknown_run_is_refused_before_any_byte_of_a_stream(ask, server):
    answer = ask("GET", STREAM.format("nope"))

    assert answer.status == 404
    assert answer.json["detail"] == "Run 'nope' not found"
    assert server.hub.open_streams == 0


def test_a_quiet_stream_is_kept_alive_as_often_as_the_client_asked(gateway, connect):
    gateway.ledger.append("r")
    client = connect().stream("r", query="?heartbeat_s=0.11")

    kept = [client.read_until(b": keep-alive\n\n\r\n") for _ in range(3)]

    assert kept[1:] == [b"E\r\n: keep-alive\n\n\r\n"] * 2


def test_a_connection_may_ask_first_and_stream_then(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    client = connect().send("GET", "/api/health")
    first = client.answer()

    client.stream("r")

    assert first.status == 200
    assert b"id: 1\n" in client.read_until(b"}}\n\n")


def test_of_pipelined_requests_those_after_the_stream_are_dropped_and_the_stream_is_intact(gateway, connect):
    gateway.ledger.append("r", b'{"n":1}')
    gateway.ledger.end("r")
    client = connect()
    health = client.request("GET", "/api/health")

    client.sock.sendall(health + client.request("GET", STREAM.format("r")) + health)
    everything = client.read_to_end()

    assert everything.count(b"healthy") == 1
    assert EVENT_IDS.findall(everything) == [b"1"]
    assert everything.endswith(b"0\r\n\r\n")


def test_what_a_client_says_on_an_open_stream_is_ignored(gateway, connect):
    gateway.ledger.append("r")
    client = connect().stream("r")

    client.send("GET", "/api/health")
    gateway.ledger.append("r", b'{"n":1}')
    gateway.ledger.end("r")
    everything = client.read_to_end()

    assert EVENT_IDS.findall(everything) == [b"1"]
    assert b"healthy" not in everything


def test_head_answers_the_head_only_and_takes_no_place(gateway, connect, server):
    gateway.ledger.append("r", b'{"n":1}')

    everything = connect().send("HEAD", STREAM.format("r")).read_to_end()

    assert everything.startswith(b"HTTP/1.1 200 OK")
    assert b"text/event-stream" in everything
    assert everything.endswith(b"\r\n\r\n")
    assert everything.count(b"\r\n\r\n") == 1
    assert server.hub.open_streams == 0


def test_a_client_that_leaves_is_noticed_and_its_place_is_free_again(gateway, connect, server):
    gateway.ledger.append("r")
    client = connect().stream("r")
    opened = server.hub.open_streams

    client.close()

    assert opened == 1
    assert server.hub.wait_streams(0, timeout=5.0)


def test_clients_that_reset_during_the_hand_over_leave_nothing_behind(gateway, connect, server):
    gateway.ledger.append("r", b'{"n":1}')

    for number in range(200):
        client = connect()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.send("GET", STREAM.format("r"))
        if number % 3 == 0:
            client.read_until(b"HTTP/1.1")
        client.close()

    survivor = connect().stream("r")
    assert b"id: 1\n" in survivor.read_until(b"}}\n\n")
    assert connect().send("GET", "/api/health").answer().status == 200
    assert server.hub.wait_streams(1, timeout=5.0)


def test_a_reader_that_is_stuck_is_evicted_with_bounded_memory_while_a_fast_one_gets_everything(
    gateway, serve_gateway, connect_to
):
    server = serve_gateway(gateway, stuck_s=0.3)
    gateway.ledger.append("slow")
    gateway.ledger.append("fast")
    stuck = connect_to(server, receive_buffer=4096).stream("slow")
    fast = connect_to(server).stream("fast")

    reads_before = gateway.ledger.reads
    gateway.ledger.append("slow", *records(400, size=100_000))
    assert server.hub.wait_streams(1, timeout=5.0)
    batches_read_for_the_stuck_one = gateway.ledger.reads - reads_before
    gateway.ledger.append("fast", *records(400, size=100_000))
    gateway.ledger.end("fast")
    everything = fast.read_to_end()

    assert server.hub.evicted == 1
    assert batches_read_for_the_stuck_one < 100
    assert len(EVENT_IDS.findall(everything)) == 400
    with pytest.raises(ConnectionResetError):
        stuck.read_to_end()


def test_a_slow_reader_that_goes_on_reading_gets_every_record_in_order(gateway, connect):
    gateway.ledger.append("r")
    client = connect(receive_buffer=8192).stream("r")

    gateway.ledger.append("r", *records(200, size=50_000))
    gateway.ledger.end("r")
    everything = client.read_to_end()

    assert EVENT_IDS.findall(everything) == [b"%d" % cursor for cursor in range(1, 201)]
    assert everything.endswith(b"0\r\n\r\n")


def test_readers_at_the_same_cursor_share_one_read(gateway, connect):
    gateway.ledger.append("r")
    clients = [connect().stream("r", query="?heartbeat_s=60") for _ in range(20)]
    marker = connect().stream("r", query="?heartbeat_s=60")
    marker_reads = gateway.ledger.reads

    gateway.ledger.append("r", b'{"n":1}')
    received = [client.read_until(b"}}\n\n") for client in [*clients, marker]]

    assert len(set(received)) == 1
    assert gateway.ledger.reads - marker_reads <= 6


def test_fifty_streams_on_four_threads_leave_the_api_reachable(gateway, connect, ask, server):
    gateway.ledger.append("r")
    clients = [connect().stream("r") for _ in range(50)]

    answers = [ask("GET", "/api/health").status for _ in range(20)]
    gateway.ledger.append("r", b'{"n":1}')

    assert answers == [200] * 20
    assert server.hub.open_streams == 50
    assert all(b"id: 1\n" in client.read_until(b"}}\n\n") for client in clients)


def test_a_stream_beyond_the_limit_is_refused_with_a_time_to_come_back(gateway, serve_gateway, connect_to):
    gateway.ledger.append("r")
    server = serve_gateway(gateway, streams=2)
    first, _ = connect_to(server).stream("r"), connect_to(server).stream("r")

    refused = connect_to(server).send("GET", STREAM.format("r")).answer()
    first.close()
    assert server.hub.wait_streams(1, timeout=5.0)
    connect_to(server).stream("r")

    assert refused.status == 503
    assert refused.headers["retry-after"] == "2"
    assert refused.json["code"] == "streams_full"
    assert "ABSTRACTGATEWAY_MAX_SSE" in refused.json["detail"]


def test_a_ledger_that_cannot_be_read_cuts_off_its_own_streams_only(gateway, connect, server):
    gateway.ledger.append("good")
    gateway.ledger.append("bad")
    good, bad = connect().stream("good"), connect().stream("bad")

    gateway.ledger.broken.add("bad")
    gateway.ledger.append("bad", b"{}")
    cut_off = bad.read_to_end()
    gateway.ledger.append("good", b'{"n":1}')

    assert b"0\r\n\r\n" not in cut_off
    assert b"id: 1\n" in good.read_until(b"}}\n\n")
    assert server.hub.wait_streams(1, timeout=5.0)


def test_a_stopping_server_ends_streams_with_a_hint_and_the_last_chunk(gateway, connect, server):
    gateway.ledger.append("r")
    client = connect().stream("r")

    server.stop()

    assert client.read_to_end() == b"\r\n" + b"D\r\nretry: 2000\n\n\r\n" + b"0\r\n\r\n"


def test_a_stopping_server_does_not_write_into_the_middle_of_a_record(gateway, connect, server):
    gateway.ledger.append("r")
    client = connect(receive_buffer=4096).stream("r")
    gateway.ledger.append("r", *records(1, size=5_000_000))
    client.read_until(b"id: 1\n")

    server.stop()
    everything = client.read_to_end()

    assert everything.endswith(b"xxxxxxxx")
    assert len(everything) < 5_000_000


def test_a_line_break_between_the_tokens_of_a_foreign_record_does_not_break_the_event(gateway, connect):
    gateway.ledger.append("r", b'{"n":\r\n1}')
    gateway.ledger.end("r")

    everything = connect().send("GET", STREAM.format("r")).read_to_end()

    assert b'data: {"cursor": 1, "record": {"n":  1}}\n\n' in everything
