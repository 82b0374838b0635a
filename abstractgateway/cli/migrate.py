"""The command `abstractgateway migrate`: everything in a data directory from one backend to another."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..compose import LOCK_FILE, open_stores
from ..config import GatewayConfig
from ..errors import Conflict, NotFound
from ..jsonvalue import JsonObject
from ..runner import RunnerLock
from ..stores.layout import Layout
from ..stores.migrate import Progress, migrate
from .progress import show_migration
from .remote import show

if TYPE_CHECKING:
    from argparse import _SubParsersAction

BACKENDS = ("file", "sqlite")


def add_migrate_command(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `migrate` to a parser."""
    parser = commands.add_parser("migrate", help="move the runs of a data directory to another backend")
    parser.add_argument("--from", dest="source", choices=BACKENDS, required=True, help="the backend to read")
    parser.add_argument("--to", dest="target", choices=BACKENDS, required=True, help="the backend to write")
    parser.add_argument("--data-dir", type=Path, help="default: ABSTRACTGATEWAY_DATA_DIR")
    parser.add_argument("--db-path", type=Path, help="the SQLite file (default: gateway.sqlite3 in the data directory)")
    parser.add_argument("--overwrite", action="store_true", help="remove what the target has, and begin anew")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.set_defaults(command=_migrate)


def _migrate(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    if arguments.source == arguments.target:
        raise Conflict("--from and --to name the same backend", code="same_backend")
    if not Path(config.data_dir).is_dir():
        raise NotFound(f"there is no data directory {str(config.data_dir)!r}", code="data_dir_missing")
    with ExitStack() as stack:
        _take_lock(config, stack)
        _check_source(config, arguments.source)
        marker = Path(config.data_dir) / f"migration-{arguments.source}-{arguments.target}.unfinished"
        _make_room(config, arguments, marker)
        done = _copied(config, arguments, marker)
    if arguments.json:
        show(_as_json(done))
    else:
        _say(done, arguments, config)


def _config(arguments: argparse.Namespace) -> GatewayConfig:
    given = {"data_dir": arguments.data_dir, "db_path": arguments.db_path}
    return GatewayConfig.from_env(
        store_backend="sqlite", **{name: path for name, path in given.items() if path is not None}
    )


def _take_lock(config: GatewayConfig, stack: ExitStack) -> None:
    lock = RunnerLock(Path(config.data_dir) / LOCK_FILE)
    if not lock.try_acquire():
        raise Conflict(
            f"a runner drives the runs of {str(config.data_dir)!r}; stop 'abstractgateway serve' or "
            "'abstractgateway runner' first",
            code="runner_active",
        )
    stack.callback(lock.release)


def _files_of(config: GatewayConfig, backend: str) -> list[Path]:
    """Return the files that a backend has in the data directory."""
    if backend == "sqlite":
        return [path for path in _database_files(config) if path.exists()]
    return Layout(Path(config.data_dir)).files()


def _database_files(config: GatewayConfig) -> list[Path]:
    path = config.database_path
    return [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]


def _check_source(config: GatewayConfig, source: str) -> None:
    if not _files_of(config, source):
        raise NotFound(f"{str(config.data_dir)!r} has nothing of the {source} backend", code="source_missing")


def _make_room(config: GatewayConfig, arguments: argparse.Namespace, marker: Path) -> None:
    """See that the target is empty, or what an interrupted migration left. Raises `Conflict` when it is neither."""
    there = _files_of(config, arguments.target)
    if arguments.overwrite:
        for path in there:
            path.unlink()
    elif there and not marker.exists():
        raise Conflict(
            f"the {arguments.target} backend has data already ({there[0].name}, …); --overwrite removes it",
            code="target_exists",
        )
    marker.touch()


def _copied(config: GatewayConfig, arguments: argparse.Namespace, marker: Path) -> Progress:
    with ExitStack() as stack:
        source, target = (
            stack.enter_context(closing(open_stores(replace(config, store_backend=backend))))
            for backend in (arguments.source, arguments.target)
        )
        done = migrate(source, target, show_migration(is_quiet=arguments.json))
        for problem in source.problems:
            print(f"warning: {problem}", file=sys.stderr)
    marker.unlink()
    return done


def _as_json(done: Progress) -> JsonObject:
    return {"runs": done.of_runs, "records": done.records, "commands": done.commands, "broken": done.broken}


def _say(done: Progress, arguments: argparse.Namespace, config: GatewayConfig) -> None:
    where = config.database_path if arguments.target == "sqlite" else config.data_dir
    print(
        f"Migrated {arguments.source} stores from {config.data_dir} to {arguments.target} {where}: "
        f"{done.of_runs} runs, {done.records} records, {done.commands} commands, compared with the source"
    )
    for run_id, cursor in done.broken.items():
        print(f"warning: the ledger of run {run_id} is not what was written, from record {cursor}", file=sys.stderr)
    print(f"The source was left as it is. Set ABSTRACTGATEWAY_STORE_BACKEND={arguments.target} from now on.")
