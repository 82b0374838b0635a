"""A gateway that is killed as soon as its first statements are durable, before anybody has been told.

`python -m tests.knowledge.dying <data directory> <directory of flows>`
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

from abstractgateway import GatewayConfig, GatewayService
from abstractgateway.knowledge import SqliteTripleStore, Triple


class DyingStore(SqliteTripleStore):
    def add(self, triples: Sequence[Triple], *, skip_known: bool) -> list[bool]:
        kept = super().add(triples, skip_known=skip_known)
        os.kill(os.getpid(), signal.SIGKILL)
        return kept


def main(data_dir: str, flows_dir: str) -> None:
    from abstractgateway.compose import kernel

    kernel.SqliteTripleStore = DyingStore  # type: ignore[misc]
    gateway = GatewayService.open(GatewayConfig(data_dir=data_dir, flows_dir=flows_dir, workflow_source="visualflow"))
    print(gateway.runs.start(flow_id="remember", session_id="s1"), flush=True)
    threading.Event().wait(60)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
