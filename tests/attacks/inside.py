"""A gateway in this process that is asked without a network, so that thousands of requests take seconds."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway_http.app import create_app
from abstractgateway_http.openapi import openapi_bytes
from abstractgateway_http.routes import ROUTES
from tests.attacks.odd_requests import documented
from tests.cli.processes import PATIENCE_S, SAMPLES, TOKEN

CANARY = "canary-outside-of-every-directory"
_CHUNK_LIMIT = 10_000
ELSEWHERE = ("route_not_found", "method_not_allowed")


class Finding(AssertionError):
    """The gateway answered something that it should not."""


@dataclass
class Inside:
    """The gateway; `root` has its directories, and `outside` beside them, which nobody may reach."""

    service: GatewayService
    root: Path
    app: Any
    run_id: str = ""
    allowed: Mapping[str, frozenset[int]] = field(default_factory=dict)
    asked: bytes = b""

    def ask(
        self, method: str, path: bytes, query: bytes = b"", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Return status and body of an answer; the path is not percent-encoded any more."""
        self.asked = path + query + body
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path.decode("latin-1"),
            "QUERY_STRING": query.decode("latin-1"),
            "SCRIPT_NAME": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "127.0.0.1",
            "HTTP_AUTHORIZATION": f"Bearer {TOKEN}",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            **(headers or {}),
        }
        status: list[int] = []
        answer = self.app(environ, lambda line, head, info=None: status.append(int(line.split()[0])))
        try:
            content = b"".join(part for part, _ in zip(answer, range(_CHUNK_LIMIT), strict=False))
        finally:
            getattr(answer, "close", _nothing)()
        return status[0], content

    def check(self, route: str, status: int, body: bytes) -> str:
        """Return how a request to a route went. Raises `Finding` for what its documentation does not have."""
        if CANARY.encode() in body:
            raise Finding(f"{route} shows what lies outside")
        if status < 400:
            return "taken"
        answer = _strict(body)
        if status >= 500 or set(answer) != {"detail", "code", "request_id"}:
            raise Finding(f"{route} answers {status}: {body[:500]!r}")
        if status not in self.allowed[route] and answer["code"] not in ELSEWHERE:
            raise Finding(f"{route} answers {status}, {sorted(self.allowed[route])} are documented: {body[:500]!r}")
        if str(self.root) in json.dumps(answer) and str(self.root).encode() not in unquote_to_bytes(self.asked):
            raise Finding(f"{route} shows a path: {body[:500]!r}")
        return "refused"

    def check_disk(self) -> None:
        """Raise `Finding` when there is anything new beside the directories of the gateway."""
        found = sorted(path.name for path in self.root.iterdir())
        outside = [(path.name, path.read_text()) for path in (self.root / "outside").iterdir()]
        if found != ["data", "flows", "outside", "workspace"] or outside != [("secret.txt", CANARY)]:
            raise Finding(f"something was written or taken away outside: {found} {outside}")


def _strict(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError) as error:
        raise Finding(f"not JSON ({error}): {body[:500]!r}") from error


def _nothing() -> None:
    pass


@contextmanager
def inside(root: Path) -> Iterator[Inside]:
    """Open a gateway on directories below `root`, with a run that has ended."""
    for name in ("flows", "outside", "workspace"):
        (root / name).mkdir()
    (root / "outside" / "secret.txt").write_text(CANARY)
    (root / "workspace" / "file.txt").write_text("a file\n" * 100)
    for sample in SAMPLES.glob("*.flow"):
        shutil.copy(sample, root / "flows")
    config = GatewayConfig(
        data_dir=root / "data",
        flows_dir=root / "flows",
        workspace_dir=root / "workspace",
        store_backend="file",
        durability="relaxed",
        auth_tokens=(TOKEN,),
        max_body_bytes=1_000_000,
        audit_log=False,
    )
    with GatewayService.open(config) as service:
        found = Inside(service, root, create_app(service))
        found.allowed = documented(json.loads(openapi_bytes(ROUTES)))
        found.run_id = service.runs.start(bundle_id="hello", session_id="s")
        _wait(lambda: service.runs.get(found.run_id)["status"] == "completed")
        yield found


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
