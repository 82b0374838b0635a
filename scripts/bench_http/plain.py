"""Measurements of plain requests, and of a gateway that does nothing."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator

from .figures import Figures
from .gateway import Gateway, Site
from .load import CONNECTIONS, answers
from .runs import repeated_ms


def starting(site: Site) -> Figures:
    """Start the gateway on an empty data directory."""
    with site.served() as gateway:
        return {"serve to first 200, s": gateway.started_s}


def idle(site: Site, watched_s: float) -> Figures:
    """Look at what the process costs while nothing happens."""
    with site.served() as gateway:
        time.sleep(0.5)
        return {"idle CPU, %": gateway.cpu_percent(watched_s), "resident, MB": gateway.resident_mb()}


def requests(gateway: Gateway, sent_s: float) -> Figures:
    """Send plain GETs over one connection, each when the one before is answered, and over several at once."""
    run_id, waiting_id = gateway.start("hello", prompt="Ann"), gateway.ask("ask", prompt="Name?")
    gateway.wait(run_id)
    paths = {
        "GET health/s": "/api/health",
        "GET run/s": f"/api/gateway/runs/{run_id}",
        "GET run that waits/s": f"/api/gateway/runs/{waiting_id}",
        "GET ledger page/s": f"/api/gateway/runs/{run_id}/ledger?after=0&limit=200",
    }
    one = {name: _rate(_one_by_one(gateway, path), sent_s) for name, path in paths.items()}
    many = {name: _rate(_at_once(gateway, path), sent_s) for name, path in paths.items()}
    return {**one, **{f"{name}, {CONNECTIONS} connections": rate for name, rate in many.items()}}


def _one_by_one(gateway: Gateway, path: str) -> Iterator[bytes]:
    request = gateway.wire.request(path)
    while True:
        yield gateway.wire.exchange(path, request)


def _at_once(gateway: Gateway, path: str) -> Iterator[bytes]:
    return answers(gateway, gateway.wire.request(path), sys.maxsize)


def _rate(replies: Iterator[bytes], seconds: float) -> float:
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        next(replies)
        count += 1
    return count / (time.perf_counter() - begin)


def tail(site: Site, lengths: tuple[int, ...]) -> Figures:
    """Read the last page of ledgers of these lengths, the shortest first."""
    with site.served() as gateway:
        run_ids = [gateway.start("hello", prompt="Ann") for _ in lengths]
        for run_id in run_ids:
            gateway.wait(run_id)
    ledgers = list(zip(run_ids, lengths, strict=True))
    for run_id, length in ledgers:
        site.lengthen_ledger(run_id, length)
    with site.served() as gateway:
        times = {length: _tail_ms(gateway, run_id, length) for run_id, length in ledgers}
    found: Figures = {f"tail page of {length:,} records, p50 ms": spent_ms for length, spent_ms in times.items()}
    return {**found, "longest against shortest": times[max(lengths)] / times[min(lengths)]}


def _tail_ms(gateway: Gateway, run_id: str, length: int) -> float:
    gateway.page(run_id, length - 10, 100)  # the first one opens files
    return statistics.median(repeated_ms(lambda: gateway.page(run_id, length - 10, 100), most=50, seconds=4))
