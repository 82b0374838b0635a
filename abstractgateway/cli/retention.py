"""The command `abstractgateway retention`: archive ended runs that are old, and remove them."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ..clock import SystemClock, to_iso
from ..compose import open_stores, retention_lock
from ..config import GatewayConfig
from ..errors import Conflict, NotFound
from ..jsonvalue import JsonObject
from ..runtime.models import RunStatus
from ..service.retention import ENDED, OnProgress, Removed, Tree, old_trees, remove_trees
from ..stores.base import Stores
from .remote import print_table, show

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SHOWN = 20


def add_retention_command(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `retention` to a parser."""
    parser = commands.add_parser("retention", help="archive runs that ended long ago, and remove them")
    parser.add_argument("--older-than", type=_duration, required=True, metavar="AGE", help="such as 30d, 12h or 2w")
    parser.add_argument(
        "--status", type=_statuses, default=ENDED, help="how the runs ended: a comma list (default: however)"
    )
    parser.add_argument("--archive", type=Path, help="where archives go (default: 'archive' in the data directory)")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--dry-run", action="store_true", help="only say what would be removed (the default)")
    chosen.add_argument("--apply", action="store_true", help="archive and remove")
    parser.add_argument("--json", action="store_true", help="print what was found or done as JSON")
    parser.set_defaults(command=_retention)


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; use a number and s, m, h, d or w, such as 30d")
    return float(found[1]) * _SECONDS[found[2]]


def _statuses(text: str) -> tuple[RunStatus, ...]:
    names = [name.strip() for name in text.split(",")]
    known = {status.value: status for status in ENDED}
    wrong = next((name for name in names if name not in known), None)
    if wrong is not None:
        raise argparse.ArgumentTypeError(f"{wrong!r} is not one of {', '.join(known)}")
    return tuple(known[name] for name in names)


def _retention(arguments: argparse.Namespace) -> None:
    config = GatewayConfig.from_env()
    if config.store_backend == "memory":
        raise Conflict("stores in memory are gone with their process; there is nothing to remove", code="not_supported")
    if config.store_backend != "postgres" and not Path(config.data_dir).is_dir():
        raise NotFound(f"there is no data directory {str(config.data_dir)!r}", code="data_dir_missing")
    archive = arguments.archive or Path(config.data_dir) / "archive"
    now = SystemClock().now().timestamp()
    with closing(open_stores(config)) as stores:
        trees = list(old_trees(stores, before=now - arguments.older_than, statuses=arguments.status))
        if not arguments.apply:
            _tell(
                trees, Removed(), arguments, f"nothing was removed; --apply archives them in {archive} and removes them"
            )
            return
        removed = _remove(config, stores, trees, archive, on_progress=_progress(is_quiet=arguments.json))
    _tell(removed.trees, removed, arguments, f"they are removed, and archived in {archive}")
    for run_id, reason in removed.left.items():
        print(f"warning: run {run_id} was left: {reason}", file=sys.stderr)


def _remove(
    config: GatewayConfig, stores: Stores, trees: list[Tree], archive: Path, *, on_progress: OnProgress
) -> Removed:
    """Archive and remove trees, as the only process that does so with these stores."""
    lock = retention_lock(config, stores)
    if not lock.try_acquire():
        raise Conflict("another retention removes runs of these stores; wait for its end", code="retention_active")
    try:
        return remove_trees(stores, trees, archive, on_progress=on_progress)
    except OSError as error:
        raise Conflict(f"{str(archive)!r} cannot be written: {error}", code="archive_unusable") from error
    finally:
        lock.release()


def _tell(trees: list[Tree], removed: Removed, arguments: argparse.Namespace, what: str) -> None:
    if arguments.json:
        show(_as_json(trees, removed, is_applied=arguments.apply))
        return
    if not trees:
        print("No run is that old.")
        return
    shown = [tree.to_dict() for tree in trees[:_SHOWN]]
    names = ("run_id", "status", "updated_at", "runs", "records", "workflow_id")
    print_table([name.upper() for name in names], [[str(tree[name]) for name in names] for tree in shown])
    if len(trees) > _SHOWN:
        print(f"… and {len(trees) - _SHOWN} more")
    runs, records = sum(len(tree.rows) for tree in trees), sum(tree.records for tree in trees)
    print(f"{len(trees)} trees with {runs} runs and {records} records: {what}")


def _as_json(trees: list[Tree], removed: Removed, *, is_applied: bool) -> JsonObject:
    return {
        "applied": is_applied,
        "at": to_iso(SystemClock().now()),
        "trees": [tree.to_dict() for tree in trees],
        "artifacts": removed.artifacts,
        "left": removed.left,
    }


def _progress(*, is_quiet: bool) -> OnProgress:
    """Return what draws how far a retention has come; it draws nothing where nobody looks."""
    if is_quiet or not sys.stdout.isatty():
        return lambda done, of: None
    return lambda done, of: print(f"\rremoving {done}/{of}", end="\n" if done == of else "", flush=True)
