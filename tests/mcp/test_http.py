"""Tools of servers behind URLs: real ones, and a few that answer what no server should."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.runner.stop import StopSignal
from abstractgateway_mcp import McpTools, ToolError
from tests.mcp.conftest import PATIENCE_S, TOKEN, HttpServer, Open, Pipe, config_of, names, soon, wait_for_name

Serve = Callable[..., HttpServer]


@pytest.fixture(scope="module")
def tools() -> Iterator[McpTools]:
    """One server for the tests that do it no harm."""
    server = HttpServer()
    opened = McpTools(
        config_of({"t": {"url": server.url, "headers": {"Authorization": f"Bearer {TOKEN}"}}}), pause=soon
    )
    opened.connect()
    yield opened
    opened.close()
    server.close()


class Odd:
    """A server that answers every request in the same wrong way."""

    def __init__(self, status: int, headers: dict[str, str], pieces: list[bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in pieces:
                        self.wfile.write(piece)
                except OSError:
                    pass

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/mcp"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


JSON = {"content-type": "application/json"}


def test_a_tool_behind_a_url_is_offered_and_called(tools: McpTools) -> None:
    assert "t__add" in names(tools)
    assert tools.execute("t__add", {"a": 1, "b": 2}) == {"sum": 3}


def test_the_headers_of_the_settings_are_sent(tools: McpTools) -> None:
    assert tools.execute("t__header", {}) == f"Bearer {TOKEN}"


def test_a_tool_that_comes_later_is_offered_later(tools: McpTools) -> None:
    tools.execute("t__grow", {"name": "fresh"})

    wait_for_name(tools, "t__fresh")
    assert tools.execute("t__fresh", {}) == "called fresh"


def test_a_call_that_is_stopped_ends_at_once_and_its_server_is_told(tools: McpTools, pipe: Pipe) -> None:
    stop = StopSignal()
    failed: list[Exception] = []

    def call() -> None:
        try:
            tools.execute("t__hang", {"pipe": pipe.path}, stop=stop)
        except ToolError as error:
            failed.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    pipe.wait_for("begun")
    began = time.monotonic()
    stop.set()
    thread.join(PATIENCE_S)

    assert time.monotonic() - began < 2.0
    assert "the call was cancelled" in str(failed[0])
    pipe.wait_for("cancelled")


def test_a_server_that_was_started_again_is_found_again(tools_of: Open, serve: Serve) -> None:
    first, is_up = serve(), threading.Event()
    tools = tools_of({"t": {"url": first.url}}, pause=lambda failures: 0.0 if is_up.wait(PATIENCE_S) else 600.0)
    assert tools.execute("t__add", {"a": 1, "b": 2}) == {"sum": 3}

    first.close()
    serve(first.port)
    is_up.set()

    assert tools.execute("t__add", {"a": 1, "b": 2}) == {"sum": 3}


def test_a_server_that_dies_in_the_middle_of_a_call_fails_it(tools_of: Open, serve: Serve) -> None:
    tools = tools_of({"t": {"url": serve().url}})

    with pytest.raises(ToolError, match="mcp server 't'"):
        tools.execute("t__die", {})


def test_a_server_that_is_not_there_is_an_error_without_secrets(tools_of: Open, serve: Serve) -> None:
    gone = serve()
    gone.close()
    entry = {"url": f"{gone.url}?token={TOKEN}", "headers": {"Authorization": f"Bearer {TOKEN}"}}
    tools = tools_of({"t": entry})

    with pytest.raises(Unavailable, match="mcp server 't': ConnectError") as failed:
        tools.execute("t__add", {})

    assert TOKEN not in str(failed.value)


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ((200, JSON, [b"{"] + [b" " * 1_000_000] * 40), "it sent an answer of more than 16777216 bytes"),
        ((200, {**JSON, "content-encoding": "gzip"}, [gzip.compress(b"{}")]), "compressed"),
        ((200, JSON, [b"<html>"]), "Failed to parse JSON response"),
        ((200, {"content-type": "text/html"}, [b"<html>"]), "Unexpected content type"),
        ((401, {}, []), "error response"),
        ((500, {}, []), "error response"),
        ((307, {"location": "http://127.0.0.1:9/other"}, []), "not followed"),
    ],
    ids=["large", "compressed", "no-json", "html", "unauthorized", "broken", "redirected"],
)
def test_a_server_that_answers_what_no_server_should_is_an_error_that_says_so(
    tools_of: Open, odd: Any, why: str
) -> None:
    server = Odd(*odd)
    try:
        tools = tools_of({"t": {"url": server.url}})

        with pytest.raises(Unavailable, match=why):
            tools.execute("t__add", {})
    finally:
        server.close()


def test_a_server_that_hangs_delays_the_end_by_no_more_than_a_moment(tools_of: Open, serve: Serve, pipe: Pipe) -> None:
    server = serve()
    tools = tools_of({"t": {"url": server.url}})
    thread = threading.Thread(target=lambda: pytest.raises(ToolError, tools.execute, "t__hang", {"pipe": pipe.path}))
    thread.start()
    pipe.wait_for("begun")

    began = time.monotonic()
    tools.close()
    thread.join(PATIENCE_S)

    assert time.monotonic() - began < 8.0
