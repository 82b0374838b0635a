"""Waiting for a gateway's runs without sleeping."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from abstractgateway import GatewayService

PATIENCE_S = 15.0


def wait_for(gateway: GatewayService, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, looking whenever a run changes."""
    changed = threading.Event()
    unsubscribe = gateway.subscribe(lambda run_ids: changed.set())
    try:
        while not condition():
            assert changed.wait(PATIENCE_S), "nothing changes any more"
            changed.clear()
    finally:
        unsubscribe()


def wait_for_status(gateway: GatewayService, run_id: str, *statuses: str) -> dict[str, Any]:
    wait_for(gateway, lambda: gateway.runs.get(run_id)["status"] in statuses)
    return gateway.runs.get(run_id)
