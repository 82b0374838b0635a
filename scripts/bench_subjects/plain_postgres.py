"""The rows of a step, written with nothing but psycopg: `plain_postgres.py URL RUN_ID STEPS`.

Per step two transactions, each of which updates a run's row and inserts a record, as intent and outcome of an effect.
A run of 20 steps has a checkpoint of 1 KB at its begin and of 7 KB at its end, most of it traces of its steps.
"""

from __future__ import annotations

import json
import random
import sys
import time

import psycopg

_CHANCE = random.Random(0)
BODY = "".join(f"step {_CHANCE.getrandbits(128):032x} called the tool and has ended well; " for _ in range(60))[:4000]
RECORD = BODY[:600]
UPDATE = "UPDATE plain_runs SET revision = revision + 1, body = %s WHERE run_id = %s AND revision = %s"
INSERT = "INSERT INTO plain_ledger (run_id, seq, record) VALUES (%s, %s, %s)"
TABLES = """
CREATE TABLE IF NOT EXISTS plain_runs (run_id text PRIMARY KEY, revision bigint NOT NULL, body text NOT NULL);
CREATE TABLE IF NOT EXISTS plain_ledger (run_id text, seq bigint, record text NOT NULL, PRIMARY KEY (run_id, seq));
"""


def main() -> None:
    url, run_id, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        connection.execute("INSERT INTO plain_runs VALUES (%s, 0, %s)", (run_id, BODY))
        begin = time.perf_counter()
        for revision in range(2 * steps):
            with connection.pipeline(), connection.transaction():
                connection.execute(UPDATE, (BODY, run_id, revision))
                connection.execute(INSERT, (run_id, revision + 1, RECORD))
        print(json.dumps(steps / (time.perf_counter() - begin)))


if __name__ == "__main__":
    main()
