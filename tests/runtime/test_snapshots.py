from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.errors import Invalid
from abstractgateway.runtime import RunState
from abstractgateway.runtime.snapshots import InMemorySnapshotStore, Snapshot, SnapshotStore
from abstractgateway.stores.snapshots import JsonSnapshotStore
from abstractgateway.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "files"])
def store(request: Any, tmp_path: Path, clock: ManualClock) -> SnapshotStore:
    if request.param == "memory":
        return InMemorySnapshotStore(clock=clock)
    return JsonSnapshotStore(tmp_path / "snapshots", clock=clock)


def run_of() -> RunState:
    return RunState.new(workflow_id="w", entry_node="a", vars={"list": [1], "text": "é"})


def taken(clock: ManualClock, name: str = "before", **fields: Any) -> Snapshot:
    return Snapshot.from_run(run=run_of(), name=name, clock=clock, **fields)


def test_a_snapshot_comes_back_as_it_was(store: SnapshotStore, clock: ManualClock) -> None:
    snapshot = taken(clock, description="d", tags=["a", "b"], step_id="step-1")
    clock.move(5)

    stored = store.save(snapshot)

    assert stored.updated_at == clock.now().isoformat()
    assert stored.created_at == snapshot.created_at
    assert store.load(snapshot.snapshot_id) == stored


def test_a_snapshot_is_not_changed_by_its_run(clock: ManualClock) -> None:
    run = run_of()
    snapshot = Snapshot.from_run(run=run, name="n", clock=clock)

    run.vars["list"].append(2)

    assert snapshot.to_run().vars == {"list": [1], "text": "é"}
    assert snapshot.run_id == run.run_id


def test_the_run_of_a_snapshot_shares_nothing_with_it(clock: ManualClock) -> None:
    snapshot = taken(clock)

    snapshot.to_run().vars["list"].append(2)

    assert snapshot.run_state["vars"]["list"] == [1]


def test_saving_again_replaces_a_snapshot(store: SnapshotStore, clock: ManualClock) -> None:
    snapshot = taken(clock)
    store.save(snapshot)
    renamed = Snapshot.from_dict({**snapshot.to_dict(), "name": "after"})

    store.save(renamed)

    assert [item.name for item in store.list()] == ["after"]


def test_snapshots_are_listed_newest_first_up_to_a_limit(store: SnapshotStore, clock: ManualClock) -> None:
    for name in ("one", "two", "three"):
        store.save(taken(clock, name))
        clock.move(1)

    assert [item.name for item in store.list()] == ["three", "two", "one"]
    assert [item.name for item in store.list(limit=2)] == ["three", "two"]
    assert [item.name for item in store.list(limit=0)] == ["three"]


def test_snapshots_are_found_by_run_tag_and_text_in_any_case(store: SnapshotStore, clock: ManualClock) -> None:
    first = store.save(taken(clock, "Before Deploy", tags=["Release"]))
    store.save(taken(clock, "other", description="after the DEPLOY"))

    assert [item.name for item in store.list(run_id=first.run_id)] == ["Before Deploy"]
    assert [item.name for item in store.list(tag="release")] == ["Before Deploy"]
    assert {item.name for item in store.list(query="deploy")} == {"Before Deploy", "other"}
    assert store.list(query="deploy", tag="missing") == []


def test_a_deleted_snapshot_is_gone(store: SnapshotStore, clock: ManualClock) -> None:
    snapshot = store.save(taken(clock))

    assert (store.delete(snapshot.snapshot_id), store.delete(snapshot.snapshot_id)) == (True, False)
    assert store.load(snapshot.snapshot_id) is None
    assert store.list() == []


def test_an_id_that_leads_out_of_the_directory_is_refused(store: SnapshotStore, clock: ManualClock) -> None:
    snapshot = Snapshot.from_dict({**taken(clock).to_dict(), "snapshot_id": "../evil"})

    with pytest.raises(Invalid):
        store.save(snapshot)


def test_a_snapshot_needs_a_name(clock: ManualClock) -> None:
    with pytest.raises(Invalid, match="name the snapshot"):
        taken(clock, " ")


@pytest.mark.parametrize("data", [None, [], {}, {"run_state": {}}, {"run_state": {}, "snapshot_id": 5, "run_id": "r"}])
def test_what_is_no_snapshot_is_refused(data: Any) -> None:
    with pytest.raises(Invalid, match="is not a stored snapshot"):
        Snapshot.from_dict(data)


def test_the_file_is_readable_and_has_its_place(tmp_path: Path, clock: ManualClock) -> None:
    snapshot = JsonSnapshotStore(tmp_path, clock=clock).save(taken(clock))

    path = tmp_path / f"snapshot_{snapshot.snapshot_id}.json"

    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert json.loads(path.read_text()) == snapshot.to_dict()
    assert '\n  "run_id": ' in path.read_text()
    assert "é" in path.read_text()


def test_a_damaged_file_is_left_out_of_lists_and_said_when_it_is_loaded(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = JsonSnapshotStore(tmp_path, clock=clock)
    whole = store.save(taken(clock))
    (tmp_path / "snapshot_torn.json").write_text('{"snapshot_id": "to')

    assert [item.snapshot_id for item in store.list()] == [whole.snapshot_id]
    assert "snapshot_torn.json" in caplog.text
    with pytest.raises(Invalid, match=r"snapshot_torn\.json"):
        store.load("torn")


def test_a_snapshot_of_another_process_is_seen(tmp_path: Path, clock: ManualClock) -> None:
    snapshot = JsonSnapshotStore(tmp_path, clock=clock).save(taken(clock))

    assert JsonSnapshotStore(tmp_path).load(snapshot.snapshot_id) == snapshot


def test_a_snapshot_that_vanishes_while_they_are_listed_is_left_out(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "snapshot_gone.json").symlink_to(tmp_path / "nowhere")

    assert JsonSnapshotStore(tmp_path, clock=clock).list() == []
