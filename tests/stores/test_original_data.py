from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.runtime.chain import verify_chain
from abstractgateway.runtime.models import RunStatus
from abstractgateway.stores.base import Commit, Stores
from tests.stores.shapes import ON_A_DISK, Backend, a_command, a_run, applied, save, waiting

PYTHON = os.environ.get("ABSTRACTRUNTIME_PYTHON", "")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="ABSTRACTRUNTIME_PYTHON does not name an interpreter that has abstractruntime 0.4.9"
)

Open = Callable[[Backend, Path], Stores]


def original(action: str, durable: Backend, directory: Path) -> Any:
    program = Path(__file__).with_name("original.py")
    finished = subprocess.run(
        [PYTHON, str(program), action, durable.name, str(directory)], capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout) if finished.stdout else None


@ON_A_DISK
def test_what_abstractruntime_wrote_is_found_here(durable: Backend, opened: Open, tmp_path: Path) -> None:
    original("make", durable, tmp_path)

    stores = opened(durable, tmp_path)

    assert stores.runs.open("parent").state.vars["é"] == [1]
    assert stores.runs.waiting_on(["evt:x"]) == ["parent"]
    assert stores.runs.children_of("parent") == ["child"]
    assert stores.runs.open("child").state.output == {"answer": 42}
    assert [state.run_id for state in stores.runs.list_due_wait_until(now_iso="2026-11-21T07:00:00Z")] == ["timer"]
    assert len(stores.runs.list_runs(status=RunStatus.WAITING)) == 2
    assert [stores.ledger.count(run_id) for run_id in ("parent", "timer", "child")] == [2, 2, 2]
    assert stores.ledger.read_record("timer", 2)["result"] == {"text": "grüße", "i": 1}
    assert (stores.commands.get_cursor(), stores.commands.get_last_seq()) == (1, 2)
    assert stores.commands.get("two").payload == {"x": "é"}
    assert list(stores.problems) == []


@ON_A_DISK
def test_runs_of_abstractruntime_go_on_here(durable: Backend, opened: Open, tmp_path: Path) -> None:
    original("make", durable, tmp_path)
    stores = opened(durable, tmp_path)

    stored = stores.runs.open("parent")
    after = save(stores, a_run("parent", current_node="here"), count=2)
    save(stores, a_run("timer"), count=1)
    again = stores.commands.append(a_command("two"))
    fresh = stores.commands.append(a_command("fresh"))
    stores.commit(Commit(outcome=applied(a_command("two"), 2)))

    assert (after.revision, after.ledger_len) == (stored.revision + 1, 4)
    assert verify_chain(stores.ledger.list("parent")).ok
    assert verify_chain(stores.ledger.list("timer")).ok
    assert (again.duplicate, again.seq, fresh.seq) == (True, 2, 3)
    assert stores.runs.waiting_on(["evt:x"]) == []
    stores.close()
    found = original("look", durable, tmp_path)
    assert found["runs"]["parent"][:2] == ["running", "here"]
    assert found["ledgers"] == {"parent": 4, "timer": 3, "child": 2}
    assert [command[:2] for command in found["commands"]] == [["one", 1], ["two", 2], ["fresh", 3]]
    assert found["cursor"] == 2


@ON_A_DISK
def test_what_is_written_here_is_found_by_abstractruntime(durable: Backend, opened: Open, tmp_path: Path) -> None:
    stores = opened(durable, tmp_path)
    save(stores, a_run("r1", vars={"é": {"deep": [1, None]}}), count=3, text="grüße")
    save(stores, waiting("r2", key="k", parent_run_id="r1"), count=1)
    save(stores, waiting("r3", until="2027-01-01T00:00:00+00:00"))
    stores.commands.append(a_command("c1", payload={"text": "é"}))
    stores.commands.append(a_command("c2"))
    stores.commit(Commit(outcome=applied(a_command("c1"), 1)))
    stores.close()

    found = original("look", durable, tmp_path)

    assert found["runs"]["r1"] == ["running", "n", {"é": {"deep": [1, None]}}]
    assert found["ledgers"] == {"r1": 3, "r2": 1, "r3": 0}
    assert found["is_chained"]
    assert found["waiting"]["r2"] == "k"
    assert (found["due"], found["children"], found["cursor"]) == (["r3"], ["r2"], 1)
    assert found["commands"] == [["c1", 1, {"text": "é"}], ["c2", 2, {}]]


@ON_A_DISK
def test_a_directory_may_go_back_and_forth(durable: Backend, opened: Open, tmp_path: Path) -> None:
    original("make", durable, tmp_path)
    stores = opened(durable, tmp_path)
    before = save(stores, waiting("parent", key="evt:y", vars={"here": 1}), count=2)
    stores.close()
    original("go_on", durable, tmp_path)

    stores = opened(durable, tmp_path)

    stored = stores.runs.open("parent")
    assert (stored.state.status, stored.state.current_node) == (RunStatus.RUNNING, "went-on")
    assert stored.state.vars == {"here": 1}
    assert stores.runs.row("parent").status is RunStatus.RUNNING
    assert stores.runs.waiting_on(["evt:y"]) == []
    assert stored.ledger_len == before.ledger_len + 1
    assert (stores.commands.get_cursor(), stores.commands.get("three").seq) == (2, 3)
    after = save(stores, a_run("parent", current_node="back"), count=1)
    assert after.ledger_len == stored.ledger_len + 1
    newest = stores.ledger.read_record("parent", after.ledger_len)
    assert (newest["result"]["i"], newest["prev_hash"]) == (after.ledger_len, None)
    assert list(stores.problems) == []
