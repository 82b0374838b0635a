"""DBOS with its SQLite system database, in process."""

from __future__ import annotations

import json
import logging
import tempfile
import time

from dbos import DBOS, DBOSConfig

directory = tempfile.TemporaryDirectory(prefix="bench-")
url = f"sqlite:///{directory.name}/dbos.sqlite"
config: DBOSConfig = {"name": "bench", "system_database_url": url, "log_level": "ERROR"}
logging.disable(logging.CRITICAL)
DBOS(config=config)


@DBOS.step()
def step(number: int) -> str:
    return f"step {number}"


@DBOS.workflow()
def run(steps: int) -> str:
    for number in range(steps):
        step(number)
    return "ok"


DBOS.launch()


def timed(runs: int, steps: int) -> float:
    begin = time.perf_counter()
    for handle in [DBOS.start_workflow(run, steps) for _ in range(runs)]:
        handle.get_result()
    return runs * steps / (time.perf_counter() - begin)


figures = {
    "1 run x 100 steps": timed(1, 100),
    "1 run x 1,000 steps": timed(1, 1000),
    "200 runs x 10 steps": timed(200, 10),
}
DBOS.destroy()
print(json.dumps(figures))
