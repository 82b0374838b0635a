"""Backups of a data directory that is in use, and putting one back.

A backup is a directory: `gateway.sqlite3` has the runs, ledgers and commands as they were at one moment, whatever the
backend; `data/` has the other files of the data directory, `flows/` the bundles, and `backup.json` says what there is,
with the hash of each file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from .._version import __version__
from ..clock import SystemClock, to_iso
from ..config import GatewayConfig
from ..errors import Conflict, Invalid, NotFound
from ..jsonvalue import JsonObject, dumps, loads
from ..stores.base import Stores
from ..stores.ends import unfinished_mark
from ..stores.layout import Layout
from ..stores.migrate import HeldStores, OnProgress, migrate, picture

DATABASE = "gateway.sqlite3"
MANIFEST = "backup.json"
DATA, FLOWS = "data", "flows"
FORMAT = 1

_SQLITE_MAGIC = b"SQLite format 3\0"
_CHUNK = 1 << 20
_PASSING_SUFFIXES = (".lock", ".sock", ".tmp", "-wal", "-shm", ".unfinished")
_PASSING_NAMES = frozenset({".ready", "tmp"})

OpenStores = Callable[[GatewayConfig], Stores]


def back_up(
    stores: HeldStores,
    config: GatewayConfig,
    directory: Path,
    *,
    open_stores: OpenStores,
    has_workspaces: bool = True,
    on_progress: OnProgress = lambda progress: None,
) -> JsonObject:
    """Write a backup into a new directory and return its manifest; gateways and runners may go on meanwhile.

    Raises `Conflict` for a directory that has something in it already.
    """
    _make_empty(directory)
    picture_config = GatewayConfig(data_dir=directory, store_backend="sqlite")
    with closing(open_stores(picture_config)) as target:
        done = picture(stores, target, on_progress)
    _remove_leftovers(directory)
    # Artifacts are durable before the commit that names them: those of the picture are all there by now.
    for path in _other_files(config, has_workspaces=has_workspaces):
        _copy(Path(config.data_dir) / path, directory / DATA / path)
    for path in _flow_files(config):
        _copy(path, directory / FLOWS / path.name)
    manifest: JsonObject = {
        "format": FORMAT,
        "made_by": __version__,
        "made_at": to_iso(SystemClock().now()),
        "runs": done.of_runs,
        "broken": done.broken,
        "has_flows": bool(_flow_files(config)),
        "files": {str(path.relative_to(directory)): _sha256(path) for path in _files_in(directory)},
    }
    (directory / MANIFEST).write_bytes(dumps(manifest) + b"\n")
    _sync(directory)
    return manifest


def check_backup(directory: Path) -> JsonObject:
    """Return the manifest of a backup whose files are all what was written.

    Raises `NotFound` for a directory that is no backup, `Invalid` for one that is damaged or of a later version.
    """
    try:
        manifest = loads((directory / MANIFEST).read_bytes(), field=MANIFEST)
        files = dict(manifest["files"])
        version = int(manifest["format"])
    except FileNotFoundError as error:
        raise NotFound(f"{str(directory)!r} is no backup: it has no {MANIFEST}", code="not_a_backup") from error
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(MANIFEST, f"is damaged: {error}", code="backup_damaged") from error
    if version > FORMAT:
        raise Invalid(MANIFEST, f"has format {version}; this version reads up to {FORMAT}", code="backup_too_new")
    for name, digest in files.items():
        path = directory / name
        if not path.resolve().is_relative_to(directory.resolve()) or not path.is_file() or _sha256(path) != digest:
            raise Invalid(name, "is missing or not what was written", code="backup_damaged")
    checked: JsonObject = manifest
    return checked


def restore(
    directory: Path,
    config: GatewayConfig,
    *,
    open_stores: OpenStores,
    on_progress: OnProgress = lambda progress: None,
) -> JsonObject:
    """Put a backup into the data and flows directories of a config, both new, and return its manifest.

    The stores are those of the config's backend, whatever they were before; gateways refuse them until they are whole,
    so that `open_stores` has to open them all the same. Raises what `check_backup` raises, and
    `Conflict` where a directory has something in it already; nothing is written then.
    """
    manifest = check_backup(directory)
    data_dir, flows_dir = Path(config.data_dir), Path(config.flows_dir)
    _make_empty(data_dir)
    if manifest["has_flows"]:
        _make_empty(flows_dir)
    mark = unfinished_mark(data_dir, config.store_backend)
    mark.touch()
    _sync(data_dir)
    for name in manifest["files"]:
        part, _, rest = name.partition("/")
        if part in (DATA, FLOWS):
            _copy(directory / name, (data_dir if part == DATA else flows_dir) / rest)
    _restore_stores(directory, config, open_stores, on_progress)
    _sync(data_dir)
    mark.unlink()
    return manifest


def _restore_stores(directory: Path, config: GatewayConfig, open_stores: OpenStores, on_progress: OnProgress) -> None:
    """Fill the stores from a copy of the backup's database: opening the original would write beside it."""
    copy = Path(config.data_dir) / "restoring.tmp"
    copy.mkdir()
    try:
        _copy(directory / DATABASE, copy / DATABASE)
        source_config = GatewayConfig(data_dir=copy, store_backend="sqlite")
        with closing(open_stores(source_config)) as source, closing(open_stores(config)) as target:
            migrate(source, target, on_progress)
    finally:
        shutil.rmtree(copy)


def _make_empty(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        is_empty = not any(directory.iterdir())
    except OSError as error:
        raise Invalid("directory", f"{str(directory)!r} cannot be made: {error.strerror or error}") from error
    if not is_empty:
        raise Conflict(f"{str(directory)!r} has something in it already; name a new directory", code="not_empty")


def _other_files(config: GatewayConfig, *, has_workspaces: bool) -> Iterator[Path]:
    """Yield the files of the data directory that no store writes, relative to it."""
    top = Path(config.data_dir)
    database = config.database_path
    skipped = {path.name for path in Layout(top).files()} | {database.name} | _PASSING_NAMES
    for path in _files_in(top):
        inner = path.relative_to(top)
        is_passing = inner.parts[0] in skipped or path.name.endswith(_PASSING_SUFFIXES)
        if not is_passing and (has_workspaces or inner.parts[0] != "workspaces"):
            yield inner


def _flow_files(config: GatewayConfig) -> list[Path]:
    path = Path(config.flows_dir)
    return [path] if path.is_file() else sorted([*path.glob("*.flow"), *path.glob("*.json")])


def _files_in(directory: Path) -> list[Path]:
    """Return the regular files below a directory; links and sockets are none."""
    return sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def _copy(source: Path, target: Path) -> None:
    """Copy a file, a database as it is at one moment; one that is gone by now is left out."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        with open(source, "rb") as file:
            is_database = file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
        if not is_database:
            shutil.copy2(source, target)
            return
        with closing(sqlite3.connect(source)) as from_, closing(sqlite3.connect(target)) as to:
            from_.backup(to)


def _remove_leftovers(directory: Path) -> None:
    """Remove what the stores of the picture left beside their database."""
    for path in directory.iterdir():
        if path.name != DATABASE:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(directory: Path) -> None:
    """Make everything below a directory durable."""
    for path in (*_files_in(directory), directory, *(path for path in directory.rglob("*") if path.is_dir())):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
