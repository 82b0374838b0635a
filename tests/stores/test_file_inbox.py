"""The inbox of the file store: what it does not keep in memory it finds in the files, for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.runtime.commit import Commit
from abstractgateway.stores import open_file_stores
from abstractgateway.stores.base import CommandRecord
from abstractgateway.stores.file_inbox import FileInbox, Ids
from abstractgateway.stores.files import FileStores
from tests.stores.shapes import a_command, applied

COUNT = 300


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[FileStores]:
    """Stores with 300 commands, all but the last ten dealt with, of which all but the last twenty are in the files."""
    with closing(open_file_stores(tmp_path)) as found:
        for number in range(1, COUNT + 1):
            found.commands.append(command(number))
        for number in range(1, COUNT - 19):
            found.commit(Commit(outcome=applied(command(number), number)))
        put_into_files(found)
        for number in range(COUNT - 19, COUNT - 9):
            found.commit(Commit(outcome=applied(command(number), number)))
        yield found


def command(number: int) -> CommandRecord:
    return a_command(f"c{number}", payload={"n": number, "text": "ü" * (number % 7)})


def put_into_files(stores: FileStores) -> None:
    with stores._exclusive():
        stores._apply_pending(None)


def check(stores: FileStores) -> None:
    """Compare every answer of the inbox with what was put into it."""
    commands = stores.commands
    for number in (1, 2, COUNT // 2, COUNT - 20, COUNT - 15, COUNT - 10, COUNT - 9, COUNT):
        found = commands.get(f"c{number}")
        assert (found.seq, found.payload) == (number, command(number).payload)
        outcome = commands.outcome(f"c{number}")
        assert outcome == (applied(command(number), number) if number <= COUNT - 10 else None)
        again = commands.append(command(number))
        assert (again.duplicate, again.seq) == (True, number)
    assert (commands.get("nobody"), commands.outcome("nobody")) == (None, None)
    found, cursor = commands.list_after(after=COUNT - 30, limit=25)
    assert [item.seq for item in found] == list(range(COUNT - 29, COUNT - 4))
    assert cursor == COUNT - 5


def test_commands_are_the_same_wherever_they_are(stores: FileStores) -> None:
    check(stores)
    put_into_files(stores)
    check(stores)


def test_commands_are_the_same_after_a_restart(stores: FileStores, tmp_path: Path) -> None:
    stores.close()

    with closing(open_file_stores(tmp_path)) as again:
        check(again)


def test_commands_of_another_process_are_found_in_the_files(stores: FileStores, tmp_path: Path) -> None:
    with closing(open_file_stores(tmp_path)) as other:
        number = other.commands.append(a_command("theirs")).seq
        other.commit(Commit(outcome=applied(a_command("theirs"), number)))
        put_into_files(other)
        stores.look()
        assert stores.commands.get("theirs").seq == number
        assert stores.commands.outcome("theirs").status == "applied"
        check(stores)


def test_only_what_is_still_needed_is_kept_in_memory(stores: FileStores) -> None:
    put_into_files(stores)

    assert sorted(stores.view.inbox._held) == list(range(COUNT - 9, COUNT + 1))
    assert stores.view.inbox._held_outcomes == {}


@pytest.mark.parametrize("content", [b"", b"x" * 50_000, b"{}\n" * 20_000])
def test_an_inbox_that_breaks_while_it_is_open_is_reported_and_not_made_up(
    stores: FileStores, tmp_path: Path, content: bytes
) -> None:
    put_into_files(stores)
    (tmp_path / "commands.jsonl").write_bytes(content)

    with pytest.raises(Unavailable, match="commands.jsonl"):
        stores.commands.get("c1")
    with pytest.raises(Unavailable, match="commands.jsonl"):
        stores.commands.append(command(2))
    assert stores.commands.append(a_command("new")).seq == COUNT + 1


@pytest.mark.parametrize("content", [None, b"", b"{}\n" * 20_000])
def test_outcomes_that_break_while_the_inbox_is_open_are_reported_and_not_made_up(
    stores: FileStores, tmp_path: Path, content: bytes | None
) -> None:
    put_into_files(stores)
    if content is None:
        (tmp_path / "command_outcomes.jsonl").unlink()
    else:
        (tmp_path / "command_outcomes.jsonl").write_bytes(content)

    with pytest.raises(Unavailable, match="command_outcomes.jsonl"):
        stores.commands.outcome("c1")
    assert stores.commands.outcome(f"c{COUNT}") is None
    assert stores.commands.get("c1").seq == 1


def test_ids_with_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abstractgateway.stores.file_inbox.hash", lambda text: 7, raising=False)
    inbox = FileInbox(tmp_path / "commands.jsonl", tmp_path / "outcomes.jsonl")
    for number in range(1, 20):
        inbox.put(a_command(f"c{number}", seq=number), 0, is_in_file=False)

    assert [inbox.seq_of(f"c{number}") for number in range(1, 21)] == [*range(1, 20), None]


def test_a_table_of_ids_finds_each_of_many() -> None:
    ids = Ids()
    for number in range(1, 5001):
        ids.add(f"command-{number}", number)

    assert all(number in ids.places(f"command-{number}") for number in range(1, 5001))
    assert not any(list(ids.places(f"other-{number}")) for number in range(500))


def test_outcomes_of_one_place_are_told_apart_by_their_commands(tmp_path: Path) -> None:
    with closing(open_file_stores(tmp_path)) as stores:
        stores.commands.append(a_command("c1"))
        stores.commit(Commit(outcome=applied(a_command("c1"), 1)))
        stores.commit(Commit(outcome=applied(a_command("lost"), 1)))
    with closing(open_file_stores(tmp_path)) as stores:
        assert stores.commands.outcome("c1") == applied(a_command("c1"), 1)
        assert stores.commands.outcome("lost") == applied(a_command("lost"), 1)
