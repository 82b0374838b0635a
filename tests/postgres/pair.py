"""A server and a replica that follows it and can take over; both are the tests' own and thrown away with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.postgres.proxy import Proxy
from tests.postgres.server import Server

PATIENCE_S = 30.0


class Pair:
    """The primary and its replica. They keep their two `ports` and change roles.

    A synchronous primary acknowledges a commit when the replica has it. What the replica is sent goes through `line`.
    """

    def __init__(self, *, fsync: bool = False, is_synchronous: bool = True, is_open: bool = False) -> None:
        self._fsync, self._is_open = fsync, is_open
        self._is_synchronous = is_synchronous
        self.primary = Server(fsync=fsync, is_open=is_open)
        self._servers = [self.primary]
        self.line = Proxy(self.primary.port)
        self.replica = self._follow()
        self.ports = (self.primary.port, self.replica.port)

    def url(self, database: str = "postgres") -> str:
        """Return a URL with both servers, the replica first."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in reversed(self.ports))
        return f"postgresql://postgres@{hosts}/{database}"

    def new_database(self) -> str:
        return self.url(self.primary.new_database().rpartition("/")[2])

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement on the primary."""
        return self.primary.execute(statement, database)

    def kill(self) -> None:
        self.primary.kill()

    def start(self) -> None:
        self.primary.start()

    def restart(self) -> None:
        self.primary.restart()

    def cut(self) -> None:
        """Keep from the replica what the primary writes from now on."""
        self.line.cut_now(stays_away=True)

    def fail_over(self) -> None:
        """Kill the primary and have the replica take over."""
        self.primary.kill_hard()
        self.line.close()
        self.primary, self.replica = self.replica, self.primary
        self.primary.execute("SELECT pg_promote()")
        self._wait_for_each_other("")

    def restore(self) -> None:
        """Replace the server that was killed by a new replica, at its place."""
        self.replica.stop()
        self.line = Proxy(self.primary.port)
        self.replica = self._follow(self.replica.port)

    def stop(self) -> None:
        self.line.close()
        for server in self._servers:
            server.stop()

    def _follow(self, port: int | None = None) -> Server:
        replica = Server(fsync=self._fsync, port=port, following=self.line.port, is_open=self._is_open)
        self._servers.append(replica)
        self._wait_until(lambda: self.execute("SELECT state FROM pg_stat_replication") == [("streaming",)])
        if self._is_synchronous:
            self._wait_for_each_other("*")
        return replica

    def _wait_for_each_other(self, names: str) -> None:
        """Have the primary wait for replicas of these names, or for none."""
        self.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.execute("SELECT pg_reload_conf()")
        self._wait_until(lambda: self.execute("SHOW synchronous_standby_names") == [(names,)])
        if names:
            self._wait_until(lambda: self.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)])

    def _wait_until(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < until
