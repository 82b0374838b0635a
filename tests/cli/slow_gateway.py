"""Serve a gateway whose model and tool do not answer until they are let go; settings come from the environment.

`SLOW` says which of them, `model` or `tool`; it tells so with a line, and waits until something is written to the FIFO
that `GATE` names.
"""

from __future__ import annotations

import os
from typing import Any

from abstractgateway import GatewayService
from abstractgateway.cli.ending import signals_end_at_once
from abstractgateway.testing import ScriptedModel
from abstractgateway_http.server import serve


def answer(call: dict[str, Any]) -> str:
    wait_for("model")
    return "an answer"


def post(key: str) -> str:
    """Do something that must not be done twice."""
    wait_for("tool")
    return "posted"


def wait_for(who: str) -> None:
    if os.environ.get("SLOW") == who:
        print(f"the {who} has begun", flush=True)
        with open(os.environ["GATE"], "rb") as gate:
            gate.read()


def main() -> None:
    with signals_end_at_once(), GatewayService.open(model=ScriptedModel(answer), tools={"post": post}) as gateway:
        serve(gateway, port=0, on_ready=lambda server: print(f"serving on {server.url}", flush=True))


if __name__ == "__main__":
    main()
