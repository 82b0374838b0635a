"""DBOS with a PostgreSQL system database, in process: `dbos_postgres.py URL RUNS STEPS`."""

from __future__ import annotations

import json
import logging
import sys
import time

from dbos import DBOS, DBOSConfig

config: DBOSConfig = {"name": "bench", "system_database_url": sys.argv[1], "log_level": "ERROR"}
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
runs, steps = int(sys.argv[2]), int(sys.argv[3])
begin = time.perf_counter()
for handle in [DBOS.start_workflow(run, steps) for _ in range(runs)]:
    handle.get_result()
took = time.perf_counter() - begin
DBOS.destroy()
print(json.dumps(runs * steps / took))
