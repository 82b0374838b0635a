"""What CPython allows: the same records encoded and hashed in one loop, and group commits, without any kernel.

There is no workflow, no effect, no queue, no thread and nobody who waits to be told; 100 steps share an fsync.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
import time
import uuid
from datetime import datetime, timezone
from json.encoder import encode_basestring

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def record(run_id: str, effect: str, result: str, now: str, status: str, key: str, previous: str) -> tuple[str, str]:
    """Return a ledger record as it is stored, and its hash."""
    before = (
        f'{{"actor_id":"gateway","attempt":1,"effect":{effect},"ended_at":"{now}","error":null,'
        f'"idempotency_key":"{key}","node_id":{encode_basestring("say")},"prev_hash":"{previous}",'
    )
    middle = f'"result":{result},"run_id":"{run_id}","session_id":null,'
    after = f'"started_at":"{now}","status":"{status}","step_id":"{digest(run_id + key)[:36]}"}}'
    own = digest(before + middle + after)
    return f'{before}"record_hash":"{own}",{middle}"signature":null,{after}', own


def a_run(steps: int) -> tuple[str, list[str], str]:
    """Return the id, the records and the state of a run."""
    run_id, previous = str(uuid.uuid4()), "0" * 64
    records, traces = [], []
    for number in range(steps):
        now = datetime.now(timezone.utc).isoformat()
        payload = {"message": f"step {number}"}
        result = {"message": f"step {number}", "level": "message"}
        effect = encode({"type": "answer_user", "payload": payload, "result_key": "said"})
        key = digest(run_id + effect)[:32]
        for status, value in (("started", None), ("completed", result)):
            body, previous = record(run_id, effect, encode(value), now, status, key, previous)
            records.append(body)
        traces.append({"ts": now, "idempotency_key": key, "effect": {"payload": payload}, "result": result})
    return run_id, records, encode({"run_id": run_id, "vars": {"traces": traces, "left": 0}})


def main(runs: int = 200, steps: int = 10) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        connection = sqlite3.connect(f"{directory}/bare", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE run (id TEXT PRIMARY KEY, state TEXT)")
        connection.execute("CREATE TABLE ledger (run TEXT, seq INTEGER, body TEXT, PRIMARY KEY (run, seq))")
        begin = time.perf_counter()
        for _ in range(runs // 10):
            made = [a_run(steps) for _ in range(10)]
            rows = [(run_id, seq, body) for run_id, records, _ in made for seq, body in enumerate(records)]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO ledger VALUES (?, ?, ?)", rows)
            connection.executemany("INSERT INTO run VALUES (?, ?)", [(run_id, state) for run_id, _, state in made])
            connection.execute("COMMIT")
        took = time.perf_counter() - begin
        connection.close()
    print(json.dumps({f"{runs} runs x {steps} steps": runs * steps / took}))


main()
