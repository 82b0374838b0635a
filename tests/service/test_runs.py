from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.errors import GatewayError, Invalid, NotFound, Unavailable
from abstractgateway.runtime import Runtime
from tests.postgres.server import url_of
from tests.service.conftest import SAMPLES, Open
from tests.service.waiting import wait_for_status

SUMMARY = {
    *("run_id", "workflow_id", "status", "current_node", "created_at", "updated_at", "actor_id", "session_id"),
    *("parent_run_id", "error", "flow_warnings", "paused", "pause_reason", "paused_at", "resumed_at", "waiting"),
    *("is_scheduled", "schedule", "limits", "revision", "ledger_len"),
}


def test_the_example_of_the_library_runs_on_every_backend(backend: str, tmp_path: Path) -> None:
    seen = []

    url = url_of(tmp_path) if backend == "postgres" else None
    with GatewayService.open(
        GatewayConfig(data_dir=tmp_path, flows_dir=str(SAMPLES), store_backend=backend, database_url=url)
    ) as gateway:
        run_id = gateway.runs.start(bundle_id="hello", input_data={"prompt": "Hello"})
        for entry in gateway.ledger.follow(run_id, after=0):
            seen.append((entry.cursor, entry.record["status"]))
        receipt = gateway.commands.submit(run_id=run_id, type="cancel", payload={}, command_id="c-1")

    assert [cursor for cursor, _ in seen] == list(range(1, len(seen) + 1))
    assert (receipt.accepted, receipt.duplicate, receipt.seq) == (True, False, 1)


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        ({}, Invalid, "flow_id is required"),
        ({"bundle_id": "", "flow_id": ""}, Invalid, "flow_id is required"),
        ({"bundle_id": "nope"}, NotFound, "Bundle not found"),
        ({"bundle_id": "hello", "bundle_version": "9.9"}, NotFound, "Bundle not found"),
        ({"bundle_id": "hello", "flow_id": "nope"}, NotFound, "Flow 'nope' not found"),
        ({"flow_id": "nope:hello"}, NotFound, "Flow 'nope:hello' not found"),
        ({"flow_id": "hello"}, Invalid, "bundle_id is required when multiple bundles are loaded"),
        ({"bundle_id": "hello@0.1.0", "bundle_version": "0.2.0"}, Invalid, "bundle_version conflicts"),
        ({"bundle_id": "ask", "flow_id": "hello:hello"}, Invalid, "does not match bundle_id"),
        ({"bundle_id": "hello", "input_data": ["x"]}, Invalid, "must be an object, not list"),
        ({"bundle_id": "hello", "input_data": {"x": {1}}}, Invalid, "cannot be written as JSON"),
        ({"bundle_id": "hello", "input_data": {"x": float("nan")}}, Invalid, "cannot be written as JSON"),
    ],
)
def test_a_run_that_cannot_be_started_says_why_and_leaves_nothing(
    gateway: GatewayService, request_: dict[str, Any], error: type[GatewayError], text: str
) -> None:
    with pytest.raises(error, match=text):
        gateway.runs.start(**request_)

    assert gateway.runs.list() == {"items": []}


@pytest.mark.parametrize(
    "request_",
    [
        {"bundle_id": "ask"},
        {"bundle_id": "ask@0.1.0"},
        {"bundle_id": "ask", "bundle_version": "0.1.0", "flow_id": "ask"},
        {"flow_id": "ask:ask"},
        {"flow_id": "ask@0.1.0:ask"},
    ],
)
def test_a_flow_can_be_named_in_every_way(gateway: GatewayService, request_: dict[str, Any]) -> None:
    run_id = gateway.runs.start(**request_)

    assert gateway.runs.get(run_id)["workflow_id"] == "ask@0.1.0:ask"


@pytest.mark.parametrize("session_id", [None, "", "s-1"])
def test_a_run_without_a_session_is_its_own(gateway: GatewayService, session_id: str | None) -> None:
    run_id = gateway.runs.start(bundle_id="ask", session_id=session_id)

    assert gateway.runs.get(run_id)["session_id"] == (session_id or run_id)


def test_what_belongs_to_the_kernel_cannot_be_given_by_a_client(gateway: GatewayService) -> None:
    own = {
        "control": {"paused": True},
        "in_flight": {"cursor": 1, "next_node": "x"},
        "visits": {"ask": 7},
        "steps": 100,
        "node_traces": {"x": 1},
        "model": "mine",
    }

    run_id = gateway.runs.start(bundle_id="ask", input_data={"_runtime": own})

    run = wait_for_status(gateway, run_id, "waiting")
    assert (run["paused"], run["waiting"]["wait_key"]) == (False, f"user:{run_id}:ask")


def test_a_waiting_run_is_told_of_with_every_field(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(bundle_id="ask", input_data={"prompt": "Name?"}, session_id="S1")

    run = wait_for_status(gateway, run_id, "waiting")

    assert set(run) == SUMMARY | {"output", "blocked_by", "usage", "budget"}
    assert run["waiting"] == {
        "reason": "user",
        "wait_key": f"user:{run_id}:ask",
        "until": None,
        "prompt": "Name?",
        "choices": run["waiting"]["choices"],
        "allow_free_text": True,
        "details": None,
    }
    assert (run["actor_id"], run["parent_run_id"], run["error"], run["output"]) == ("gateway", None, None, None)
    assert (run["paused"], run["is_scheduled"], run["schedule"], run["flow_warnings"]) == (False, False, None, None)
    assert run["limits"]["tokens"] == {
        "estimated_used": 0,
        "max_tokens": 32768,
        "max_input_tokens": None,
        "pct": 0.0,
        "warn_tokens_pct": 80,
    }
    assert run["ledger_len"] == len(gateway.ledger.read(run_id).records) == 2
    assert run["revision"] >= 1
    assert (run["blocked_by"]["kind"], run["blocked_by"]["wait_key"]) == ("user", f"user:{run_id}:ask")


def test_a_completed_run_has_its_output_and_nothing_blocks_it(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(bundle_id="ask", input_data={"prompt": "Name?"})
    wait_for_status(gateway, run_id, "waiting")
    gateway.commands.submit(run_id=run_id, type="resume", payload={"payload": {"response": "Bob"}})

    run = wait_for_status(gateway, run_id, "completed")

    assert "Bob" in str(run["output"])
    assert (run["blocked_by"], run["waiting"]) == (None, None)


def test_a_paused_run_says_since_when_and_why(open_gateway: Open) -> None:
    gateway = open_gateway(runner_enabled=False)
    run_id = gateway.runs.start(bundle_id="ask")
    Runtime(stores=gateway.stores).pause_run(run_id, reason="hold")

    run = gateway.runs.get(run_id)

    assert (run["paused"], run["pause_reason"]) == (True, "hold")
    assert run["blocked_by"] == {"kind": "pause", "since": run["paused_at"], "reason": "hold"}


def test_a_command_that_was_accepted_while_nobody_drove_runs_comes_before_their_next_step(
    open_gateway: Open, backend: str
) -> None:
    if backend == "memory":
        pytest.skip("no other process can drive what is in memory")
    alone = open_gateway(runner_enabled=False)
    run_id = alone.runs.start(bundle_id="ask")
    alone.commands.submit(run_id=run_id, type="cancel")

    open_gateway()
    run = wait_for_status(alone, run_id, "cancelled", "waiting")

    assert (run["status"], run["ledger_len"]) == ("cancelled", 1)


def test_an_unknown_run_is_not_found(gateway: GatewayService) -> None:
    with pytest.raises(NotFound, match="Run 'nope' not found"):
        gateway.runs.get("nope")


def test_long_listings_come_in_pages(gateway: GatewayService) -> None:
    ids = {gateway.runs.start(bundle_id="ask", session_id=f"s-{number}") for number in range(5)}
    for run_id in ids:
        wait_for_status(gateway, run_id, "waiting")

    first = gateway.runs.list(limit=2)
    second = gateway.runs.list(limit=2, cursor=first["next_cursor"])
    third = gateway.runs.list(limit=2, cursor=second["next_cursor"])

    pages = [[item["run_id"] for item in page["items"]] for page in (first, second, third)]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert {run_id for page in pages for run_id in page} == ids
    assert "next_cursor" not in third


def test_runs_are_listed_by_parent_and_time(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(bundle_id="ask")
    wait_for_status(gateway, run_id, "waiting")
    updated_at = gateway.runs.get(run_id)["updated_at"]

    assert gateway.runs.list(parent_run_id=run_id) == {"items": []}
    assert len(gateway.runs.list(updated_from=updated_at)["items"]) == 1
    assert gateway.runs.list(updated_to=updated_at) == {"items": []}


@pytest.mark.parametrize("query", [{"cursor": "soon"}, {"updated_from": "soon"}, {"updated_to": "2026-99-99"}])
def test_a_listing_with_a_cursor_or_time_that_is_none_is_refused(
    gateway: GatewayService, query: dict[str, str]
) -> None:
    with pytest.raises(Invalid, match=next(iter(query))):
        gateway.runs.list(**query)


def test_runs_are_listed_the_latest_first_with_full_summaries(gateway: GatewayService) -> None:
    ids = [gateway.runs.start(bundle_id="ask", session_id=f"s-{number}") for number in range(3)]
    for run_id in ids:
        wait_for_status(gateway, run_id, "waiting")

    items = gateway.runs.list()["items"]

    assert {item["run_id"] for item in items} == set(ids)
    assert all(set(item) == SUMMARY for item in items)
    assert [item["updated_at"] for item in items] == sorted((item["updated_at"] for item in items), reverse=True)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({}, 3),
        ({"limit": 2}, 2),
        ({"limit": 0}, 1),
        ({"limit": 10**9}, 3),
        ({"status": "waiting"}, 3),
        ({"status": " WAITING "}, 3),
        ({"status": "completed"}, 0),
        ({"session_id": "s-1"}, 1),
        ({"workflow_id": "ask@0.1.0:ask"}, 3),
        ({"workflow_id": "other"}, 0),
        ({"root_only": True}, 3),
        ({"status": "waiting", "session_id": "s-1", "root_only": True}, 1),
    ],
)
def test_a_list_holds_what_was_asked_for(gateway: GatewayService, query: dict[str, Any], count: int) -> None:
    for number in range(3):
        wait_for_status(gateway, gateway.runs.start(bundle_id="ask", session_id=f"s-{number}"), "waiting")

    assert len(gateway.runs.list(**query)["items"]) == count


def test_an_unknown_status_is_refused(gateway: GatewayService) -> None:
    with pytest.raises(Invalid) as caught:
        gateway.runs.list(status="sleeping")

    assert str(caught.value) == "Invalid status (expected: running|waiting|completed|failed|cancelled)"


def test_a_list_has_metrics_where_they_are_asked_for_and_no_length_where_not(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(bundle_id="hello")
    wait_for_status(gateway, run_id, "completed")

    (item,) = gateway.runs.list(include_metrics=True, include_ledger_len=False)["items"]

    assert "ledger_len" not in item
    assert {name: item[name] for name in ("llm_calls", "tool_calls", "tokens_total")} == {
        "llm_calls": 0,
        "tool_calls": 0,
        "tokens_total": 0,
    }
    assert item["steps"] >= 2


def test_a_run_whose_bundle_and_stored_flow_went_away_says_so(open_gateway: Open, tmp_path: Path, backend: str) -> None:
    if backend == "memory":
        pytest.skip("nothing survives the process")
    first = open_gateway(runner_enabled=False)
    run_id = first.runs.start(bundle_id="hello")
    first.close()
    empty = tmp_path / "empty"
    empty.mkdir()
    if backend == "postgres":
        with psycopg.connect(url_of(tmp_path)) as database:
            database.execute("TRUNCATE abstractgateway.artifacts")
    else:
        shutil.rmtree(tmp_path / "runtime" / "artifacts")

    second = open_gateway(flows_dir=empty)
    blocked = second.runs.get(run_id)["blocked_by"]
    (empty / "hello.flow").write_bytes((SAMPLES / "hello@0.1.0.flow").read_bytes())
    run = wait_for_status(second, run_id, "completed")

    assert blocked["kind"] == "gateway"
    assert "'hello@0.1.0:hello'" in blocked["reason"]
    assert run["blocked_by"] is None


def test_a_run_that_nobody_drives_says_so(open_gateway: Open, backend: str) -> None:
    if backend == "memory":
        pytest.skip("no other process can drive what is in memory")
    alone = open_gateway(runner_enabled=False)
    run_id = alone.runs.start(bundle_id="hello")

    nobody = alone.runs.get(run_id)["blocked_by"]
    open_gateway()
    run = wait_for_status(alone, run_id, "completed")

    place = "database" if backend == "postgres" else "data directory"
    assert nobody == {
        "kind": "gateway",
        "reason": f"no runner drives the runs of this {place}; start 'abstractgateway runner' on it",
    }
    assert run["blocked_by"] is None


def test_a_gateway_that_was_closed_refuses_to_start_runs(open_gateway: Open, backend: str) -> None:
    if backend == "memory":
        pytest.skip("stores in memory have nothing to close")
    gateway = open_gateway()
    gateway.close()
    gateway.close()

    with pytest.raises(Unavailable):
        gateway.runs.start(bundle_id="hello")
