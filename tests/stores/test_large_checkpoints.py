"""Checkpoints that are written as what changed of them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from abstractgateway.errors import Invalid, StaleWrite, Unavailable
from abstractgateway.runtime.commit import ANY_REVISION, Commit, RunWrite
from abstractgateway.runtime.delta import encode_delta, encode_state
from abstractgateway.runtime.models import RunState
from abstractgateway.runtime.tracking import TrackedVars
from abstractgateway.stores import open_file_stores
from abstractgateway.stores.base import RunQuery, Stores
from abstractgateway.testing import FaultyDisk
from tests.stores.shapes import ON_A_DISK, SQLITE, Backend, a_run, changing, save, write

Open = Callable[[Backend, Path], Stores]


class Large:
    """A run with a large state, and the writes that change it."""

    def __init__(self, stores: Stores, run_id: str = "large") -> None:
        self.stores = stores
        self.state = a_run(run_id, vars={f"k{number}": ["x" * 900] for number in range(40)})
        self.revision = 0

    def write_whole(self) -> Large:
        self.state.vars = dict(self.state.vars)
        self.commit(body=encode_state(self.state))
        self.state.vars = TrackedVars(self.state.vars)
        return self

    def write_delta(self, number: int, **fields: object) -> Large:
        self.state = replace(self.state, **fields)  # type: ignore[arg-type]
        self.state.vars["n"] = number
        self.state.vars[f"k{number}"].append(number)
        self.commit(delta=self.delta())
        return self

    def delta(self) -> bytes:
        assert isinstance(self.state.vars, TrackedVars)
        return encode_delta(self.state, self.state.vars.take_changes())

    def commit(self, body: bytes = b"", delta: bytes = b"") -> None:
        self.stores.commit(Commit(runs=(self.to_write(body, delta),)))
        self.revision += 1

    def to_write(self, body: bytes, delta: bytes) -> RunWrite:
        return RunWrite(self.state.run_id, self.state, body, self.revision, (), 0, None, delta)

    def found(self, stores: Stores | None = None) -> RunState:
        stored = (stores or self.stores).runs.open(self.state.run_id)
        assert stored is not None and stored.revision == self.revision
        return stored.state

    def expected(self) -> RunState:
        return RunState.from_dict(json.loads(encode_state(replace(self.state, vars=dict(self.state.vars)))))


def test_what_changed_is_read_with_what_did_not(stores: Stores) -> None:
    large = Large(stores).write_whole().write_delta(3).write_delta(7, current_node="next").write_delta(3)

    assert large.found() == large.expected()
    assert large.found().vars["k3"][1:] == [3, 3]


def test_the_sizes_of_a_checkpoint_are_known(stores: Stores) -> None:
    large = Large(stores).write_whole()
    whole = stores.runs.open("large")
    large.write_delta(1)
    changed = stores.runs.open("large")

    assert whole is not None and changed is not None
    assert whole.body_bytes > 36_000 and whole.delta_bytes == 0
    assert changed.body_bytes == whole.body_bytes and 1000 < changed.delta_bytes < 2500


def test_a_whole_checkpoint_takes_the_place_of_what_was_there(stores: Stores) -> None:
    large = Large(stores).write_whole().write_delta(1).write_delta(2)

    large.write_whole().write_delta(4)

    assert large.found() == large.expected()


def test_a_state_that_is_saved_as_it_is_takes_the_place_of_what_was_there(stores: Stores) -> None:
    large = Large(stores).write_whole().write_delta(1)

    stores.runs.save(replace(large.state, vars={"small": True}))

    found = stores.runs.open("large")
    assert found is not None and found.state.vars == {"small": True}


def test_a_delta_of_an_older_revision_is_refused(stores: Stores) -> None:
    large = Large(stores).write_whole().write_delta(1)
    late = replace(large.to_write(b"", large.delta()), expected=1)

    with pytest.raises(StaleWrite):
        stores.commit(Commit(runs=(late,)))

    assert large.found() == large.expected()


@pytest.mark.parametrize("revision", [0, ANY_REVISION])
def test_a_delta_needs_a_revision_that_it_changes(stores: Stores, revision: int) -> None:
    state = a_run("r", vars=TrackedVars({}))
    delta = RunWrite("r", state, b"", revision, (), 0, None, encode_delta(state, []))

    with pytest.raises(Invalid, match="delta"):
        stores.commit(Commit(runs=(delta,)))

    assert stores.runs.open("r") is None


def test_deltas_of_several_runs_share_a_moment(stores: Stores) -> None:
    first, second = Large(stores, "first").write_whole(), Large(stores, "second").write_whole()
    for number in range(5):
        first.write_delta(number)
        second.write_delta(number + 10)

    assert (first.found(), second.found()) == (first.expected(), second.expected())


def test_several_deltas_of_one_run_share_an_fsync(stores: Stores) -> None:
    large = Large(stores).write_whole()
    decided: list[Exception | None] = []
    for number in range(20):
        large.state.vars["n"] = number
        large.state.vars[f"k{number}"].append(number)
        stores.submit(Commit(runs=(large.to_write(b"", large.delta()),)), lambda receipt, error: decided.append(error))
        large.revision += 1
    save(stores, a_run("last"))  # and what was submitted before it is decided

    assert decided == [None] * 20
    assert large.found() == large.expected()


def test_what_changed_is_there_after_a_restart(durable: Backend, opened: Open, tmp_path: Path) -> None:
    before = opened(durable, tmp_path)
    large = Large(before).write_whole().write_delta(1).write_delta(2)
    before.close()

    large.stores = opened(durable, tmp_path)

    assert large.found() == large.expected()
    assert large.write_delta(3).found() == large.expected()


def test_what_changed_is_there_for_another_store_on_the_same_data(
    durable: Backend, opened: Open, tmp_path: Path
) -> None:
    ours = opened(durable, tmp_path)
    large = Large(ours).write_whole().write_delta(1)
    other = opened(durable, tmp_path)
    large.write_delta(2)
    other.commit(Commit(runs=(write(a_run("other")),)))

    assert large.found(other) == large.expected()
    large.stores = other
    large.write_delta(3)
    assert large.found() == large.expected()
    large.stores = ours
    ours.commit(Commit(runs=(write(a_run("third")),)))
    assert large.found() == large.expected()
    assert large.write_delta(4).found(ours) == large.expected()


@ON_A_DISK
def test_a_closed_store_has_whole_checkpoints_for_other_programs(
    durable: Backend, opened: Open, tmp_path: Path
) -> None:
    stores = opened(durable, tmp_path)
    large = Large(stores).write_whole().write_delta(1).write_delta(2)
    stores.close()

    if durable.name == "sqlite":
        with sqlite3.connect(tmp_path / "gateway.sqlite3") as connection:
            (text,) = connection.execute("SELECT run_json FROM runs").fetchone()
            assert connection.execute("SELECT COUNT(*) FROM run_deltas").fetchone() == (0,)
    else:
        text = (tmp_path / "run_large.json").read_text()
    assert RunState.from_dict(json.loads(text)) == large.expected()


def test_the_first_delta_of_a_journal_brings_the_whole_checkpoint(tmp_path: Path) -> None:
    with_small_journals = open_file_stores(tmp_path, journal_bytes=20_000)
    large = Large(with_small_journals).write_whole()
    for number in range(30):
        large.write_delta(number % 5)
        save(with_small_journals, a_run(f"other{number}"))
        assert large.found() == large.expected()
    with_small_journals.close()

    large.stores = open_file_stores(tmp_path)

    assert large.found() == large.expected()
    large.stores.close()


def test_a_delta_of_a_small_checkpoint_is_kept_as_well(stores: Stores) -> None:
    stored = save(stores, a_run("small", vars={"a": [1], "b": 2}))
    first = changing(stored, {"a": [1, 2]})
    second = replace(first, expected=2, delta=encode_delta(first.state or stored.state, ['["set",["b"],3]']))
    decided: list[Exception | None] = []
    for number, what in enumerate((first, second, write(a_run("other")))):
        stores.submit(Commit(runs=(what,)), lambda receipt, error: decided.append(error))
        if number == 0:
            save(stores, a_run("meanwhile"))
    save(stores, a_run("last"))

    found = stores.runs.open("small")
    assert decided == [None] * 3 and found is not None and found.revision == 3
    assert found.state.vars == {"a": [1, 2], "b": 3}


@pytest.mark.parametrize("delta", ["{", "[]", '{"fields":{},"changes":[["set",["no","place"],1]]}'])
def test_a_damaged_delta_in_a_database_is_told_and_hides_nothing(opened: Open, tmp_path: Path, delta: str) -> None:
    stores = opened(SQLITE, tmp_path)
    large = Large(stores).write_whole().write_delta(1).write_delta(2)
    save(stores, a_run("other"))
    with sqlite3.connect(tmp_path / "gateway.sqlite3") as connection:
        connection.execute("UPDATE run_deltas SET delta = ? WHERE revision = 2", (delta,))

    with pytest.raises(Unavailable, match="large") as refused:
        stores.runs.open("large")

    assert refused.value.code == "run_damaged"
    assert {row.run_id for row in stores.runs.find(RunQuery())} == {"large", "other"}
    assert stores.runs.open("other") is not None
    stores.close()
    again = opened(SQLITE, tmp_path)
    again.runs.save(large.expected())
    found = again.runs.open("large")
    assert found is not None and found.state == large.expected()


def test_a_delta_that_a_damaged_journal_lost_is_told(tmp_path: Path) -> None:
    stores = open_file_stores(tmp_path, disk=FaultyDisk())
    large = Large(stores).write_whole().write_delta(1, current_node="first")
    large.write_delta(2, current_node="second").write_delta(3, current_node="third")
    path = tmp_path / "journal.log"
    for source in tmp_path.iterdir():  # as a crash leaves it
        if source.is_file():
            (tmp_path / "crash").mkdir(exist_ok=True)
            shutil.copy2(source, tmp_path / "crash" / source.name)
    stores.close()
    crashed = tmp_path / "crash"
    (crashed / "run_large.json").unlink(missing_ok=True)
    journal = crashed / path.name
    journal.write_bytes(journal.read_bytes().replace(b"second", b"sec\x00nd"))

    again = open_file_stores(crashed)

    found = again.runs.open("large")
    assert found is not None
    assert found.state.current_node == "first" and found.state.vars["n"] == 1
    assert any("run_large.json" in problem.where and "behind" in problem.why for problem in again.problems)
    again.close()
