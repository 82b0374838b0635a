"""A tree of ended runs as one compressed tar file, read back before anybody relies on it.

`<root>.tar.gz` has `manifest.json` (what is in it), `history.json` (the history bundle of the root), `runs/<id>.json`
(the state of each run), `ledgers/<id>.jsonl` (its records as they are stored) and, for each artifact of these runs,
`artifacts/<id>.meta` and `artifacts/<id>.bin`.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import IO, Any

from .._version import __version__
from ..clock import SystemClock, to_iso
from ..errors import Unavailable
from ..jsonvalue import JsonObject, dumps, loads
from ..runtime.chain import first_fault
from ..runtime.delta import encode_state
from ..runtime.models import RunState
from ..stores.base import ArtifactMetadata, RunRow, Stores
from .artifacts import ArtifactReader
from .history import export_run_history_bundle
from .retention_pending import sync_directory

FORMAT = 1
MANIFEST = "manifest.json"

_PAGE = 2_000
_CHUNK = 1 << 20


def archive_tree(
    stores: Stores,
    rows: Sequence[RunRow],
    states: Sequence[RunState],
    artifacts: Sequence[ArtifactMetadata],
    directory: Path,
) -> Path:
    """Write the archive of a tree, root first, read it back, and return its path; it is durable then.

    An archive that is there already stays. Raises `Unavailable` when it does not read back as what is stored, or a
    ledger in it is not what was written, and `OSError`; no archive is left then.
    """
    path = _free_name(directory, rows[0].run_id)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with tarfile.open(partial, "w:gz") as tar:
            _write(tar, stores, rows, states, artifacts)
        check_archive(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(directory)
    return path


def check_archive(path: Path) -> JsonObject:
    """Return the manifest of an archive whose ledgers and artifacts are all what was written.

    Raises `Unavailable` for any other file, saying what is wrong.
    """
    try:
        with tarfile.open(path, "r:gz") as tar:
            manifest: JsonObject = loads(_member(tar, MANIFEST).read(), field=MANIFEST)
            for run in manifest["runs"]:
                _check_run(tar, run)
            for artifact in manifest["artifacts"]:
                _check_artifact(tar, artifact)
    except (tarfile.TarError, EOFError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path.name, str(error)) from error
    return manifest


def _free_name(directory: Path, root: str) -> Path:
    names = (directory / f"{root}{f'.{number}' if number else ''}.tar.gz" for number in count())
    return next(path for path in names if not path.exists())


def _write(
    tar: tarfile.TarFile,
    stores: Stores,
    rows: Sequence[RunRow],
    states: Sequence[RunState],
    artifacts: Sequence[ArtifactMetadata],
) -> None:
    bodies = [encode_state(state) for state in states]
    _add(tar, MANIFEST, dumps(_manifest(stores, rows, bodies, artifacts)) + b"\n")
    history = export_run_history_bundle(run_id=rows[0].run_id, run_store=stores.runs, ledger_store=stores.ledger)
    _add(tar, "history.json", dumps(history) + b"\n")
    for row, body in zip(rows, bodies, strict=True):
        _add(tar, f"runs/{row.run_id}.json", body)
        _add_ledger(tar, stores, row)
    for artifact in artifacts:
        _add(tar, f"artifacts/{artifact.artifact_id}.meta", dumps(artifact.to_dict()))
        _add_file(tar, f"artifacts/{artifact.artifact_id}.bin", _reader(stores, artifact), artifact.size_bytes)


def _manifest(
    stores: Stores, rows: Sequence[RunRow], bodies: Sequence[bytes], artifacts: Sequence[ArtifactMetadata]
) -> JsonObject:
    runs = [
        {
            "run_id": row.run_id,
            "parent_run_id": row.parent_run_id,
            "workflow_id": row.workflow_id,
            "status": row.status.value,
            "revision": row.revision,
            "ledger_len": row.ledger_len,
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        for row, body in zip(rows, bodies, strict=True)
    ]
    own = [{"artifact_id": item.artifact_id, "sha256": item.blob_id, "size": item.size_bytes} for item in artifacts]
    return {
        "format": FORMAT,
        "made_by": __version__,
        "made_at": to_iso(SystemClock().now()),
        "root_run_id": rows[0].run_id,
        "runs": runs,
        "artifacts": own,
    }


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    _add_file(tar, name, io.BytesIO(content), len(content))


def _add_file(tar: tarfile.TarFile, name: str, file: IO[bytes] | io.RawIOBase, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o600
    tar.addfile(member, file)


def _add_ledger(tar: tarfile.TarFile, stores: Stores, row: RunRow) -> None:
    with tempfile.TemporaryFile() as spool:
        after = 0
        while after < row.ledger_len:
            records = stores.ledger.read(row.run_id, after, min(_PAGE, row.ledger_len - after)).records
            if not records:
                raise _damaged(row.run_id, f"its ledger ends after {after} of {row.ledger_len} records")
            spool.writelines(record + b"\n" for record in records)
            after += len(records)
        size = spool.tell()
        spool.seek(0)
        _add_file(tar, f"ledgers/{row.run_id}.jsonl", spool, size)


def _reader(stores: Stores, artifact: ArtifactMetadata) -> io.RawIOBase:
    return ArtifactReader(stores.artifacts, artifact)


def _check_run(tar: tarfile.TarFile, run: JsonObject) -> None:
    run_id = str(run["run_id"])
    if hashlib.sha256(_member(tar, f"runs/{run_id}.json").read()).hexdigest() != run["sha256"]:
        raise _damaged(run_id, "its state is not what was stored")
    length, previous = 0, None
    for record in _lines(_member(tar, f"ledgers/{run_id}.jsonl")):
        fault, previous = first_fault([record], previous)
        length += 1
        if fault is not None:
            raise _damaged(run_id, f"record {length} of its ledger is not what was written")
    if length != run["ledger_len"]:
        raise _damaged(run_id, f"its ledger has {length} of {run['ledger_len']} records")


def _check_artifact(tar: tarfile.TarFile, artifact: JsonObject) -> None:
    digest = hashlib.sha256()
    file = _member(tar, f"artifacts/{artifact['artifact_id']}.bin")
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    if artifact["sha256"] and digest.hexdigest() != artifact["sha256"]:
        raise _damaged(str(artifact["artifact_id"]), "its bytes are not what was stored")


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(f"it has no {name!r}")
    return file


def _lines(file: Any) -> Iterable[bytes]:
    return (line.rstrip(b"\n") for line in file)


def _damaged(what: str, why: str) -> Unavailable:
    return Unavailable(f"{what!r} cannot be archived: {why}", code="archive_damaged")
