"""Each campaign of `scripts/fuzz`, for a moment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.attacks.campaigns import CAMPAIGNS
from tests.attacks.inside import CANARY, Finding, Inside, inside

CASES = 400


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Inside]:
    with inside(tmp_path) as gateway:
        yield gateway


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_whatever_comes_in_is_taken_or_refused_as_documented(gateway: Inside, name: str) -> None:
    campaign = CAMPAIGNS[name]
    feed = campaign.open(gateway)

    outcomes = {feed(data) for data in islice(campaign.inputs(random.Random(7)), CASES)}

    assert "refused" in outcomes
    gateway.check_disk()


JSON = {"CONTENT_TYPE": "application/json"}
BATCH = b'{"runs":[{"run_id":"RUN","after":"\\u001f0"}]}'
STREAM = b"runs/RUN/ledger/stream"


@pytest.mark.parametrize(
    ("path", "query", "headers", "body", "status"),
    [
        (b"runs", b"x=\xff", {}, b"", 422),
        (b"files/read", b"path=" + b"a" * 400, {}, b"", 200),  # which says why in its answer
        (b"attachments/ingest", b"", JSON, b'{"session_id":"s","path":"%b"}' % (b"a" * 400), 400),
        (b"runs/ledger/batch", b"", JSON, BATCH, 200),
        (STREAM, b"include=children", {"HTTP_LAST_EVENT_ID": "9" * 19}, b"", 200),
        (STREAM, b"include=children&after=9223372036854775807", {}, b"", 200),
    ],
    ids=[
        "bytes in a query",
        "a name too long",
        "a file too long",
        "a separator before a number",
        "a huge event id",
        "a huge cursor",
    ],
)
def test_what_a_campaign_has_found_is_answered_as_documented(
    gateway: Inside, path: bytes, query: bytes, headers: dict[str, str], body: bytes, status: int
) -> None:
    run = gateway.run_id.encode()
    method = "POST" if body else "GET"

    answered, content = gateway.ask(
        method, b"/api/gateway/" + path.replace(b"RUN", run), query, headers, body.replace(b"RUN", run)
    )

    assert answered == status, content
    assert b"event: done" in content or path != STREAM


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"detail": "d", "code": "c", "request_id": "r"}'),
        (418, b'{"detail": "d", "code": "c", "request_id": "r"}'),
        (400, b"<html>"),
        (400, b'{"detail": NaN, "code": "c", "request_id": "r"}'),
        (400, b'{"detail": "d"}'),
        (200, CANARY.encode()),
    ],
)
def test_what_may_not_be_answered_is_a_finding(gateway: Inside, status: int, body: bytes) -> None:
    with pytest.raises(Finding):
        gateway.check("GET /api/gateway/runs", status, body)


def test_what_is_written_outside_is_a_finding(gateway: Inside) -> None:
    (gateway.root / "new").write_text("x")

    with pytest.raises(Finding, match="outside"):
        gateway.check_disk()
