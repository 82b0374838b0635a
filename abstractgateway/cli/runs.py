"""The commands `abstractgateway runs …`: start runs of a running gateway, look at them, and send them commands."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from ..errors import Conflict, GatewayError
from ..jsonvalue import JsonObject
from .inputs import add_inputs, count, cursor, inputs_of, object_of, run_name
from .printable import printable
from .progress import Progress, step_line
from .remote import (
    RUN_HELP,
    Remote,
    answer_to,
    asking,
    one_line,
    print_table,
    remote_options,
    run_of,
    show,
    waits_of,
)
from .schedules import add_schedule_commands
from .usage import WrongUsage

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from ..client import Entry, GatewayClient

_ENDED = ("completed", "failed", "cancelled")


def add_run_commands(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `runs` and its commands to a parser; each sets `command` to the function that does it."""
    runs = commands.add_parser("runs", help="start, list, watch and answer runs of a running gateway")
    chosen = runs.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Remote, text: str, *, needs_run: bool = True) -> argparse.ArgumentParser:
        parser = chosen.add_parser(name, help=text, parents=[remote_options()])
        parser.set_defaults(command=asking(command))
        if needs_run:
            parser.add_argument("run", type=run_name, help=RUN_HELP)
        return parser

    _add_start(add("start", _start, "start a run and print its id", needs_run=False))
    add_schedule_commands(add)
    listing = add("list", _list, "list runs, the most recently changed first", needs_run=False)
    listing.add_argument("--status", help=f"running, waiting, {', '.join(_ENDED)}")
    listing.add_argument("--limit", type=count, default=20, help="how many at most (default: %(default)s)")
    listing.add_argument("--all", action="store_true", help="also runs that other runs have started")
    add("show", _show, "print everything about a run, as JSON")
    watch = add("watch", _watch, "show each step of a run until it has ended")
    watch.add_argument("--after", type=cursor, default=0, help="the cursor to begin after (default: the beginning)")
    watch.add_argument("--deltas", action="store_true", help="also show what models say, as they say it")
    answer = add("answer", _answer, "answer what a run asks")
    answer.add_argument(
        "text", help="the answer; approve or deny, where tool calls are asked about; with --payload, JSON"
    )
    answer.add_argument("--payload", action="store_true", help="send the object itself, for waits that are no question")
    add("why", _why, "say why a run, or what it waits for, does not go on")
    _add_command(add, "pause", "pause a run and all below it")
    _add_command(add, "resume", "let a paused run go on", has_reason=False)
    _add_command(add, "cancel", "cancel a run and all below it")


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="a bundle, such as 'ask' or 'ask@0.1.0'; or <bundle>:<flow>")
    add_inputs(parser)
    parser.add_argument("--session", help="the session of the run (default: one of its own)")
    parser.add_argument("--key", help="starts with the same key make one run")
    parser.add_argument("--watch", action="store_true", help="show each step until the run has ended")
    parser.add_argument("--deltas", action="store_true", help="with --watch, also show what models say, as they say it")


def _add_command(add: Callable[..., argparse.ArgumentParser], name: str, text: str, *, has_reason: bool = True) -> None:
    parser = add(name, _send_command, text)
    parser.set_defaults(type=name, reason=None)
    if has_reason:
        parser.add_argument("--reason", help="why; it is kept with the run")


def _start(client: GatewayClient, arguments: argparse.Namespace) -> None:
    if arguments.deltas and not arguments.watch:
        raise WrongUsage("--deltas", "goes with --watch")
    bundle_id, _, flow_id = arguments.bundle.partition(":")
    run_id = client.start(
        bundle_id=bundle_id,
        flow_id=flow_id or None,
        input_data=inputs_of(arguments),
        session_id=arguments.session,
        idempotency_key=arguments.key,
    )
    if arguments.watch:
        _follow(client, run_id, after=0, deltas=arguments.deltas, as_json=arguments.json)
    elif arguments.json:
        show({"run_id": run_id})
    else:
        print(run_id)


def _list(client: GatewayClient, arguments: argparse.Namespace) -> None:
    found = client.list(status=arguments.status, root_only=not arguments.all, page_size=min(arguments.limit, 500))
    runs = list(islice(found, arguments.limit))
    if arguments.json:
        show({"items": runs})
        return
    head = ("RUN", "STATUS", "WORKFLOW", "NODE", "UPDATED", "")
    print_table(head, [_row(run) for run in runs], is_cut=True)


def _row(run: JsonObject) -> list[str]:
    updated = str(run["updated_at"])[:19].replace("T", " ")
    waiting = run.get("waiting") or {}
    told = run.get("error") or waiting.get("prompt") or ""
    status = "paused" if run.get("paused") else run["status"]
    return [run["run_id"], status, run["workflow_id"], run.get("current_node") or "", updated, one_line(told, 60)]


def _show(client: GatewayClient, arguments: argparse.Namespace) -> None:
    show(client.get(run_of(client, arguments.run)))


def _watch(client: GatewayClient, arguments: argparse.Namespace) -> None:
    run_id = run_of(client, arguments.run)
    _follow(client, run_id, after=arguments.after, deltas=arguments.deltas, as_json=arguments.json)


def _follow(client: GatewayClient, run_id: str, *, after: int, deltas: bool, as_json: bool) -> None:
    if as_json:
        for entry in client.follow(run_id, after):
            print_entry(entry)
        return
    with _told_to_go_on(run_id), Progress() as progress:
        heard = (lambda delta: progress.stream(_spoken(delta))) if deltas else None
        progress.say(f"run {run_id}")
        for entry in client.follow(run_id, after, on_delta=heard, on_away=partial(_tell_away, progress)):
            _draw(client, progress, run_id, entry)
    run = client.get(run_id)
    print(f"{run['status']}: {printable(run['error'] or '') or one_line(run['output'], 400)}")
    if run["status"] != "completed":
        raise Conflict(f"run {run_id} has not completed", code="run_not_completed")


@contextmanager
def _told_to_go_on(run_id: str) -> Iterator[None]:
    """Say that only the watching ends when it is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"the run goes on; watch it with: abstractgateway runs watch {run_id}", file=sys.stderr)
        raise


def _tell_away(progress: Progress, problem: GatewayError | None) -> None:
    progress.print(f"       {problem}; trying again" if problem else "       the gateway is back")


def _spoken(delta: JsonObject) -> str:
    """Return what of a delta is printed; what a model said before it began anew cannot be taken back."""
    return "\n(it begins anew)\n" if delta.get("restart") else str(delta.get("content") or "")


def _draw(client: GatewayClient, progress: Progress, run_id: str, entry: Entry) -> None:
    record = entry.record
    effect = (record.get("effect") or {}).get("type") or ""
    progress.say(f"{record['node_id']}  {effect}  {record['status']}")
    line = step_line(entry)
    if line is not None:
        progress.print(line)
    if record["status"] == "waiting":
        run = client.get(run_id)
        for text in waits_of(run):
            progress.print(f"       {text}")
        if (run.get("waiting") or {}).get("reason") == "subworkflow":
            progress.print(f"       what that one waits for: abstractgateway runs why {run_id}")


def print_entry(entry: Entry) -> None:
    """Print a record and its cursor as one line of JSON."""
    print(json.dumps({"cursor": entry.cursor, "record": entry.record}, ensure_ascii=False), flush=True)


def _answer(client: GatewayClient, arguments: argparse.Namespace) -> None:
    run = _blocked(client, run_of(client, arguments.run))[-1]
    waiting = run.get("waiting")
    if not waiting:
        raise Conflict(f"run {run['run_id']} asks nothing; it is {run['status']}", code="not_waiting")
    payload = object_of(arguments.text, field="text") if arguments.payload else answer_to(waiting, arguments.text)
    _report(client, client.answer(run["run_id"], payload, wait_key=waiting.get("wait_key")), arguments)


def _send_command(client: GatewayClient, arguments: argparse.Namespace) -> None:
    payload = {"reason": arguments.reason} if arguments.reason else {}
    _report(client, client.command(run_of(client, arguments.run), arguments.type, payload), arguments)


def _report(client: GatewayClient, command_id: str, arguments: argparse.Namespace) -> None:
    outcome = client.outcome(command_id)
    if arguments.json:
        show(outcome)
    if outcome["status"] == "rejected":
        raise Conflict(f"the command was rejected: {outcome['reason']}", code="command_rejected")
    if outcome["status"] == "pending":
        print(f"the command {command_id} is stored and not applied yet; is a runner running?", file=sys.stderr)
    elif not arguments.json:
        print("applied")


def _why(client: GatewayClient, arguments: argparse.Namespace) -> None:
    run_id = run_of(client, arguments.run)
    tree = list(_blocked(client, run_id))
    if arguments.json:
        show([{"run_id": run["run_id"], "status": run["status"], "blocked_by": run["blocked_by"]} for run in tree])
        return
    for run in tree:
        print(f"{run['run_id']}  {run['status']}  {run['workflow_id']}  at {run['current_node']}")
        ended = run["status"] in _ENDED
        for text in waits_of(run) or [str(run["error"] or "ended") if ended else "goes on"]:
            print(f"  {printable(text)}")


def _blocked(client: GatewayClient, run_id: str) -> list[JsonObject]:
    """Return a run, and the runs that it waits for."""
    run = client.get(run_id)
    blocked = run.get("blocked_by") or {}
    child = (blocked.get("details") or {}).get("sub_run_id") if blocked.get("kind") == "subworkflow" else None
    return [run, *(_blocked(client, child) if child else [])]
