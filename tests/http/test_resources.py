"""What one request may cost, whatever its parameters say."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from abstractgateway.service import history, ledger
from abstractgateway_http.routes import ROUTES

NO_AMOUNTS = {"after", "start_line", "end_line", "seed"}
"""Numbers that do not say how much."""


@pytest.fixture
def runs(live):
    found = [live.start(bundle_id="echo", session_id="s", input_data={"prompt": "x" * 500}) for _ in range(4)]
    for run_id in found:
        live.finish(run_id)
    return found


def test_every_number_that_says_how_much_has_a_bound():
    numbers = [
        (f"{route.method} {route.path}", field.name, field.reader.schema)
        for route in ROUTES
        for field in (*route.query, *(route.body or ()))
        if field.reader.schema.get("type") == "integer" and field.name not in NO_AMOUNTS
    ]

    unbounded = [(route, name) for route, name, schema in numbers if schema["maximum"] > 1_000_000]

    assert len(numbers) > 8
    assert unbounded == [("POST /api/gateway/runs/schedule", "repeat_count")]  # which is worked off one by one


@pytest.mark.parametrize("limit", ["0", "-1", "501", "99999999999999999999", "1e3", "0x10", "٣", ""])
def test_a_limit_out_of_its_bounds_is_refused(live, limit):
    assert live.ask("GET", f"/runs?limit={quote(limit)}").status == 422


def test_a_history_of_too_many_records_is_refused(live, runs, monkeypatch):
    length = live.ask("GET", f"/runs/{runs[0]}").json["ledger_len"]
    monkeypatch.setattr(history, "MAX_RECORDS", length - 1)

    def answer(query):
        return live.ask("GET", f"/runs/{runs[0]}/history_bundle?{query}")

    refused = [answer(query) for query in ("ledger_mode=full", "ledger_max_items=0")]
    last = answer("").json["ledgers"][runs[0]]
    assert {(answer.status, answer.json["code"]) for answer in refused} == {(400, "too_many_records")}
    assert (last["total"], last["cursor_start"], last["cursor_end"], len(last["items"])) == (
        length,
        2,
        length,
        length - 1,
    )


def test_of_a_tree_with_too_many_records_those_nearest_to_the_root_are_shown(live, monkeypatch):
    service = live.service
    root = live.start(bundle_id="echo")
    child = service.runs._runtime.start(workflow=service.runs._find_workflow(_state(live, root)), parent_run_id=root)
    live.finish(root)
    length = live.ask("GET", f"/runs/{root}").json["ledger_len"]
    monkeypatch.setattr(history, "MAX_RECORDS", length)

    shown = live.ask("GET", f"/runs/{root}/history_bundle").json["ledgers"]

    assert [len(shown[root]["items"]), len(shown[child]["items"])] == [length, 0]
    assert shown[child]["cursor_end"] < shown[child]["cursor_start"]


def _state(live, run_id):
    return live.service.stores.runs.open(run_id).state


def test_metrics_that_take_too_many_records_are_refused_and_the_list_is_not(live, runs, monkeypatch):
    lengths = [live.ask("GET", f"/runs/{run_id}").json["ledger_len"] for run_id in runs]
    monkeypatch.setattr(history, "MAX_RECORDS", sum(lengths) - 1)

    metrics = live.ask("GET", "/runs?include_metrics=true")
    fewer = live.ask("GET", "/runs?include_metrics=true&limit=3")
    plain = live.ask("GET", "/runs")

    assert (metrics.status, metrics.json["code"]) == (400, "too_many_records")
    assert (fewer.status, plain.status) == (200, 200)


def test_pages_of_several_runs_end_where_they_are_large_and_go_on_with_the_next_request(live, runs, monkeypatch):
    monkeypatch.setattr(ledger, "MOST_BYTES", 1)
    left, known = dict.fromkeys(runs, 0), {run_id: [] for run_id in runs}

    for _ in runs:
        wanted = [{"run_id": run_id, "after": after} for run_id, after in left.items()]
        pages = live.ask("POST", "/runs/ledger/batch", body={"runs": wanted}).json["runs"]
        assert sum(bool(page["items"]) for page in pages.values()) == 1
        for run_id, page in pages.items():
            known[run_id] += page["items"]
            left[run_id] = page["next_after"]
        left = {run_id: left[run_id] for run_id in left if not known[run_id]}

    assert known == {run_id: live.ask("GET", f"/runs/{run_id}/ledger").json["items"] for run_id in runs}
