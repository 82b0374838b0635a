"""Serve a gateway with tools of its own, on any free port; everything else comes from the environment.

`weather` says what it knows. `post` writes a line into the file that `OUTSIDE` names, and then never ends: whoever
wants it to end kills the process, or makes the file that `GATE` names beforehand.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from abstractgateway import GatewayService
from abstractgateway_http.server import serve

CITIES = {"Paris": "18 degrees"}


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return CITIES[city]


def post(text: str) -> str:
    """Do something that must not be done twice."""
    fd = os.open(os.environ["OUTSIDE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, f"{text}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    print("posted", flush=True)
    if not Path(os.environ["GATE"]).exists():
        threading.Event().wait()
    return f"posted {text}"


def main() -> None:
    with GatewayService.open(tools={"weather": weather, "post": post}) as gateway:
        serve(gateway, port=0, on_ready=lambda server: print(f"serving on {server.url}", flush=True))


if __name__ == "__main__":
    main()
