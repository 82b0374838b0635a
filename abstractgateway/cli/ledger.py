"""The commands `abstractgateway ledger …`: check the hash chains of ledgers of a running gateway, and export them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..errors import Conflict, Invalid
from ..jsonvalue import JsonObject, dumps_canonical
from ..runtime.chain import ChainReport, verify_chain
from .inputs import cursor, run_name
from .remote import RUN_HELP, asking, remote_options, run_of, show

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from ..client import GatewayClient


def add_ledger_commands(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ledger` and its commands to a parser; each sets `command` to the function that does it."""
    ledger = commands.add_parser("ledger", help="check and export ledgers of a running gateway")
    chosen = ledger.add_subparsers(required=True, metavar="command")
    verify = chosen.add_parser("verify", help="check the hash chains of ledgers", parents=[remote_options()])
    verify.add_argument("runs", nargs="*", metavar="run", type=run_name, help=f"{RUN_HELP} (default: all runs)")
    verify.set_defaults(command=asking(_verify))
    export = chosen.add_parser("export", help="write a ledger as lines of JSON", parents=[remote_options()])
    export.add_argument("run", type=run_name, help=RUN_HELP)
    export.add_argument("--out", type=Path, help="the file to write (default: standard output)")
    export.add_argument("--after", type=cursor, default=0, help="the cursor to begin after (default: the beginning)")
    export.set_defaults(command=asking(_export))


def _verify(client: GatewayClient, arguments: argparse.Namespace) -> None:
    run_ids = [_known(client, text) for text in arguments.runs] or [str(run["run_id"]) for run in client.list()]
    reports = {run_id: verify_chain(entry.record for entry in client.ledger(run_id)) for run_id in run_ids}
    if arguments.json:
        show({run_id: _as_json(report) for run_id, report in reports.items()})
    else:
        for run_id, report in reports.items():
            print(f"{run_id}  {report.count} records  {_in_words(report)}")
    broken = sum(not report.ok for report in reports.values())
    if broken:
        raise Conflict(f"{broken} of {len(reports)} ledgers are not what was written", code="chain_broken")


def _known(client: GatewayClient, text: str) -> str:
    """Return the id of a run that exists: the ledger of another is empty, and would pass for whole."""
    run_id = run_of(client, text)
    client.get(run_id)
    return run_id


def _as_json(report: ChainReport) -> JsonObject:
    return {"ok": report.ok, "count": report.count, "head_hash": report.head_hash, "errors": list(report.errors)}


def _in_words(report: ChainReport) -> str:
    if report.ok:
        return "whole"
    first = report.errors[0]
    return f"broken at record {first['index'] + 1}: {first['type']}"


def _export(client: GatewayClient, arguments: argparse.Namespace) -> None:
    run_id = _known(client, arguments.run)
    records = (entry.record for entry in client.ledger(run_id, arguments.after))
    if arguments.out is None:
        for line in _lines(records):
            sys.stdout.write(line.decode())
        return
    try:
        with _written_whole(arguments.out) as file:
            count = sum(1 for line in _lines(records) if file.write(line))
    except OSError as error:
        raise Invalid("out", f"{str(arguments.out)!r} cannot be written: {error.strerror or error}") from error
    print(f"wrote {count} records to {arguments.out}")


@contextmanager
def _written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that has its name only once it is whole; what is no file, such as a pipe, is written to at once."""
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _lines(records: Iterable[JsonObject]) -> Iterator[bytes]:
    """Return records as the bytes that their hashes are made of, each with an end of line."""
    for record in records:
        yield dumps_canonical(record, field="record") + b"\n"
