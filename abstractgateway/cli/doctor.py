"""The command `abstractgateway doctor`: what a gateway with the present settings would be like, and what is wrong.

A check is a row of `CHECKS`: what it looks at, and a function that yields findings. Nothing is started or changed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundles.catalogue import Catalogue
from ..compose import LOCK_FILE
from ..config import GatewayConfig
from ..errors import Conflict, Unavailable
from ..jsonvalue import JsonObject
from ..runner import RunnerLock
from ..security import startup_problems
from ..service.access import tokens_path
from ..service.audit import AuditLog
from ..service.audit_files import FILE_NAME as AUDIT_FILE
from ..service.tokens import FILE_NAME as TOKENS_FILE
from ..service.tokens import NamedTokens
from .config import PACKAGES, installed_version
from .remote import show

if TYPE_CHECKING:
    from argparse import _SubParsersAction

OK, WARNING, PROBLEM = "ok", "warning", "problem"

_FIRST_BROKEN_SQLITE, _LAST_BROKEN_SQLITE = (3, 7, 0), (3, 51, 2)
_LEAST_FREE_BYTES = 500_000_000
_LEAST_FILES = 4096


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, how it is, and a sentence that says what to do where it is not well."""

    about: str
    level: str
    text: str


@dataclass(frozen=True)
class Subject:
    """What is examined: the settings, and the address that a server would listen on."""

    config: GatewayConfig
    host: str


Check = Callable[[Subject], Iterator[tuple[str, str]]]


def add_doctor_command(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor` to a parser."""
    parser = commands.add_parser("doctor", help="say what is wrong with the present settings and the data directory")
    parser.add_argument("--host", default="127.0.0.1", help="the address that would be served (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(command=_doctor)


def examine(config: GatewayConfig, host: str) -> list[Finding]:
    """Return what every check finds."""
    subject = Subject(config, host)
    return [Finding(about, level, text) for about, check in CHECKS for level, text in check(subject)]


def _doctor(arguments: argparse.Namespace) -> None:
    findings = examine(GatewayConfig.from_env(), arguments.host)
    if arguments.json:
        show([vars(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.level:<8} {finding.about:<10} {finding.text}")
    problems = sum(finding.level == PROBLEM for finding in findings)
    if problems:
        raise Conflict(f"{problems} of {len(findings)} findings keep a gateway from working", code="not_well")


def _python(subject: Subject) -> Iterator[tuple[str, str]]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield (OK, f"Python {version}")


def _packages(subject: Subject) -> Iterator[tuple[str, str]]:
    found = {name: installed_version(name) for name in PACKAGES}
    yield OK, ", ".join(f"{name} {version}" for name, version in found.items() if version)
    if not (found["werkzeug"] and found["waitress"]):
        yield WARNING, "'abstractgateway serve' needs the extra http: pip install 'abstractgateway[http]'"
    if subject.config.provider and not found["urllib3"]:
        yield WARNING, "model calls need the extra llm: pip install 'abstractgateway[llm]'"


def _data(subject: Subject) -> Iterator[tuple[str, str]]:
    path = Path(subject.config.data_dir).absolute()
    if subject.config.store_backend == "memory":
        yield WARNING, "stores in memory: nothing survives the process"
        return
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield PROBLEM, f"{there} cannot be written; set ABSTRACTGATEWAY_DATA_DIR to a directory that can"
        return
    yield OK, f"{path} ({subject.config.store_backend} backend)"
    if path.exists() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield WARNING, f"other users may write to {path}; take the right away: chmod go-w {path}"
    if path.exists() and path.stat().st_mode & stat.S_IROTH:
        yield WARNING, f"every user of this machine may read {path}; take the right away: chmod o-rwx {path}"
    free = shutil.disk_usage(there).free
    level = WARNING if free < _LEAST_FREE_BYTES else OK
    yield level, f"{free / 1e9:.1f} GB are free on its disk"


def _runner(subject: Subject) -> Iterator[tuple[str, str]]:
    lock = RunnerLock(Path(subject.config.data_dir) / LOCK_FILE)
    if subject.config.store_backend != "memory":
        yield OK, "no process drives the runs now" if lock.is_free() else "a process drives the runs now"


def _durability(subject: Subject) -> Iterator[tuple[str, str]]:
    if subject.config.durability == "relaxed":
        yield WARNING, "ABSTRACTGATEWAY_DURABILITY=relaxed: a power loss may cost what was acknowledged last"
    else:
        yield OK, "answers are sent after fsync"


def _sqlite(subject: Subject) -> Iterator[tuple[str, str]]:
    version = sqlite3.sqlite_version
    if subject.config.store_backend == "sqlite" and is_broken_sqlite(sqlite3.sqlite_version_info):
        yield (
            WARNING,
            f"SQLite {version} (3.7.0 to 3.51.2) can damage a database that two connections write and checkpoint at "
            "once; the gateway avoids that by a lock: let no other program write to the file",
        )
    else:
        yield OK, f"SQLite {version}"


def is_broken_sqlite(version: tuple[int, int, int]) -> bool:
    """Say whether a version of SQLite can corrupt a log that is written and reset at the same time."""
    return _FIRST_BROKEN_SQLITE <= version <= _LAST_BROKEN_SQLITE


def _flows(subject: Subject) -> Iterator[tuple[str, str]]:
    directory = Path(subject.config.flows_dir)
    if not directory.exists():
        yield WARNING, f"{directory} does not exist yet; pack a flow into it with: abstractgateway bundle pack"
        return
    if subject.config.workflow_source == "visualflow":
        yield OK, f"{len(list(directory.glob('*.json')))} flows in {directory}"
        return
    catalogue = Catalogue(directory)
    yield OK, f"{sum(len(versions) for versions in catalogue.bundles.values())} bundles in {directory}"
    for error in catalogue.load_errors:
        yield WARNING, f"{error.file} is not usable: {error.error}"


def _security(subject: Subject) -> Iterator[tuple[str, str]]:
    named = NamedTokens(tokens_path(subject.config))
    try:
        tokens = named.listed()
    except Unavailable as error:
        yield PROBLEM, str(error)
        tokens = []
    found = startup_problems(subject.config, subject.host, has_named_tokens=bool(tokens))
    yield from ((PROBLEM, text) for text in found.refusals)
    yield from ((WARNING, text) for text in found.warnings)
    config = subject.config
    yield (
        OK,
        f"tokens: {len(config.auth_tokens)} plain, {len(tokens)} named; reads {_guarded(config.protect_read)}, writes "
        + _guarded(config.protect_write),
    )
    yield from ((WARNING, text) for text in _token_warnings(tokens))
    yield from ((WARNING, text) for text in _open_files(Path(config.data_dir)))
    yield from _audit_log(config)
    yield OK, f"proxies believed: {', '.join(config.trusted_proxies) or ('any' if config.trust_proxy else 'none')}"
    yield OK, f"origins: {', '.join(config.allowed_origins) or 'none'}"
    yield OK, f"hosts: loopback, {', '.join((subject.host, *config.allowed_hosts))}"


def _token_warnings(tokens: list[JsonObject]) -> Iterator[str]:
    for token in tokens:
        if token["expired"]:
            yield f"the token {token['name']!r} is expired; remove it: abstractgateway token revoke {token['id']}"
        elif not token["expires_at"]:
            yield f"the token {token['name']!r} never expires; make it anew with --expires, such as 90d"


def _open_files(directory: Path) -> Iterator[str]:
    for name in (TOKENS_FILE, AUDIT_FILE):
        path = directory / name
        if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield f"other users may open {path}; take the right away: chmod 600 {path}"


def _audit_log(config: GatewayConfig) -> Iterator[tuple[str, str]]:
    if not AuditLog.of(config).is_on:
        yield WARNING, "no audit log is written; ABSTRACTGATEWAY_AUDIT_LOG=1 has one written to the data directory"
    elif config.audit_log_required:
        yield OK, f"audit log: {Path(config.data_dir) / AUDIT_FILE}; without it nothing is changed"
    else:
        yield OK, f"audit log: {Path(config.data_dir) / AUDIT_FILE}"


def _guarded(is_guarded: bool) -> str:
    return "need one" if is_guarded else "are open"


def _tools(subject: Subject) -> Iterator[tuple[str, str]]:
    config = subject.config
    if config.tool_mode == "local":
        yield WARNING, "ABSTRACTGATEWAY_TOOL_MODE=local: models run commands and write files, and nobody is asked"
    else:
        yield OK, f"tool mode {config.tool_mode}, tools: {', '.join(config.tools)}"
    if config.code_unsandboxed:
        yield WARNING, "ABSTRACTGATEWAY_CODE_UNSANDBOXED=1: code in flows can do what the gateway can"


def _files(subject: Subject) -> Iterator[tuple[str, str]]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _LEAST_FILES:
        yield WARNING, f"at most {hard} files may be open, so about as many streams; raise it: ulimit -Hn 65536"
    else:
        yield OK, f"up to {'any number of' if hard == resource.RLIM_INFINITY else hard} open files"


CHECKS: tuple[tuple[str, Check], ...] = (
    ("python", _python),
    ("packages", _packages),
    ("data", _data),
    ("runner", _runner),
    ("durability", _durability),
    ("sqlite", _sqlite),
    ("flows", _flows),
    ("security", _security),
    ("tools", _tools),
    ("limits", _files),
)
