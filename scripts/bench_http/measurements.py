"""What is measured: by which name it is chosen, what is prepared for it, and how often it is repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import plain, restart, runs, streams
from .figures import Column, Figures
from .gateway import Gateway, Site, others_asleep
from .wire import Refused

Prepare = Callable[[Site, contextlib.ExitStack], Any]


@dataclass(frozen=True)
class Measurement:
    """Figures of the subjects, taken in turns: `prepare` is called once for each, `measure` in each round."""

    name: str
    measure: Callable[[Any], Figures]
    prepare: Prepare
    rounds: int = 1

    def take(self, sites: dict[Site, Column]) -> None:
        """Measure the subjects at their sites and add to their columns."""
        with contextlib.ExitStack() as stack:
            prepared: list[tuple[Any, Column]] = []
            for site, column in sites.items():
                with self._failure_told(column):
                    prepared.append((self.prepare(site, stack), column))
            for _ in range(self.rounds):
                for subject, column in prepared:
                    others = (other for other, _ in prepared if other is not subject)
                    with others_asleep(others), self._failure_told(column):
                        column.add(self.measure(subject))

    @contextlib.contextmanager
    def _failure_told(self, column: Column) -> Iterator[None]:
        """Have a gateway that is not up to it appear in its column, as a result like any other."""
        try:
            yield
        except (OSError, Refused) as error:
            column.add({self.name: str(error)[:60]})


def _served(site: Site, stack: contextlib.ExitStack) -> Gateway:
    return stack.enter_context(site.served())


def _bare(site: Site, stack: contextlib.ExitStack) -> Site:
    return site


@dataclass(frozen=True)
class Size:
    """How much is measured: numbers of streams, on one run and with a run each; waiting runs; lengths of ledgers;
    rounds; for how many seconds a gateway that does nothing is watched.
    """

    streams: tuple[int, ...] = (1, 50, 200, 1_000)
    spread: tuple[int, ...] = (1_000,)
    waiting: int = 10_000
    ledgers: tuple[int, ...] = (1_000, 100_000)
    rounds: int = 3
    watched_s: float = 5.0  # in which every stream gets a keep-alive

    @classmethod
    def of(cls, *, full: bool, small: bool) -> Size:
        if small:
            return cls((5,), (5,), 20, (20, 200), 1, 0.2)
        return cls((*cls.streams, 5_000), (*cls.spread, 5_000)) if full else cls()


def chosen(names: set[str], size: Size) -> Iterator[Measurement]:
    """Return the measurements with these names, in their order."""
    return (measurement for measurement in measurements(size) if measurement.name in names)


NAMES = (
    "starting",
    "idle",
    "latency",
    "throughput",
    "loop",
    "growth",
    "resume",
    "requests",
    "tail",
    "streams",
    "restart",
)


def measurements(size: Size) -> Iterator[Measurement]:
    """Return all measurements."""
    several, watched_s = size.rounds, size.watched_s
    yield Measurement("starting", plain.starting, _bare, 2 * several - 1)
    yield Measurement("idle", partial(plain.idle, watched_s=watched_s), _bare)
    yield Measurement("latency", runs.latency, _served, several)
    yield Measurement("throughput", runs.throughput, _served, 2 * several - 1)
    yield Measurement("loop", runs.loop, _served, several)
    yield Measurement("growth", runs.long_loop, _served)
    yield Measurement("resume", runs.resume, _bare)
    yield Measurement("requests", partial(plain.requests, sent_s=watched_s / 5), _served, several)
    yield Measurement("tail", partial(plain.tail, lengths=size.ledgers), _bare)
    for count in size.streams:
        yield Measurement("streams", partial(streams.streams, count=count, watched_s=watched_s), _bare)
    for count in size.spread:
        yield Measurement("streams", partial(streams.spread, count=count, watched_s=watched_s), _bare)
    fill = partial(restart.fill, count=size.waiting)
    yield Measurement("restart", partial(restart.restart, watched_s=watched_s), lambda site, stack: fill(site), several)
