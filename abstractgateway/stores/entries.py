"""A commit as the journal has it, and finding the whole entries in a journal's bytes.

An entry is framed by its length and CRC; its payload is a line of JSON that says what follows, then the bodies and
lines as they are. It says at which offset of which file its bytes go, so applying it twice does no harm, and at which
offset of the journal the batch began that it was written with.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from ..errors import Invalid
from ..jsonvalue import JsonObject, dumps, loads
from .base import RunRow

FRAME = struct.Struct("<II")
_START = b'{"batch_at":'


@dataclass(frozen=True)
class RunEntry:
    """One run's part of an entry; `ledger_at` is the offset in its ledger file at which `lines` begin.

    `body` is a whole checkpoint, `delta` what changed in the one before; an entry that only adds records has neither.
    """

    run_id: str
    revision: int
    ledger_len: int
    ledger_hash: str | None
    ledger_at: int
    body: bytes
    lines: bytes
    delta: bytes = b""
    row: RunRow | None = field(default=None, compare=False)  # spares the process that commits from decoding the body

    @property
    def has_checkpoint(self) -> bool:
        return bool(self.body or self.delta)

    @property
    def ledger_bytes(self) -> int:
        return self.ledger_at + len(self.lines)


@dataclass(frozen=True)
class Entry:
    """One commit as the journal has it; lines of other files come with the offsets at which they go.

    `removed` are the runs that go after everything else was done, `kept` the lines of those whose ids are kept.
    """

    runs: tuple[RunEntry, ...] = ()
    command: JsonObject | None = None
    command_at: int = 0
    outcome: JsonObject | None = None
    outcome_at: int = 0
    epoch: int | None = None
    removed: tuple[str, ...] = ()
    kept: bytes = b""
    kept_at: int = 0

    def encode(self, batch_at: int) -> bytes:
        """Return the framed bytes."""
        head = {
            "batch_at": batch_at,
            "runs": [_run_head(run) for run in self.runs],
            "command": self.command,
            "command_at": self.command_at,
            "outcome": self.outcome,
            "outcome_at": self.outcome_at,
            "epoch": self.epoch,
        }
        if self.removed:
            head |= {"removed": self.removed, "kept": self.kept.decode(), "kept_at": self.kept_at}
        blobs = b"".join([run.body + run.delta + run.lines for run in self.runs])
        payload = b"%b\n%b" % (dumps(head), blobs)
        return FRAME.pack(len(payload), zlib.crc32(payload)) + payload

    @staticmethod
    def decode(payload: bytes) -> tuple[Entry, int]:
        """Return the entry of a payload and where its batch began. Raises `Invalid` for a payload that is none."""
        line, _, blobs = payload.partition(b"\n")
        head = loads(line, field="journal")
        runs: list[RunEntry] = []
        at = 0
        try:
            batch_at = int(head.pop("batch_at"))
            for run in head.pop("runs"):
                blob: JsonObject = {}
                for name in ("body", "delta", "lines"):
                    size = run.pop(name, 0)
                    blob[name], at = blobs[at : at + size], at + size
                runs.append(RunEntry(**run, **blob))
            removed, kept = tuple(head.pop("removed", ())), head.pop("kept", "").encode()
            return Entry(runs=tuple(runs), removed=removed, kept=kept, **head), batch_at
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Invalid("journal", f"has an entry of another form: {error}") from error


def _run_head(run: RunEntry) -> JsonObject:
    head = {
        "run_id": run.run_id,
        "revision": run.revision,
        "ledger_len": run.ledger_len,
        "ledger_hash": run.ledger_hash,
        "ledger_at": run.ledger_at,
        "body": len(run.body),
        "lines": len(run.lines),
    }
    return {**head, "delta": len(run.delta)} if run.delta else head


@dataclass
class Scan:
    """The entries of a journal's bytes, each with the offset of its end.

    `end` is where the good ones end and `torn` how many bytes follow; `damaged` counts the places between good entries
    where bytes had to be skipped.
    """

    entries: list[tuple[int, Entry]] = field(default_factory=list)
    end: int = 0
    torn: int = 0
    damaged: int = 0


def scan(data: bytes, start: int) -> Scan:
    """Return the entries in bytes that were read from the offset `start` on.

    Bytes that are no entry are damage, and skipped, if a batch follows that was begun after them: they were on stable
    storage once. Otherwise they are a torn end: whatever is whole behind them was never acknowledged.
    """
    found = Scan(end=start)
    at = 0
    while (decoded := _decode_at(data, at)) is not None or (at := _after_damage(data, at, start)) >= 0:
        if decoded is None:
            found.damaged += 1
            continue
        entry, _, size = decoded
        at += size
        found.end = start + at
        found.entries.append((found.end, entry))
    found.torn = start + len(data) - found.end
    return found


def _decode_at(data: bytes, at: int) -> tuple[Entry, int, int] | None:
    """Return the entry at a place, where its batch began, and its size; None when there is no whole entry."""
    if at + FRAME.size > len(data):
        return None
    size, crc = FRAME.unpack_from(data, at)
    payload = data[at + FRAME.size : at + FRAME.size + size]
    if size == 0 or len(payload) < size or zlib.crc32(payload) != crc:
        return None
    try:
        entry, batch_at = Entry.decode(payload)
    except Invalid:
        return None
    return entry, batch_at, FRAME.size + size


def _after_damage(data: bytes, bad: int, start: int) -> int:
    """Return where the next whole entry of a later batch begins, or -1."""
    mark = bad
    while (mark := data.find(_START, mark + 1)) >= 0:
        decoded = _decode_at(data, mark - FRAME.size) if mark >= FRAME.size else None
        if decoded is not None and decoded[1] > start + bad:
            return mark - FRAME.size
    return -1
