"""The commands `abstractgateway backup` and `restore`: a data directory in use, copied to a new place and back."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..compose import open_directory_stores, open_stores
from ..config import GatewayConfig
from ..errors import Conflict, NotFound
from ..jsonvalue import JsonObject
from ..service.backup import back_up, check_backup, restore
from ..stores.ends import unfinished
from ..stores.migrate import HeldStores
from .progress import show_migration
from .remote import show

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_backup_commands(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `backup` and `restore` to a parser."""
    backup = commands.add_parser("backup", help="copy everything of a gateway that may be in use into a new directory")
    backup.add_argument("directory", type=Path, help="the directory to make")
    backup.add_argument("--no-workspaces", action="store_true", help="leave out the files that runs have written")
    backup.add_argument("--verify", action="store_true", help="only check a backup that is there")
    backup.set_defaults(command=_backup)
    back = commands.add_parser("restore", help="put a backup into new data and flows directories")
    back.add_argument("directory", type=Path, help="the backup")
    back.add_argument("--data-dir", type=Path, help="default: ABSTRACTGATEWAY_DATA_DIR")
    back.add_argument("--flows-dir", type=Path, help="default: ABSTRACTGATEWAY_FLOWS_DIR")
    back.set_defaults(command=_restore)
    for parser in (backup, back):
        parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def _backup(arguments: argparse.Namespace) -> None:
    if arguments.verify:
        _tell(check_backup(arguments.directory), arguments, "is whole")
        return
    config = GatewayConfig.from_env()
    if config.store_backend == "memory":
        raise Conflict("stores in memory cannot be backed up from another process", code="not_supported")
    if config.store_backend == "postgres":
        raise Conflict(_use_pg_dump(config), code="not_supported")
    if not Path(config.data_dir).is_dir():
        raise NotFound(f"there is no data directory {str(config.data_dir)!r}", code="data_dir_missing")
    with closing(open_stores(config)) as stores:
        manifest = back_up(
            cast(HeldStores, stores),
            config,
            arguments.directory,
            open_stores=open_stores,
            has_workspaces=not arguments.no_workspaces,
            on_progress=show_migration(is_quiet=arguments.json),
        )
    for run_id, cursor in manifest["broken"].items():
        print(f"warning: the ledger of run {run_id} is not what was written, from record {cursor}", file=sys.stderr)
    _tell(manifest, arguments, "is made and read back")


def _use_pg_dump(config: GatewayConfig) -> str:
    directories = [config.data_dir, config.flows_dir, config.database_artifacts_dir]
    files = ", ".join(str(each) for each in directories if each is not None)
    return (
        "a database is backed up by 'pg_dump --format=custom --schema=abstractgateway', also while gateways use it; "
        f"copy the files of {files} after it"
    )


def _restore(arguments: argparse.Namespace) -> None:
    given = {"data_dir": arguments.data_dir, "flows_dir": arguments.flows_dir}
    config = GatewayConfig.from_env(**{name: path for name, path in given.items() if path is not None})
    if config.store_backend == "postgres":
        raise Conflict(
            "a backup is restored to the file or the sqlite backend: set ABSTRACTGATEWAY_STORE_BACKEND=sqlite for it, "
            "then 'abstractgateway migrate --from sqlite --to postgres'; what pg_dump wrote is for pg_restore",
            code="not_supported",
        )
    progress = show_migration(is_quiet=arguments.json)
    try:
        manifest = restore(arguments.directory, config, open_stores=open_directory_stores, on_progress=progress)
    except KeyboardInterrupt:
        raise unfinished(str(config.data_dir)) from None
    _tell(manifest, arguments, f"is restored to {config.data_dir}, with the {config.store_backend} backend")


def _tell(manifest: JsonObject, arguments: argparse.Namespace, what: str) -> None:
    if arguments.json:
        show({name: manifest[name] for name in ("made_at", "made_by", "runs", "broken")})
    else:
        print(f"The backup {arguments.directory} of {manifest['made_at']} with {manifest['runs']} runs {what}.")
