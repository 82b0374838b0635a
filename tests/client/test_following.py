from __future__ import annotations

import io

import pytest

from abstractgateway.client import GatewayClient
from abstractgateway.client.events import MAX_LINE_BYTES, Frame, frames
from abstractgateway.errors import GatewayError, Unavailable
from tests.client.conftest import TOKEN

STEP = b'id: %d\nevent: step\ndata: {"cursor": %d, "record": {"n": %d}}\n\n'
DONE = b'event: done\ndata: {"run_id": "r"}\n\n'
STREAM = {"Content-Type": "text/event-stream", "Connection": "close"}


def steps(*cursors: int) -> bytes:
    return b"".join(STEP % (cursor, cursor, cursor) for cursor in cursors)


def patient(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[GatewayClient, list[float]]:
    """Return a client that does not rest, and the rests it would have taken."""
    client = GatewayClient(url)
    pauses: list[float] = []
    monkeypatch.setattr(client._server, "sleep", pauses.append)
    return client, pauses


def test_every_record_arrives_once_whatever_byte_a_connection_is_lost_at(client, proxy, monkeypatch):
    run_id = client.start(bundle_id="hello", input_data={"prompt": "World"})
    expected = [tuple(entry) for entry in client.follow(run_id)]
    through, _ = patient(f"http://127.0.0.1:{proxy.port}", monkeypatch)
    through._server._headers = {"Authorization": f"Bearer {TOKEN}"}

    for first in range(0, 2200, 97):
        proxy.allowances[:] = [first, first + 350, 700, 1500]
        assert [tuple(entry) for entry in through.follow(run_id)] == expected, f"cut after {first} bytes"

    assert proxy.connections > 60


def test_a_lost_stream_is_opened_again_after_the_last_record(script, monkeypatch):
    server = script((200, STREAM, steps(1, 2) + b"id: 3\neve"), (200, STREAM, steps(2, 3) + DONE))
    client, pauses = patient(server.url, monkeypatch)

    entries = [entry.cursor for entry in client.follow("r")]

    assert entries == [1, 2, 3]
    assert [path.partition("?")[2] for _, path, _, _ in server.requests] == [
        "after=0&heartbeat_s=5.0",
        "after=2&heartbeat_s=5.0",
    ]
    assert pauses == [0.2]


def test_a_follower_hears_when_the_gateway_goes_away_and_is_back(script, monkeypatch):
    full = (503, {}, b'{"detail": "too many streams", "code": "streams_full"}')
    server = script((200, STREAM, steps(1)), full, full, (200, STREAM, steps(2) + DONE))
    client, _ = patient(server.url, monkeypatch)
    heard = []

    entries = [entry.cursor for entry in client.follow("r", on_away=heard.append)]

    assert entries == [1, 2]
    assert [getattr(problem, "code", None) for problem in heard] == ["streams_full", None]


def test_the_pause_that_the_stream_asks_for_is_kept(script, monkeypatch):
    server = script((200, STREAM, b"retry: 1500\n\n" + steps(1)), (200, STREAM, b"retry: 1500\n\n" + DONE))
    client, pauses = patient(server.url, monkeypatch)

    list(client.follow("r"))

    assert pauses == [1.5]


def test_missing_records_are_asked_for_again(script, monkeypatch):
    server = script((200, STREAM, steps(1, 3)), (200, STREAM, steps(2, 3) + DONE))
    client, _ = patient(server.url, monkeypatch)

    assert [entry.cursor for entry in client.follow("r")] == [1, 2, 3]


def test_a_full_gateway_is_asked_again_when_it_says(script, monkeypatch):
    full = (503, {"Retry-After": "4"}, b'{"detail": "too many streams", "code": "streams_full"}')
    server = script(full, (200, STREAM, DONE))
    client, pauses = patient(server.url, monkeypatch)

    assert list(client.follow("r")) == []
    assert pauses == [4.0]


def test_a_gateway_that_stays_away_ends_the_patience_of_a_follower():
    client = GatewayClient("http://127.0.0.1:1")

    with pytest.raises(Unavailable, match="cannot be reached"):
        list(client.follow("r", patience_s=0))


def test_what_models_say_meanwhile_is_handed_on(script):
    delta = b'event: delta\ndata: {"run_id": "r", "content": "Hel"}\n\n'
    server = script((200, STREAM, delta + steps(1) + DONE))
    heard: list[object] = []

    entries = list(GatewayClient(server.url).follow("r", on_delta=heard.append))

    assert heard == [{"run_id": "r", "content": "Hel"}]
    assert [entry.cursor for entry in entries] == [1]
    assert "deltas=1" in server.requests[0][1]


@pytest.mark.parametrize("data", [b"[]", b'{"cursor": "1", "record": {}}', b'{"cursor": 1}', b"nonsense"])
def test_a_stream_that_is_none_of_a_gateway_is_an_error(script, data):
    server = script((200, STREAM, b"event: step\ndata: " + data + b"\n\n"))

    with pytest.raises(GatewayError):
        list(GatewayClient(server.url).follow("r"))


def test_frames_are_read_as_the_standard_says():
    text = b": hello\n\nevent: a\ndata: 1\ndata:2\nid: 7\n\nretry: 250\n\ndata\nretry: x\nid: \0\nodd: 1\n\ndata: cut"

    assert list(frames(io.BytesIO(text))) == [
        Frame("a", "1\n2", "7", None),
        Frame("message", "", "7", 0.25),
        Frame("message", "", "7", None),
    ]


def test_a_line_without_end_is_refused():
    with pytest.raises(GatewayError, match="more than"):
        list(frames(io.BytesIO(b"x" * (MAX_LINE_BYTES + 1))))
