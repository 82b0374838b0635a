"""Measurements of open streams: what they cost while nothing happens, and how soon a record reaches all of them."""

from __future__ import annotations

import statistics
import time

from .audience import Audience, audience_of
from .figures import Figures, percentile
from .flows import ASKER
from .gateway import Gateway, Site
from .runs import repeated_ms
from .wire import Refused

_OPEN_S = 30.0
_RECEIPT_S = 15.0
# Below that the growth of the server's memory says nothing about one stream.
_COUNT_TO_WEIGH = 200


def streams(site: Site, count: int, watched_s: float) -> Figures:
    """Follow one run with so many streams, then give it a record again and again."""
    with site.served() as gateway, audience_of(gateway) as audience:
        run_id = gateway.ask(ASKER, count=10_000)
        name = f"{count:,} streams"
        found, is_open = _open(gateway, audience, name, [run_id] * count, watched_s)
        return {**found, **_fan_out(gateway, audience, f"record to {count:,}", run_id)} if is_open else found


def spread(site: Site, count: int, watched_s: float) -> Figures:
    """Follow so many runs with a stream each."""
    with site.served() as gateway:
        run_id = gateway.ask("ask", prompt="Name?")
    copies = site.copy_run(run_id, count)
    with site.served() as gateway, audience_of(gateway) as audience:
        return _open(gateway, audience, f"{count:,} streams, a run each", copies, watched_s)[0]


def _open(
    gateway: Gateway, audience: Audience, name: str, run_ids: list[str], watched_s: float
) -> tuple[Figures, bool]:
    """Open the streams, and say whether all are open; what they cost if so, and otherwise how many are."""
    gateway.wire.call("/api/health")
    empty_mb, before = gateway.resident_mb(), _health_ms(gateway)
    opened = audience.open(run_ids, _OPEN_S)
    if opened["open"] < len(run_ids):
        told = f"holds {opened['open']:,}" + (f", refuses {opened['refused']:,}" if opened["refused"] else "")
        return {f"{name}: opened in, s": f"{told} after {opened['took_s']:.0f} s"}, False
    found: Figures = {f"{name}: opened in, s": opened["took_s"]}
    if len(run_ids) >= _COUNT_TO_WEIGH:
        found[f"{name}: KB each"] = 1024 * (gateway.resident_mb() - empty_mb) / len(run_ids)
    found[f"{name}: idle CPU, %"] = gateway.cpu_percent(watched_s)
    return {**found, **_against(name, before, _health_ms(gateway))}, True


def _health_ms(gateway: Gateway) -> list[float] | None:
    """Return how long `GET /api/health` takes; None when it is not answered."""
    request = gateway.wire.request("/api/health")
    try:
        return repeated_ms(lambda: gateway.wire.exchange("/api/health", request), most=1_000, seconds=3)
    except (OSError, Refused):
        return None


def _against(name: str, before: list[float] | None, now: list[float] | None) -> Figures:
    if before is None or now is None:
        return {f"{name}: health p50, ms": "not answered"}
    return {
        f"{name}: health p50, ms": statistics.median(now),
        f"{name}: health p99, ms": percentile(now, 0.99),
        f"{name}: health p99 against none": percentile(now, 0.99) / percentile(before, 0.99),
    }


def _fan_out(gateway: Gateway, audience: Audience, name: str, run_id: str) -> Figures:
    """Answer a run's questions, and see how long after each answer the record of it has reached one and all."""
    typical: list[float] = []
    last: list[float] = []
    begin = time.monotonic()
    while len(last) < 100 and (len(last) < 3 or time.monotonic() - begin < 5):
        try:
            after_ms = _receipts_ms(gateway, audience, run_id)
        except (OSError, Refused) as error:
            return {f"{name}: last receipt p50, ms": str(error)}
        typical.append(statistics.median(after_ms))
        last.append(after_ms[-1])
    return {
        f"{name}: p50, ms": statistics.median(typical),
        f"{name}: last receipt p50, ms": statistics.median(last),
        f"{name}: last receipt p99, ms": percentile(last, 0.99),
    }


def _receipts_ms(gateway: Gateway, audience: Audience, run_id: str) -> list[float]:
    """Answer a run's question, and return how long after that each reader had the record. Raises `TimeoutError`."""
    known = len(gateway.page(run_id, 0)["items"])
    sent_at = time.monotonic()
    gateway.answer(run_id)
    arrived, missing = audience.receipts(known + 1, _RECEIPT_S)
    if missing:
        raise TimeoutError(f"{missing:,} without it after {_RECEIPT_S:.0f} s")
    while gateway.page(run_id, known)["items"][-1]["status"] != "waiting":  # for its next question
        if time.monotonic() > sent_at + 2 * _RECEIPT_S:
            raise TimeoutError("the run does not go on")
        time.sleep(0.002)
    return [1000 * (at - sent_at) for at in arrived]
