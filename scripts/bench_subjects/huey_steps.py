"""Huey with its SQLite storage, in process: each step is a task that a worker takes from the queue."""

from __future__ import annotations

import json
import logging
import tempfile
import time

from huey import SqliteHuey

logging.disable(logging.CRITICAL)
directory = tempfile.TemporaryDirectory(prefix="bench-")
huey = SqliteHuey(filename=f"{directory.name}/huey.db", fsync=True, results=True)


@huey.task()
def step(number: int) -> str:
    return f"step {number}"


def timed(count: int) -> float:
    begin = time.perf_counter()
    for number in range(count):
        step(number)
        huey.execute(huey.dequeue())
    return count / (time.perf_counter() - begin)


print(json.dumps({"1 run x 100 steps": timed(100), "1 run x 1,000 steps": timed(1000)}))
