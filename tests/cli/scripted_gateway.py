"""Serve a gateway whose model and tool write down what they did, on any free port; settings come from the environment.

What they do outside the store is a line in the file that `OUTSIDE` names, on stable storage before they return.
"""

from __future__ import annotations

import os
from typing import Any

from abstractgateway import GatewayService
from abstractgateway.testing import ScriptedModel
from abstractgateway_http.server import serve


def answer(call: dict[str, Any]) -> str:
    write_down(f"llm_call {call['prompt']}")
    return f"answer to {call['prompt']}"


def post(key: str) -> str:
    """Do something that must not be done twice."""
    write_down(f"tool_calls {key}")
    return f"posted {key}"


def write_down(line: str) -> None:
    fd = os.open(os.environ["OUTSIDE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, f"{line}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def main() -> None:
    with GatewayService.open(model=ScriptedModel(answer), tools={"post": post}) as gateway:
        serve(gateway, port=0, on_ready=lambda server: print(f"serving on {server.url}", flush=True))


if __name__ == "__main__":
    main()
