"""Files that are larger than what a server keeps in memory, and clients that read them slowly or not at all."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from wsgiref.util import FileWrapper as PlainWrapper

import pytest

from abstractgateway.stores.artifact_queries import ArtifactQueries
from abstractgateway.stores.artifacts import InMemoryArtifactStore
from abstractgateway_http import fair_channel
from abstractgateway_http.app import GatewayApp
from tests.http.conftest import TOKEN, Client, LiveGateway, packed

MEGABYTE = 1 << 20
SIZE = 64 * MEGABYTE
READERS = 8
PATIENCE_S = 20.0


def large(size: int = SIZE) -> bytes:
    """Return bytes in which every place can be told from the others."""
    return b"".join(number.to_bytes(8, "big") for number in range(size // 8))


@pytest.fixture(scope="module")
def content() -> bytes:
    return large()


@pytest.fixture(params=["memory", "file", "sqlite", "elsewhere"])
def live(go_live, request, monkeypatch) -> LiveGateway:
    if request.param == "elsewhere":  # as artifacts are in a database: a part is not at hand
        monkeypatch.setattr(InMemoryArtifactStore, "open", ArtifactQueries.open)
    gateway = go_live(store_backend="memory" if request.param == "elsewhere" else request.param)
    gateway.upload(packed())
    return gateway


@pytest.fixture
def path(live, content) -> str:
    """The path of the bytes of an artifact of a run."""
    run_id = live.start(bundle_id="echo")
    stored = live.service.stores.artifacts.store(content, run_id=run_id)
    return f"/api/gateway/runs/{run_id}/artifacts/{stored.artifact_id}/content"


@pytest.fixture
def slow_readers(live, path) -> Iterator[list[Client]]:
    """Clients that asked for the content, have read its head and read nothing more."""
    with ExitStack() as stack:
        clients = []
        for _ in range(READERS):
            client = Client(live.server.port, receive_buffer=4_096)
            stack.callback(client.close)
            clients.append(client.send("GET", path))
            client.read_until(b"\r\n\r\n")
        yield clients


def test_slow_readers_of_a_large_file_hold_no_thread(live, slow_readers):
    began = time.monotonic()
    for _ in range(5):
        assert live.ask("GET", "/runs").status == 200

    assert time.monotonic() - began < 2


def test_a_slow_reader_gets_every_byte(content, slow_readers):
    client = slow_readers[0]
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MEGABYTE)

    assert hashlib.sha256(read_exactly(client, SIZE)).digest() == hashlib.sha256(content).digest()


def test_clients_that_vanish_leave_nothing_behind(live, path):
    live.ask("GET", "/runs")
    before = open_files()
    for _ in range(READERS):
        with closing(Client(live.server.port, receive_buffer=4_096)) as client:
            client.send("GET", path).read_until(b"\r\n\r\n")

    until = time.monotonic() + PATIENCE_S
    while live.server._channels() or open_files() > before:
        assert time.monotonic() < until, "connections of clients that left are still there"
        live.ask("GET", "/runs")


def test_a_large_range_is_that_part(live, path, content):
    start, end = 3 * MEGABYTE + 1, 40 * MEGABYTE
    with closing(Client(live.server.port)) as client:
        head = client.send("GET", path, f"Range: bytes={start}-{end - 1}").read_until(b"\r\n\r\n").lower()
        assert b" 206 " in head
        assert f"content-range: bytes {start}-{end - 1}/{SIZE}".encode() in head
        assert read_exactly(client, end - start) == content[start:end]


def test_a_request_behind_a_large_file_is_answered_on_the_same_connection(live, path, content):
    with closing(Client(live.server.port, receive_buffer=4_096)) as client:
        client.sock.sendall(client.request("GET", path) + client.request("GET", "/api/health"))
        client.read_until(b"\r\n\r\n")
        for _ in range(5):  # it waits for its turn without a thread
            assert live.ask("GET", "/runs").status == 200
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MEGABYTE)
        assert read_exactly(client, SIZE) == content
        assert client.answer().json["status"] == "healthy"


def test_requests_behind_large_files_hold_no_thread(live, path):
    with ExitStack() as stack:
        for _ in range(READERS):
            client = Client(live.server.port, receive_buffer=4_096)
            stack.callback(client.close)
            client.sock.sendall(client.request("GET", path) + client.request("GET", "/api/health"))
            client.read_until(b"\r\n\r\n")

        assert live.ask("GET", "/runs").status == 200


def test_a_client_that_reads_quickly_leaves_the_loop_to_the_others(live, path, monkeypatch):
    sent: list[int] = []
    write = fair_channel.HTTPChannel.handle_write

    def counting(channel) -> None:
        before = channel.total_outbufs_len
        write(channel)
        sent.append(before - channel.total_outbufs_len)

    monkeypatch.setattr(fair_channel.HTTPChannel, "handle_write", counting)
    with closing(Client(live.server.port, receive_buffer=16 * MEGABYTE)) as client:
        client.send("GET", path).read_until(b"\r\n\r\n")
        read_exactly(client, SIZE)

    assert max(sent) <= MEGABYTE // 2


@pytest.mark.parametrize("live", ["file"], indirect=True)
def test_a_file_that_is_written_to_while_it_is_sent_ends_the_answer(live, slow_readers):
    (blob,) = [file for file in blobs(live) if file.stat().st_size == SIZE]
    with blob.open("r+b") as file:
        file.write(b"x")
    client = slow_readers[0]
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MEGABYTE)

    assert len(client.read_to_end()) < SIZE


@pytest.mark.parametrize("live", ["file"], indirect=True)
def test_another_server_gets_plain_pieces(live, path, content):
    app = GatewayApp(live.service)
    asked = {"REQUEST_METHOD": "GET", "HTTP_AUTHORIZATION": f"Bearer {TOKEN}", "HTTP_RANGE": "bytes=8-1048575"}
    environ = {**asked, "PATH_INFO": path, "HTTP_HOST": "127.0.0.1", "REMOTE_ADDR": "127.0.0.1"}
    for wrapper in ({}, {"wsgi.file_wrapper": PlainWrapper}):
        heads: list[str] = []
        parts = app({**environ, **wrapper}, lambda status, headers, heads=heads: heads.append(status))
        assert (b"".join(parts), heads) == (content[8:MEGABYTE], ["206 PARTIAL CONTENT"])
    app.close()


def blobs(live: LiveGateway) -> list[Path]:
    return list((Path(live.service.config.data_dir) / "artifacts" / "blobs").iterdir())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def read_exactly(client: Client, size: int) -> bytes:
    parts, left = [client.seen[:size]], size - len(client.seen[:size])
    client.seen = client.seen[size:]
    while left:
        part = client.sock.recv(min(left, MEGABYTE))
        assert part, "the server closed before the end"
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
