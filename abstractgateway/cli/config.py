"""The commands `abstractgateway config …`: show the settings that count here, and write a file with them."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import PREFIX, SETTINGS, GatewayConfig, Setting
from ..errors import Conflict, Invalid
from ..jsonvalue import JsonObject
from ..security import Redactor
from .remote import print_table, show
from .usage import WrongUsage, checking_options

if TYPE_CHECKING:
    from argparse import _SubParsersAction

PACKAGES = ("abstractgateway", "werkzeug", "waitress", "urllib3", "mcp", "psycopg", "abstractcore")
"""What is looked at: the library, and what its extras bring."""

_TOKEN_BYTES = 32
_QUOTED = frozenset(" \t\"'#$\\\n`;&|<>()")

_INIT = (
    # flag, environment name without its prefix, what is written where the flag is not given
    ("--allowed-origins", "ALLOWED_ORIGINS", "http://localhost:*,http://127.0.0.1:*"),
    ("--data-dir", "DATA_DIR", "./runtime/gateway"),
    ("--flows-dir", "FLOWS_DIR", "./flows"),
    ("--workflow-source", "WORKFLOW_SOURCE", "bundle"),
    ("--store-backend", "STORE_BACKEND", "file"),
    ("--db-path", "DB_PATH", None),
    ("--tool-mode", "TOOL_MODE", "approval"),
    ("--memory-backend", "MEMORY_STORE_BACKEND", None),
    ("--provider", "PROVIDER", None),
    ("--model", "MODEL", None),
)


def add_config_commands(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `config` and its commands to a parser; without one of them, `config` is `config status`."""
    config = commands.add_parser("config", help="show the settings that count here, or write a file with them")
    _add_to(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `abstractgateway-config`, which is `abstractgateway config` under the name of its own."""
    from .commands import main as run

    return run(["config", *(sys.argv[1:] if argv is None else argv)])


def _add_to(config: argparse.ArgumentParser) -> None:
    config.set_defaults(command=_status, json=False, all=False)
    chosen = config.add_subparsers(metavar="command")
    status = chosen.add_parser("status", help="show the settings and where they come from; nothing is started")
    status.add_argument("--json", action="store_true", help="print them as JSON")
    status.add_argument("--all", action="store_true", help="also those that nobody has set")
    status.set_defaults(command=_status)
    init = chosen.add_parser("init", help="write a file of settings, with a fresh token, for the shell to read")
    init.add_argument("--env-file", type=Path, default=Path(".env"), help="the file to write (default: %(default)s)")
    init.add_argument("--force", action="store_true", help="write over a file that is there")
    init.add_argument("--auth-token", help="default: a new one that nobody can guess")
    init.add_argument("--runner", action=argparse.BooleanOptionalAction, default=True, help="whether serve drives runs")
    for flag, name, default in _INIT:
        init.add_argument(flag, dest=name, default=default, help=f"{PREFIX}{name} (default: {default or 'none'})")
    init.set_defaults(command=_init)


def _status(arguments: argparse.Namespace) -> None:
    config = GatewayConfig.from_env()
    if arguments.json:
        show(dict(sorted(_as_json(config).items())))
        return
    set_by = GatewayConfig.sources()
    rows = [row for row in SETTINGS if arguments.all or set_by[row.field]]
    print("Settings of abstractgateway" + ("" if rows else ": every one has its default"))
    print_table(
        ("SETTING", "VALUE", "FROM"),
        [(row.field, _shown(config, row), set_by[row.field] or "default") for row in rows],
    )
    for line in _next_steps(config):
        print(f"- {line}")


def _shown(config: GatewayConfig, row: Setting) -> str:
    value = getattr(config, row.field)
    if is_secret(row.field):
        return "set, not shown" if value else "not set"
    return Redactor.of(config).known(json.dumps(list(value)) if isinstance(value, tuple) else str(value))


def is_secret(name: str) -> bool:
    """Say whether the value of a setting may not be printed: settings that a config's own text leaves out."""
    field = next(item for item in fields(GatewayConfig) if item.name == name)
    return name == "auth_tokens" or not field.repr


def _as_json(config: GatewayConfig) -> JsonObject:
    return {
        "gateway": {
            "data_dir": str(config.data_dir),
            "flows_dir": str(config.flows_dir),
            "workflow_source": config.workflow_source,
            "store_backend": config.store_backend,
            "db_path": str(config.database_path) if config.store_backend == "sqlite" else None,
            "runner_enabled": config.runner_enabled,
            "auth_configured": bool(config.auth_tokens),
            "allowed_origins": list(config.allowed_origins),
            "tool_mode": config.tool_mode,
        },
        "runtime_defaults": {"provider": config.provider, "model": config.model},
        "memory": {"backend": _memory_backend(config), "path": _text(config.knowledge_path)},
        "packages": {name: _package(name) for name in PACKAGES},
        "settings": {row.field: _value(config, row) for row in SETTINGS},
        "next_steps": _next_steps(config),
    }


def _memory_backend(config: GatewayConfig) -> str:
    return "memory" if config.knowledge_path is None else "sqlite"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _value(config: GatewayConfig, row: Setting) -> JsonObject:
    value = getattr(config, row.field)
    shown = bool(value) if is_secret(row.field) else str(value) if isinstance(value, Path) else value
    if isinstance(shown, str):  # the password of a URL
        shown = Redactor.of(config).known(shown)
    return {"is_set" if is_secret(row.field) else "value": shown, "from": GatewayConfig.sources()[row.field]}


def _package(name: str) -> JsonObject:
    version = installed_version(name)
    return {"installed": True, "version": version} if version else {"installed": False, "error": "not installed"}


def installed_version(name: str) -> str | None:
    """Return the version of a package, or None where it is not installed."""
    from importlib import metadata  # takes 20 ms to load, which no other command has to spend

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _next_steps(config: GatewayConfig) -> list[str]:
    token = [] if config.auth_tokens else ["make a token and a file of settings: abstractgateway config init"]
    return [
        *token,
        "look whether everything is well: abstractgateway doctor",
        "serve: abstractgateway serve --host 127.0.0.1 --port 8080",
    ]


def _init(arguments: argparse.Namespace) -> None:
    if arguments.auth_token is not None and not arguments.auth_token.strip():
        raise WrongUsage("--auth-token", "is blank; leave it out for a new one")
    given = {
        "AUTH_TOKEN": arguments.auth_token or secrets.token_urlsafe(_TOKEN_BYTES),
        **{name: getattr(arguments, name) for _, name, _ in _INIT},
        "RUNNER": "1" if arguments.runner else "0",
    }
    if given["STORE_BACKEND"] == "sqlite" and given["DB_PATH"] is None:
        given["DB_PATH"] = str(Path(given["DATA_DIR"]) / "gateway.sqlite3")
    written = {PREFIX + name: str(value) for name, value in given.items() if value is not None}
    with checking_options():
        GatewayConfig.from_env(written)  # raises for values that no gateway would start with
    _write(arguments.env_file, _env_text(written), force=arguments.force)
    print(f"Wrote {arguments.env_file}")
    print(f"Read it into your shell:  set -a; . {_sourced(arguments.env_file)}; set +a")
    print("Then start the gateway:   abstractgateway serve")


def _sourced(path: Path) -> str:
    """Return a path as the shell's `.` takes it: without a slash it would be looked for in PATH."""
    return shlex.quote(str(path) if "/" in str(path) else f"./{path}")


def _env_text(values: dict[str, str]) -> str:
    lines = [
        "# Settings of abstractgateway; nothing reads this file by itself:",
        "# set -a; . ./.env; set +a",
        *(f"{name}={_quoted(value)}" for name, value in values.items()),
    ]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return value if value and not _QUOTED & set(value) else shlex.quote(value)


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write a file that only its owner may read, whatever was there."""
    try:
        if force:
            path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Conflict(f"{str(path)!r} is there already; --force writes over it", code="file_exists") from error
    except OSError as error:
        raise Invalid("--env-file", f"{str(path)!r} cannot be written: {error.strerror or error}") from error
