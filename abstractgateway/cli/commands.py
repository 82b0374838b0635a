"""The command `abstractgateway`: serve a gateway over HTTP, drive its runs without HTTP, and pack bundles.

Exit codes: 0 after an orderly end, 1 when something has to be put right first, 2 for a command line that is wrong, 130
for a command that Ctrl-C ended.
"""

from __future__ import annotations

import argparse
import errno
import gc
import io
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from .._version import __version__
from ..compose import open_models
from ..config import GatewayConfig
from ..errors import GatewayError, Unavailable
from ..security import Redactor, startup_problems
from ..service import GatewayService
from .audit import add_audit_commands
from .backup import add_backup_commands
from .bundles import add_bundle_commands
from .completion import add_completion_command
from .config import add_config_commands
from .doctor import add_doctor_command
from .ending import INTERRUPTED, first_signal, signals_end_at_once
from .ledger import add_ledger_commands
from .logging import LEVELS, set_up_logging
from .migrate import add_migrate_command
from .printable import printable
from .private import keep_memory_private
from .retention import add_retention_command
from .runs import add_run_commands
from .tokens import add_token_commands, opened_tokens
from .usage import WrongUsage

_SERVE = "abstractgateway_http.server:serve"
_GRACE_HELP = "how long requests and effects under way have to end once the process is told to"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    arguments = _parser().parse_args(argv)
    set_up_logging(Redactor())
    _print_whatever_comes()
    try:
        command: Callable[[argparse.Namespace], None] = arguments.command
        command(arguments)
    except GatewayError as error:
        print(f"abstractgateway: {printable(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, WrongUsage) else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads what is printed, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"abstractgateway: what is printed cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _print_whatever_comes() -> None:
    """Have characters that the terminal's encoding lacks be printed as escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="abstractgateway",
        description="A durable run gateway. Settings come from the environment: 'config init' writes a file of them, "
        "'config status --all' lists every one; 'doctor' says what is wrong with them, then 'serve' starts.",
    )
    parser.add_argument("--version", action="version", version=f"abstractgateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = commands.add_parser("serve", help="serve the HTTP API, and drive runs unless told not to")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=_port, default=8080, help="the port to listen on (default: %(default)s)")
    serve.add_argument("--no-runner", action="store_true", help="leave driving runs to 'abstractgateway runner'")
    serve.set_defaults(command=_serve)
    runner = commands.add_parser("runner", help="drive the runs of the data directory, without HTTP")
    runner.set_defaults(command=_run_runner)
    for process in (serve, runner):
        process.add_argument("--log-level", choices=LEVELS, help="default: ABSTRACTGATEWAY_LOG_LEVEL, or warning")
        process.add_argument("--grace", type=_seconds, metavar="SECONDS", help=f"{_GRACE_HELP} (default: 5)")
    add_bundle_commands(commands)
    add_run_commands(commands)
    add_ledger_commands(commands)
    add_migrate_command(commands)
    add_backup_commands(commands)
    add_retention_command(commands)
    add_token_commands(commands)
    add_audit_commands(commands)
    add_config_commands(commands)
    add_doctor_command(commands)
    add_completion_command(commands, parser)
    return parser


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; use 1 to 65535, or 0 for any that is free")
    return port


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _config(arguments: argparse.Namespace) -> GatewayConfig:
    """Return the settings that the environment and the command line give, and log as they say."""
    given = {"log_level": arguments.log_level, "shutdown_grace_s": arguments.grace}
    config = GatewayConfig.from_env(**{name: value for name, value in given.items() if value is not None})
    set_up_logging(Redactor.of(config), level=config.log_level, format=config.log_format)
    return config


def _serve(arguments: argparse.Namespace) -> None:
    keep_memory_private()
    config = _config(arguments)
    if arguments.no_runner:
        config = _for_two_processes(replace(config, runner_enabled=False))
    with opened_tokens(config) as tokens:
        problems = startup_problems(config, arguments.host, has_named_tokens=bool(tokens.listed()))
    model_problem = _model_problem(config) if config.runner_enabled else None
    for warning in (*problems.warnings, *([model_problem] if model_problem else [])):
        print(f"warning: {warning}", file=sys.stderr)
    if problems.refusals:
        raise Unavailable("\n".join(problems.refusals), code="startup_refused")
    serve = _http_server()
    with signals_end_at_once(), GatewayService.open(config) as gateway:
        gc.freeze()  # looking for garbage in what was loaded until here takes 15 ms each time
        begun = serve(
            gateway,
            host=arguments.host,
            port=arguments.port,
            on_ready=lambda server: _announce(server.url, gateway),
        )
        gateway.close(grace_s=config.shutdown_grace_s - (time.monotonic() - begun))


def _http_server() -> Callable[..., float]:
    try:
        serve: Callable[..., float] = pkgutil.resolve_name(_SERVE)
    except ImportError as error:
        raise Unavailable(
            f"the HTTP server cannot be loaded ({error}); install it with: pip install 'abstractgateway[http]'",
            code="http_extra_missing",
        ) from error
    return serve


def _model_problem(config: GatewayConfig) -> str | None:
    """Return what to put right before the configured model can answer; runs without model calls do not need it."""
    models = open_models(config)
    try:
        problem = models.problem()
    finally:
        models.close()
    return f"model calls will fail: {problem}" if problem else None


def _announce(url: str, gateway: GatewayService) -> None:
    listed = gateway.bundles.list()
    print(f"AbstractGateway {__version__} on {url}")
    print(f"  data     {gateway.config.data_dir} ({gateway.config.store_backend} store, {_durability(gateway.config)})")
    if "flows" in listed:
        print(f"  flows    {len(listed['flows'])} in {gateway.config.flows_dir}")
    else:
        also = " and the database" if gateway.config.store_backend == "postgres" else ""
        hint = "" if listed["items"] else "; 'abstractgateway bundle sample' writes two to begin with"
        print(f"  bundles  {len(listed['items'])} in {gateway.config.flows_dir}{also}{hint}")
    for problem in listed["load_errors"]:
        print(f"  {problem['file']} is not usable: {problem['error']}", file=sys.stderr)
    if gateway.runner is None:
        shared = "database" if gateway.config.store_backend == "postgres" else "data directory"
        print(f"  runner   elsewhere: start 'abstractgateway runner' on the same {shared}")
    sys.stdout.flush()


def _durability(config: GatewayConfig) -> str:
    if config.store_backend == "memory":
        return "nothing survives this process"
    if config.durability == "relaxed":
        return "relaxed: a power loss may cost the last moments"
    return "fsync before every answer"


def _run_runner(arguments: argparse.Namespace) -> None:
    keep_memory_private()
    config = _for_two_processes(replace(_config(arguments), runner_enabled=True))
    if model_problem := _model_problem(config):
        print(f"warning: {model_problem}", file=sys.stderr)
    with first_signal() as wait, GatewayService.open(config):
        gc.freeze()
        print(f"AbstractGateway {__version__} drives {_what_is_driven(config)}")
        sys.stdout.flush()
        wait()


def _what_is_driven(config: GatewayConfig) -> str:
    if config.store_backend == "postgres":
        return "the runs of the database, which it shares with the other runners"
    return f"the runs of {config.data_dir}, as soon as nobody else does"


def _for_two_processes(config: GatewayConfig) -> GatewayConfig:
    if config.store_backend == "memory":
        raise Unavailable(
            "stores in memory are seen by one process only; set ABSTRACTGATEWAY_STORE_BACKEND to file, sqlite or "
            "postgres",
            code="startup_refused",
        )
    return config
