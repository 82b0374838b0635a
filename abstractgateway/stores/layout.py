"""The files of a data directory, in AbstractRuntime's layout, and what is done about damaged ones.

`run_<id>.json` is a checkpoint, `ledger_<id>.jsonl` a history, `commands.jsonl` the inbox. This library adds a field
`_gateway` to a checkpoint (which AbstractRuntime ignores) and the file `command_outcomes.jsonl`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import Invalid
from ..jsonvalue import JsonObject, dumps, loads
from ..runtime.models import RunState
from .disk import Disk
from .staging import Head

_log = logging.getLogger(__name__)


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

    def run(self, run_id: str) -> Path:
        return self.directory / f"run_{run_id}.json"

    def ledger(self, run_id: str) -> Path:
        return self.directory / f"ledger_{run_id}.jsonl"

    def run_ids(self) -> list[str]:
        """Return the ids of all runs that have a checkpoint."""
        return [path.name[4:-5] for path in self.directory.glob("run_*.json")]

    def ledger_ids(self) -> list[str]:
        return [path.name[7:-6] for path in self.directory.glob("ledger_*.jsonl")]


def encode_run(body: bytes, head: FileHead) -> bytes:
    """Return a checkpoint's bytes: the state, and where the run stands."""
    own = {
        "revision": head.revision,
        "ledger_len": head.ledger_len,
        "ledger_hash": head.ledger_hash,
        "ledger_bytes": head.ledger_bytes,
    }
    return b'%b,\n  "_gateway": %b\n}\n' % (body[:-2], dumps(own))


def decode_run(data: bytes) -> tuple[RunState, FileHead | None]:
    """Return a checkpoint's state and, if this library wrote it, where the run stands.

    Raises `Invalid` for bytes that are no checkpoint.
    """
    fields = loads(data, field="run")
    if not isinstance(fields, dict):
        raise Invalid("run", "is not an object")
    own = fields.get("_gateway")
    head = FileHead(**own) if isinstance(own, dict) else None
    return RunState.from_dict(fields), head


def quarantine(disk: Disk, path: Path, why: str) -> None:
    """Move a damaged file aside, where a person can look at it, and say so."""
    aside = next(
        candidate
        for number in range(1, 1000)
        if not (candidate := path.with_name(f"{path.name}.damaged-{number}")).exists()
    )
    disk.rename(path, aside)
    _log.warning("%s is damaged (%s); kept as %s", path.name, why, aside.name)


def repaired_lines(disk: Disk, path: Path) -> list[bytes]:
    """Return the whole lines of a JSONL file, each one object; a file with anything else is put right.

    Objects glued on one line are separated, as AbstractRuntime reads them; a torn end and foreign lines are left out.
    The file as it was is kept beside it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = [line for raw in data.split(b"\n") if raw.strip() for line in _objects(raw)]
    good = b"".join(line + b"\n" for line in lines)
    if good != data:
        quarantine(disk, path, "torn or foreign lines")
        disk.replace(path, good)
        disk.sync_path(path)
    return lines


def _objects(raw: bytes) -> Iterator[bytes]:
    """Yield the JSON objects of a line: the line itself when it is one."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        if isinstance(value, dict):
            yield raw if at == 0 and end == len(text) else text[at:end].encode()
        at = end + len(text[end:]) - len(text[end:].lstrip())


def read_object(path: Path) -> JsonObject:
    """Return the object in a small JSON file; an empty one when it is missing or damaged."""
    try:
        value = loads(path.read_bytes(), field=path.name)
    except (FileNotFoundError, Invalid):
        return {}
    return value if isinstance(value, dict) else {}
