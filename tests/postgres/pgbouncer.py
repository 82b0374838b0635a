"""A PgBouncer of the tests' own before a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from tests.postgres.server import Server, _die_with_parent, _free_port, _unprivileged

PATIENCE_S = 20.0


class PgBouncer:
    """Gives each client, or with `transaction` each of its transactions, a session of the server."""

    def __init__(self, server: Server, mode: str) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.skip("no PgBouncer here")
        self._user = _unprivileged()
        self._top = Path(tempfile.mkdtemp(prefix="gateway-pgbouncer-"))
        self.port = _free_port()
        (self._top / "users").write_text('"postgres" ""\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": self._top / "users",
            "pool_mode": mode,
            "default_pool_size": 60,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        place = f"* = host=127.0.0.1 port={server.port}"
        (self._top / "settings").write_text("\n".join(["[databases]", place, "[pgbouncer]", *lines, ""]))
        if self._user is not None:
            for path in (self._top, *self._top.iterdir()):
                os.chown(path, self._user, -1)
        self._process = subprocess.Popen(
            [program, "--quiet", str(self._top / "settings")], user=self._user, preexec_fn=_die_with_parent
        )
        self._wait(server.url(port=self.port))

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)
        shutil.rmtree(self._top, ignore_errors=True)

    def _wait(self, url: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                psycopg.connect(url).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until and self._process.poll() is None
