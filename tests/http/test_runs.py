from __future__ import annotations

import pytest


@pytest.fixture
def run_id(live) -> str:
    given = {"prompt": "hi", "secret_of_no_pin": 1, "workspace_root": "/w", "workspace_access_mode": "workspace_only"}
    run_id = live.start(bundle_id="echo", input_data=given, session_id="S1")
    live.finish(run_id)
    return run_id


def test_the_inputs_of_a_run_are_those_its_flow_declares(live, run_id):
    assert live.ask("GET", f"/runs/{run_id}/input_data").json == {
        "run_id": run_id,
        "workflow_id": "echo@0.0.1:root",
        "bundle_id": "echo",
        "bundle_version": "0.0.1",
        "flow_id": "root",
        "pin_ids": ["prompt", "n"],
        "input_data": {"prompt": "hi"},
        "workspace": {"workspace_access_mode": "workspace_only"},  # the root is none that clients may choose
    }


def test_of_a_run_whose_flow_is_gone_all_public_variables_are_shown(live, run_id):
    live.ask("DELETE", "/bundles/echo")

    shown = live.ask("GET", f"/runs/{run_id}/input_data").json

    assert (shown["bundle_id"], shown["flow_id"], shown["pin_ids"]) == ("echo@0.0.1", "root", [])
    assert shown["input_data"]["secret_of_no_pin"] == 1
    assert "bundle_version" not in shown
    assert not [name for name in shown["input_data"] if name.startswith("_")]


def test_the_history_of_a_run_comes_with_its_session(live, run_id):
    history = live.ask("GET", f"/runs/{run_id}/history_bundle?include_session=true&ledger_max_items=1").json

    assert (history["version"], history["root_run_id"]) == (1, run_id)
    assert len(history["ledgers"][run_id]["items"]) == 1
    assert [turn["run_id"] for turn in history["session"]["turns"]] == [run_id]


@pytest.mark.parametrize(
    ("query", "status"),
    [("ledger_mode=all", 400), ("session_turn_limit=0", 422), ("ledger_max_items=20001", 422)],
)
def test_a_wrong_question_about_the_history_is_refused(live, run_id, query, status):
    assert live.ask("GET", f"/runs/{run_id}/history_bundle?{query}").status == status


@pytest.mark.parametrize("what", ["", "/input_data", "/history_bundle", "/ledger/stream"])
def test_an_unknown_run_is_not_found(live, what):
    answer = live.ask("GET", f"/runs/nope{what}")

    assert (answer.status, answer.json["detail"]) == (404, "Run 'nope' not found")


def test_a_run_that_the_client_knows_is_not_sent_again(live, run_id):
    first = live.ask("GET", f"/runs/{run_id}")

    again = live.ask("GET", f"/runs/{run_id}", f"If-None-Match: {first.headers['etag']}", has_body=False)
    other = live.ask("GET", f"/runs/{run_id}", 'If-None-Match: "0-0"')

    changed = live.ask("GET", f"/runs/{run_id}", 'If-Match: "0-0"')

    assert (changed.status, changed.json["code"]) == (412, "precondition_failed")
    assert first.headers["etag"].startswith(f'"{first.json["revision"]}-')
    assert (again.status, again.headers["etag"]) == (304, first.headers["etag"])
    assert other.json == first.json
