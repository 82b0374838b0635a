"""The command `abstractgateway`: serve a gateway over HTTP, drive its runs without HTTP, and pack bundles.

Exit codes: 0 after an orderly end, 1 when something has to be put right first, 2 for a command line that is wrong.
"""

from __future__ import annotations

import argparse
import logging
import os
import pkgutil
import queue
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

from .._version import __version__
from ..compose import ModelsOfSettings
from ..config import GatewayConfig
from ..errors import GatewayError, Unavailable
from ..security import startup_problems
from ..service import GatewayService
from .backup import add_backup_commands
from .bundles import add_bundle_commands
from .completion import add_completion_command
from .config import add_config_commands
from .doctor import add_doctor_command
from .ledger import add_ledger_commands
from .migrate import add_migrate_command
from .runs import add_run_commands

_SERVE = "abstractgateway_http.server:serve"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        command: Callable[[argparse.Namespace], None] = arguments.command
        command(arguments)
    except GatewayError as error:
        print(f"abstractgateway: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # whoever reads what is printed, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="abstractgateway",
        description="A durable run gateway. Settings come from the environment; see docs/settings.md.",
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
    add_bundle_commands(commands)
    add_run_commands(commands)
    add_ledger_commands(commands)
    add_migrate_command(commands)
    add_backup_commands(commands)
    add_config_commands(commands)
    add_doctor_command(commands)
    add_completion_command(commands, parser)
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; use 1 to 65535, or 0 for any that is free")
    return port


def _serve(arguments: argparse.Namespace) -> None:
    config = GatewayConfig.from_env()
    if arguments.no_runner:
        config = _for_two_processes(replace(config, runner_enabled=False))
    problems = startup_problems(config, arguments.host)
    model_problem = _model_problem(config) if config.runner_enabled else None
    for warning in (*problems.warnings, *([model_problem] if model_problem else [])):
        print(f"warning: {warning}", file=sys.stderr)
    if problems.refusals:
        raise Unavailable("\n".join(problems.refusals), code="startup_refused")
    serve = _http_server()
    with GatewayService.open(config) as gateway:
        serve(gateway, host=arguments.host, port=arguments.port, on_ready=lambda server: _announce(server.url, gateway))


def _http_server() -> Callable[..., None]:
    try:
        serve: Callable[..., None] = pkgutil.resolve_name(_SERVE)
    except ImportError as error:
        raise Unavailable(
            f"the HTTP server cannot be loaded ({error}); install it with: pip install 'abstractgateway[http]'",
            code="http_extra_missing",
        ) from error
    return serve


def _model_problem(config: GatewayConfig) -> str | None:
    """Return what to put right before the configured model can answer; runs without model calls do not need it."""
    models = ModelsOfSettings(config)
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
        print(f"  bundles  {len(listed['items'])} in {gateway.config.flows_dir}")
    for problem in listed["load_errors"]:
        print(f"  {problem['file']} is not usable: {problem['error']}", file=sys.stderr)
    if gateway.runner is None:
        print("  runner   elsewhere: start 'abstractgateway runner' on the same data directory")
    sys.stdout.flush()


def _durability(config: GatewayConfig) -> str:
    if config.store_backend == "memory":
        return "nothing survives this process"
    if config.durability == "relaxed":
        return "relaxed: a power loss may cost the last moments"
    return "fsync before every answer"


def _run_runner(arguments: argparse.Namespace) -> None:
    config = _for_two_processes(replace(GatewayConfig.from_env(), runner_enabled=True))
    told: queue.SimpleQueue[int] = queue.SimpleQueue()  # unlike an event, it may be used in a signal handler
    if model_problem := _model_problem(config):
        print(f"warning: {model_problem}", file=sys.stderr)
    previous = {number: signal.signal(number, _teller(told)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with GatewayService.open(config):
            print(f"AbstractGateway {__version__} drives the runs of {config.data_dir}, as soon as nobody else does")
            sys.stdout.flush()
            told.get()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _for_two_processes(config: GatewayConfig) -> GatewayConfig:
    if config.store_backend == "memory":
        raise Unavailable(
            "stores in memory are seen by one process only; set ABSTRACTGATEWAY_STORE_BACKEND to file or sqlite",
            code="startup_refused",
        )
    return config


def _teller(told: queue.SimpleQueue[int]) -> Callable[[int, FrameType | None], Any]:
    return lambda number, frame: told.put(number)
