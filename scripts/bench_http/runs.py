"""Measurements of runs: how soon they end, how many at once, what a step costs, how soon an answer shows."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from datetime import datetime

from .figures import Figures
from .flows import LOOP
from .gateway import Gateway, Site, start_of
from .load import answers

AT_ONCE = 200
ITERATIONS = 1_000
MANY_ITERATIONS = 10_000
LONG_LOOP_S = 15.0


def latency(gateway: Gateway) -> Figures:
    """Start a 3-node run and read it until it has completed."""
    times = repeated_ms(lambda: gateway.wait(gateway.start("hello", prompt="Ann")), most=60, seconds=2.5)
    return {"start to completed, p50 ms": statistics.median(times), "start to completed, max ms": max(times)}


def throughput(gateway: Gateway) -> Figures:
    """Start 200 runs over 8 connections at once, and wait for all of them."""
    request = gateway.wire.request("/api/gateway/runs/start", start_of("hello", prompt="Ann"))
    begin = time.perf_counter()
    for started in list(answers(gateway, request, AT_ONCE)):
        gateway.wait(json.loads(started)["run_id"], pause_s=0.002)
    return {f"{AT_ONCE} runs at once, completed/s": AT_ONCE / (time.perf_counter() - begin)}


def loop(gateway: Gateway) -> Figures:
    """Run a loop of 1,000 iterations with one effect each."""
    begin = time.perf_counter()
    status = gateway.wait(gateway.start(LOOP, count=ITERATIONS), pause_s=0.01)
    name = "loop of 1,000, iterations/s"
    return {name: ITERATIONS / (time.perf_counter() - begin) if status == "completed" else f"it has {status}"}


def long_loop(gateway: Gateway) -> Figures:
    """Run a loop of 10,000 iterations for some seconds at most, and compare its first steps with its last."""
    run_id = gateway.start(LOOP, count=MANY_ITERATIONS)
    gateway.wait(run_id, pause_s=0.1, at_most_s=LONG_LOOP_S)
    began_at = _step_times(gateway, run_id)
    gateway.command(run_id, "cancel")
    first, last = _step_us(began_at[:500]), _step_us(began_at[-500:])
    return {
        f"of 10,000 iterations, in {LONG_LOOP_S:.0f} s": len(began_at),
        "first 500 steps, us each": first,
        "last 500 steps, us each": last,
        "last against first": last / first,
    }


def _step_times(gateway: Gateway, run_id: str) -> list[float]:
    """Return when each iteration began, by the times in the ledger."""
    items: list[dict[str, str]] = []
    while found := gateway.page(run_id, len(items), 2000)["items"]:
        items += found
    return [datetime.fromisoformat(item["started_at"]).timestamp() for item in items if item["status"] == "started"]


def _step_us(times: list[float]) -> float:
    return 1e6 * (times[-1] - times[0]) / (len(times) - 1)


def resume(site: Site) -> Figures:
    """Answer the questions of runs, and read each run until it has completed: in one process, and split in two."""
    with site.served() as gateway:
        found: Figures = {"answer to completed, p50 ms": _answer_ms(gateway)}
    with site.served("runner") as gateway:
        found["the same with the runner apart, p50 ms"] = _answer_ms(gateway)
    return found


def _answer_ms(gateway: Gateway) -> float:
    asked = iter([gateway.ask("ask", prompt="Name?") for _ in range(15)])

    def answer_and_see() -> None:
        run_id = next(asked)
        gateway.answer(run_id)
        gateway.wait(run_id)

    return statistics.median(repeated_ms(answer_and_see, most=15, seconds=4))


def repeated_ms(action: Callable[[], object], most: int, seconds: float) -> list[float]:
    """Return how many milliseconds an action took each time, for so many times and, once begun, for so long at most."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < most and (not times or time.perf_counter() - begin < seconds):
        started = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - started))
    return times
