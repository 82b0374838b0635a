from __future__ import annotations

import json
from dataclasses import replace

import pytest

from abstractgateway.clock import SystemClock
from abstractgateway.errors import Conflict, Invalid, Unavailable
from abstractgateway.runtime.chain import encode_record, first_fault, verify_chain
from abstractgateway.runtime.commit import CommandRecord, Commit, Removal
from abstractgateway.runtime.models import StepRecord
from abstractgateway.service.commands import CommandService
from abstractgateway.stores import migrate as module
from abstractgateway.stores import open_file_stores, open_memory_stores
from abstractgateway.stores.base import RunQuery
from abstractgateway.stores.migrate import migrate
from tests.stores.script import STEPS, picture
from tests.stores.shapes import a_command, a_run, appending, save


def filled(stores):
    for step in STEPS:
        step(stores)
    return stores


@pytest.fixture
def source():
    stores = filled(open_memory_stores())
    yield stores
    stores.close()


def test_everything_is_there_under_the_same_cursors_and_revisions(source, stores):
    done = migrate(source, stores)

    assert picture(stores) == picture(source)
    assert stores.commands.get_last_seq() == source.commands.get_last_seq()
    assert (done.runs, done.of_runs, done.commands, done.broken) == (4, 4, 3, {})
    assert done.records == sum(stores.ledger.count(f"r{n}") for n in range(1, 5))


def test_a_picture_has_no_run_that_was_removed_while_it_was_made(source, stores):
    def remove(progress):
        row = source.runs.row("r2")
        if row is not None:
            source.commit(Commit(removed=(Removal("r2", row.revision, True),)))

    module.picture(source, stores, remove)

    assert picture(stores) == picture(source)
    assert stores.runs.was_removed("r2")


def test_it_is_there_after_a_restart_and_goes_on(source, durable, opened, tmp_path):
    first = opened(durable, tmp_path)
    migrate(source, first)
    first.close()

    again = opened(durable, tmp_path)

    assert picture(again) == picture(source)
    stored = again.runs.open("r1")
    again.commit(Commit(runs=(appending(stored, 2),)))
    assert verify_chain(again.ledger.list("r1")).ok
    assert again.commands.append(a_command("c9")).seq == source.commands.get_last_seq() + 1


def test_the_order_of_runs_is_kept_also_where_times_are_equal(stores):
    source = open_memory_stores()
    for name in ("b", "a", "c"):
        save(source, a_run(name), count=1)

    migrate(source, stores)

    assert stores.runs.find(RunQuery(limit=None)) == source.runs.find(RunQuery(limit=None))


@pytest.mark.parametrize("records", [1, 2, 3, 7])
def test_long_ledgers_are_copied_in_pieces(stores, monkeypatch, records):
    monkeypatch.setattr(module, "CHUNK_RECORDS", records)
    source = filled(open_memory_stores())

    migrate(source, stores)

    assert picture(stores) == picture(source)


def test_a_migration_that_was_interrupted_anywhere_is_gone_on_with(monkeypatch, backend, opened, tmp_path):
    monkeypatch.setattr(module, "CHUNK_RECORDS", 2)
    source = filled(open_memory_stores())
    interrupted = 0
    for allowed in range(40):
        directory = tmp_path / str(allowed)
        directory.mkdir()
        target = opened(backend, directory)
        limited = Limited(target, allowed)
        try:
            migrate(source, limited)
        except Unavailable:
            interrupted += 1
            migrate(source, target)
        assert picture(target) == picture(source), f"after {allowed} commits"
    assert 10 < interrupted < 40


class Limited:
    """Stores that fail after so many commits."""

    def __init__(self, stores, allowed):
        self._stores, self._allowed = stores, allowed

    def __getattr__(self, name):
        return getattr(self._stores, name)

    def submit(self, commit, done):
        self._allowed -= 1
        if self._allowed < 0:
            done(None, Unavailable("enough"))
        else:
            self._stores.submit(commit, done)

    def commit(self, commit):
        self._allowed -= 1
        if self._allowed < 0:
            raise Unavailable("enough")
        return self._stores.commit(commit)


def test_what_changes_meanwhile_is_copied_too(source, stores):
    changes = iter([lambda: save(source, a_run("r3"), count=2), lambda: source.commands.append(a_command("late"))])

    migrate(source, stores, lambda progress: next(changes, lambda: None)())

    assert picture(stores) == picture(source)


def test_a_source_that_does_not_stop_changing_is_told_of(source, stores):
    with pytest.raises(Conflict, match="changes while it is copied") as raised:
        migrate(source, stores, lambda progress: save(source, a_run("r3"), count=1))

    assert raised.value.code == "source_changes"


@pytest.mark.parametrize("other", ["r1", "someone-else"])
def test_a_target_that_has_other_runs_is_refused_and_left_alone(source, stores, other):
    save(stores, a_run(other, current_node="elsewhere"), count=1)
    if other == "r1":
        for _ in range(20):
            save(stores, a_run(other, current_node="elsewhere"), count=1)
    before = picture(stores)

    with pytest.raises(Conflict, match="--overwrite"):
        migrate(source, stores)

    assert picture(stores) == before


def test_commands_that_no_outcome_is_known_of_stay_dealt_with(stores, tmp_path):
    lines = [{**a_command(f"c{seq}").to_dict(), "seq": seq} for seq in (1, 2, 3)]
    directory = tmp_path / "of-the-original"
    directory.mkdir()
    (directory / "commands.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "commands_cursor.json").write_text(
        '{"version": 1, "cursor": 2, "updated_at": "2026-01-01T00:00:00+00:00"}'
    )
    source = open_file_stores(directory)

    migrate(source, stores)

    told = [
        [CommandService(stores=each, clock=SystemClock()).outcome(f"c{seq}") for seq in (1, 2, 3)]
        for each in (source, stores)
    ]
    source.close()
    assert stores.commands.get_cursor() == 2
    assert told[0] == told[1]
    assert [outcome["status"] for outcome in told[0]] == ["applied", "applied", "pending"]
    assert "keeps no outcomes" in told[0][0]["reason"]


def test_places_of_commands_with_gaps_between_them_are_kept(stores):
    stores.commit(Commit(command=replace(a_command("c7"), seq=7)))
    late = stores.commit(Commit(command=replace(a_command("c3"), seq=3))).command

    assert stores.commands.get("c7").seq == 7
    assert late.seq == 8


def test_a_client_cannot_choose_the_place_of_its_command(stores):
    receipt = stores.commands.append(CommandRecord("c", "r", "cancel", {}, "2026-01-01T00:00:00+00:00", seq=99))

    assert receipt.seq == 1


def test_a_ledger_with_a_broken_chain_is_copied_as_it_is_and_named(stores):
    source = open_memory_stores()
    save(source, a_run("r1"), count=3)
    stored = source.runs.open("r1")
    source.commit(Commit(runs=(replace(appending(stored, 1), records=(b'{"record_hash":"x","prev_hash":"y"}',)),)))

    done = migrate(source, stores)

    assert done.broken == {"r1": 4}
    assert stores.ledger.read("r1", 0, 9).records == source.ledger.read("r1", 0, 9).records


def test_a_revision_that_lies_behind_is_refused(stores):
    save(stores, a_run("r1"), count=1)
    stored = stores.runs.open("r1")

    with pytest.raises(Invalid, match="cannot be moved"):
        stores.commit(Commit(runs=(replace(appending(stored, 1), moved_to=1),)))


def test_a_value_that_looks_like_a_link_does_not_hide_the_record_s_own(source):
    nested = {"prev_hash": None, "record_hash": "0" * 64, "signature": None}
    first = source.ledger.list("r1")[0]
    record = StepRecord.from_dict({**first, "effect": {"a": nested}, "result": {"b": [nested]}, "prev_hash": None})
    line, digest = encode_record(record)

    assert first_fault([line], None) == (None, digest)
    assert first_fault([line.replace(b'"node_id"', b'"node_iD"')], None)[0] == 0
    assert first_fault([line], "1" * 64)[0] == 0
