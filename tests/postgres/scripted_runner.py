"""Drive the runs of a database with the scripted model and tool, without serving; ends in order on SIGTERM."""

from __future__ import annotations

import signal
import threading

from abstractgateway import GatewayService
from abstractgateway.testing import ScriptedModel
from tests.cli.scripted_gateway import answer, post


def main() -> None:
    is_over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_over.set())
    with GatewayService.open(model=ScriptedModel(answer), tools={"post": post}):
        print("drives", flush=True)
        is_over.wait()


if __name__ == "__main__":
    main()
