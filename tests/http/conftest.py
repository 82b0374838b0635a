"""A gateway service small enough to read, over real ledgers in memory, and a client that speaks raw HTTP."""

from __future__ import annotations

import io
import json
import socket
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from abstractgateway.config import GatewayConfig
from abstractgateway.errors import Conflict, Invalid, NotFound
from abstractgateway.runner.deltas import Deltas
from abstractgateway.service import GatewayService
from abstractgateway.service.access import Access
from abstractgateway.service.metrics import Metrics
from abstractgateway.stores import open_memory_stores
from abstractgateway_http.hub import HubLimits
from abstractgateway_http.server import GatewayServer

TOKEN = "a-token-of-some-length"
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Tail:
    records: list[bytes]
    next_after: int
    ended: bool = False


@dataclass
class Ledgers:
    """The ledgers of runs, as the service reads them, with a switch to end runs and one to break reading."""

    runs: dict[str, list[bytes]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    listeners: list[Callable[[frozenset[str]], None]] = field(default_factory=list)
    reads: int = 0

    def append(self, run_id: str, *records: bytes) -> None:
        self.runs.setdefault(run_id, []).extend(records)
        self.announce(run_id)

    def end(self, run_id: str) -> None:
        self.ended.add(run_id)
        self.announce(run_id)

    def announce(self, run_id: str) -> None:
        for listener in list(self.listeners):
            listener(frozenset({run_id}))

    def read(self, run_id: str, after: int = 0, limit: int = 200) -> Tail:
        records = self.runs.get(run_id, [])[after : after + limit]
        return Tail(records, after + len(records))

    def may_grow(self, run_id: str, after: int) -> bool:
        return run_id in self.runs and (run_id not in self.ended or after < len(self.runs[run_id]))

    def read_tree(self, run_id: str, place: str, max_bytes: int) -> Any:
        raise AssertionError("these runs have no runs below them")

    def tail(self, run_id: str, after: int, max_bytes: int) -> Tail:
        self.reads += 1
        if run_id in self.broken:
            raise RuntimeError("the disk is on fire")
        if run_id not in self.runs:
            raise NotFound(f"Run {run_id!r} not found")
        kept: list[bytes] = []
        size = 0
        for record in self.runs[run_id][after:]:
            if kept and size + len(record) > max_bytes:
                break
            kept.append(record)
            size += len(record)
        cursor = after + len(kept)
        return Tail(kept, cursor, run_id in self.ended and cursor >= len(self.runs[run_id]))


class StandInGateway:
    """What the adapter needs of a gateway service; every call is remembered in `calls`."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.ledger = Ledgers()
        self.deltas = Deltas(lambda run_id: None)
        self.metrics = Metrics(stores=open_memory_stores(), runner=None)
        self.access = Access()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failure: Exception | None = None
        self.runs = SimpleNamespace(start=self._start, get=self._get, snapshot=self._snapshot, list=self._list)
        self.commands = SimpleNamespace(submit=self._submit, outcome=self._outcome)
        self.bundles = SimpleNamespace(list=self._bundles, get=self._bundle)

    def subscribe(self, listener: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        self.ledger.listeners.append(listener)
        return lambda: self.ledger.listeners.remove(listener)

    def _note(self, name: str, **given: Any) -> None:
        self.calls.append((name, given))
        if self.failure is not None:
            raise self.failure

    def _start(self, **given: Any) -> str:
        self._note("runs.start", **given)
        if given["bundle_id"] is None and given["flow_id"] is None:
            raise Invalid("", "flow_id is required (or provide bundle_id to start a bundle entrypoint)")
        if given["bundle_id"] == "old":
            raise Conflict("Workflow 'old:root' is deprecated")
        if given["bundle_id"] not in ("ask", None):
            raise NotFound("Bundle not found")
        return "run-1"

    def _get(self, run_id: str) -> dict[str, Any]:
        self._note("runs.get", run_id=run_id)
        if run_id not in self.ledger.runs:
            raise NotFound(f"Run {run_id!r} not found")
        return {"run_id": run_id, "status": "running"}

    def _snapshot(self, run_id: str) -> tuple[bytes, int]:
        return json.dumps(self._get(run_id)).encode(), 1

    def _list(self, **given: Any) -> dict[str, Any]:
        self._note("runs.list", **given)
        return {"items": []}

    def _submit(self, **given: Any) -> Any:
        self._note("commands.submit", **given)
        return SimpleNamespace(accepted=True, duplicate=False, seq=7)

    def _outcome(self, command_id: str) -> dict[str, Any]:
        self._note("commands.outcome", command_id=command_id)
        return {"command_id": command_id, "status": "pending"}

    def _bundles(self, **given: Any) -> dict[str, Any]:
        self._note("bundles.list", **given)
        return {"items": [], "default_bundle_id": None}

    def _bundle(self, bundle_id: str, bundle_version: str | None = None) -> dict[str, Any]:
        self._note("bundles.get", bundle_id=bundle_id, bundle_version=bundle_version)
        return {"bundle_id": bundle_id}


@dataclass(frozen=True)
class Answer:
    """One HTTP response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to the server under test; every read gives up after a few seconds."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(("127.0.0.1", port))
        self.seen = b""

    def send(self, method: str, path: str, *headers: str, version: str = "1.1", body: bytes = b"") -> Client:
        """Send a request; a token and a host are added unless the headers name them."""
        self.sock.sendall(self.request(method, path, *headers, version=version, body=body))
        return self

    @staticmethod
    def request(method: str, path: str, *headers: str, version: str = "1.1", body: bytes = b"") -> bytes:
        named = {header.partition(":")[0].lower() for header in headers}
        lines = list(headers)
        if "host" not in named:
            lines.append("Host: 127.0.0.1")
        if "authorization" not in named:
            lines.append(f"Authorization: Bearer {TOKEN}")
        if body and "content-length" not in named and "transfer-encoding" not in named:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""])
        return head.encode("latin-1") + body

    def read_until(self, mark: bytes) -> bytes:
        """Return what arrived up to and including the mark; what came after it is kept for the next read."""
        while mark not in self.seen:
            data = self.sock.recv(65_536)
            if not data:
                raise AssertionError(f"the server closed before {mark!r}; it sent {self.seen[-300:]!r}")
            self.seen += data
        found, _, self.seen = self.seen.partition(mark)
        return found + mark

    def read_to_end(self) -> bytes:
        """Return everything until the server closes."""
        parts = [self.seen]
        self.seen = b""
        while part := self.sock.recv(262_144):
            parts.append(part)
        return b"".join(parts)

    def answer(self, *, has_body: bool = True) -> Answer:
        """Return the next response, which has a content length or ends with the connection."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers["content-length"]) if "content-length" in headers else None
        body = b""
        if has_body and length is None:
            body = self.read_to_end()
        elif has_body:
            while len(self.seen) < (length or 0):
                data = self.sock.recv(65_536)
                assert data, "the server closed inside a body"
                self.seen += data
            body, self.seen = self.seen[:length], self.seen[length:]
        return Answer(int(status_line.split()[1]), headers, body)

    def stream(self, run_id: str, *headers: str, query: str = "", version: str = "1.1") -> Client:
        """Open a stream and read its head and first chunk."""
        self.send("GET", f"/api/gateway/runs/{run_id}/ledger/stream{query}", *headers, version=version)
        self.read_until(b"retry: 1000\n\n")
        return self

    def close(self) -> None:
        self.sock.close()


def config_of(**settings: Any) -> GatewayConfig:
    return GatewayConfig(**{"store_backend": "memory", "auth_tokens": (TOKEN,), "http_threads": 4, **settings})


def echo_flow(**start: Any) -> dict[str, Any]:
    """Return a flow that ends with what it was given."""
    outputs = [
        {"id": "exec-out", "type": "execution"},
        {"id": "prompt", "label": "Prompt", "type": "string"},
        {"id": "n", "label": "n", "type": "integer"},
    ]
    begin = {"id": "s", "type": "on_flow_start", "data": {"outputs": outputs, "pinDefaults": {"n": 3}, **start}}
    end = {"id": "e", "type": "on_flow_end", "data": {"inputs": [{"id": "prompt", "type": "string"}]}}
    edges = [
        {"id": "1", "source": "s", "sourceHandle": "exec-out", "target": "e", "targetHandle": "exec-in"},
        {"id": "2", "source": "s", "sourceHandle": "prompt", "target": "e", "targetHandle": "prompt"},
    ]
    return {"id": "root", "name": "root", "nodes": [begin, end], "edges": edges}


def packed(bundle_id: str = "echo", version: str = "0.0.1", flow: Any = None, **manifest: Any) -> bytes:
    """Return the bytes of a bundle with the one flow `root`."""
    described = {
        "bundle_format_version": "1",
        "bundle_id": bundle_id,
        "bundle_version": version,
        "created_at": "2026-01-08T00:00:00+00:00",
        "entrypoints": [{"flow_id": "root", "name": "root", "description": "echoes", "interfaces": ["i"]}],
        "flows": {"root": "flows/root.json"},
        **manifest,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("manifest.json", json.dumps(described))
        archive.writestr("flows/root.json", json.dumps(flow if flow is not None else echo_flow()))
    return buffer.getvalue()


def form(content: bytes, **fields: str) -> tuple[bytes, str]:
    """Return the body of an upload and its content type."""
    parts = [
        b'--bnd\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value.encode())
        for name, value in fields.items()
    ]
    head = b'--bnd\r\nContent-Disposition: form-data; name="file"; filename="../x.flow"\r\n'
    file = head + b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n"
    return b"".join([*parts, file, b"--bnd--\r\n"]), "Content-Type: multipart/form-data; boundary=bnd"


@dataclass
class LiveGateway:
    """A real gateway behind a real server, and requests to it."""

    service: GatewayService
    server: GatewayServer

    @property
    def flows_dir(self) -> Path:
        return Path(self.service.config.flows_dir)

    def ask(self, method: str, path: str, *headers: str, body: Any = None, has_body: bool = True) -> Answer:
        """Send one request; a body that is not bytes goes as JSON."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = () if body is None or isinstance(body, bytes) else ("Content-Type: application/json",)
        with closing(Client(self.server.port)) as client:
            return client.send(method, f"/api/gateway{path}", *headers, *kind, body=raw).answer(has_body=has_body)

    def upload(self, content: bytes, **fields: str) -> Answer:
        body, kind = form(content, **fields)
        return self.ask("POST", "/bundles/upload", kind, body=body)

    def start(self, **given: Any) -> str:
        run_id: str = self.ask("POST", "/runs/start", body=given).json["run_id"]
        return run_id

    def finish(self, run_id: str) -> None:
        """Wait for the end of a run."""
        for _ in self.service.ledger.follow(run_id):
            continue


@pytest.fixture
def go_live(tmp_path: Path) -> Iterator[Callable[..., LiveGateway]]:
    """Opens real gateways on a directory of bundles; they are closed at the end of the test.

    `given` is what an embedding program gives besides the settings.
    """
    opened: list[LiveGateway] = []
    flows = tmp_path / "flows"
    flows.mkdir()

    def start(given: Mapping[str, Any] | None = None, **settings: Any) -> LiveGateway:
        config = config_of(flows_dir=flows, data_dir=tmp_path / "data", **settings)
        service = GatewayService.open(config, **(given or {}))
        opened.append(LiveGateway(service, GatewayServer(service).start()))
        return opened[-1]

    yield start
    for live in opened:
        live.server.stop()
        live.service.close()


@pytest.fixture
def live(go_live: Callable[..., LiveGateway]) -> LiveGateway:
    """A real gateway with the bundle `echo@0.0.1`."""
    gateway = go_live()
    gateway.upload(packed())
    return gateway


@pytest.fixture
def make_gateway() -> Callable[..., StandInGateway]:
    """Makes a stand-in gateway with settings of its own."""
    return lambda **settings: StandInGateway(config_of(**settings))


@pytest.fixture
def gateway(make_gateway: Callable[..., StandInGateway]) -> StandInGateway:
    return make_gateway()


@pytest.fixture
def serve_gateway() -> Iterator[Callable[..., GatewayServer]]:
    """Starts servers that are stopped at the end of the test."""
    servers: list[GatewayServer] = []

    def start(gateway: StandInGateway, **limits: Any) -> GatewayServer:
        server = GatewayServer(gateway, limits=HubLimits(**limits))
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(gateway: StandInGateway, serve_gateway: Callable[..., GatewayServer]) -> GatewayServer:
    return serve_gateway(gateway)


@pytest.fixture
def connect_to() -> Iterator[Callable[..., Client]]:
    """Opens connections to any server; they are closed at the end of the test."""
    clients: list[Client] = []

    def connect(server: GatewayServer, **options: Any) -> Client:
        clients.append(Client(server.port, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def connect(server: GatewayServer, connect_to: Callable[..., Client]) -> Callable[..., Client]:
    """Opens connections to the server under test."""
    return lambda **options: connect_to(server, **options)


@pytest.fixture
def ask(server: GatewayServer) -> Callable[..., Answer]:
    """Sends one request on a connection of its own and returns the answer."""

    def send(method: str, path: str, *headers: str, has_body: bool = True, **options: Any) -> Answer:
        with closing(Client(server.port)) as client:
            return client.send(method, path, *headers, **options).answer(has_body=has_body)

    return send
