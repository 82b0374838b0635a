"""Odd things in every place of every route are refused as documented, and refusals show nothing of the inside."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.odd_requests import OddRequest, OddRequests, complaint, documented
from tests.attacks.target import Target, attacked
from tests.cli.processes import PATIENCE_S, TOKEN

ROUNDS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


@pytest.fixture(scope="module")
def target(place: Path) -> Iterator[Target]:
    with attacked(place, STORE_BACKEND="sqlite") as target:
        yield target


def answer_to(target: Target, request: OddRequest) -> tuple[int, bytes]:
    """Send a request and return status and body; of a stream, only that it began."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=PATIENCE_S)
    try:
        headers = {name: value.encode("latin-1", "replace") for name, value in request.headers.items()}
        headers["Authorization"] = f"Bearer {TOKEN}".encode()
        connection.request(request.method, request.target, request.body, headers)
        response = connection.getresponse()
        is_stream = "event-stream" in (response.headers["Content-Type"] or "")
        return response.status, b"" if is_stream else response.read()
    finally:
        connection.close()


def test_every_route_refuses_odd_things_as_documented(target: Target, place: Path) -> None:
    _, document = target.ask("/openapi.json")
    requests, allowed = OddRequests(document, seed=7), documented(document)

    complaints = []
    for number in range(ROUNDS * len(requests.operations)):
        request = requests.next(number % len(requests.operations))
        status, body = answer_to(target, request)
        told = complaint(request, status, body, allowed[request.route], (str(place),))
        complaints += (
            [f"{request.route}: {told}: {request.target[:200]} {(request.body or b'')[:200]!r}"] if told else []
        )

    assert complaints == []
    assert "Traceback" not in target.output


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, b"{}", "status 500"),
        (418, b"{}", "status 418"),
        (400, b"<html>", "not JSON"),
        (400, b'{"detail": NaN, "code": "c", "request_id": "r"}', "not JSON"),
        (400, b'{"detail": "d"}', "not an error"),
        (400, b'{"detail": "no such table: runs", "code": "c", "request_id": "r"}', "shows"),
        (400, b'{"detail": "/data/secret/x", "code": "c", "request_id": "r"}', "shows"),
        (400, b'{"detail": "value is wrong", "code": "c", "request_id": "r"}', ""),
    ],
)
def test_what_may_not_come_back_is_noticed(status: int, body: bytes, told: str) -> None:
    request = OddRequest("GET /x", "GET", "/x", {}, None)

    found = complaint(request, status, body, frozenset({400}), ("/data/secret",))

    assert found.startswith(told) if told else found == ""
