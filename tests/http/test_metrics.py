"""`/metrics`: what the gateway measures, as Prometheus reads it."""

from __future__ import annotations

import re

import pytest

from abstractgateway.measures import Durations, Family
from abstractgateway.service.metrics import Metrics
from abstractgateway.stores import open_memory_stores
from tests.http.conftest import packed

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)')
HEADERS = re.compile(r"# (HELP|TYPE) ([a-z_]+) (.+)")


def read(text: str) -> dict[str, float]:
    """Return the samples by name and labels; whatever is no line of the format fails."""
    found: dict[str, float] = {}
    known: dict[str, str] = {}
    for line in text.splitlines():
        header = HEADERS.fullmatch(line)
        if header is not None:
            assert header[1] == "TYPE" or header[2] not in known, f"{header[2]} comes twice"
            known[header[2]] = header[3]
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None, line
        name = f"{sample[1]}{{{sample[2]}}}" if sample[2] else sample[1]
        assert name not in found, f"{name} comes twice"
        assert re.sub("_(bucket|sum|count)$", "", sample[1]) in known or sample[1] in known
        found[name] = float(sample[3])
    return found


@pytest.fixture
def measured(connect_to):
    def scrape(server, *headers: str) -> dict[str, float]:
        answer = connect_to(server).send("GET", "/metrics", *headers).answer()
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return read(answer.body.decode())

    return scrape


def test_runs_commits_and_requests_are_counted(go_live, measured):
    live = go_live(store_backend="file")
    live.upload(packed())
    before = measured(live.server)
    for _ in range(3):
        live.finish(live.start(bundle_id="echo"))
    live.ask("GET", "/runs/nobody")

    after = measured(live.server)

    assert after['abstractgateway_runs{status="completed"}'] == 3
    assert after["abstractgateway_store_commits_total"] - before["abstractgateway_store_commits_total"] >= 3
    assert after["abstractgateway_store_batch_seconds_sum"] > 0
    assert after["abstractgateway_store_sync_seconds_sum"] > 0
    start = 'route="POST /api/gateway/runs/start"'
    assert after[f'abstractgateway_http_requests_total{{{start},status="2xx"}}'] == 3
    assert after[f"abstractgateway_http_request_seconds_count{{{start}}}"] == 3
    assert after[f'abstractgateway_http_request_seconds_bucket{{{start},le="+Inf"}}'] == 3
    assert after['abstractgateway_http_requests_total{route="GET /api/gateway/runs/{run_id}",status="4xx"}'] == 1
    assert after['abstractgateway_http_refusals_total{code="run_not_found"}'] == 1
    assert after["abstractgateway_runner_active"] == 1
    assert after["abstractgateway_inbox_lag"] == after["abstractgateway_effects_in_flight"] == 0
    assert after["process_resident_memory_bytes"] > 1e6
    assert after["process_cpu_seconds_total"] > before["process_cpu_seconds_total"]


def test_commands_that_nobody_deals_with_are_the_lag(go_live, measured):
    live = go_live(runner_enabled=False)
    for name in ("a", "b"):
        live.ask("POST", "/commands", body={"command_id": name, "run_id": "r", "type": "pause"})

    found = measured(live.server)

    assert found["abstractgateway_inbox_lag"] == 2
    assert "abstractgateway_runner_active" not in found


def test_streams_are_counted(gateway, serve_gateway, connect_to, measured):
    server = serve_gateway(gateway, streams=1)
    gateway.ledger.append("r", b'{"n":1}')
    connect_to(server).stream("r")
    assert connect_to(server).send("GET", "/api/gateway/runs/r/ledger/stream").answer().status == 503

    found = measured(server)

    assert found["abstractgateway_streams_open"] == 1
    assert found["abstractgateway_streams_refused_total"] == 1
    assert found['abstractgateway_http_refusals_total{code="streams_full"}'] == 1


def test_it_needs_the_token_unless_the_settings_open_it(go_live, connect_to):
    closed, opened = go_live(), go_live(open_metrics=True)

    refused = connect_to(closed.server).send("GET", "/metrics", "Authorization: none").answer()
    served = connect_to(opened.server).send("GET", "/metrics", "Authorization: none").answer()
    others = connect_to(opened.server).send("GET", "/api/gateway/runs", "Authorization: none").answer()

    assert (refused.status, served.status, others.status) == (401, 200, 401)


def test_clients_that_guess_tokens_are_seen(go_live, connect_to, measured):
    live = go_live(lockout_after=1, lockout_base_s=60.0, open_metrics=True)
    statuses = [
        connect_to(live.server).send("GET", "/api/gateway/runs", "Authorization: Bearer x").answer().status
        for _ in range(2)
    ]

    found = measured(live.server, "Authorization: none")

    assert statuses[-1] == 429
    assert found["abstractgateway_clients_locked_out"] == 1
    assert found['abstractgateway_http_refusals_total{code="locked_out"}'] >= 1


def test_durations_are_counted_up_to_their_bounds():
    spent = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        spent.add(seconds)
    metrics = Metrics(stores=open_memory_stores(), runner=None)
    metrics.add("x", lambda: [Family("spent_seconds", "histogram", "Seconds.", (((), spent),))])

    found = read(metrics.text().decode())

    assert [found[f'spent_seconds_bucket{{le="{bound}"}}'] for bound in ("0.1", "1.0", "+Inf")] == [2, 3, 4]
    assert (found["spent_seconds_count"], found["spent_seconds_sum"]) == (4, 7.65)


def test_label_values_are_escaped():
    metrics = Metrics(stores=open_memory_stores(), runner=None)
    metrics.add("x", lambda: [Family("odd", "gauge", "Odd.", (((("name", 'a"b\\c\nd'),), 1),))])

    assert b'odd{name="a\\"b\\\\c\\nd"} 1\n' in metrics.text()
