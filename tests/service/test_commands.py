from __future__ import annotations

from typing import Any

import pytest

from abstractgateway import GatewayService
from abstractgateway.errors import Invalid, NotFound
from tests.service.conftest import Open
from tests.service.waiting import wait_for, wait_for_status


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ({"type": "explode"}, "type must be one of pause|resume|cancel|emit_event|update_schedule|compact_memory"),
        ({"type": "Cancel"}, "type must be one of"),
        ({"type": "cancel", "run_id": " "}, "Failed to append command: run_id is required"),
        ({"type": "cancel", "payload": ["x"]}, "payload: must be an object, not list"),
        ({"type": "cancel", "payload": {"x": float("inf")}}, "payload: cannot be written as JSON"),
        ({"type": "cancel", "payload": {1: "x"}}, "JSON keys are text"),
    ],
)
def test_a_command_that_is_none_is_refused_and_not_stored(
    gateway: GatewayService, command: dict[str, Any], text: str
) -> None:
    with pytest.raises(Invalid) as caught:
        gateway.commands.submit(**{"run_id": "r", **command})

    assert text in str(caught.value)
    assert gateway.stores.commands.get_last_seq() == 0


def test_a_command_gets_the_next_place_and_a_duplicate_that_of_the_first(gateway: GatewayService) -> None:
    receipts = [
        gateway.commands.submit(run_id="r", type=type, payload=payload, command_id=command_id)
        for type, payload, command_id in [
            ("cancel", {}, "a"),
            ("pause", None, "b"),
            ("resume", {"payload": {"x": 1}}, "a"),
            ("cancel", {}, " a "),
        ]
    ]

    assert [(receipt.accepted, receipt.duplicate, receipt.seq) for receipt in receipts] == [
        (True, False, 1),
        (True, False, 2),
        (False, True, 1),
        (False, True, 1),
    ]
    assert gateway.stores.commands.get("a").type == "cancel"


def test_a_command_without_an_id_and_a_time_gets_both(gateway: GatewayService) -> None:
    receipt = gateway.commands.submit(run_id=" r ", type="cancel", command_id=" ", ts="", client_id="me")

    (command,), _ = gateway.stores.commands.list_after(after=0)
    assert (command.seq, command.run_id, command.client_id) == (receipt.seq, "r", "me")
    assert len(command.command_id) == 32
    assert command.ts.endswith("+00:00")


def test_the_outcome_of_a_command_can_be_read(gateway: GatewayService) -> None:
    run_id = gateway.runs.start(bundle_id="ask")
    wait_for_status(gateway, run_id, "waiting")

    gateway.commands.submit(run_id=run_id, type="cancel", command_id="c-1")
    gateway.commands.submit(run_id="nobody", type="cancel", command_id="c-2")
    last = gateway.runs.start(bundle_id="ask")
    gateway.commands.submit(run_id=last, type="cancel", command_id="c-3")
    wait_for_status(gateway, last, "cancelled")

    applied, rejected = gateway.commands.outcome("c-1"), gateway.commands.outcome("c-2")
    assert applied == {
        "command_id": "c-1",
        "run_id": run_id,
        "type": "cancel",
        "seq": 1,
        "status": "applied",
        "reason": None,
        "applied_at": applied["applied_at"],
    }
    assert (rejected["status"], rejected["reason"]) == ("rejected", "unknown run 'nobody'")


def test_a_command_that_nobody_has_applied_yet_is_pending(open_gateway: Open) -> None:
    gateway = open_gateway(runner_enabled=False)
    gateway.commands.submit(run_id="r", type="cancel", command_id="c-1")

    outcome = gateway.commands.outcome("c-1")

    assert (outcome["status"], outcome["reason"], outcome["applied_at"]) == ("pending", None, None)


def test_an_unknown_command_is_not_found(gateway: GatewayService) -> None:
    with pytest.raises(NotFound, match="Command 'nope' not found"):
        gateway.commands.outcome("nope")


def test_a_command_is_applied_once_over_restarts(open_gateway: Open, backend: str) -> None:
    if backend == "memory":
        pytest.skip("nothing survives the process")
    first = open_gateway()
    run_id = first.runs.start(bundle_id="ask")
    wait_for_status(first, run_id, "waiting")
    first.close()
    quiet = open_gateway(runner_enabled=False)
    answer = {"payload": {"response": "Bob"}}
    quiet.commands.submit(run_id=run_id, type="resume", payload=answer, command_id="c-1")
    quiet.close()

    third = open_gateway()
    run = wait_for_status(third, run_id, "completed")
    again = third.commands.submit(run_id=run_id, type="resume", payload=answer, command_id="c-1")
    wait_for(third, lambda: third.stores.commands.get_cursor() == 1)

    assert again.duplicate
    assert "Bob" in str(run["output"])
