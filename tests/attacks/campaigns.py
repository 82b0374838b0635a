"""Inputs from outside, one campaign for each kind: bytes in, `taken` or `refused` out, and anything else is a finding.

`scripts/fuzz` feeds them for minutes, at random or by coverage; the tests do so for a moment.
"""

from __future__ import annotations

import json
import random
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from waitress.adjustments import Adjustments

from abstractgateway.bundles.catalogue import open_bundle
from abstractgateway.bundles.compiled import compile_bundle
from abstractgateway.errors import Invalid
from abstractgateway.service.run_tree import Place
from abstractgateway_http.fields import Field, ValidationFailed, json_object, read_body, text, whole
from abstractgateway_http.handover import LimitedParser
from abstractgateway_http.render import error_body
from abstractgateway_http.server import GatewayServer
from tests.attacks.inside import Finding, Inside
from tests.attacks.odd_requests import FORM_TYPES, FORMS, RAW, TEXTS
from tests.attacks.target import STATUS
from tests.attacks.test_heads import AMBIGUOUS, post
from tests.cli.processes import PATIENCE_S, SAMPLES

API = "/api/gateway"
Feed = Callable[[bytes], str]


@dataclass(frozen=True)
class Campaign:
    """`seeds` are inputs to begin with, `words` what is put into them, `open` returns what takes one input."""

    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    open: Callable[[Inside], Feed]

    def inputs(self, chance: random.Random) -> Iterator[bytes]:
        """Return the seeds, then changed ones without end; the same chance makes the same inputs."""
        yield from self.seeds
        while True:
            yield changed(chance.choice(self.seeds), self.seeds, self.words, chance)


def changed(seed: bytes, seeds: tuple[bytes, ...], words: tuple[bytes, ...], chance: random.Random) -> bytes:
    """Return an input with a few things changed, put in, left out, doubled, or taken from another one."""
    data = bytearray(seed[:20_000])
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        place, size = chance.randrange(len(data) + 1), chance.choice((0, 1, 1, 4, 20, 400))
        kind = chance.randrange(5)
        if kind == 0:
            data[place : place + size] = bytes(chance.randrange(256) for _ in range(chance.randrange(4)))
        elif kind == 1:
            data[place:place] = data[place : place + size]
        elif kind == 2:
            other = chance.choice(seeds)
            start = chance.randrange(len(other) + 1)
            data[place : place + size] = other[start : start + chance.choice((4, 40, 400))]
        else:
            data[place : place + (size if kind == 3 else 0)] = chance.choice(words)
    return bytes(data)


# --- JSON bodies

FIELDS = (Field("a", text, required=True), Field("n", whole(0, 10)), Field("o", json_object, default=dict))


def feed_json(data: bytes) -> str:
    """Read a body; what is taken, every other reader takes as well, and reads alike."""
    try:
        read_body(FIELDS, data)
    except ValidationFailed as failure:
        json.loads(error_body("c", failure.problems, "r"), parse_constant=_no_constant)
        return "refused"
    if _has_doubles(json.loads(data, object_pairs_hook=_Pairs, parse_constant=_no_constant)):
        raise Finding("a key that comes twice was taken")
    return "taken"


class _Pairs(list[Any]):
    """An object as its pairs."""


def _has_doubles(value: Any) -> bool:
    if isinstance(value, _Pairs):
        return len({key for key, _ in value}) < len(value) or any(_has_doubles(inner) for _, inner in value)
    return isinstance(value, list) and any(map(_has_doubles, value))


def _no_constant(name: str) -> None:
    raise Finding(f"{name} is not JSON")


# --- forms: the first line is the content type


def open_multipart(gateway: Inside) -> Feed:
    def feed(data: bytes) -> str:
        kind, _, body = data.partition(b"\n")
        name = "bundles" if len(body) % 2 else "attachments"
        route = f"POST {API}/{name}/upload"
        headers = {"CONTENT_TYPE": kind.decode("latin-1").replace("\r", "")}
        return gateway.check(route, *gateway.ask("POST", f"{API}/{name}/upload".encode(), headers=headers, body=body))

    return feed


def upload_seeds() -> Iterator[bytes]:
    for kind in FORM_TYPES:
        yield from (kind.encode("latin-1") + b"\n" + form for form in FORMS)
    part = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    file = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.txt"\r\nContent-Type: text/plain\r\n\r\nx\r\n'
    )
    whole_form = part % (b"session_id", b"s") + part % (b"filename", b"f.txt") + file + b"--b--\r\n"
    yield b"multipart/form-data; boundary=b\n" + whole_form
    bundle = file.replace(b"\r\n\r\nx\r\n", b"\r\n\r\n" + sorted(SAMPLES.glob("*.flow"))[0].read_bytes() + b"\r\n")
    yield b"multipart/form-data; boundary=b\n" + part % (b"overwrite", b"true") + bundle + b"--b--\r\n"


# --- cursors: the first byte says where


def open_cursors(gateway: Inside) -> Feed:
    run = f"{API}/runs/{gateway.run_id}".encode()
    one = f"{API}/runs/{{run_id}}"

    def stream(data: bytes) -> str:
        headers = {"HTTP_LAST_EVENT_ID": data.decode("latin-1")}
        found = gateway.ask("GET", run + b"/ledger/stream", b"include=children", headers)
        return gateway.check(f"GET {one}/ledger/stream", *found)

    def batch(data: bytes) -> str:
        value = json.dumps(data.decode("utf-8", "replace")).encode()
        body = b'{"runs":[{"run_id":"%b","after":%b}]}' % (gateway.run_id.encode(), data if len(data) % 2 else value)
        headers = {"CONTENT_TYPE": "application/json"}
        found = gateway.ask("POST", f"{API}/runs/ledger/batch".encode(), headers=headers, body=body)
        return gateway.check(f"POST {API}/runs/ledger/batch", *found)

    def page(data: bytes) -> str:
        query = b"cursor=" + quote(data, safe="").encode()
        return gateway.check(f"GET {API}/runs", *gateway.ask("GET", f"{API}/runs".encode(), query))

    def ledger(data: bytes) -> str:
        query = b"after=" + quote(data, safe="").encode()
        return gateway.check(f"GET {one}/ledger", *gateway.ask("GET", run + b"/ledger", query))

    kinds = (page, ledger, stream, batch, feed_place)
    return lambda data: kinds[data[0] % len(kinds)](data[1:]) if data else "refused"


def feed_place(data: bytes) -> str:
    """Read a place in a tree of ledgers; what it is written as is read as the same place."""
    try:
        place = Place.of(data.decode("utf-8", "replace"))
    except Invalid:
        return "refused"
    if str(Place.of(str(place))) != str(place):
        raise Finding(f"the place {place} is read as another")
    return "taken"


# --- heads of requests: as the parser reads them, and over a socket


def feed_head(data: bytes) -> str:
    """Read a request in one piece, in single bytes and in some pieces: what is understood is the same."""
    sizes = (len(data) or 1, 1, 7)
    found = [_parsed(data[:4_000], size) for size in sizes]
    if found[1:] != found[:-1]:
        raise Finding(f"read in pieces of {sizes} it is {found}")
    return "refused" if found[0][0] else "taken"


def _parsed(data: bytes, size: int) -> tuple[Any, ...]:
    parser: Any = LimitedParser(lambda path, authorization: 1_000, _ADJUSTMENTS)
    at = 0
    while at < len(data) and not parser.completed:
        at += parser.received(data[at : at + size])
    error = parser.error.code if parser.error else 0
    if error:
        return (error,)
    body = parser.get_body_stream().read() if parser.completed else b""
    return error, parser.completed, parser.path, sorted(parser.headers.items()), body, at if parser.completed else 0


_ADJUSTMENTS = Adjustments(max_request_header_size=20_000, max_request_body_size=2_000)


def open_sockets(gateway: Inside) -> Feed:
    """Send bytes to a server and read what comes until it closes; it answers others afterwards."""
    server = GatewayServer(gateway.service).start()

    def feed(data: bytes) -> str:
        answers = _exchanged(server.port, data)
        statuses = [int(status) for status in STATUS.findall(answers)]
        if any(status >= 500 and status != 501 for status in statuses):
            raise Finding(f"answered with {statuses}: {answers[:2_000]!r}")
        return "taken" if 200 in statuses else "refused"

    return feed


def _exchanged(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock:
        parts = []
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65_536):
                parts.append(part)
        except (ConnectionResetError, BrokenPipeError):
            pass
        except TimeoutError as error:
            raise Finding(f"no end of the answer after {PATIENCE_S} s") from error
    return b"".join(parts)


# --- bundles


def open_zip(gateway: Inside) -> Feed:
    path = gateway.root / "data" / "case.flow"

    def feed(data: bytes) -> str:
        path.write_bytes(data)
        try:
            compile_bundle(open_bundle(path))
        except Invalid:
            return "refused"
        return "taken"

    return feed


# --- ids that become names of files: the first byte says where


def open_ids(gateway: Inside) -> Feed:
    run = gateway.run_id
    gets = ("/runs/{0}", "/runs/{0}/ledger", "/runs/{0}/artifacts/{0}", f"/runs/{run}/artifacts/{{0}}/content")
    gets += ("/bundles/{0}", "/bundles/hello/flows/{0}", "/visualflows/{0}", "/commands/{0}", "/workflows/{0}/flow")
    paths = [("GET", path) for path in gets] + [("DELETE", "/visualflows/{0}"), ("POST", "/visualflows/{0}/publish")]
    paths += [("POST", "/bundles/{0}/deprecate"), ("DELETE", "/bundles/{0}")]
    queries = [("GET", path, name) for path, name in (("/files/read", "path"), ("/files/skim", "path"))]
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/runs/start", {"bundle_id": None, "flow_id": None, "session_id": None}),
        ("/commands", {"command_id": None, "run_id": None, "type": "cancel"}),
        ("/attachments/ingest", {"session_id": None, "path": None, "filename": None}),
        ("/visualflows", {"name": None}),
    ]

    def in_path(method: str, path: str, data: bytes) -> str:
        filled = f"{API}{path}".encode().replace(b"{0}", data)
        headers = {"CONTENT_TYPE": "application/json"} if method == "POST" else {}
        found = gateway.ask(method, filled, headers=headers, body=b"{}" if method == "POST" else b"")
        return gateway.check(_route(method, path.replace(run, "{0}")), *found)

    def in_query(method: str, path: str, name: str, data: bytes) -> str:
        query = f"{name}={quote(data, safe='')}".encode()
        return gateway.check(f"{method} {API}{path}", *gateway.ask(method, f"{API}{path}".encode(), query))

    def in_body(path: str, fields: dict[str, Any], data: bytes) -> str:
        told = data.decode("utf-8", "replace")
        body = json.dumps({name: told if value is None else value for name, value in fields.items()}).encode()
        headers = {"CONTENT_TYPE": "application/json"}
        return gateway.check(
            f"POST {API}{path}", *gateway.ask("POST", f"{API}{path}".encode(), headers=headers, body=body)
        )

    def in_form(data: bytes) -> str:
        name = re.sub(rb"[\r\n\"]", b"", data)
        kind = "multipart/form-data; boundary=bb"
        part = b'--bb\r\nContent-Disposition: form-data; name="session_id"\r\n\r\n%b\r\n' % name
        file = b'--bb\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\nx\r\n--bb--\r\n' % name
        path = f"{API}/attachments/upload"
        found = gateway.ask("POST", path.encode(), headers={"CONTENT_TYPE": kind}, body=part + file)
        return gateway.check(f"POST {path}", *found)

    kinds: list[Feed] = [partial(in_path, *place) for place in paths]
    kinds += [partial(in_query, *place) for place in queries] + [partial(in_body, *place) for place in bodies]
    kinds.append(in_form)

    def feed(data: bytes) -> str:
        outcome = kinds[data[0] % len(kinds)](data[1:]) if data else "refused"
        gateway.check_disk()
        return outcome

    return feed


def _route(method: str, path: str) -> str:
    """Return a route as the document of the routes names it."""
    names = {"runs": "run_id", "artifacts": "artifact_id", "bundles": "bundle_id", "flows": "flow_id"}
    names |= {"visualflows": "flow_id", "commands": "command_id", "workflows": "workflow_id"}
    parts = path.replace("/bundles/hello/", "/bundles/{0}/").split("/")
    named = [
        f"{{{names[before]}}}" if part == "{0}" else part for before, part in zip(["", *parts], parts, strict=False)
    ]
    return f"{method} {API}{'/'.join(named)}"


# --- query strings: the first byte says of which route


def open_queries(gateway: Inside) -> Feed:
    run = f"/runs/{gateway.run_id}"
    routes = ("/runs", f"{run}/ledger", f"{run}/history_bundle", f"{run}/artifacts", "/bundles", "/files/search")
    routes += ("/discovery/tools", "/files/read", "/bundles/hello", f"{run}/schedule/next", "/audit/tail")

    def feed(data: bytes) -> str:
        path = routes[data[0] % len(routes)] if data else "/runs"
        route = f"GET {API}{path}".replace(gateway.run_id, "{run_id}").replace("/bundles/hello", "/bundles/{bundle_id}")
        return gateway.check(route, *gateway.ask("GET", f"{API}{path}".encode(), data[1:].replace(b"#", b"")))

    return feed


ODD_TEXTS = tuple(item.encode("utf-8", "surrogatepass")[:400] for item in TEXTS)
MARKS = (
    b"\0",
    b"\xff",
    b"\r\n",
    b"%00",
    b"%2e%2e%2f",
    b"../",
    b"\\",
    b"+",
    b"&",
    b"=",
    b";",
    b"\xe2\x80\xae",
    b"\xc0\xaf",
)
PLACES = bytes(range(24))
CURSORS = (
    b"12(7:3,9:0)",
    b"0",
    b"9" * 40,
    b"1(1:1(1:1))",
    b"((((",
    b"-1",
    b"1,2",
    b"eyJ1IjoiMSJ9",
    b"1.5",
    b"\xd9\xa3",
)
QUERY_WORDS = (b"limit=", b"after=", b"cursor=", b"status=", b"wait=1", b"path=", b"updated_from=", b"ledger_mode=full")
HEAD_WORDS = (
    b"\r\n",
    b"\r",
    b"\n",
    b": ",
    b"Content-Length: 3",
    b"Transfer-Encoding: chunked",
    b"Host: x",
    b"\t",
    b"0x",
)
HEADS = (
    *AMBIGUOUS.values(),
    post("Content-Length: 2", "Connection: close") + b"{}",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
)

CAMPAIGNS: dict[str, Campaign] = {
    "json": Campaign(
        tuple(raw[:2_000] for raw in RAW) + (b'{"a":"x","n":1,"o":{"a":[1,{"a":2}]}}',),
        (b"[", b"{", b'"a":', b"1e999", b"\xff", b"\\ud800", b'"a"', b",", b"NaN", b"9" * 400, b"\\u0061"),
        lambda gateway: feed_json,
    ),
    "multipart": Campaign(
        tuple(upload_seeds()),
        (
            *MARKS,
            b"--b",
            b"--b--",
            b"\r\n\r\n",
            b'name="file"',
            b'filename="',
            b"filename*=utf-8''",
            b"; charset=utf-7",
        ),
        open_multipart,
    ),
    "cursors": Campaign(
        tuple(bytes([place]) + item for place in range(5) for item in (*CURSORS, *ODD_TEXTS)),
        (*CURSORS, *MARKS, b"(", b")", b",", b":"),
        open_cursors,
    ),
    "heads": Campaign(HEADS, (*HEAD_WORDS, *MARKS), lambda gateway: feed_head),
    "sockets": Campaign(HEADS, (*HEAD_WORDS, *MARKS), open_sockets),
    "zip": Campaign(
        tuple(path.read_bytes() for path in sorted(SAMPLES.glob("*.flow"))),
        (b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04", b"\xff\xff\xff\xff", b"\0\0\0\0", b"../", b"manifest.json"),
        open_zip,
    ),
    "ids": Campaign(tuple(bytes([place]) + item for place in PLACES for item in ODD_TEXTS), MARKS, open_ids),
    "queries": Campaign(
        tuple(bytes([place]) + word + item for place in range(11) for word in QUERY_WORDS for item in ODD_TEXTS[:20]),
        (*MARKS, *QUERY_WORDS),
        open_queries,
    ),
}
