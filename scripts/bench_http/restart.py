"""Measurements of a gateway that is started on a store with many waiting runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from .figures import Figures
from .gateway import Site

_GIVEN_UP_S = 60.0


@dataclass(frozen=True)
class Waiting:
    """A data directory with many runs that wait, and those of them that may be answered."""

    site: Site
    run_ids: Iterator[str]
    count: int


def fill(site: Site, count: int) -> Waiting:
    """Have so many runs wait in a data directory."""
    with site.served() as gateway:
        run_id = gateway.ask("ask", prompt="Name?")
    copies = site.copy_run(run_id, count - 1)
    with site.served():  # settles what the copying left behind
        pass
    return Waiting(site, iter(copies), count)


def restart(waiting: Waiting, watched_s: float) -> Figures:
    """Start the gateway, answer a run as soon as it listens, and see what the others cost."""
    run_id, name = next(waiting.run_ids), f"{waiting.count:,} waiting runs"
    begin = time.perf_counter()
    with waiting.site.starting() as gateway:
        gateway.insist(lambda: gateway.answer(run_id))
        accepted_s = time.perf_counter() - begin
        status = gateway.wait(run_id, at_most_s=_GIVEN_UP_S)
        applied_s = time.perf_counter() - begin
        time.sleep(1)
        return {
            f"{name}: serve to first command accepted, s": accepted_s,
            f"{name}: serve to first command applied, s": applied_s if status == "completed" else status,
            f"{name}: idle CPU, %": gateway.cpu_percent(watched_s),
            f"{name}: resident, MB": gateway.resident_mb(),
        }
