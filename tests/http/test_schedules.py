from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.http.conftest import Answer, LiveGateway, packed
from tests.service.waiting import wait_for, wait_for_status

Json = dict[str, Any]
Live = Callable[..., LiveGateway]
FAR = "2099-01-01T00:00:00+00:00"
TARGET = {"bundle_id": "echo", "flow_id": "root"}


@pytest.fixture
def lasting(go_live: Live) -> LiveGateway:
    """A gateway with files, and the bundle `echo@0.0.1`."""
    gateway = go_live(store_backend="file")
    gateway.upload(packed())
    return gateway


def schedule(live: LiveGateway, **given: Any) -> Answer:
    return live.ask("POST", "/runs/schedule", body={**TARGET, **given})


def scheduled(live: LiveGateway, **given: Any) -> str:
    answer = schedule(live, **given)
    assert answer.status == 200, answer.json
    run_id: str = answer.json["run_id"]
    return run_id


def send(live: LiveGateway, run_id: str, type: str, **payload: Any) -> Json:
    """Send a command and return its outcome once there is one."""
    number = live.service.stores.commands.get_last_seq()
    command_id = f"c{number}"
    body = {"command_id": command_id, "run_id": run_id, "type": type, "payload": payload}
    assert live.ask("POST", "/commands", body=body).json["accepted"]
    wait_for(live.service, lambda: live.service.commands.outcome(command_id)["status"] != "pending")
    return live.service.commands.outcome(command_id)


def waiting(live: LiveGateway, **given: Any) -> str:
    """Make a schedule and wait until it waits for its time."""
    run_id = scheduled(live, **given)
    wait_for(live.service, lambda: (live.service.runs.get(run_id)["waiting"] or {}).get("reason") == "until")
    return run_id


def children(live: LiveGateway, run_id: str) -> list[str]:
    return live.service.stores.runs.children_of(run_id)


def drawings(live: LiveGateway) -> list[Path]:
    return sorted(Path(live.service.config.data_dir).glob("dynamic_flows/*"))


def test_a_schedule_runs_its_flow_so_often_and_shares_its_session(live: LiveGateway) -> None:
    run_id = scheduled(live, interval="0.1s", repeat_count=2, input_data={"prompt": "hi"})

    wait_for_status(live.service, run_id, "completed")

    ended = [live.service.runs.get(child) for child in children(live, run_id)]
    assert [(run["status"], run["session_id"]) for run in ended] == [("completed", run_id)] * 2
    assert [run["output"]["prompt"] for run in ended] == ["hi", "hi"]
    assert live.service.runs.get(run_id)["output"] == {"success": True, "executions": 2, "skipped": 0}


def test_executions_that_share_nothing_have_sessions_of_their_own(live: LiveGateway) -> None:
    run_id = scheduled(live, interval="0.1s", repeat_count=2, share_context=False)

    wait_for_status(live.service, run_id, "completed")

    sessions = [live.service.runs.get(child)["session_id"] for child in children(live, run_id)]
    workflow_id = live.service.runs.get(run_id)["workflow_id"]
    assert sessions == [f"{workflow_id}:0", f"{workflow_id}:1"]


def test_a_schedule_is_told_of_as_clients_know_it(live: LiveGateway) -> None:
    run_id = waiting(live, interval="1h", session_id="s")

    (listed,) = live.ask("GET", "/runs?root_only=true").json["items"]
    run = live.ask("GET", f"/runs/{run_id}").json

    for shown in (listed, run):
        assert (shown["is_scheduled"], shown["session_id"], shown["status"]) == (True, "s", "waiting")
        assert (shown["waiting"]["reason"], shown["waiting"]["wait_key"]) == ("until", None)
        told = {name: shown["schedule"][name] for name in ("kind", "interval", "repeat_count", "repeat_until")}
        assert told == {"kind": "scheduled_run", "interval": "1h", "repeat_count": None, "repeat_until": None}
        targets = [shown["schedule"][f"target_{name}"] for name in ("workflow_id", "bundle_ref", "flow_id")]
        assert targets == ["echo@0.0.1:root", "echo@0.0.1", "root"]
        assert (shown["schedule"]["start_at"], shown["schedule"]["share_context"]) == (None, True)
    assert run["workflow_id"].startswith("scheduled:")


def test_an_execution_and_the_ledger_tell_its_nominal_time(live: LiveGateway) -> None:
    run_id = scheduled(live, start_at="2020-02-03T04:05:06+02:00")

    wait_for_status(live.service, run_id, "completed")

    (child,) = children(live, run_id)
    stored = live.service.stores.runs.open(child)
    assert stored is not None
    firing = stored.state.vars["_runtime"]["firing"]
    assert firing["nominal_time"] == "2020-02-03T02:05:06+00:00"
    assert (firing["schedule_run_id"], firing["number"], firing["kind"]) == (run_id, 1, "scheduled")
    records = live.service.stores.ledger.list(run_id)
    (begun,) = [record for record in records if record["node_id"] == "run_target" and record["status"] == "started"]
    assert begun["effect"]["payload"]["firing"] == firing
    assert begun["effect"]["payload"]["workflow_id"] == "echo@0.0.1:root"
    (started,) = [record for record in records if record["node_id"] == "run_target" and record["status"] == "waiting"]
    assert started["result"]["wait"]["details"]["sub_run_id"] == child


def test_an_execution_keeps_the_flow_it_started_with(live: LiveGateway) -> None:
    run_id = scheduled(live)

    wait_for_status(live.service, run_id, "completed")

    (child,) = children(live, run_id)
    snapshot = live.ask("GET", f"/runs/{child}/history_bundle").json["workflow_snapshot"]
    assert snapshot["workflow_id"] == "echo@0.0.1:root"


@pytest.mark.parametrize(
    ("given", "status", "detail"),
    [
        ({"bundle_id": " "}, 400, "bundle_id and flow_id are required"),
        ({"flow_id": ""}, 400, "bundle_id and flow_id are required"),
        ({"bundle_id": "echo@0.0.1", "bundle_version": "2"}, 400, "bundle_version conflicts with bundle_id ("),
        ({"bundle_id": "other", "flow_id": "echo:root"}, 400, "flow_id bundle prefix does not match bundle_id"),
        ({"bundle_version": "2", "flow_id": "echo@0.0.1:root"}, 400, "flow_id version does not match bundle_version"),
        ({"bundle_id": "echo@2", "flow_id": "echo@0.0.1:root"}, 400, "flow_id version does not match bundle_id"),
        ({"bundle_id": "nope"}, 404, "Bundle 'nope' has no versions loaded"),
        ({"bundle_version": "9"}, 404, "Bundle 'echo' has no version '9' loaded"),
        ({"flow_id": "zz"}, 404, "Target workflow 'echo@0.0.1:zz' not found"),
        ({"repeat_count": 0}, 400, "repeat_count must be >= 1"),
        ({"repeat_count": 2}, 400, "repeat_count > 1 requires interval"),
        ({"repeat_until": FAR}, 400, "repeat_until requires interval"),
        ({"interval": "1h", "repeat_count": 2, "repeat_until": FAR}, 400, "repeat_until cannot be combined with"),
        ({"interval": "1h", "repeat_until": "soon"}, 400, "Invalid repeat_until: 'soon' is not an ISO 8601 time"),
        ({"interval": "1h", "repeat_until": "2001-01-01"}, 400, "repeat_until must be >= start_at"),
        ({"interval": "1m", "repeat_until": FAR}, 400, "repeat_until implies too many executions (max 10000)"),
        (
            {"interval": "1h", "repeat_count": 10_001},
            400,
            "Failed to build schedule wrapper: repeat_count is too large (max 10000)",
        ),
        ({"start_at": "soon"}, 400, "Invalid start_at: 'soon' is not an ISO 8601 time"),
        ({"start_at": "0001-01-01T00:00:00+14:00"}, 400, "Invalid start_at: "),
        (
            {"interval": "often"},
            400,
            "Invalid interval: invalid interval (expected like '15m', '1h', '2d')",
        ),
        ({"interval": "0s"}, 400, "Invalid interval: invalid interval ('0s' is not between 10ms and 36500d)"),
        ({"interval": "1h", "cron": "@daily"}, 400, "cron cannot be combined with interval"),
        ({"cron": "* * *"}, 400, "Invalid cron: '* * *' has 3 fields"),
        ({"cron": "0 0 30 2 *"}, 400, "Invalid cron: '0 0 30 2 *' means no day of any year"),
        ({"cron": "@daily", "timezone": "Mars/Base"}, 400, "timezone: 'Mars/Base' is not a time zone"),
        ({"timezone": "../../etc/passwd"}, 400, "timezone: '../../etc/passwd' is not a time zone"),
        ({"overlap": "maybe"}, 400, "Invalid overlap: 'maybe' is not one of skip, queue, cancel_previous, allow"),
        ({"catch_up": -1}, 400, "Invalid catch_up: -1 is not a number of seconds"),
        ({"jitter": 1e300}, 400, "Invalid jitter: 1e+300 is not a number of seconds from 0 to 86,400"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_changes_nothing(
    live: LiveGateway, given: Json, status: int, detail: str
) -> None:
    answer = schedule(live, **given)

    assert answer.status == status
    assert answer.json["detail"].startswith(detail)
    assert live.ask("GET", "/runs").json == {"items": []}
    assert drawings(live) == []


@pytest.mark.parametrize(
    "given", [{"bundle_id": None}, {"repeat_count": "x"}, {"catch_up": "1h"}, {"jitter": True}, {"cron": 5}]
)
def test_a_field_of_the_wrong_type_is_refused(live: LiveGateway, given: Json) -> None:
    assert schedule(live, **given).status == 422


def test_a_deprecated_flow_is_not_scheduled(live: LiveGateway) -> None:
    live.ask("POST", "/bundles/echo/deprecate", body={"reason": "old"})

    answer = schedule(live)

    assert (answer.status, answer.json["detail"]) == (409, "Workflow 'echo:root' is deprecated: old")


def test_where_there_are_no_bundles_nothing_is_scheduled(go_live: Live) -> None:
    live = go_live(workflow_source="visualflow")

    answer = schedule(live)

    assert answer.status == 400
    assert "not supported" in answer.json["detail"]


def test_an_execution_gets_no_workspace_that_a_client_may_not_choose(live: LiveGateway) -> None:
    run_id = scheduled(live, input_data={"workspace_root": "/etc", "workspace_allowed_paths": ["/"]})

    wait_for_status(live.service, run_id, "completed")

    (child,) = children(live, run_id)
    assert live.ask("GET", f"/runs/{child}/input_data").json["workspace"].get("workspace_root") != "/etc"
    assert "/" not in live.ask("GET", f"/runs/{child}/input_data").json["workspace"].get("workspace_allowed_paths", [])


def test_each_execution_has_the_budget_that_was_asked_for(go_live: Live) -> None:
    live = go_live(max_run_tool_calls=5)
    live.upload(packed())

    run_id = scheduled(live, interval="0.1s", repeat_count=2, limits={"tool_calls": 3})
    wait_for_status(live.service, run_id, "completed")

    budgets = [live.service.runs.get(child)["budget"] for child in children(live, run_id)]
    assert budgets == [{"tool_calls": {"limit": 3, "used": 0}}] * 2
    assert live.service.runs.get(run_id)["budget"] is None
    assert schedule(live, limits={"tool_calls": 6}).status == 400


def test_the_inputs_of_a_schedule_are_those_of_what_it_starts(live: LiveGateway) -> None:
    run_id = waiting(live, start_at=FAR, input_data={"prompt": "hi", "other": 1})

    found = live.ask("GET", f"/runs/{run_id}/input_data").json

    assert (found["bundle_id"], found["flow_id"]) == ("echo", "root")
    assert found["input_data"] == {"prompt": "hi"}


@pytest.mark.parametrize(
    ("given", "nodes"),
    [
        ({}, {"start", "wait_start", "run_target", "end"}),
        ({"interval": "1h"}, {"start", "wait_start", "run_target", "wait_interval"}),
        (
            {"interval": "1h", "repeat_count": 3},
            {"start", "repeat", "is_first", "pick_wait", "wait_start", "wait_interval", "run_target", "end"},
        ),
        ({"cron": "@daily"}, {"start", "wait_start", "run_target", "wait_interval"}),
    ],
)
@pytest.mark.parametrize("shares", [True, False])
def test_a_schedule_can_be_drawn(lasting: LiveGateway, given: Json, nodes: set[str], shares: bool) -> None:
    live = lasting
    run_id = waiting(live, start_at=FAR, share_context=shares, **given)
    workflow_id = live.service.runs.get(run_id)["workflow_id"]

    found = live.ask("GET", f"/workflows/{workflow_id}/flow").json

    assert (found["workflow_id"], found["source"]) == (workflow_id, "dynamic")
    drawn = {node["id"]: node for node in found["flow"]["nodes"]}
    assert nodes <= set(drawn)
    assert ("set_child_sid" in drawn) is not shares
    assert drawn["run_target"]["data"]["subflowId"] == "echo@0.0.1:root"
    ends = {edge[side] for edge in found["flow"]["edges"] for side in ("source", "target")}
    assert ends <= set(drawn)
    (kept,) = drawings(live)
    assert kept.name == f"{workflow_id.replace(':', '_')}.json"
    assert json.loads(kept.read_text()) == found["flow"]


def test_an_unknown_schedule_has_no_drawing(live: LiveGateway) -> None:
    answer = live.ask("GET", "/workflows/scheduled:nope/flow")

    assert (answer.status, answer.json["detail"]) == (404, "Workflow 'scheduled:nope' not found")


def test_the_next_times_are_told_in_utc_and_as_the_clocks_of_the_zone_show_them(live: LiveGateway) -> None:
    given = {"start_at": "2098-03-29T00:00:00Z", "cron": "30 2 * * *", "timezone": "Europe/Berlin"}
    run_id = waiting(live, **given)

    found = live.ask("GET", f"/runs/{run_id}/schedule/next?count=2").json

    assert (found["run_id"], found["timezone"], found["paused"]) == (run_id, "Europe/Berlin", False)
    first, second = found["items"]
    assert first["nominal_time"] == "2098-03-29T01:30:00+00:00"
    assert first["local_time"] == "2098-03-29T02:30:00+01:00"
    assert first["due_at"] == first["nominal_time"]
    assert second["nominal_time"] == "2098-03-30T01:00:00+00:00"
    assert second["local_time"] == "2098-03-30T03:00:00+02:00"


def test_the_next_times_end_where_the_schedule_ends(live: LiveGateway) -> None:
    run_id = waiting(live, start_at=FAR, interval="1d", repeat_count=3)

    found = live.ask("GET", f"/runs/{run_id}/schedule/next?count=1000").json

    assert [item["nominal_time"][:10] for item in found["items"]] == ["2099-01-01", "2099-01-02", "2099-01-03"]


def test_only_runs_of_a_schedule_have_next_times(live: LiveGateway) -> None:
    run_id = live.start(bundle_id="echo", input_data={})

    assert live.ask("GET", "/runs/nope/schedule/next").json["detail"] == "Run 'nope' not found"
    assert live.ask("GET", f"/runs/{run_id}/schedule/next").status == 409
    assert live.ask("GET", f"/runs/{run_id}/schedule/next?count=1001").status == 422


def test_a_schedule_under_a_key_is_made_once(live: LiveGateway) -> None:
    body = {**TARGET, "start_at": FAR}
    keyed = [live.ask("POST", "/runs/schedule", "Idempotency-Key: k", body=body) for _ in range(2)]
    other = live.ask("POST", "/runs/schedule", "Idempotency-Key: k", body=TARGET)

    assert keyed[0].json == keyed[1].json
    assert other.status == 409
    assert len(live.service.runs.list()["items"]) == 1


def test_the_interval_is_changed_by_a_command_to_a_child_and_drawn_anew(lasting: LiveGateway) -> None:
    live = lasting
    run_id = waiting(live, interval="1h")
    wait_for(live.service, lambda: len(children(live, run_id)) == 1)
    (child,) = children(live, run_id)

    outcome = send(live, child, "update_schedule", interval="20m")

    assert outcome["status"] == "applied"
    run = live.service.runs.get(run_id)
    assert run["schedule"]["interval"] == "20m"
    assert run["schedule"]["updated_at"]
    send(live, run_id, "pause")  # the drawing follows the outcome, and comes before the next command
    (kept,) = drawings(live)
    nodes = {node["id"]: node for node in json.loads(kept.read_text())["nodes"]}
    assert nodes["wait_interval"]["data"]["eventConfig"]["schedule"] == "20m"


def test_run_now_runs_the_flow_and_leaves_the_times_as_they_are(live: LiveGateway) -> None:
    run_id = waiting(live, start_at=FAR, interval="1h")

    outcome = send(live, run_id, "resume", payload={"mode": "run_now", "requested_at": "2026-01-01T00:00:00Z"})
    wait_for(live.service, lambda: len(children(live, run_id)) == 1)

    assert outcome["status"] == "applied"
    wait_for(live.service, lambda: (live.service.runs.get(run_id)["waiting"] or {}).get("until") == FAR)


def test_a_schedule_is_cancelled_with_all_its_runs(live: LiveGateway) -> None:
    run_id = waiting(live, start_at=FAR)

    send(live, run_id, "cancel", reason="enough")

    assert live.service.runs.get(run_id)["status"] == "cancelled"
    assert live.ask("GET", f"/runs/{run_id}/schedule/next").json["items"] == []


def test_a_schedule_goes_on_after_a_restart(go_live: Live) -> None:
    first = go_live(store_backend="file")
    first.upload(packed())
    run_id = scheduled(first, interval="0.3s", repeat_count=3)
    wait_for(first.service, lambda: len(children(first, run_id)) >= 1)
    first.server.stop()
    first.service.close()

    again = go_live(store_backend="file")
    wait_for_status(again.service, run_id, "completed")

    assert len(children(again, run_id)) == 3
    assert len(drawings(again)) == 1
