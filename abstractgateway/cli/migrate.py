"""The command `abstractgateway migrate`: everything that the stores of one backend hold, to another backend."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..compose import migration_ends, share_artifacts, shelf_of, take_along
from ..config import GatewayConfig
from ..errors import Conflict, NotFound, Unavailable
from ..jsonvalue import JsonObject
from ..stores.base import Stores
from ..stores.ends import MigrationEnd, Standing, unfinished
from ..stores.migrate import Progress, migrate
from .progress import show_migration
from .remote import show

if TYPE_CHECKING:
    from argparse import _SubParsersAction

BACKENDS = ("file", "sqlite", "postgres")


def add_migrate_command(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `migrate` to a parser."""
    parser = commands.add_parser("migrate", help="move runs, commands and artifacts to another backend")
    parser.add_argument("--from", dest="source", choices=BACKENDS, required=True, help="the backend to read")
    parser.add_argument("--to", dest="target", choices=BACKENDS, required=True, help="the backend to write")
    parser.add_argument("--data-dir", type=Path, help="of file and sqlite; default: ABSTRACTGATEWAY_DATA_DIR")
    parser.add_argument("--db-path", type=Path, help="the SQLite file (default: gateway.sqlite3 in the data directory)")
    parser.add_argument(
        "--database-url",
        metavar="URL",
        help="of postgres; default: ABSTRACTGATEWAY_DATABASE_URL, which keeps a password out of the list of processes",
    )
    parser.add_argument(
        "--artifacts-dir",
        type=Path,
        help="where postgres has artifacts; default: ABSTRACTGATEWAY_DATABASE_ARTIFACTS_DIR, or else the database",
    )
    parser.add_argument("--overwrite", action="store_true", help="remove what the target has, and begin anew")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.set_defaults(command=_migrate)


def _migrate(arguments: argparse.Namespace) -> None:
    if arguments.source == arguments.target:
        also = "; 'pg_dump' and 'pg_restore' move a database" if arguments.source == "postgres" else ""
        raise Conflict(f"--from and --to name the same backend{also}", code="same_backend")
    config = _config(arguments)
    if arguments.source != "postgres" and not Path(config.data_dir).is_dir():
        raise NotFound(f"there is no data directory {str(config.data_dir)!r}", code="data_dir_missing")
    source, target = migration_ends(config, arguments.source, arguments.target)
    with ExitStack() as stack:
        for end in (source, target):
            stack.callback(end.release)
            end.take()
        _check_source(source, arguments.source)
        done = _copied(source, target, arguments, config)
    if arguments.json:
        show(_as_json(done))
    else:
        _say(done, source, target, arguments)


def _config(arguments: argparse.Namespace) -> GatewayConfig:
    given = {
        "data_dir": arguments.data_dir,
        "db_path": arguments.db_path,
        "database_url": arguments.database_url,
        "database_artifacts_dir": arguments.artifacts_dir,
    }
    return GatewayConfig.from_env(
        store_backend="file", **{name: value for name, value in given.items() if value is not None}
    )


def _check_source(source: MigrationEnd, backend: str) -> None:
    standing = source.standing()
    if standing is Standing.EMPTY:
        raise NotFound(f"{source.place} has nothing of the {backend} backend", code="source_missing")
    if standing is Standing.UNFINISHED:
        raise unfinished(source.place)


def _make_room(target: MigrationEnd, arguments: argparse.Namespace) -> None:
    """See that the target is empty, or what an interrupted migration left. Raises `Conflict` when it is neither."""
    if target.standing() is Standing.FILLED and not arguments.overwrite:
        raise Conflict(
            f"the {arguments.target} backend has data already, in {target.place}; --overwrite removes it",
            code="target_exists",
        )
    target.begin(anew=arguments.overwrite)


def _copied(
    source: MigrationEnd, target: MigrationEnd, arguments: argparse.Namespace, config: GatewayConfig
) -> Progress:
    with closing(source.open()) as from_:
        _make_room(target, arguments)
        try:
            with closing(target.open()) as to:
                done = migrate(
                    from_,
                    to,
                    show_migration(is_quiet=arguments.json),
                    shares_artifacts=share_artifacts(config, arguments.source, arguments.target),
                )
            _take_flows_along(from_, arguments, config)
        except KeyboardInterrupt:
            raise unfinished(target.place) from None
        except Unavailable as error:
            raise Unavailable(
                f"{error}; {target.place} is not whole and no gateway opens it: run the command again to go on",
                code=error.code,
            ) from error
        for problem in from_.problems:
            print(f"warning: {problem}", file=sys.stderr)
    target.finish()
    return done


def _take_flows_along(source: Stores, arguments: argparse.Namespace, config: GatewayConfig) -> None:
    """Copy the bundles, deprecations, drawn flows and named tokens of a database, which others have as files."""
    shelf = shelf_of(replace(config, store_backend=arguments.source), source)
    if shelf is None:
        return
    taken = take_along(shelf, config)
    has_any = bool(taken.bundles or taken.deprecations or taken.drawn_flows or taken.tokens)
    if has_any and not arguments.json:
        print(
            f"Copied {taken.bundles} bundles to {config.flows_dir}, and {taken.deprecations} deprecations, "
            f"{taken.drawn_flows} drawn flows and {taken.tokens} named tokens to {config.data_dir}"
        )
    for name in taken.lost:
        print(f"warning: not copied: the bundle {name!r}, which cannot be read", file=sys.stderr)


def _as_json(done: Progress) -> JsonObject:
    return {
        "runs": done.of_runs,
        "records": done.records,
        "commands": done.commands,
        "artifacts": done.artifacts,
        "broken": done.broken,
        "lost": done.lost,
    }


def _say(done: Progress, source: MigrationEnd, target: MigrationEnd, arguments: argparse.Namespace) -> None:
    print(
        f"Migrated from {arguments.source} ({source.place}) to {arguments.target} ({target.place}): "
        f"{done.of_runs} runs, {done.records} records, {done.commands} commands, {done.artifacts} artifacts, "
        "compared with the source"
    )
    for run_id, cursor in done.broken.items():
        print(f"warning: the ledger of run {run_id} is not what was written, from record {cursor}", file=sys.stderr)
    for why in done.lost.values():
        print(f"warning: not copied: {why}", file=sys.stderr)
    print(f"The source was left as it is. Set ABSTRACTGATEWAY_STORE_BACKEND={arguments.target} from now on.")
