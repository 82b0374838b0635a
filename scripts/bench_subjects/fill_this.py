"""Copy a run, or lengthen its ledger, in this library's stores.

`fill_this.py BACKEND DIRECTORY runs|records RUN_ID COUNT` prints the ids of the copies. A copy has the state and the
ledger of the run under an id of its own.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid

from abstractgateway.jsonvalue import loads
from abstractgateway.runtime.chain import encode_record
from abstractgateway.runtime.commit import Commit, RunWrite
from abstractgateway.runtime.draft import encode_state
from abstractgateway.runtime.models import RunState, StepRecord
from abstractgateway.stores import Stores, open_file_stores, open_sqlite_stores

RECORDS_A_COMMIT = 1_000
IN_FLIGHT = 256
OPEN = {"file": open_file_stores, "sqlite": open_sqlite_stores}


def copies(stores: Stores, run_id: str, count: int) -> list[str]:
    """Write so many copies of a run, many commits under way at once, and return their ids."""
    stored = stores.runs.open(run_id)
    state = encode_state(stored.state)
    records = stores.ledger.read(run_id, 0, 1_000).records
    slots, failed = threading.Semaphore(IN_FLIGHT), []

    def done(receipt: object, error: Exception | None) -> None:
        failed.extend([error] if error is not None else [])
        slots.release()

    ids = [str(uuid.uuid4()) for _ in range(count)]
    for copy in ids:
        slots.acquire()
        stores.submit(Commit(runs=(renamed(state, records, run_id, copy),)), done)
    for _ in range(IN_FLIGHT):
        slots.acquire()
    if failed:
        raise failed[0]
    return ids


def renamed(state: bytes, records: tuple[bytes, ...], old: str, new: str) -> RunWrite:
    """Return the first write of a run that is as another, but for its id."""
    copy = RunState.from_dict(loads(state.replace(old.encode(), new.encode()), field="run"))
    bodies, digest = chained([record.replace(old.encode(), new.encode()) for record in records], None)
    return RunWrite(new, copy, encode_state(copy), 0, bodies, 0, digest)


def chained(records: list[bytes], digest: str | None) -> tuple[tuple[bytes, ...], str | None]:
    """Return records encoded one after another, from a ledger's last hash on, and the last hash then."""
    bodies = []
    for record in records:
        step = StepRecord.from_dict({**loads(record, field="record"), "prev_hash": digest})
        body, digest = encode_record(step)
        bodies.append(body)
    return tuple(bodies), digest


def lengthen(stores: Stores, run_id: str, count: int) -> None:
    """Repeat the last record of a run until its ledger has so many."""
    stored = stores.runs.open(run_id)
    last = stores.ledger.read(run_id, stored.ledger_len - 1, 1).records[0]
    length, digest = stored.ledger_len, stored.ledger_hash
    while length < count:
        more, digest = chained([last] * min(RECORDS_A_COMMIT, count - length), digest)
        stores.commit(Commit(runs=(RunWrite(run_id, None, b"", stored.revision, more, length, digest),)))
        length += len(more)


def main() -> None:
    backend, directory, what, run_id, count = sys.argv[1:]
    stores = OPEN[backend](directory, is_durable=False)
    found = copies(stores, run_id, int(count)) if what == "runs" else lengthen(stores, run_id, int(count))
    stores.close()
    print(json.dumps(found))


main()
