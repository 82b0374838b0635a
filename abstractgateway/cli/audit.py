"""The commands `abstractgateway audit …`: reading the log of who changed what, and whether anybody changed the log."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import GatewayConfig
from ..errors import Conflict, NotFound
from ..service.audit_files import FILE_NAME, Verified, read_tail, verify
from .remote import show

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_MOST_SHOWN = 20


def add_audit_commands(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `audit` to a parser."""
    audit = commands.add_parser("audit", help="read the log of who changed what, and check it")
    kinds = audit.add_subparsers(required=True, metavar="what")
    check = kinds.add_parser("verify", help="find lines that were changed, removed or put in another order")
    check.add_argument("--json", action="store_true", help="print what is found as JSON")
    check.set_defaults(command=_verify)
    tail = kinds.add_parser("tail", help="print the last lines")
    tail.add_argument("--max-bytes", type=int, default=80_000, help="how much of it (default: %(default)s)")
    tail.set_defaults(command=_tail)


def _directory() -> Path:
    directory = Path(GatewayConfig.from_env().data_dir)
    if not directory.is_dir():
        raise NotFound(f"there is no data directory {str(directory)!r}", code="data_dir_missing")
    return directory


def _verify(arguments: argparse.Namespace) -> None:
    found = verify(_directory())
    if arguments.json:
        findings, notes = ([vars(item) for item in items] for items in (found.findings, found.notes))
        head = {"ok": not findings, "entries": found.entries, "files": found.files}
        show({**head, "findings": findings, "notes": notes})
    else:
        _print(found)
    if found.findings:
        raise Conflict(f"{len(found.findings)} findings: the audit log is not as it was written", code="audit_damaged")


def _print(found: Verified) -> None:
    for note in found.notes[-_MOST_SHOWN:]:
        print(f"{note.file}:{note.line}: {note.text}")
    if not found.findings:
        print(f"{found.entries} entries in {found.files} files, each as it was written")
    for finding in found.findings[:_MOST_SHOWN]:
        print(f"{finding.file}:{finding.line}: {finding.text}", file=sys.stderr)


def _tail(arguments: argparse.Namespace) -> None:
    content, _ = read_tail(_directory() / FILE_NAME, max(0, arguments.max_bytes))
    sys.stdout.write(content.decode("utf-8", "replace"))
