"""Counts and durations of what a process did, and how they are handed to whoever shows them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Labels = tuple[tuple[str, str], ...]


class Durations:
    """How many of something took how many seconds, by the upper bounds they stayed within; `counts` has one more.

    One thread at a time may add; anybody may read, and may miss what is being added just now.
    """

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: tuple[float, ...] = BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class CommitMeasures:
    """What a store wrote: its commits, the batches they were written in, and how long those took.

    `batches` is from the begin of a batch until it was durable; `syncs` is each time the disk was told to keep what was
    written, where a store can tell.
    """

    __slots__ = ("batches", "commits", "syncs")

    def __init__(self) -> None:
        self.commits = 0
        self.batches = Durations()
        self.syncs = Durations()


@dataclass(frozen=True)
class Family:
    """Measures of one name: what they are, and the value for each set of labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    samples: tuple[tuple[Labels, float | Durations], ...]


def counter(name: str, about: str, value: float) -> Family:
    """Return a count of what happened since the process began."""
    return Family(name, "counter", about, (((), value),))


def gauge(name: str, about: str, value: float) -> Family:
    """Return how much of something there is now."""
    return Family(name, "gauge", about, (((), value),))


def labelled(
    kind: Literal["counter", "gauge"], name: str, about: str, label: str, values: Iterable[tuple[str, float]]
) -> Family:
    """Return counts or gauges that one label tells apart."""
    return Family(name, kind, about, tuple((((label, value_of),), value) for value_of, value in values))
