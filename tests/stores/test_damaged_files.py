from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.stores import open_file_stores
from abstractgateway.stores.base import Stores
from abstractgateway.testing import FaultyDisk
from tests.stores import script
from tests.stores.script import PICTURES, STEPS
from tests.stores.shapes import a_command, a_run, applied, save

GARBAGE = [b"", b"\0" * 100, b"{", b"[]", b"12", b'{"run_id": "r1"}', b"\xff\xfe\x80", b'"' + b"x" * 5000]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with everything in it, closed."""
    stores = open_file_stores(tmp_path)
    for step in STEPS:
        step(stores)
    stores.claim("runner")
    stores.close()
    return tmp_path


@contextmanager
def reopened(directory: Path) -> Iterator[Stores]:
    with closing(open_file_stores(directory, disk=FaultyDisk())) as stores:
        yield stores


def killed_copy(tmp_path: Path) -> Path:
    """Return a directory as a process leaves it that is killed after it has put everything into the files."""
    stores = open_file_stores(tmp_path / "live")
    for step in STEPS:
        step(stores)
    with stores._exclusive():
        stores._apply_pending(None)
        shutil.copytree(tmp_path / "live", tmp_path / "killed", ignore=shutil.ignore_patterns("*.sock"))
    stores.close()
    return tmp_path / "killed"


def aside(directory: Path, name: str) -> list[Path]:
    return sorted(directory.glob(f"{name}.damaged-*"))


@pytest.mark.parametrize("content", GARBAGE, ids=repr)
def test_a_damaged_checkpoint_is_put_aside_and_hides_no_other(directory: Path, content: bytes) -> None:
    (directory / "run_r1.json").write_bytes(content)

    with reopened(directory) as stores:
        assert stores.runs.open("r1") is None
        assert sorted(row["run_id"] for row in stores.runs.list_run_index()) == ["r2", "r3", "r4"]
        assert "run_r1.json" in str(stores.problems[0])
        assert len(stores.ledger.list("r1")) == 12
        assert save(stores, a_run("r9"), count=1).revision == 1
    assert [path.read_bytes() for path in aside(directory, "run_r1.json")] == [content]


def test_every_truncation_of_a_checkpoint_leaves_the_others_readable(directory: Path) -> None:
    path = directory / "run_r3.json"
    whole = path.read_bytes()

    for size in range(0, len(whole) - 3, 7):
        path.write_bytes(whole[:size])
        with reopened(directory) as stores:
            assert stores.runs.open("r3") is None
            assert stores.runs.open("r1").revision == 5


def test_a_checkpoint_under_the_name_of_another_run_is_put_aside(directory: Path) -> None:
    shutil.copy(directory / "run_r2.json", directory / "run_other.json")

    with reopened(directory) as stores:
        assert stores.runs.open("other") is None
        assert "other" in str(stores.problems[0])


def test_a_checkpoint_whose_variables_are_no_object_is_put_aside(directory: Path) -> None:
    path = directory / "run_r2.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vars": ["no", "object"]}))

    with reopened(directory) as stores:
        assert stores.runs.open("r2") is None
        assert stores.runs.open("r1") is not None
    assert len(aside(directory, "run_r2.json")) == 1


def test_a_damaged_checkpoint_that_cannot_be_put_aside_stays_and_hides_no_other(directory: Path) -> None:
    (directory / "run_r2.json").write_bytes(b"{")
    disk = FaultyDisk()
    disk.fail("eio", only="run_r2.json.damaged")

    with closing(open_file_stores(directory, disk=disk)) as stores:
        assert stores.runs.open("r2") is None
        assert stores.runs.open("r1") is not None
        assert "left where it is" in str(stores.problems[0])
    assert (directory / "run_r2.json").read_bytes() == b"{"


def test_a_file_that_vanishes_while_it_is_open_is_not_made_up(directory: Path) -> None:
    with reopened(directory) as stores:
        (directory / "run_r1.json").unlink()
        (directory / "ledger_r3.jsonl").unlink()

        assert stores.runs.open("r1") is None
        with pytest.raises(Unavailable, match="ledger_r3.jsonl") as refused:
            stores.ledger.list("r3")
        assert refused.value.code == "ledger_damaged"
        assert save(stores, a_run("r9"), count=1).revision == 1


def test_a_directory_in_the_place_of_a_checkpoint_is_reported(directory: Path) -> None:
    (directory / "run_odd.json").mkdir()
    (directory / "ledger_odd.jsonl").mkdir()

    with reopened(directory) as stores:
        assert stores.runs.open("odd") is None
        assert len(stores.problems) == 2
        assert stores.runs.open("r1") is not None


@pytest.mark.parametrize(
    "own", ["text", 7, {}, {"revision": "x"}, {"revision": -1, "ledger_len": 0, "ledger_bytes": 0}]
)
def test_a_head_that_is_none_is_measured_again(directory: Path, own: object) -> None:
    path = directory / "run_r3.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_gateway": own}))

    with reopened(directory) as stores:
        stored = stores.runs.open("r3")
        assert (stored.revision, stored.ledger_len) == (1, 3)
        assert save(stores, stored.state, count=1).ledger_len == 4
        assert script.picture(stores)


def test_a_torn_ledger_tail_is_cut_off_and_the_next_record_is_safe(directory: Path) -> None:
    path = directory / "ledger_r3.jsonl"
    path.write_bytes(path.read_bytes()[:-40])

    with reopened(directory) as stores:
        assert stores.ledger.count("r3") == 2
        assert any("3" in str(problem) for problem in stores.problems)
        save(stores, a_run("r3"), count=2)
        assert script.picture(stores)["runs"]["r3"][0].ledger_len == 4
    assert len(aside(directory, "ledger_r3.jsonl")) == 1


def test_a_tear_within_a_character_is_cut_off(directory: Path) -> None:
    path = directory / "ledger_r3.jsonl"
    path.write_bytes(path.read_bytes() + '{"text": "é'.encode()[:-1])

    with reopened(directory) as stores:
        assert stores.ledger.count("r3") == 3
        save(stores, a_run("r3"), count=1)
        assert stores.ledger.list("r3")[3]["result"]["i"] == 4


def test_glued_blank_and_foreign_lines_are_put_right(directory: Path) -> None:
    path = directory / "ledger_r3.jsonl"
    one, two, three = path.read_bytes().splitlines()
    path.write_bytes(one + two + b"\n\n  \n12\n\xff\xfe\nnull\n[1]\n" + three + b" \n{broken\n")

    with reopened(directory) as stores:
        assert list(stores.ledger.read("r3", 0, 10).records) == [one, two, three]
        assert script.picture(stores)["runs"]["r3"][0].ledger_len == 3


def test_a_ledger_that_shrinks_while_it_is_open_is_reported_and_not_made_up(directory: Path) -> None:
    with reopened(directory) as stores:
        (directory / "ledger_r3.jsonl").write_bytes(b"")

        with pytest.raises(Unavailable, match="damaged"):
            stores.ledger.read("r3", 0, 10)

        assert len(stores.ledger.list("r1")) == 12


def test_a_checkpoint_that_breaks_while_it_is_open_is_reported(directory: Path) -> None:
    with reopened(directory) as stores:
        (directory / "run_r3.json").write_bytes(b"{")

        with pytest.raises(Unavailable, match="damaged"):
            stores.runs.open("r3")


def test_foreign_lines_among_the_commands_lose_no_command(directory: Path) -> None:
    path = directory / "commands.jsonl"
    one, two, three = path.read_bytes().splitlines()
    foreign = b'12\n{"x": 1}\n{"command_id": "z", "run_id": "r", "type": "t", "payload": [], "ts": ""}\n\xff\n'
    path.write_bytes(one + b"\n" + foreign + two + three + b'\n{"command_id": "to')

    with reopened(directory) as stores:
        found, _ = stores.commands.list_after(after=0)
        assert [(command.command_id, command.seq) for command in found] == [("c1", 1), ("c2", 2), ("c3", 3)]
        assert stores.commands.append(a_command("c2")).duplicate
        assert stores.commands.append(a_command("c4")).seq == 4
        assert stores.commands.get_cursor() == 2
    with reopened(directory) as stores:
        assert [command.command_id for command in stores.commands.list_after(after=2)[0]] == ["c3", "c4"]


def test_places_given_twice_by_two_writers_lose_no_command(directory: Path) -> None:
    path = directory / "commands.jsonl"
    lines = [json.dumps(a_command(name, seq=seq).to_dict()) for name, seq in (("d1", 2), ("d3", 3), ("d4", 4))]
    path.write_text(path.read_text() + "\n".join(lines) + "\n")

    for _ in range(2):
        with reopened(directory) as stores:
            found, _ = stores.commands.list_after(after=stores.commands.get_cursor())
            assert [command.command_id for command in found] == ["c3", "d4", "d3"]
            assert stores.commands.append(a_command("d1")).duplicate


def test_a_command_that_stands_there_twice_is_one(directory: Path) -> None:
    path = directory / "commands.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[2])

    with reopened(directory) as stores:
        found, cursor = stores.commands.list_after(after=0)
        assert [(command.command_id, command.seq) for command in found] == [("c1", 1), ("c2", 2), ("c3", 3)]
        assert (cursor, stores.commands.append(a_command("c4")).seq) == (3, 4)


def test_commands_that_were_lost_do_not_make_new_ones_invisible(directory: Path) -> None:
    (directory / "commands.jsonl").unlink()

    with reopened(directory) as stores:
        receipt = stores.commands.append(a_command("new"))
        assert receipt.seq > stores.commands.get_cursor()
        assert [command.command_id for command in stores.commands.list_after(after=2)[0]] == ["new"]


@pytest.mark.parametrize("content", [*GARBAGE, b'{"cursor": "2"}', b'{"cursor": -7}', b'{"cursor": null}'], ids=repr)
def test_a_damaged_cursor_is_made_up_from_the_outcomes(directory: Path, content: bytes) -> None:
    (directory / "commands_cursor.json").write_bytes(content)

    with reopened(directory) as stores:
        assert stores.commands.get_cursor() == 2
        stores.commands.append(a_command("c4"))


def test_damaged_outcomes_leave_the_cursor_where_it_was(directory: Path) -> None:
    (directory / "command_outcomes.jsonl").write_bytes(b'{"seq": 1}\n{"seq": "x", "command_id": 3}\n\xff{')

    with reopened(directory) as stores:
        assert stores.commands.get_cursor() == 2
        assert stores.commands.outcome("c1") is None
        stores.commit(script.Commit(outcome=applied(a_command("c3"), 3)))
    with reopened(directory) as stores:
        assert stores.commands.outcome("c3").seq == 3


@pytest.mark.parametrize("content", GARBAGE, ids=repr)
def test_a_lost_epoch_is_followed_by_one_that_no_runner_has(directory: Path, content: bytes) -> None:
    (directory / "runner_epoch.json").write_bytes(content)

    with reopened(directory) as stores:
        assert stores.claim("runner") > 1_000_000


@pytest.mark.parametrize("content", GARBAGE, ids=repr)
def test_a_journal_that_is_none_is_kept_aside(directory: Path, content: bytes) -> None:
    (directory / "journal.log").write_bytes(content)

    with reopened(directory) as stores:
        assert script.picture(stores) == PICTURES[-1]
        save(stores, a_run("r9"))
    assert [path.read_bytes() for path in aside(directory, "journal.log")] == [content]


def test_leftovers_of_a_writer_that_died_are_swept_up(directory: Path) -> None:
    (directory / "run_r1.json.4711.tmp").write_bytes(b"{")
    (directory / "notes.tmp").write_bytes(b"mine")

    with reopened(directory) as stores:
        assert list(stores.problems) == []
    assert not (directory / "run_r1.json.4711.tmp").exists()
    assert (directory / "notes.tmp").exists()


def flips(data: bytes) -> Iterator[bytes]:
    for place in range(len(data)):
        yield data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]


def test_any_flipped_bit_of_a_journal_whose_entries_are_in_the_files_loses_nothing(scratch: Path) -> None:
    killed = killed_copy(scratch)
    journal = killed / "journal.log"
    whole = journal.read_bytes()

    for number, damaged in enumerate(flips(whole)):
        if number % 25 and number > 64:
            continue
        directory = scratch / "flipped"
        shutil.copytree(killed, directory)
        (directory / "journal.log").write_bytes(damaged)
        with reopened(directory) as stores:
            found = script.picture(stores)
            for run_id in found["runs"].keys() - PICTURES[-1]["runs"].keys():  # its removal is what was damaged
                del found["runs"][run_id]
            assert found == PICTURES[-1], f"byte {number}"
            save(stores, a_run("r9"))
        shutil.rmtree(directory)


def test_any_flipped_bit_of_a_journal_that_has_the_only_copy_costs_its_entry_and_no_earlier_one(scratch: Path) -> None:
    live = open_file_stores(scratch / "live")
    journal = scratch / "live" / "journal.log"
    for number in range(6):
        live.runs.save(a_run(f"r{number}"))
    whole = journal.read_bytes()
    live.close()

    for number, damaged in enumerate(flips(whole)):
        if number % 5 and number > 64:
            continue
        directory = scratch / "flipped"
        directory.mkdir()
        (directory / "journal.log").write_bytes(damaged)
        with reopened(directory) as stores:
            found = {row.run_id for row in stores.runs.list_runs()}
            assert len(found) >= 5, f"byte {number}"
            assert len(found) == 6 or list(stores.problems), f"byte {number}"
        shutil.rmtree(directory)


def test_every_truncation_of_a_journal_keeps_the_whole_entries(scratch: Path) -> None:
    live = open_file_stores(scratch / "live")
    journal = scratch / "live" / "journal.log"
    sizes = [journal.stat().st_size]
    for number in range(4):
        live.runs.save(a_run(f"r{number}"))
        sizes.append(journal.stat().st_size)
    whole = journal.read_bytes()
    live.close()

    for size in [*range(0, len(whole), 3), *sizes]:
        directory = scratch / "cut"
        directory.mkdir()
        (directory / "journal.log").write_bytes(whole[:size])
        with reopened(directory) as stores:
            assert len(stores.runs.list_runs()) == max(sum(size >= end for end in sizes) - 1, 0)
        shutil.rmtree(directory)


def test_a_batch_that_was_torn_at_its_beginning_is_dropped_as_a_whole(tmp_path: Path) -> None:
    from abstractgateway.stores.entries import Entry, scan

    first = Entry(epoch=1).encode(24)
    batch = [Entry(epoch=number).encode(24 + len(first)) for number in (2, 3)]
    later = Entry(epoch=4).encode(24 + len(first) + len(batch[0]) + len(batch[1]))
    hole = b"\0" * len(batch[0])

    torn = scan(first + hole + batch[1], 24)
    damaged = scan(first + hole + batch[1] + later, 24)

    assert ([entry.epoch for _, entry in torn.entries], torn.damaged) == ([1], 0)
    assert torn.torn == len(hole) + len(batch[1])
    assert [entry.epoch for _, entry in damaged.entries] == [1, 4]
    assert damaged.damaged == 1


@pytest.mark.parametrize("payload", [b"{}", b"[]", b'{"batch_at": 24, "runs": [{"run_id": "r"}]}'])
def test_an_entry_of_another_form_at_the_end_of_a_journal_is_cut_off(tmp_path: Path, payload: bytes) -> None:
    from abstractgateway.stores.entries import FRAME

    killed = killed_copy(tmp_path)
    with open(killed / "journal.log", "ab") as journal:
        journal.write(FRAME.pack(len(payload) + 1, zlib.crc32(payload + b"\n")) + payload + b"\n")

    with reopened(killed) as stores:
        assert script.picture(stores) == PICTURES[-1]
        assert "unfinished entry" in str(stores.problems[0])


def test_a_journal_that_somebody_died_with_while_changing_it_is_begun_anew_by_whoever_looks(tmp_path: Path) -> None:
    with closing(open_file_stores(tmp_path)) as stores:
        save(stores, a_run("before"), count=1)
        with stores._exclusive():
            stores._apply_pending(None)
            (tmp_path / "journal.log").rename(tmp_path / "journal.old.log")

        stores._on_wake(has_rung=False)

        assert (tmp_path / "journal.log").exists()
        assert save(stores, a_run("before"), count=1).revision == 2
        with reopened(tmp_path) as other:
            assert other.runs.open("before").ledger_len == 2


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "journal.log").unlink(),
        lambda path: (path / "journal.old.log").write_bytes(b"nonsense"),
        lambda path: (path / "journal.new.log").write_bytes(b"left over"),
        lambda path: shutil.rmtree(path / "wake"),
    ],
    ids=["no journal", "foreign old journal", "half-made journal", "no bells"],
)
def test_what_lies_around_the_journal_does_not_matter(directory: Path, damage: Damage) -> None:
    damage(directory)

    with reopened(directory) as stores:
        assert script.picture(stores) == PICTURES[-1]
        save(stores, a_run("r9"))
    with reopened(directory) as stores:
        assert stores.runs.open("r9") is not None
