from __future__ import annotations

import threading
from typing import Any

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.stores.base import Commit, Stores
from tests.stores.shapes import a_command, a_run, applied, write


def test_commands_get_places_from_one_on(stores: Stores) -> None:
    receipts = [stores.commands.append(a_command(name)) for name in ("a", "b", "c")]

    assert [(receipt.accepted, receipt.duplicate, receipt.seq) for receipt in receipts] == [
        (True, False, 1),
        (True, False, 2),
        (True, False, 3),
    ]
    assert stores.commands.get_last_seq() == 3


def test_a_command_sent_twice_is_stored_once(stores: Stores) -> None:
    stores.commands.append(a_command("a", payload={"first": True}))
    stores.commands.append(a_command("b"))

    again = stores.commands.append(a_command("a", payload={"first": False}))

    assert (again.accepted, again.duplicate, again.seq) == (False, True, 1)
    assert stores.commands.get("a").payload == {"first": True}
    assert stores.commands.get_last_seq() == 2


def test_a_command_keeps_every_field(stores: Stores) -> None:
    command = a_command("a", payload={"é": [1, None]}, client_id="web", type="resume", run_id="some run")

    stores.commands.append(command)

    found = stores.commands.get("a")
    assert found == a_command("a", payload={"é": [1, None]}, client_id="web", type="resume", run_id="some run", seq=1)
    assert stores.commands.get("b") is None


@pytest.mark.parametrize(
    ("after", "limit", "wanted", "cursor"),
    [
        (0, 10, ["a", "b", "c"], 3),
        (1, 1, ["b"], 2),
        (3, 10, [], 3),
        (9, 10, [], 9),
        (-2, 1, ["a"], 1),
        (0, 0, [], 0),
        (0, -1, [], 0),
    ],
)
def test_commands_are_listed_after_a_place(
    stores: Stores, after: int, limit: int, wanted: list[str], cursor: int
) -> None:
    for name in ("a", "b", "c"):
        stores.commands.append(a_command(name))

    found, next_cursor = stores.commands.list_after(after=after, limit=limit)

    assert ([command.command_id for command in found], next_cursor) == (wanted, cursor)


def test_an_outcome_moves_the_cursor_and_can_be_read(stores: Stores) -> None:
    stores.commands.append(a_command("a"))
    stores.commands.append(a_command("b"))

    stores.commit(Commit(outcome=applied(a_command("b"), 2)))
    stores.commit(Commit(outcome=applied(a_command("a"), 1)))

    assert stores.commands.get_cursor() == 2
    assert stores.commands.outcome("a").seq == 1
    assert stores.commands.outcome("unknown") is None


def test_a_command_without_an_outcome_has_none(stores: Stores) -> None:
    stores.commands.append(a_command("a"))

    assert stores.commands.outcome("a") is None
    assert stores.commands.get_cursor() == 0


def test_a_duplicate_in_a_commit_lets_the_rest_of_it_pass(stores: Stores) -> None:
    stores.commands.append(a_command("a"))

    receipt = stores.commit(Commit(runs=(write(a_run()),), command=a_command("a")))

    assert receipt.command.duplicate
    assert stores.runs.open("r1") is not None


def test_a_blank_id_or_time_is_filled_in(stores: Stores) -> None:
    stores.commands.append(a_command(" ", ts=""))

    (found,), _ = stores.commands.list_after(after=0)

    assert len(found.command_id) == 32
    assert found.ts.endswith("+00:00")


@pytest.mark.parametrize(
    "fields",
    [{"run_id": " "}, {"type": ""}, {"payload": [1]}, {"payload": {"x": float("nan")}}, {"payload": {"x": {1}}}],
)
def test_what_is_no_command_is_refused(stores: Stores, fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        stores.commands.append(a_command("a", **fields))

    assert stores.commands.get_last_seq() == 0


def test_threads_that_send_the_same_commands_store_each_once(stores: Stores) -> None:
    receipts: list[tuple[str, bool, int]] = []

    def send() -> None:
        for number in range(25):
            receipt = stores.commands.append(a_command(f"c{number}"))
            receipts.append((f"c{number}", receipt.accepted, receipt.seq))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    accepted = {name: seq for name, is_accepted, seq in receipts if is_accepted}
    assert sorted(accepted.values()) == list(range(1, 26))
    assert len(receipts) == 200
    assert all(accepted[name] == seq for name, _, seq in receipts)
