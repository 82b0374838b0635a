"""Tools that fetch pages of the web: from addresses that may be connected to, and no other, whatever names say."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import urljoin

from ..errors import GatewayError, Invalid, Unavailable
from ..jsonvalue import JsonObject
from ..runtime.effects.tools import ToolContext
from ..runtime.signals import Stop
from ..security.addresses import FetchRules, Target, target_of
from .process import ToolFailed, run_task
from .table import BuiltinTool

MOST_BYTES = 5_000_000
MOST_REDIRECTS = 5
LONGEST_S = 60.0
DEFAULT_S = 20.0
MOST_CHARS = 50_000
SKIM_CHARS = 3_000
MOST_LINKS = 100
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TEXTS = ("text/", "application/json", "application/xml", "application/xhtml+xml", "application/javascript")
_HEADERS = {
    "User-Agent": "abstractgateway",
    "Accept": "text/html, text/*, application/json, application/xml;q=0.9, */*;q=0.1",
    "Accept-Encoding": "gzip, identity;q=0.5",
    "Connection": "close",
}

Resolve = Callable[[str, int], list[str]]
"""Returns the addresses that a host's name stands for."""


def resolve_name(host: str, port: int) -> list[str]:
    """Ask the system. Raises `Unavailable` when it knows no address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"the name {host!r} cannot be resolved: {error}", code="fetch_failed") from None
    return list(dict.fromkeys(str(item[4][0]) for item in found))


class Response(NamedTuple):
    """What a server answered: the status, the type and character set of the content, the content, where it leads."""

    status: int
    content_type: str
    charset: str
    content: bytes
    is_cut: bool
    location: str | None


class Fetcher:
    """Fetches URLs within rules; a name is resolved once for each connection, and what it stood for is connected to."""

    def __init__(self, rules: FetchRules, resolve: Resolve = resolve_name) -> None:
        self._rules = rules
        self._resolve = resolve

    def fetch(self, url: str, timeout_s: float, stop: Stop | None = None) -> tuple[str, Response]:
        """Return what a URL leads to in the end, and that URL.

        Raises `Invalid` or `Denied` for a URL that may not be fetched, `ToolFailed` when there is no answer in time.
        """
        deadline = time.monotonic() + timeout_s
        for _ in range(MOST_REDIRECTS + 1):
            response = self._fetch_once(target_of(url), deadline, stop)
            if response.location is None:
                return url, response
            url = urljoin(url, response.location).partition("#")[0]
        raise ToolFailed(f"was redirected more than {MOST_REDIRECTS} times, the last time to {url!r}")

    def _fetch_once(self, target: Target, deadline: float, stop: Stop | None) -> Response:
        addresses = self._resolve(target.host, target.port)
        if not addresses:
            raise Unavailable(f"the name {target.host!r} has no address", code="fetch_failed")
        for address in addresses:
            self._rules.check(target.host, address)
        connection = _PinnedConnection(target, addresses[0], deadline)
        try:
            with _watched(connection, deadline, stop):
                connection.request("GET", target.path, headers=_HEADERS)
                return _answer(connection.getresponse())
        except (OSError, http.client.HTTPException, UnicodeError, zlib.error) as error:
            raise ToolFailed(f"{target.host!r} did not answer: {type(error).__name__}: {error}") from None


class _PinnedConnection(http.client.HTTPConnection):
    """A connection to one address, under the name of its host."""

    def __init__(self, target: Target, address: str, deadline: float) -> None:
        super().__init__(target.host, target.port)
        self._target = target
        self._address = address
        self._deadline = deadline
        self.default_port = 443 if target.scheme == "https" else 80

    def connect(self) -> None:
        left = max(0.1, self._deadline - time.monotonic())
        self.sock = socket.create_connection((self._address, self._target.port), timeout=left)
        if self._target.scheme == "https":
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self._target.host)

    def end(self) -> None:
        """Have whoever reads or writes just now told that the connection is gone."""
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def _watched(connection: _PinnedConnection, deadline: float, stop: Stop | None) -> Iterator[None]:
    """End a connection when its time is up or nobody wants its answer: a server may send a byte now and then.

    Raises `ToolFailed` then, whatever was made of the answer until there.
    """
    is_over, why = threading.Event(), list[str]()

    def watch() -> None:
        while not is_over.wait(0.1):
            if time.monotonic() > deadline or (stop is not None and stop.is_set()):
                why.append("it took too long" if time.monotonic() > deadline else "its answer is not wanted any more")
                while not is_over.wait(0.1):
                    connection.end()

    watcher = threading.Thread(target=watch, name="fetch-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
        connection.close()
        if why:
            raise ToolFailed(f"{connection.host!r} did not answer: {why[0]}")


def _answer(response: http.client.HTTPResponse) -> Response:
    location = response.getheader("Location") if response.status in _REDIRECTS else None
    content, is_cut = (b"", False) if location else _content(response)
    content_type = response.headers.get_content_type()
    charset = response.headers.get_content_charset() or ""
    return Response(response.status, content_type, charset, content, is_cut, location)


def _content(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """Return the content as far as it is kept; what is packed is not unpacked further than that."""
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise ToolFailed(f"its content is encoded as {encoding!r}, which was not asked for")
    unpack = None if encoding == "identity" else zlib.decompressobj(wbits=47 if "gzip" in encoding else 15)
    content = bytearray()
    while len(content) <= MOST_BYTES and (chunk := response.read1(65_536)):
        content += chunk if unpack is None else unpack.decompress(chunk, MOST_BYTES + 1 - len(content))
    return bytes(content[:MOST_BYTES]), len(content) > MOST_BYTES


class FetchTools:
    """The tools on the web."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def rows(self) -> tuple[BuiltinTool, ...]:
        url: JsonObject = {"type": "string", "description": "An http or https URL."}
        timeout: JsonObject = {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": LONGEST_S,
            "description": f"Seconds; default {DEFAULT_S:g}.",
        }
        return (
            BuiltinTool(
                "skim_url",
                "web",
                "Shows the title and the beginning of the text of a page.",
                "To judge whether a page matters, before fetching it.",
                {"url": url, "timeout": timeout},
                self.skim_url,
                optional=("timeout",),
                examples=({"url": "https://example.org/"},),
            ),
            BuiltinTool(
                "fetch_url",
                "web",
                "Returns the text of a page, JSON or other text, and the links of a page.",
                "When you need what a page says.",
                {
                    "url": url,
                    "timeout": timeout,
                    "include_links": {"type": "boolean", "description": "Whether links are listed; default true."},
                },
                self.fetch_url,
                optional=("timeout", "include_links"),
                examples=({"url": "https://example.org/data.json"},),
            ),
        )

    def fetch_url(
        self, context: ToolContext, url: str, timeout: float = DEFAULT_S, include_links: bool = True
    ) -> JsonObject:
        """Fetch a URL: `{url, status, content_type, size_bytes, truncated, title?, text, links?}`."""
        found, response = self._fetch(context, url, timeout)
        shown = _shown(found, response, context.stop, MOST_CHARS)
        return shown if include_links else {name: value for name, value in shown.items() if name != "links"}

    def skim_url(self, context: ToolContext, url: str, timeout: float = DEFAULT_S) -> JsonObject:
        """Fetch a URL and return less of it: `{url, status, content_type, size_bytes, truncated, title?, text}`."""
        found, response = self._fetch(context, url, timeout)
        shown = _shown(found, response, context.stop, SKIM_CHARS)
        return {name: value for name, value in shown.items() if name != "links"}

    def _fetch(self, context: ToolContext, url: str, timeout: float) -> tuple[str, Response]:
        limit_s = timeout if context.timeout_s is None else min(timeout, context.timeout_s)
        found, response = self._fetcher.fetch(url, limit_s, context.stop)
        if not 200 <= response.status < 300:
            raise ToolFailed(f"{found!r} answered {response.status}: {_plain(response)[:300]}")
        return found, response


def _shown(url: str, response: Response, stop: Stop | None, most_chars: int) -> JsonObject:
    said: JsonObject = {
        "url": url,
        "status": response.status,
        "content_type": response.content_type,
        "size_bytes": len(response.content),
        "truncated": response.is_cut,
    }
    if response.content_type in ("text/html", "application/xhtml+xml"):
        page = _page(url, response, stop)
    elif response.content_type.startswith(_TEXTS) or response.content_type.endswith(("+json", "+xml")):
        page = {"text": _plain(response)}
    else:
        raise ToolFailed(f"{url!r} is {response.content_type}, no text ({len(response.content)} bytes)")
    is_long = len(page["text"]) > most_chars
    return {**said, **page, "text": page["text"][:most_chars], "truncated": response.is_cut or is_long}


def _page(url: str, response: Response, stop: Stop | None) -> JsonObject:
    request = {"charset": response.charset, "most_links": MOST_LINKS}
    page = run_task("page", request, (response.content,), stop)
    page["links"] = [link for link in (_absolute(url, link) for link in page["links"]) if link]
    return page


def _absolute(url: str, link: str) -> str | None:
    try:
        joined = urljoin(url, link)
        target_of(joined)
    except (GatewayError, ValueError):
        return None
    return joined


def _plain(response: Response) -> str:
    try:
        return response.content.decode(response.charset or "utf-8", "replace")
    except (LookupError, ValueError):
        raise Invalid("url", f"leads to text in {response.charset!r}, which is not known") from None
