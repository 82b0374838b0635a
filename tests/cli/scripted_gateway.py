"""Serve a gateway whose language model says what it is told, on any free port; settings come from the environment."""

from __future__ import annotations

from abstractgateway import GatewayService
from abstractgateway.testing import ScriptedModel
from abstractgateway_http.server import serve


def main() -> None:
    model = ScriptedModel(lambda call: f"answer to {call['prompt']}")
    with GatewayService.open(model=model) as gateway:
        serve(gateway, port=0, on_ready=lambda server: print(f"serving on {server.url}", flush=True))


if __name__ == "__main__":
    main()
