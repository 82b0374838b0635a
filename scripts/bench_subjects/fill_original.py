"""Copy a run, or lengthen its ledger, in the original's stores, through its own ports: arguments as `fill_this.py`.

Prints the ids of the copies. A copy has the state and the ledger of the run under an id of its own.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
import uuid
from pathlib import Path

from abstractruntime.core.models import StepRecord

from abstractgateway.stores import build_file_stores, build_sqlite_stores

BUILD = {"file": build_file_stores, "sqlite": build_sqlite_stores}


def renamed(value, old, new):
    """Return a copy of a value in which one text stands for another."""
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {key: renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, old, new) for item in value]
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: renamed(getattr(value, name), old, new) for name in names})
    return value


def copies(stores, run_id, count):
    run, records = stores.run_store.load(run_id), stores.ledger_store.list(run_id)
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for copy in ids:
        stores.run_store.save(renamed(run, run_id, copy))
        for record in records:
            stores.ledger_store.append(StepRecord(**renamed(record, run_id, copy)))
    return ids


def lengthen(stores, run_id, count):
    records = stores.ledger_store.list(run_id)
    for _ in range(count - len(records)):
        stores.ledger_store.append(StepRecord(**records[-1]))


backend, directory, what, given, number = sys.argv[1:]
opened = BUILD[backend](base_dir=Path(directory))
print(json.dumps((copies if what == "runs" else lengthen)(opened, given, int(number))))
