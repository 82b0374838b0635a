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
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..compose import LOCK_FILE, look_at_database, shelf_to_read, unfinished_mark
from ..config import GatewayConfig
from ..errors import Conflict, GatewayError, Unavailable
from ..jsonvalue import JsonObject
from ..runner import RunnerLock
from ..security import startup_problems
from ..service.access import tokens_path
from ..service.audit import AuditLog
from ..service.audit_files import FILE_NAME as AUDIT_FILE
from ..service.shared_tokens import SharedTokens, not_taken_over
from ..service.tokens import FILE_NAME as TOKENS_FILE
from ..service.tokens import NamedTokens, TokenFile
from ..stores.ends import unfinished
from ..stores.shelf import SharedShelf
from .bundles import served_bundles
from .config import PACKAGES, installed_version
from .remote import show

if TYPE_CHECKING:
    from argparse import _SubParsersAction

OK, WARNING, PROBLEM = "ok", "warning", "problem"

_FIRST_BROKEN_SQLITE, _LAST_BROKEN_SQLITE = (3, 7, 0), (3, 51, 2)
_LEAST_FREE_BYTES = 500_000_000
_LEAST_FILES = 4096
_MOST_CLOCK_DIFFERENCE_S = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, how it is, and a sentence that says what to do where it is not well."""

    about: str
    level: str
    text: str


@dataclass(frozen=True)
class Subject:
    """What is examined: the settings, the address that a server would listen on, and the shelf of the database.

    The shelf is None where there is none, or none yet; `is_known` is False for a database that does not answer.
    """

    config: GatewayConfig
    host: str
    shelf: SharedShelf | None = None
    is_known: bool = True


Check = Callable[[Subject], Iterator[tuple[str, str]]]


def add_doctor_command(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor` to a parser."""
    parser = commands.add_parser("doctor", help="say what is wrong with the present settings and the data directory")
    parser.add_argument("--host", default="127.0.0.1", help="the address that would be served (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(command=_doctor)


def examine(config: GatewayConfig, host: str) -> list[Finding]:
    """Return what every check finds."""
    with ExitStack() as stack:
        subject = _subject(config, host, stack)
        return [Finding(about, level, text) for about, check in CHECKS for level, text in check(subject)]


def _subject(config: GatewayConfig, host: str, stack: ExitStack) -> Subject:
    try:
        return Subject(config, host, stack.enter_context(shelf_to_read(config)))
    except GatewayError:  # the check of the store says why
        return Subject(config, host, is_known=False)


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
    if subject.config.store_backend not in ("memory", "postgres"):
        yield OK, "no process drives the runs now" if lock.is_free() else "a process drives the runs now"


def _store(subject: Subject) -> Iterator[tuple[str, str]]:
    """Look at the database, and at what a migration may have left."""
    config = subject.config
    if config.store_backend == "postgres":
        yield from _database(config)
    elif config.store_backend != "memory" and unfinished_mark(config).exists():
        yield PROBLEM, str(unfinished(f"the {config.store_backend} backend of {str(config.data_dir)!r}"))


def _database(config: GatewayConfig) -> Iterator[tuple[str, str]]:
    try:
        facts = look_at_database(config)
    except GatewayError as error:
        yield PROBLEM, str(error)
        return
    schema = f"schema version {facts.schema_version}" if facts.schema_version else "no tables yet"
    yield OK, f"{facts.server} at {facts.place}, {schema}"
    if facts.is_unfinished:
        yield PROBLEM, str(unfinished(f"the database {facts.place}"))
    yield OK, f"runners with a lease: {facts.runners}; processes that have the database open: {facts.gateways}"
    if facts.lacking:
        yield PROBLEM, f"the database user lacks rights: {', '.join(facts.lacking)}"
    if not facts.syncs:
        yield WARNING, "the database server runs with fsync off: a power loss may cost what was acknowledged"
    if abs(facts.clock_ahead_s) > _MOST_CLOCK_DIFFERENCE_S:
        how = "ahead of" if facts.clock_ahead_s > 0 else "behind"
        yield (
            WARNING,
            f"the clock of the database is {abs(facts.clock_ahead_s):.1f} s {how} the one here; timers go by the clock "
            "of the machine that drives the run: have all of them set by NTP",
        )


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
    directory, shelf = Path(subject.config.flows_dir), subject.shelf
    is_needed = subject.config.store_backend != "postgres" or subject.config.workflow_source == "visualflow"
    if is_needed and not directory.exists():
        yield WARNING, f"{directory} does not exist yet; pack a flow into it with: abstractgateway bundle pack"
        return
    if subject.config.workflow_source == "visualflow":
        yield OK, f"{len(list(directory.glob('*.json')))} flows in {directory}"
        return
    try:
        catalogue = served_bundles(directory, shelf)
    except Unavailable as error:
        yield PROBLEM, str(error)
        return
    bundles = [bundle for versions in catalogue.bundles.values() for bundle in versions.values()]
    shared = sum(bundle.is_shared for bundle in bundles)
    beside = f"; {shared} in the database" if shelf is not None else ""
    yield OK, f"{len(bundles) - shared} bundles in {directory}{beside}"
    for problem in catalogue.load_errors:
        yield WARNING, f"{problem.file} is not usable: {problem.error}"


def _security(subject: Subject) -> Iterator[tuple[str, str]]:
    may_have_tokens, tokens = not subject.is_known, list[JsonObject]()
    try:
        tokens = _named_tokens(subject).listed()
        may_have_tokens = may_have_tokens or bool(tokens) or _will_take_over(subject)
    except Unavailable as error:
        yield PROBLEM, str(error)
    found = startup_problems(subject.config, subject.host, has_named_tokens=may_have_tokens)
    yield from ((PROBLEM, text) for text in found.refusals)
    yield from ((WARNING, text) for text in found.warnings)
    config = subject.config
    yield (
        OK,
        f"tokens: {len(config.auth_tokens)} plain, {len(tokens) if subject.is_known else '?'} named; reads "
        f"{_guarded(config.protect_read)}, writes {_guarded(config.protect_write)}",
    )
    yield from ((WARNING, text) for text in _token_warnings(tokens))
    yield from ((WARNING, text) for text in _open_files(Path(config.data_dir)))
    yield from _audit_log(config)
    yield OK, f"proxies believed: {', '.join(config.trusted_proxies) or ('any' if config.trust_proxy else 'none')}"
    yield OK, f"origins: {', '.join(config.allowed_origins) or 'none'}"
    yield OK, f"hosts: loopback, {', '.join((subject.host, *config.allowed_hosts))}"


def _will_take_over(subject: Subject) -> bool:
    """Say whether a gateway would put tokens of its data directory into the database."""
    file = TokenFile(tokens_path(subject.config))
    return subject.shelf is not None and bool(not_taken_over(subject.shelf, file))


def _named_tokens(subject: Subject) -> NamedTokens:
    """Return the tokens that a gateway would accept; a database without tables takes those of the directory over."""
    if not subject.is_known:
        return NamedTokens()
    if subject.shelf is not None:
        return NamedTokens(SharedTokens(subject.shelf))
    return NamedTokens(TokenFile(tokens_path(subject.config)))


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
    ("store", _store),
    ("durability", _durability),
    ("sqlite", _sqlite),
    ("flows", _flows),
    ("security", _security),
    ("tools", _tools),
    ("limits", _files),
)
