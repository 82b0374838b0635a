"""The command inbox of a data directory, in little memory: what has been dealt with is read from the files.

Kept in memory are the commands that are not dealt with or not in the file yet, and of every other one its place, its
offset in the file and a hash of its id: about 60 bytes, so that a command sent twice is known for ever.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from ..errors import Unavailable
from ..jsonvalue import JsonObject
from .base import CommandOutcome, CommandRecord

MOST = 2**63
"""Places from here on are none; the arrays hold 64 bits."""
_HASH = 2**64 - 1
_LEAST_SLOTS = 1 << 10


class NotWhole(Exception):
    """A file has a line that is not just one JSON object."""


class Ids:
    """The places of ids, found by hash: whoever asks compares the ids. An open hash table in two arrays."""

    def __init__(self) -> None:
        self._count = 0
        self._hashes = array("Q", bytes(8 * _LEAST_SLOTS))
        self._seqs = array("Q", bytes(8 * _LEAST_SLOTS))  # 0 is an empty slot

    def add(self, command_id: str, seq: int) -> None:
        self._count += 1
        if 3 * self._count > 2 * len(self._seqs):
            self._grow()
        self._insert(hash(command_id) & _HASH, seq)

    def places(self, command_id: str) -> Iterator[int]:
        """Yield the places of the ids that have this one's hash."""
        wanted, last = hash(command_id) & _HASH, len(self._seqs) - 1
        at = wanted & last
        while seq := self._seqs[at]:
            if self._hashes[at] == wanted:
                yield seq
            at = (at + 1) & last

    def _insert(self, hashed: int, seq: int) -> None:
        last = len(self._seqs) - 1
        at = hashed & last
        while self._seqs[at]:
            at = (at + 1) & last
        self._hashes[at], self._seqs[at] = hashed, seq

    def _grow(self) -> None:
        known = [(hashed, seq) for hashed, seq in zip(self._hashes, self._seqs, strict=True) if seq]
        size = 2 * len(self._seqs)
        self._hashes, self._seqs = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))
        for hashed, seq in known:
            self._insert(hashed, seq)


class Offsets:
    """Where in a file the line of each place begins; places mostly grow, so that adding is cheap."""

    def __init__(self) -> None:
        self._seqs = array("Q")
        self._offsets = array("Q")

    def add(self, seq: int, at: int) -> bool:
        """Note an offset; the first one of a place stays. Say whether it is the first."""
        index = len(self._seqs) if not self._seqs or seq > self._seqs[-1] else bisect_left(self._seqs, seq)
        if index < len(self._seqs) and self._seqs[index] == seq:
            return False
        self._seqs.insert(index, seq)
        self._offsets.insert(index, at)
        return True

    def get(self, seq: int) -> int | None:
        index = bisect_left(self._seqs, seq)
        return self._offsets[index] if index < len(self._seqs) and self._seqs[index] == seq else None

    def after(self, seq: int) -> Iterator[tuple[int, int]]:
        """Yield places greater than one, in order, each with its offset."""
        first = bisect_right(self._seqs, min(max(seq, 0), MOST))
        return ((self._seqs[index], self._offsets[index]) for index in range(first, len(self._seqs)))


class FileInbox:
    """The commands by place and id, what became of them, and the cursor.

    `at` is where a line begins in its file; one that is not `is_in_file` is kept until `note_command_in_file` or
    `note_outcome_in_file`.
    """

    def __init__(self, commands: Path, outcomes: Path) -> None:
        self.last_seq = 0
        self.cursor = 0
        self._commands_path = commands
        self._outcomes_path = outcomes
        self._ids = Ids()
        self._commands = Offsets()
        self._outcomes = Offsets()
        self._held: dict[int, CommandRecord] = {}
        self._unwritten: set[int] = set()
        self._held_outcomes: dict[int, CommandOutcome] = {}
        self._without_place: dict[str, CommandRecord] = {}  # another command has their place
        self._further_outcomes: dict[str, CommandOutcome] = {}  # their place has an earlier outcome

    # -- taking in -----------------------------------------------------------------------------------------------

    def put(self, command: CommandRecord, at: int, *, is_in_file: bool) -> None:
        """Add a command whose id is new; the first one of a place stays there."""
        self.last_seq = max(self.last_seq, command.seq)
        if not self._commands.add(command.seq, at):
            self._without_place[command.command_id] = command
            return
        self._ids.add(command.command_id, command.seq)
        if not is_in_file:
            self._unwritten.add(command.seq)
        if not is_in_file or command.seq > self.cursor:
            self._held[command.seq] = command

    def settle(self, outcome: CommandOutcome, at: int, *, is_in_file: bool) -> None:
        """Note what became of a command and move the cursor past it."""
        if not self._outcomes.add(outcome.seq, at):
            self._further_outcomes[outcome.command_id] = outcome
        elif not is_in_file:
            self._held_outcomes[outcome.seq] = outcome
        self.move_cursor(outcome.seq)
        self._let_go(outcome.seq)

    def move_cursor(self, seq: int) -> None:
        """Move the cursor to a place, never back; new commands come after it, or they would never be applied."""
        self.cursor = max(self.cursor, seq)
        self.last_seq = max(self.last_seq, self.cursor)

    def note_command_in_file(self, seq: int) -> None:
        self._unwritten.discard(seq)
        self._let_go(seq)

    def note_outcome_in_file(self, seq: int) -> None:
        self._held_outcomes.pop(seq, None)

    def note_all_in_files(self) -> None:
        self._held_outcomes.clear()
        while self._unwritten:
            self._let_go(self._unwritten.pop())

    def _let_go(self, seq: int) -> None:
        if seq <= self.cursor and seq not in self._unwritten:
            self._held.pop(seq, None)

    # -- asking --------------------------------------------------------------------------------------------------

    def has_place(self, seq: int) -> bool:
        return self._commands.get(seq) is not None

    def seq_of(self, command_id: str) -> int | None:
        command = self.get(command_id)
        return command.seq if command is not None else None

    def get(self, command_id: str) -> CommandRecord | None:
        for seq in self._ids.places(command_id):
            command = self._held.get(seq) or self._read(seq)
            if command.command_id == command_id:
                return command
        return self._without_place.get(command_id)

    def outcome(self, command_id: str) -> CommandOutcome | None:
        further = self._further_outcomes.get(command_id)
        seq = self.seq_of(command_id) if further is None else None
        at = self._outcomes.get(seq) if seq is not None else None
        if seq is None or at is None:
            return further
        found = self._held_outcomes.get(seq)
        if found is None:
            with _opened(self._outcomes_path) as file:
                found = outcome_of(_object_at(file, at))
        if found is None:
            raise _damaged(self._outcomes_path)
        return found if found.command_id == command_id else None

    def after(self, after: int, limit: int) -> tuple[list[CommandRecord], int]:
        """Return up to `limit` commands after a place, and the last one's place (or `after`)."""
        places = list(islice(self._commands.after(after), max(limit, 0)))
        found = [self._held.get(seq) or self._read(seq) for seq, _ in places]
        return found, found[-1].seq if found else after

    def _read(self, seq: int) -> CommandRecord:
        at = self._commands.get(seq)
        assert at is not None
        with _opened(self._commands_path) as file:
            command = command_of(_object_at(file, at), seq)
        if command is None:
            raise _damaged(self._commands_path)
        return CommandRecord(**{**command.to_dict(), "seq": seq})


def objects_in(path: Path) -> Iterator[tuple[int, JsonObject]]:
    """Yield the object on each line of a file with the offset of the line. Raises `NotWhole` for any other line."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        at = 0
        for line in file:
            yield at, _parsed(line)
            at += len(line)


def command_of(fields: JsonObject, number: int) -> CommandRecord | None:
    """Return the command that a line of the inbox holds, or None; without a place it has its line's number."""
    texts = [fields.get(name) for name in ("command_id", "run_id", "type", "ts")]
    client_id, payload, seq = fields.get("client_id"), fields.get("payload"), count_of(fields.get("seq", number))
    if not all(isinstance(text, str) and text for text in texts[:3]) or not isinstance(payload, dict) or not seq:
        return None
    return CommandRecord(
        command_id=fields["command_id"],
        run_id=fields["run_id"],
        type=fields["type"],
        payload=payload,
        ts=str(fields.get("ts") or ""),
        client_id=client_id if isinstance(client_id, str) else None,
        seq=seq,
    )


def outcome_of(fields: JsonObject) -> CommandOutcome | None:
    """Return the outcome that a line holds, or None."""
    seq, reason = count_of(fields.get("seq")), fields.get("reason")
    texts = [fields.get(name) for name in ("command_id", "status", "applied_at")]
    if seq is None or not all(isinstance(text, str) for text in texts):
        return None
    known = reason if isinstance(reason, str) else None
    return CommandOutcome(seq, fields["command_id"], fields["status"], known, fields["applied_at"])


def count_of(value: object) -> int | None:
    """Return a number that counts something, or None for anything else."""
    return value if type(value) is int and 0 <= value < MOST else None


def _parsed(line: bytes) -> JsonObject:
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise NotWhole(str(error)) from error
    if not isinstance(value, dict) or not line.endswith(b"\n"):
        raise NotWhole("a line is no object or not whole")
    return value


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise _damaged(path) from error


def _object_at(file: BinaryIO, at: int) -> JsonObject:
    try:
        file.seek(at)
        return _parsed(file.readline())
    except (OSError, NotWhole) as error:
        raise _damaged(Path(file.name)) from error


def _damaged(path: Path) -> Unavailable:
    return Unavailable(f"{path.name!r} has changed or is damaged; open the directory again", code="store_failed")
