from __future__ import annotations

import json
from dataclasses import replace

import pytest

from abstractgateway.clock import SystemClock
from abstractgateway.errors import Conflict, Invalid, Unavailable
from abstractgateway.runtime.chain import encode_record, first_fault, verify_chain
from abstractgateway.runtime.commit import CommandRecord, Commit, Removal
from abstractgateway.runtime.models import StepRecord, StepStatus
from abstractgateway.service.commands import CommandService
from abstractgateway.stores import migrate as module
from abstractgateway.stores import migrate_artifacts, open_file_stores, open_memory_stores
from abstractgateway.stores.base import RunQuery
from abstractgateway.stores.migrate import migrate
from tests.stores.script import STEPS, picture
from tests.stores.shapes import a_command, a_run, appending, records, save, write


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
    monkeypatch.setattr(module, "PAGE_RECORDS", records)
    source = filled(open_memory_stores())

    migrate(source, stores)

    assert picture(stores) == picture(source)


def test_a_migration_that_was_interrupted_anywhere_is_gone_on_with(monkeypatch, backend, opened, tmp_path):
    monkeypatch.setattr(module, "CHUNK_RECORDS", 2)
    monkeypatch.setattr(module, "PAGE_RECORDS", 2)
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


def test_a_ledger_without_a_run_moves_too(stores):
    source = filled(open_memory_stores())
    added, _ = records("early", 5)
    for body in added:
        source.ledger.append(StepRecord.from_dict(json.loads(body)))

    done = migrate(source, stores)

    assert (done.runs, list(stores.ledger.orphans())) == (4, ["early"])
    assert stores.ledger.read("early", 0, 9).records == source.ledger.read("early", 0, 9).records
    assert picture(stores) == picture(source)


def test_ledgers_without_a_run_are_known_after_a_restart_until_there_is_a_run(durable, opened, tmp_path):
    first = opened(durable, tmp_path)
    save(first, a_run("r1"), count=2)
    for name in ("early", "removed"):
        first.ledger.append(StepRecord(run_id=name, step_id="s1", node_id="n", status=StepStatus.COMPLETED))
    first.commit(Commit(removed=(Removal("removed", 0),)))
    assert list(first.ledger.orphans()) == ["early"]
    first.close()

    again = opened(durable, tmp_path)

    assert list(again.ledger.orphans()) == ["early"]
    head = again.ledger.head("early")
    again.commit(Commit(runs=(replace(write(a_run("early")), ledger_len=1, ledger_hash=head.ledger_hash),)))
    assert list(again.ledger.orphans()) == []


# -- artifacts -------------------------------------------------------------------------------------------------------


def with_artifacts(stores):
    """Fill stores, with artifacts of runs, of none, with the same bytes, and large ones; return the stores."""
    filled(stores)
    stores.artifacts.store(b"", run_id="r1", tags={"kind": "empty"})
    stores.artifacts.store(b"\0\xff" * 400_000, run_id="r1", content_type="image/png")
    stores.artifacts.store(b"text", run_id="r2", content_type="text/plain", tags={"a": "ä", "b": ""})
    stores.artifacts.store(b"text", artifact_id="settings")
    return stores


def artifacts_of(stores):
    items = stores.artifacts.list_all(None)
    return {item.artifact_id: (item, stores.artifacts.load(item.artifact_id)) for item in items}


@pytest.fixture
def later(monkeypatch):
    """Let what is stored from now on be of another time."""
    return lambda: monkeypatch.setattr("abstractgateway.stores.artifacts.to_iso", lambda at: "2099-01-01T00:00:00Z")


def test_artifacts_move_with_their_descriptions_and_times(stores, later):
    source = with_artifacts(open_memory_stores())
    later()

    done = migrate(source, stores)

    assert artifacts_of(stores) == artifacts_of(source)
    assert (done.artifacts, done.lost) == (4, {})


def test_artifacts_move_from_every_backend(stores, later):
    with_artifacts(stores)
    target = open_memory_stores()
    later()

    migrate(stores, target)

    assert artifacts_of(target) == artifacts_of(stores)


def test_artifacts_of_stores_that_share_them_are_left_where_they_are(stores):
    source = with_artifacts(open_memory_stores())

    done = migrate(source, stores, shares_artifacts=True)

    assert (done.artifacts, stores.artifacts.list_all(None)) == (0, [])
    assert picture(stores) == picture(source)


def test_an_interrupted_migration_goes_on_with_the_artifacts_that_are_missing(stores, monkeypatch):
    source = with_artifacts(open_memory_stores())
    adopt, left = type(stores.artifacts).adopt, [2]

    def adopt_some(self, metadata, read_pieces):
        if not left[0]:
            raise Unavailable("the disk is full", code="store_failed")
        left[0] -= 1
        return adopt(self, metadata, read_pieces)

    monkeypatch.setattr(type(stores.artifacts), "adopt", adopt_some)
    with pytest.raises(Unavailable, match="full"):
        migrate(source, stores)
    assert stores.runs.find(RunQuery()) == []  # what names artifacts comes after them
    left[0] = 99

    done = migrate(source, stores)

    assert done.artifacts == 2
    assert artifacts_of(stores) == artifacts_of(source)


def test_a_damaged_artifact_is_named_and_keeps_nothing_else_back(stores, tmp_path):
    source = with_artifacts(open_file_stores(tmp_path / "source"))
    broken = source.artifacts.store(b"hello", run_id="r1")
    gone = source.artifacts.store(b"gone", run_id="r1")
    blobs = tmp_path / "source" / "artifacts" / "blobs"
    (blobs / f"{broken.blob_id}.bin").write_bytes(b"hellO")
    (blobs / f"{gone.blob_id}.bin").unlink()

    done = migrate(source, stores)

    assert set(done.lost) == {broken.artifact_id, gone.artifact_id}
    assert len(stores.artifacts.list_all(None)) == 4
    assert picture(stores) == picture(source)
    source.close()


def test_an_artifact_of_an_early_abstractruntime_moves(stores, tmp_path):
    (tmp_path / "source" / "artifacts").mkdir(parents=True)
    about = {"artifact_id": "old-1", "content_type": "text/plain", "size_bytes": 3, "created_at": "", "run_id": "r1"}
    (tmp_path / "source" / "artifacts" / "old-1.meta").write_text(json.dumps(about))
    (tmp_path / "source" / "artifacts" / "old-1.bin").write_bytes(b"old")
    source = filled(open_file_stores(tmp_path / "source"))

    migrate(source, stores)

    assert stores.artifacts.load("old-1") == b"old"
    assert stores.artifacts.get_metadata("old-1").run_id == "r1"
    source.close()


def test_large_artifacts_are_held_in_memory_a_part_at_a_time(stores, monkeypatch):
    monkeypatch.setattr(migrate_artifacts, "PART_BYTES", 1000)
    source = open_memory_stores()
    source.artifacts.store(bytes(range(256)) * 100)
    held = []
    adopt = type(stores.artifacts).adopt

    def adopt_measured(self, metadata, read_pieces):
        def measured():
            for piece in read_pieces():
                held.append(len(piece))
                yield piece

        return adopt(self, metadata, measured)

    monkeypatch.setattr(type(stores.artifacts), "adopt", adopt_measured)

    migrate(source, stores)

    assert (max(held), sum(held)) == (1000, 25_600)
    assert artifacts_of(stores) == artifacts_of(source)


def test_an_artifact_that_reads_otherwise_than_it_was_written_is_noticed(stores, monkeypatch):
    source = with_artifacts(open_memory_stores())
    get_metadata = type(stores.artifacts).get_metadata

    def forgetful(self, artifact_id):
        found = get_metadata(self, artifact_id)
        return replace(found, tags={}) if found is not None and self is stores.artifacts else found

    monkeypatch.setattr(type(stores.artifacts), "get_metadata", forgetful)

    with pytest.raises(Unavailable, match="reads differently"):
        migrate(source, stores)


def test_commits_are_small_enough_to_be_held_in_memory(stores, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 3000)
    source = open_memory_stores()
    for name in "abc":
        save(source, a_run(name), count=20, text="x" * 500)
    sizes = []
    commit = stores.commit
    monkeypatch.setattr(stores, "commit", lambda one: (sizes.append(len(one.runs)), commit(one))[1])

    migrate(source, stores)

    assert sizes == [1, 1, 1]
    assert picture(stores) == picture(source)


def test_a_target_with_more_commands_than_the_source_is_refused(source, stores):
    for number in range(9):
        stores.commands.append(a_command(f"other-{number}"))

    with pytest.raises(Conflict, match="--overwrite"):
        migrate(source, stores)

    assert stores.runs.find(RunQuery()) == []


def test_an_outcome_that_reads_otherwise_than_it_was_written_is_noticed(source, stores, monkeypatch):
    outcome = type(stores.commands).outcome

    def forgetful(self, command_id):
        found = outcome(self, command_id)
        return replace(found, reason="another") if found is not None and self is stores.commands else found

    monkeypatch.setattr(type(stores.commands), "outcome", forgetful)

    with pytest.raises(Unavailable, match="'c1' reads differently"):
        migrate(source, stores)
