"""The measuring side of the process that reads streams."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .gateway import TOKEN, Gateway


class Audience:
    """Streams of a gateway, read by a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def open(self, run_ids: list[str], at_most_s: float) -> dict[str, Any]:
        """Open a stream of each run, wait for the first record of all, and return how many are open, and why not."""
        return self._ask({"open": run_ids, "at_most_s": at_most_s})

    def receipts(self, cursor: int, at_most_s: float) -> tuple[list[float], int]:
        """Return when, by the monotonic clock, the readers got a record, and how many never did."""
        found = self._ask({"await": cursor, "at_most_s": at_most_s})
        return found["at"], found["missing"]

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextlib.contextmanager
def audience_of(gateway: Gateway) -> Iterator[Audience]:
    """Have a process ready to read streams for as long as the block lasts."""
    command = [sys.executable, "-m", "bench_http.readers", str(gateway.port), TOKEN]
    place = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Audience(process)
        finally:
            process.terminate()
