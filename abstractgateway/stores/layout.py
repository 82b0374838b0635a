"""The files of a data directory, in AbstractRuntime's layout, and what is done about damaged ones.

`run_<id>.json` is a checkpoint, `ledger_<id>.jsonl` a history, `commands.jsonl` the inbox. This library adds a field
`_gateway` to a checkpoint (which AbstractRuntime ignores) and the file `command_outcomes.jsonl`.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import count
from pathlib import Path

from ..errors import Invalid
from ..jsonvalue import JsonObject, dumps, loads
from ..runtime.models import RunState
from .disk import Disk
from .problems import Problems
from .staging import Head

OWN_FIELD = "_gateway"
STAMP = struct.Struct("<QqQ")
NO_FILE = bytes(STAMP.size)
"""The stamp of a file that is not there."""


@dataclass(frozen=True)
class FileHead(Head):
    """A head, and how many bytes of the ledger file belong to it."""

    ledger_bytes: int = 0


class Layout:
    """The names of the files in a data directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.commands = directory / "commands.jsonl"
        self.cursor = directory / "commands_cursor.json"
        self.outcomes = directory / "command_outcomes.jsonl"
        self.epoch = directory / "runner_epoch.json"
        self.lock = directory / "journal.lock"
        self.index = directory / "runs.index"
        self.removed = directory / "removed_runs.jsonl"

    def files(self) -> list[Path]:
        """Return every file of the backend that is there, but for its lock."""
        ours = (self.commands, self.cursor, self.outcomes, self.epoch, self.index, self.removed)
        named = {path.name for path in ours}
        with os.scandir(self.directory) as entries:
            names = sorted(entry.name for entry in entries)
        found = (name for name in names if name in named or run_of(name) or fnmatch(name, "journal*.log"))
        return [self.directory / name for name in found]

    def run(self, run_id: str) -> Path:
        return self.directory / f"run_{run_id}.json"

    def ledger(self, run_id: str) -> Path:
        return self.directory / f"ledger_{run_id}.jsonl"


def stamp(path: Path | os.DirEntry[str]) -> bytes:
    """Return what tells one content of a file from another without reading it: size, time of last change and inode.

    Another file in its place has another inode, and a file changed in place another time.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return NO_FILE
    return STAMP.pack(status.st_size, status.st_mtime_ns, status.st_ino)


def size_of(file_stamp: bytes) -> int:
    """Return the size of the file with a stamp, in bytes."""
    size, _, _ = STAMP.unpack(file_stamp)
    return int(size)


def changed_ns(stamps: bytes) -> int:
    """Return when the last of some files changed, in nanoseconds since the epoch."""
    return max(int(changed) for _, changed, _ in STAMP.iter_unpack(stamps))


def run_of(name: str) -> str | None:
    """Return the id of the run that a checkpoint or a ledger belongs to, or None for the name of another file."""
    if name.startswith("run_") and name.endswith(".json"):
        return name[4:-5]
    if name.startswith("ledger_") and name.endswith(".jsonl"):
        return name[7:-6]
    return None


@dataclass(frozen=True)
class Listing:
    """What is in a data directory: the stamps of checkpoints and of ledgers, by run id."""

    runs: dict[str, bytes]
    ledgers: dict[str, bytes]

    def stamps(self, run_id: str) -> bytes:
        """Return the stamps of a run's checkpoint and ledger."""
        return self.runs.get(run_id, NO_FILE) + self.ledgers.get(run_id, NO_FILE)

    @staticmethod
    def of(directory: Path) -> Listing:
        """Return what is in a directory, having removed what writers left that died half-way."""
        listing = Listing({}, {})
        with os.scandir(directory) as entries:
            for entry in entries:
                run_id = run_of(entry.name)
                if run_id is not None:
                    kind = listing.runs if entry.name.startswith("run_") else listing.ledgers
                    kind[run_id] = stamp(entry)
                elif _is_leftover(entry.name):
                    Path(entry.path).unlink(missing_ok=True)
        return listing


def _is_leftover(name: str) -> bool:
    """Say whether a name is one that `Disk.replace` gives to a file before it is whole."""
    stem, _, suffix = name.rpartition(".")
    return suffix == "tmp" and stem.rpartition(".")[2].isdigit()


def kept_line(run_id: str) -> bytes:
    """Return the line that keeps the id of a removed run."""
    return dumps({"run_id": run_id}) + b"\n"


def kept_ids(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield the ids that lines keep; a line of another form keeps none."""
    for line in lines:
        found = loads(line, field="removed").get("run_id")
        if isinstance(found, str):
            yield found


def encode_run(body: bytes, head: FileHead) -> bytes:
    """Return a checkpoint's bytes: the state, and where the run stands."""
    own = {
        "revision": head.revision,
        "ledger_len": head.ledger_len,
        "ledger_hash": head.ledger_hash,
        "ledger_bytes": head.ledger_bytes,
    }
    return b'%b,\n  "%b": %b\n}\n' % (body.rstrip()[:-1].rstrip(), OWN_FIELD.encode(), dumps(own))


def decode_run(data: bytes) -> tuple[RunState, FileHead | None]:
    """Return a checkpoint's state and, if this library wrote it, where the run stands.

    Raises `Invalid` for bytes that are no checkpoint.
    """
    fields = loads(data, field="run")
    if not isinstance(fields, dict):
        raise Invalid("run", "is not an object")
    state = RunState.from_dict(fields)
    if not isinstance(state.vars, dict):
        raise Invalid("run", "has no object in 'vars'")
    return state, _head_of(fields.get(OWN_FIELD))


def _head_of(own: object) -> FileHead | None:
    """Return the head in a checkpoint's own field, or None for anything else than a head."""
    if not isinstance(own, dict):
        return None
    numbers = [own.get(name) for name in ("revision", "ledger_len", "ledger_bytes")]
    digest = own.get("ledger_hash")
    if not all(type(number) is int and number >= 0 for number in numbers) or not isinstance(digest, (str, type(None))):
        return None
    return FileHead(own["revision"], own["ledger_len"], digest, own["ledger_bytes"])


def quarantine(disk: Disk, problems: Problems, path: Path, why: str) -> None:
    """Move a damaged file aside, where a person can look at it, and say so."""
    aside = _aside(path)
    try:
        disk.rename(path, aside)
    except OSError as error:
        problems.note(path.name, f"{why}; left where it is: {error}")
        return
    problems.note(path.name, f"{why}; kept as {aside.name}")


def keep_damaged(disk: Disk, path: Path, data: bytes) -> str:
    """Keep a copy of a damaged file beside it and return its name."""
    aside = _aside(path)
    disk.replace(aside, data, is_durable=True)
    return aside.name


def _aside(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
    return next(candidate for candidate in names if not candidate.exists())


def repaired_lines(disk: Disk, problems: Problems, path: Path) -> list[bytes]:
    """Return the whole lines of a JSONL file, each one object; a file with anything else is put right.

    Objects glued on one line are separated, as AbstractRuntime reads them; a torn end and foreign lines are left out.
    The file as it was is kept beside it. Raises `OSError`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = [line for raw in data.split(b"\n") if raw.strip() for line in _objects(raw)]
    good = b"".join([line + b"\n" for line in lines])
    if good != data:
        aside = keep_damaged(disk, path, data)
        disk.replace(path, good, is_durable=True)
        problems.note(path.name, f"had torn, glued or foreign lines; {len(lines)} lines were kept, the rest is {aside}")
    return lines


def _objects(raw: bytes) -> Iterator[bytes]:
    """Yield the JSON objects of a line: the line itself when it is one."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    decoder = json.JSONDecoder()
    at = len(text) - len(text.lstrip())
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        if isinstance(value, dict):
            yield raw if at == 0 and end == len(text) else text[at:end].encode()
        at = end + len(text[end:]) - len(text[end:].lstrip())


def read_object(problems: Problems, path: Path) -> JsonObject:
    """Return the object in a small JSON file; an empty one when it is missing or damaged."""
    try:
        value = loads(path.read_bytes(), field=path.name)
    except FileNotFoundError:
        return {}
    except (Invalid, OSError) as error:
        problems.note(path.name, f"cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        problems.note(path.name, "is not an object")
        return {}
    return value
