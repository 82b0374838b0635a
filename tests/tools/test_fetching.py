"""Fetching: the address is judged and then connected to; whatever a server does, it comes to an end."""

from __future__ import annotations

import gzip
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Denied, GatewayError, Invalid, Unavailable
from abstractgateway.runtime.effects.tools import ToolContext
from abstractgateway.runtime.models import RunState
from abstractgateway.security.addresses import FetchRules
from abstractgateway.tools import fetching
from abstractgateway.tools.fetching import Fetcher, FetchTools
from abstractgateway.tools.process import ToolFailed
from tests.tools.toolbox import Desk, StopNow

LOOPBACK = FetchRules.of(["127.0.0.1"])
CONTEXT = ToolContext(RunState.new(workflow_id="w", entry_node="n"))
PAGE = (
    "<html><head><title> A  page </title><style>p {}</style></head><body><h1>Head</h1><p>One &amp; <b>two</b></p>"
    "<script>evil()</script><a href='/next'>on</a><a href='javascript:x'>no</a><svg><p>hidden</p></svg></body></html>"
)

Reply = tuple[int, dict[str, str], bytes]


class Site:
    """A server on loopback: what it answers by path, and what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply | Callable[[Any], None]] = {}
        self.asked: list[tuple[str, str]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.headers["Host"], self.path))
                reply = site.replies[self.path]
                if callable(reply):
                    reply(self)
                    return
                self.send_response(reply[0])
                for name, value in reply[1].items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply[2])

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, path: str, host: str = "site.example") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    yield served
    served.server.shutdown()
    served.server.server_close()


class Names:
    """A resolver of its own; each name has the answers that are given one after the other, the last for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {"site.example": [["127.0.0.1"]], **{name.replace("_", "."): a for name, a in answers.items()}}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.answers.get(host)
        if answers is None:
            raise Unavailable(f"no name {host}")
        return answers.pop(0) if len(answers) > 1 else answers[0]


def tools(names: Names | None = None, rules: FetchRules = LOOPBACK) -> FetchTools:
    return FetchTools(Fetcher(rules, names or Names()))


def html(text: str, **headers: str) -> Reply:
    return 200, {"Content-Type": "text/html; charset=utf-8", **headers}, text.encode()


def test_a_page_is_returned_as_text_with_its_links(site: Site) -> None:
    site.replies["/page?a=1"] = html(PAGE)

    found = tools().fetch_url(CONTEXT, site.url("/page?a=1#part"))

    assert found["title"] == "A page"
    assert found["text"] == "Head\nOne & two\nonno"
    assert found["links"] == [site.url("/next")]
    assert (found["status"], found["content_type"], found["truncated"]) == (200, "text/html", False)
    assert site.asked == [(f"site.example:{site.port}", "/page?a=1")]
    assert "links" not in tools().skim_url(CONTEXT, site.url("/page?a=1"))


@pytest.mark.parametrize(
    ("content_type", "content", "text"),
    [
        ("application/json", b'{"a": 1}', '{"a": 1}'),
        ("application/ld+json", b"{}", "{}"),
        ("text/plain; charset=latin-1", b"gr\xfcezi", "grüezi"),
        ("text/html; charset=latin-1", b"<p>gr\xfcezi", "grüezi"),
        ("text/plain", b"bad \xff", "bad \ufffd"),
    ],
)
def test_text_is_returned_as_it_is(site: Site, content_type: str, content: bytes, text: str) -> None:
    site.replies["/"] = (200, {"Content-Type": content_type}, content)

    assert tools().fetch_url(CONTEXT, site.url("/"))["text"] == text


@pytest.mark.parametrize(
    ("status", "content_type", "error"),
    [
        (404, "text/plain", "answered 404: gone"),
        (500, "text/html", "answered 500"),
        (200, "image/png", "is image/png, no text"),
        (200, "text/plain; charset=nonsense", "is not known"),
        (200, "text/html; charset=nonsense", "is not known"),
    ],
)
def test_what_is_no_text_is_a_failure(site: Site, status: int, content_type: str, error: str) -> None:
    site.replies["/"] = (status, {"Content-Type": content_type}, b"gone")

    with pytest.raises(GatewayError, match=error):
        tools().fetch_url(CONTEXT, site.url("/"))


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/"),
        *("http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://localhost/", "http://0/"),
        *("http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[fe80::1]/"),
    ],
)
def test_an_address_of_this_machine_or_network_is_refused_however_it_is_written(desk: Desk, url: str) -> None:
    for tool in ("fetch_url", "skim_url"):
        with pytest.raises((Denied, Unavailable)) as refusal:
            desk.call(tool, url=url)
        assert "not a public address" in str(refusal.value) or "cannot be resolved" in str(refusal.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/", "gopher://x/", "http://u:p@example.org/"])
def test_another_kind_of_url_is_refused(desk: Desk, url: str) -> None:
    with pytest.raises(Invalid):
        desk.call("fetch_url", url=url)


def test_a_name_that_has_a_private_address_among_others_is_refused(site: Site) -> None:
    names = Names(mixed_example=[["127.0.0.1", "10.0.0.1"]])

    with pytest.raises(Denied, match=r"'mixed.example' is at 10.0.0.1"):
        tools(names).fetch_url(CONTEXT, site.url("/", "mixed.example"))
    assert site.asked == []


def test_a_name_is_resolved_once_and_what_it_stood_for_is_connected_to(site: Site) -> None:
    """A name that means another address a moment later does not lead there."""
    site.replies["/"] = html("<p>found")
    names = Names(turning_example=[["127.0.0.1"], ["10.0.0.1"]])

    found = tools(names).fetch_url(CONTEXT, site.url("/", "turning.example"))

    assert found["text"] == "found"
    assert names.asked == ["turning.example"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_followed_and_its_target_judged_anew(site: Site, status: int) -> None:
    site.replies["/a"] = (status, {"Location": "/b"}, b"")
    site.replies["/b"] = html("<p>there")
    site.replies["/out"] = (status, {"Location": "http://inside.example/admin"}, b"")
    site.replies["/file"] = (status, {"Location": "file:///etc/passwd"}, b"")
    fetch = tools(Names(inside_example=[["10.0.0.1"]])).fetch_url

    found = fetch(CONTEXT, site.url("/a"))
    assert (found["url"], found["text"]) == (site.url("/b"), "there")
    with pytest.raises(Denied, match=r"10\.0\.0\.1"):
        fetch(CONTEXT, site.url("/out"))
    with pytest.raises(Invalid, match="'file' is not http or https"):
        fetch(CONTEXT, site.url("/file"))


def test_redirections_in_a_circle_come_to_an_end(site: Site) -> None:
    site.replies["/"] = (302, {"Location": "/"}, b"")

    with pytest.raises(ToolFailed, match="redirected more than 5 times"):
        tools().fetch_url(CONTEXT, site.url("/"))
    assert len(site.asked) == 6


def test_a_page_is_read_as_far_as_it_may_be(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MOST_BYTES", 1000)
    site.replies["/"] = (200, {"Content-Type": "text/plain"}, b"x" * 5000)

    found = tools().fetch_url(CONTEXT, site.url("/"))

    assert (len(found["text"]), found["size_bytes"], found["truncated"]) == (1000, 1000, True)


def test_a_long_text_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MOST_CHARS", 10)
    site.replies["/"] = (200, {"Content-Type": "text/plain"}, b"x" * 50)

    found = tools().fetch_url(CONTEXT, site.url("/"))

    assert (found["text"], found["size_bytes"], found["truncated"]) == ("x" * 10, 50, True)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_packed_content_is_unpacked_no_further_than_it_may_be(
    site: Site, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(fetching, "MOST_BYTES", 1000)
    bomb = gzip.compress(b"x" * 50_000_000)
    site.replies["/"] = (200, {"Content-Type": "text/plain", "Content-Encoding": encoding}, bomb)
    site.replies["/small"] = (200, {"Content-Type": "text/plain", "Content-Encoding": encoding}, gzip.compress(b"ab"))
    site.replies["/bad"] = (200, {"Content-Type": "text/plain", "Content-Encoding": encoding}, b"not packed")

    tracemalloc.start()
    assert tools().fetch_url(CONTEXT, site.url("/"))["size_bytes"] == 1000
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert tools().fetch_url(CONTEXT, site.url("/small"))["text"] == "ab"
    with pytest.raises(ToolFailed, match="did not answer"):
        tools().fetch_url(CONTEXT, site.url("/bad"))


def test_content_that_is_packed_in_another_way_is_refused(site: Site) -> None:
    site.replies["/"] = (200, {"Content-Type": "text/plain", "Content-Encoding": "br"}, b"")

    with pytest.raises(ToolFailed, match="encoded as 'br'"):
        tools().fetch_url(CONTEXT, site.url("/"))


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(site: Site) -> None:
    is_over = threading.Event()

    def drip(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not is_over.wait(0.02):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    site.replies["/"] = drip
    with pytest.raises(ToolFailed, match="it took too long"):
        tools().fetch_url(CONTEXT, site.url("/"), timeout=0.5)
    is_over.set()


def test_a_page_that_is_not_wanted_any_more_is_given_up(site: Site) -> None:
    stop = StopNow()

    def hang(handler: Any) -> None:
        stop.set()
        handler.rfile.read(1)

    site.replies["/"] = hang
    context = ToolContext(CONTEXT.run, stop=stop)
    with pytest.raises(ToolFailed, match="its answer is not wanted any more"):
        tools().fetch_url(context, site.url("/"), timeout=60)


@pytest.mark.parametrize(
    "said", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nContent-Type: text/plain\r\n\r\nshort"]
)
def test_an_answer_that_breaks_off_is_a_failure_or_short(site: Site, said: bytes) -> None:
    site.replies["/"] = lambda handler: handler.wfile.write(said)

    try:
        assert tools().fetch_url(CONTEXT, site.url("/"))["text"] == "short"
    except ToolFailed as error:
        assert "'site.example' did not answer" in str(error)


def test_a_port_that_nobody_listens_on_is_a_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://site.example:{taken.getsockname()[1]}/"
        with pytest.raises(ToolFailed, match="did not answer"):
            tools().fetch_url(CONTEXT, url)


def test_a_name_that_does_not_exist_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"'no\.such\.name\.invalid' cannot be resolved"):
        Desk(tmp_path).call("fetch_url", url="http://no.such.name.invalid/")


def test_the_settings_may_allow_a_network(site: Site, tmp_path: Path) -> None:
    site.replies["/"] = html("<p>inside")

    assert Desk(tmp_path, fetch_allow=("127.0.0.0/8",)).call("fetch_url", url=site.url("/", "127.0.0.1"))["text"] == (
        "inside"
    )
