"""A buffering proxy in front: nginx as it is installed, which gathers answers unless it is asked not to."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.http.conftest import PATIENCE_S, Client

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

CONFIG = """
{user}
worker_processes 1;
pid {directory}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{target};
            proxy_set_header Host 127.0.0.1;
            proxy_buffering on;
            {more}
        }}
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "nginx ended"
        threading.Event().wait(0.05)
    raise AssertionError("nginx does not listen")


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Connect to a server through nginx; `more` are further directives."""
    started: list[subprocess.Popen[bytes]] = []
    clients: list[Client] = []

    def connect(server, more: str = "") -> Client:
        port = free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        config = tmp_path / f"{port}.conf"
        config.write_text(CONFIG.format(user=user, directory=tmp_path, port=port, target=server.port, more=more))
        command = [str(NGINX), "-e", str(tmp_path / "error.log"), "-p", str(tmp_path), "-c", str(config)]
        started.append(subprocess.Popen([*command, "-g", "daemon off;"]))
        wait_for(port, started[-1])
        clients.append(Client(port))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()
    for process in started:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize("more", ["", "proxy_http_version 1.1;"])
def test_records_arrive_through_a_buffering_proxy_as_they_are_committed(gateway, server, proxied, more):
    gateway.ledger.append("r")
    client = proxied(server, more).stream("r")

    for number in (1, 2, 3):
        gateway.ledger.append("r", b'{"n":%d}' % number)
        assert b'"record": {"n":%d}' % number in client.read_until(b"}}\n\n")


def test_without_the_header_that_asks_for_it_they_would_not(gateway, server, proxied):
    gateway.ledger.append("r", b'{"n":1}')
    client = proxied(server, "proxy_ignore_headers X-Accel-Buffering;")
    client.send("GET", "/api/gateway/runs/r/ledger/stream").sock.settimeout(0.5)

    with pytest.raises(TimeoutError):
        client.read_until(b"}}\n\n")


def test_the_end_of_a_stream_and_the_leaving_of_a_client_get_through(gateway, server, proxied):
    gateway.ledger.append("r", b'{"n":1}')
    gateway.ledger.append("s")
    ending, leaving = proxied(server).stream("r"), proxied(server).stream("s")
    assert server.hub.open_streams == 2

    gateway.ledger.end("r")
    leaving.close()

    assert b"event: done" in ending.read_until(b"}\n\n") + ending.read_until(b"}\n\n")
    assert server.hub.wait_streams(0, PATIENCE_S)


def test_a_page_that_is_awaited_gets_through(gateway, server, proxied):
    gateway.ledger.append("r")
    client = proxied(server).send("GET", "/api/gateway/runs/r/ledger?wait=30")
    client.read_until(b"\r\n\r\n")

    gateway.ledger.append("r", b'{"n":1}')

    assert b'{"items":[{"n":1}],"next_after":1}' in client.read_until(b"}\r\n")
