"""Requests that follow the table of routes and have something odd in every place, and what may not come back."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

TEXTS = (
    "",
    " ",
    "..",
    "../../../../etc/passwd",
    "..\\..\\x",
    "/etc/passwd",
    ".env",
    "a\0b",
    "a\r\nX-Evil: 1",
    "a" * 3_000,
    "\u00e9\u0301",
    "\U0001f4a9",
    "'; DROP TABLE runs; --",
    "%s%n%x",
    "{0.__class__}",
    "<script>",
    "-1",
    "0",
    "1e999",
    "9" * 400,
    "NaN",
    "null",
    "true",
    "2026-13-45T99:99:99Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "eyJ4Ijo",
    "AAAA",
    "1.2.3",
    "run:1,other:2",
    "*",
)
RAW = (
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"[" * 100_000,
    b'{"a":' * 600 + b"1" + b"}" * 600,
    b'{"x": 1e999, "y": NaN}',
    b'{"x": 1e999}',
    b'{"x": ' + b"9" * 5_000 + b"}",
    b'{"x": "\\ud800", "\\udfff": 1}',
    b'{"x": "\xff"}',
    b"\xef\xbb\xbf{}",
    '{"x": 1}'.encode("utf-16"),
    b'{"x": 1, "x": 2}',
    b"{}" * 1_000,
)
FORMS = (
    b"",
    b"--b--\r\n",
    b"--b\r\n\r\n\r\n--b--\r\n",
    b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nno file\r\n--b--\r\n',
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../x\0.flow"\r\n\r\nPK\r\n--b--\r\n',
    b"--b\r\nContent-Disposition: form-data; name*=utf-8''file; filename*=utf-8''%ff\r\n\r\nx\r\n--b--\r\n",
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\nContent-Type: \xff\xfe\r\n\r\nx\r\n--b--\r\n',
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nnever ends',
    b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n' * 3_000 + b"--b--\r\n",
    b"--b\r\n" + b"X: y\r\n" * 3_000 + b"\r\nx\r\n--b--\r\n",
)
FORM_TYPES = (
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    'multipart/form-data; boundary=""',
    "multipart/form-data; boundary=" + "b" * 300,
    "multipart/form-data; boundary=\xff",
)
JSON_TYPES = (
    "application/json",
    "application/json",
    "application/json",
    "text/plain",
    "application/json; charset=\xff",
)

# A path of this machine, a line of a database, or a piece of our code.
REVEALING = re.compile(
    r"Traceback|File \\?\"|site-packages|/tmp/|/usr/|/var/|\bSELECT \b|INSERT INTO|sqlite3?\.|psycopg"
    r"|\bno such (?:table|column)|<[\w.]+ object at 0x|\.py\b"
)


@dataclass(frozen=True)
class OddRequest:
    """A request; `route` names its operation as the document of the routes does."""

    route: str
    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None


class OddRequests:
    """Makes requests for the routes of a document; the same seed makes the same ones."""

    def __init__(self, document: Any, seed: int, *, without: tuple[str, ...] = ()) -> None:
        self._chance = random.Random(seed)
        self.operations = [
            (method.upper(), path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if path not in without
        ]
        self._schemas = document["components"]["schemas"]

    def next(self, place: int | None = None) -> OddRequest:
        """Return a request for one of the routes: that at a place of `operations`, or any."""
        index = self._chance.randrange(len(self.operations)) if place is None else place
        method, path, operation = self.operations[index]
        parameters = operation.get("parameters", ())
        target = re.sub(r"\{\w+\}", lambda _: quote(self._text(), safe=""), path)
        query = "&".join(
            f"{quote(found['name'])}={quote(self._text(), safe='')}"
            for found in parameters
            if found["in"] == "query" and self._chance.random() < 0.5
        )
        headers = {found["name"]: self._header() for found in parameters if found["in"] == "header" and self._often()}
        content = operation.get("requestBody", {}).get("content", {})
        body, content_type = self._body(content)
        if content_type:
            headers["Content-Type"] = content_type
        return OddRequest(f"{method} {path}", method, f"{target}?{query}" if query else target, headers, body)

    def _often(self) -> bool:
        return self._chance.random() < 0.7

    def _text(self) -> str:
        return self._chance.choice(TEXTS)

    def _header(self) -> str:
        return re.sub(r"[^ -~\x80-\xff]", "?", self._text())

    def _body(self, content: Any) -> tuple[bytes | None, str]:
        if "multipart/form-data" in content:
            return self._chance.choice(FORMS), self._chance.choice(FORM_TYPES)
        if "application/json" not in content:
            return None, ""
        if self._chance.random() < 0.4:
            return self._chance.choice(RAW), self._chance.choice(JSON_TYPES)
        return self._json(content["application/json"]["schema"]), "application/json"

    def _json(self, schema: Any) -> bytes:
        named = schema.get("$ref", "").rpartition("/")[2]
        properties = (self._schemas[named] if named else schema).get("properties", {})
        odd: tuple[Callable[[], Any], ...] = (
            lambda: None,
            lambda: self._chance.choice((True, 0, -1, 1 << 70, 1.5, 1e308)),
            self._text,
            self._text,
            lambda: "\ud800",
            lambda: self._chance.choice(([], {}, [[]], {"": {}}, [None] * 50, {"run_id": "x", "after": -1})),
            lambda: {"a": {"b": [self._text(), {"c": self._text()}]}},
        )
        return json.dumps({name: self._chance.choice(odd)() for name in properties if self._often()}).encode()


def complaint(request: OddRequest, status: int, body: bytes, allowed: frozenset[int], secrets: tuple[str, ...]) -> str:
    """Return what is wrong with an answer, or nothing."""
    if status < 400:
        return ""
    text = body.decode("utf-8", "replace")
    # An odd text in a path makes it the path of another route, or of none.
    is_elsewhere = '"code": "route_not_found"' in text or '"code": "method_not_allowed"' in text
    if status == 500 or (status not in allowed and not is_elsewhere):
        return f"status {status}, {sorted(allowed)} are documented"
    try:
        answer = json.loads(text, parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return "not JSON"
    if {"detail", "code", "request_id"} != set(answer):
        return f"not an error as all are: {sorted(answer)}"
    shown = _without_quoted_input(answer["detail"])
    found = REVEALING.search(shown) or next((secret for secret in secrets if secret in shown), None)
    return f"shows {found!r}" if found else ""


def _without_quoted_input(detail: Any) -> str:
    if isinstance(detail, list):
        detail = [{name: value for name, value in problem.items() if name != "input"} for problem in detail]
    text = json.dumps(detail, ensure_ascii=False)
    for known in TEXTS:
        if len(known) > 3:
            text = text.replace(json.dumps(known, ensure_ascii=False)[1:-1], "…").replace(repr(known)[1:-1], "…")
    return text


def documented(document: Any) -> dict[str, frozenset[int]]:
    """Return the statuses that each route may answer with, by its method and path."""
    return {
        f"{method.upper()} {path}": frozenset(int(status) for status in operation["responses"] if status.isdecimal())
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
