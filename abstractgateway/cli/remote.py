"""What the commands that ask a running gateway share: where it is, which run is meant, and how answers are printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ..config import GatewayConfig
from ..errors import Denied, NotFound, Unavailable
from ..jsonvalue import JsonObject
from .printable import columns_of, fitted, padded, printable, terminal_columns
from .usage import WrongUsage, checking_options

if TYPE_CHECKING:
    from ..client import GatewayClient

LATEST = "latest"
APPROVE, DENY = "approve", "deny"
"""The answers in words where a run asks about tool calls."""
RUN_HELP = f"the id of a run, or '{LATEST}' for the one that was started last"

_UNREACHABLE = "; start it with: abstractgateway serve, or say where it is with --url or ABSTRACTGATEWAY_URL"
_UNAUTHORIZED = "; set ABSTRACTGATEWAY_AUTH_TOKEN to a token of this gateway"

Remote = Callable[["GatewayClient", argparse.Namespace], None]


def remote_options() -> argparse.ArgumentParser:
    """Return the options that all these commands have, as a parent parser."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--url", help="where the gateway is (default: ABSTRACTGATEWAY_URL)")
    options.add_argument("--json", action="store_true", help="print what the gateway answers, as JSON")
    return options


def asking(command: Remote) -> Callable[[argparse.Namespace], None]:
    """Return a command of the command line that is given a client; the token is the first of the settings."""

    def run(arguments: argparse.Namespace) -> None:
        from ..client import GatewayClient  # a server that starts shall not load what connects to one

        config = GatewayConfig.from_env()
        token = config.auth_tokens[0] if config.auth_tokens else None
        with checking_options() if arguments.url else nullcontext():
            client = GatewayClient(arguments.url or config.url, token)
        try:
            with client:
                command(client, arguments)
        except Unavailable as error:
            hint = _UNREACHABLE if error.code == "unreachable" else ""
            raise Unavailable(f"{error}{hint}", code=error.code) from error
        except Denied as error:
            hint = _UNAUTHORIZED if error.code == "unauthorized" else ""
            raise Denied(f"{error}{hint}", code=error.code) from error

    return run


def run_of(client: GatewayClient, text: str) -> str:
    """Return the id of the run that is meant. Raises `NotFound` when there is none yet."""
    if text != LATEST:
        return text
    newest = max(client.list(root_only=True), key=lambda run: str(run["created_at"]), default=None)
    if newest is None:
        raise NotFound("there is no run yet; start one with: abstractgateway runs start <bundle>")
    return str(newest["run_id"])


def show(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, is_cut: bool = False) -> None:
    """Print rows under a head, each column as wide as it must be; where `is_cut`, no line is wider than a terminal."""
    table = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(columns_of(row[column]) for row in table) for column in range(len(head))]
    columns = terminal_columns(sys.stdout) if is_cut else None
    for row in table:
        line = "  ".join(padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(fitted(line, columns) if columns else line)


def one_line(value: Any, most: int = 100) -> str:
    """Return a value on one line of at most `most` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    flat = printable(" ".join(text.split()))
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def waits_of(run: JsonObject) -> list[str]:
    """Return in sentences what a run waits for, and how to go on; nothing for one that goes on by itself."""
    blocked = run.get("blocked_by") or {}
    waiting = run.get("waiting") or {}
    if not blocked:
        return []
    if blocked.get("explanation"):
        lines = [str(blocked["explanation"])]
    elif blocked["kind"] == "gateway":
        lines = [str(blocked["reason"])]
    else:
        lines = [_wait_in_words(run["run_id"], blocked)]
    choices = waiting.get("choices")
    lines += [f"choices: {', '.join(str(choice) for choice in choices)}"] if choices else []
    calls = _calls_to_approve(waiting)
    lines += [f"{call.get('name')} {one_line(call.get('arguments'), 400)}" for call in calls]
    if waiting.get("reason") == "user" and blocked["kind"] != "pause":
        answers = f"{APPROVE}, or {DENY}" if calls else "'…'"
        lines.append(f"answer it with: abstractgateway runs answer {run['run_id']} {answers}")
    return lines


def answer_to(waiting: JsonObject, text: str) -> JsonObject:
    """Return the payload of an answer in words. Raises `WrongUsage` for one that decides nothing about tool calls."""
    if not _calls_to_approve(waiting):
        return {"response": text}
    word = text.strip().lower()
    if word not in (APPROVE, DENY):
        raise WrongUsage("text", f"{text!r} is neither {APPROVE!r} nor {DENY!r}; with --payload an answer may say more")
    return {"approved": word == APPROVE, "digest": waiting["details"].get("digest")}


def _calls_to_approve(waiting: JsonObject) -> list[JsonObject]:
    details = waiting.get("details") or {}
    return list(details.get("tool_calls") or []) if details.get("kind") == "tool_approval" else []


def _wait_in_words(run_id: str, blocked: JsonObject) -> str:
    kind, key, since = blocked["kind"], blocked.get("wait_key"), blocked.get("since")
    if kind == "pause":
        why = f" ({blocked['reason']})" if blocked.get("reason") else ""
        return f"paused since {since}{why}; let it go on with: abstractgateway runs resume {run_id}"
    told = {
        "user": f"asks since {since}: {blocked.get('prompt')}",
        "event": f"waits since {since} for the event {key}",
        "until": f"waits until {blocked.get('until')}",
        "job": f"waits since {since} for the result of the job {key}",
        "subworkflow": f"waits since {since} for its run {(blocked.get('details') or {}).get('sub_run_id')}",
    }
    return told.get(kind, f"waits since {since} for {kind}")
