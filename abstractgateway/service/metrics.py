"""What the gateway measures, as text in the format of Prometheus (version 0.0.4)."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from .._version import __version__
from ..measures import Durations, Family, Labels, counter, gauge, labelled
from ..runner.runner import Runner
from ..stores.base import Stores

Source = Callable[[], Iterable[Family]]
"""Called for the measures as they are now, by whoever wants them; any thread."""

_PROC = Path("/proc/self")


class Metrics:
    """The measures of one process: those of its stores, its runner and itself, and of whoever adds some."""

    def __init__(self, *, stores: Stores, runner: Runner | None) -> None:
        self._stores = stores
        self._runner = runner
        self._sources: dict[str, Source] = {}

    def add(self, name: str, source: Source) -> None:
        """Show the measures of a source as well, in the place of an earlier one of that name."""
        self._sources = {**self._sources, name: source}

    def text(self) -> bytes:
        """Return all measures. Raises `Unavailable` when the store cannot be read."""
        families = [*self._of_runs(), *self._of_runner(), *self._of_commits(), *_of_process()]
        families += [family for source in self._sources.values() for family in source()]
        return "".join(line for family in families for line in _lines(family)).encode()

    def _of_runs(self) -> Iterator[Family]:
        counts = self._stores.runs.count()
        by_status = ((status.value, count) for status, count in counts.items())
        yield labelled("gauge", "abstractgateway_runs", "Runs in the store.", "status", by_status)
        commands = self._stores.commands
        behind = max(0, commands.get_last_seq() - commands.get_cursor())
        yield gauge("abstractgateway_inbox_lag", "Commands that are accepted and not dealt with.", behind)

    def _of_runner(self) -> Iterator[Family]:
        if self._runner is None:
            return
        load = self._runner.load()
        about = "Whether this process drives the runs of the store."
        yield gauge("abstractgateway_runner_active", about, int(self._runner.is_owner))
        yield gauge("abstractgateway_runner_ready", "Steps and outcomes that wait for a worker.", load.ready)
        yield gauge("abstractgateway_runner_runs", "Runs that are being driven.", load.runs)
        yield gauge("abstractgateway_effects_in_flight", "Effects under way, or waiting for a worker.", load.effects)

    def _of_commits(self) -> Iterator[Family]:
        measures = self._stores.measures
        yield counter("abstractgateway_store_commits_total", "Commits that this process wrote.", measures.commits)
        about = "Time from the begin of a batch of commits until it was durable; its count is that of the batches."
        yield Family("abstractgateway_store_batch_seconds", "histogram", about, (((), measures.batches),))
        about = "Time in which the disk was told to keep what was written: fsync of the journal, or COMMIT of SQLite."
        yield Family("abstractgateway_store_sync_seconds", "histogram", about, (((), measures.syncs),))


def _of_process() -> Iterator[Family]:
    labels = (("version", __version__), ("python", platform.python_version()))
    yield Family("abstractgateway_build_info", "gauge", "Which software this is; always 1.", ((labels, 1),))
    yield counter("process_cpu_seconds_total", "Processor time used.", time.process_time())
    try:
        pages = int((_PROC / "statm").read_text().split()[1])
        files = len(os.listdir(_PROC / "fd"))
    except (OSError, ValueError, IndexError):
        return  # a system without these files
    yield gauge("process_resident_memory_bytes", "Memory in use.", pages * os.sysconf("SC_PAGE_SIZE"))
    yield gauge("process_open_fds", "Open files and sockets.", files)


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.about}\n# TYPE {family.name} {family.kind}\n"
    for labels, value in family.samples:
        if isinstance(value, Durations):
            yield from _histogram(family.name, labels, value)
        else:
            yield f"{family.name}{_label_text(labels)} {value!r}\n"


def _histogram(name: str, labels: Labels, value: Durations) -> Iterator[str]:
    counts, seconds = list(value.counts), value.seconds
    bounds = (*(repr(bound) for bound in value.bounds), "+Inf")
    for bound, count in zip(bounds, accumulate(counts), strict=True):
        yield f"{name}_bucket{_label_text((*labels, ('le', bound)))} {count}\n"
    yield f"{name}_sum{_label_text(labels)} {seconds!r}\n{name}_count{_label_text(labels)} {sum(counts)}\n"


def _label_text(labels: Labels) -> str:
    named = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{named}}}" if named else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
