"""`abstractgateway migrate` in a process that kills itself before the step of a given number, counted from 0.

Steps are what the migration writes: its mark, artifacts, commits, and that it is finished.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from abstractgateway.cli import main
from abstractgateway.compose import ends
from abstractgateway.stores import migrate
from abstractgateway.stores.artifacts import FileArtifactStore
from abstractgateway.stores.group import GroupWriter


class Countdown:
    """Kills the process when it has been counted to nothing."""

    def __init__(self, left: int) -> None:
        self.left = left

    def before(self, owner: Any, name: str) -> None:
        """Count every call of a method, before it does anything."""
        method: Callable[..., Any] = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return method(*arguments, **named)

        setattr(owner, name, counted)


if __name__ == "__main__":
    migrate.CHUNK_RECORDS = migrate.PAGE_RECORDS = 2
    countdown = Countdown(int(sys.argv[1]))
    owners = [(ends.DirectoryEnd, "begin"), (ends.DirectoryEnd, "finish"), (FileArtifactStore, "adopt")]
    if "postgres" in sys.argv:
        from abstractgateway_postgres.artifacts import PostgresArtifactStore
        from abstractgateway_postgres.ends import PostgresEnd

        owners += [(PostgresEnd, "begin"), (PostgresEnd, "finish"), (PostgresArtifactStore, "adopt")]
    for owner, name in [*owners, (GroupWriter, "submit")]:
        countdown.before(owner, name)
    raise SystemExit(main(["migrate", *sys.argv[2:]]))
