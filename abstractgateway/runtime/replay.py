"""A run that was put back to an earlier node finds what it did there before, instead of doing it again.

Programs written for AbstractRuntime reset a run that has ended by saving it with status `running` at its first node,
and rely on the results in its ledger. Such a run is known by a ledger without visit counters: they are dropped when a
run ends. How far its history reaches is kept in `vars._runtime.history`, so that an ordinary run never looks.
"""

from __future__ import annotations

from ..jsonvalue import JsonObject
from .commit import KernelLedger
from .draft import OpenRun
from .models import StepRecord, StepStatus
from .offloading import Offloading
from .records import TERMINAL_KEY, is_discarded

SLOT = "history"


def note_history(run: OpenRun, own: JsonObject) -> None:
    """Keep in `vars._runtime` how far the ledger reaches of a run that takes its first effect, if it has a history."""
    if run.ledger_len and "visits" not in own:
        own[SLOT] = run.ledger_len


class History:
    """The results in a run's ledger, by idempotency key; the first one of a key counts.

    Of a run that has never ended (AbstractRuntime left it in the middle) only the last record counts: the checkpoint
    may lack that one, and knows all others.
    """

    def __init__(self, ledger: KernelLedger, offloading: Offloading, run_id: str, last: int) -> None:
        self._ledger = ledger
        self._offloading = offloading
        self._run_id = run_id
        self._cursors: dict[str, int] = {}
        has_ended = False
        for cursor in range(1, last + 1):
            record = self._read(cursor)
            key = record.idempotency_key if record is not None else None
            has_ended = has_ended or (key or "").startswith(TERMINAL_KEY)
            if record is not None and key and _has_result(record):
                self._cursors.setdefault(key, cursor)
        if not has_ended:
            self._cursors = {key: cursor for key, cursor in self._cursors.items() if cursor == last}

    def find(self, key: str) -> tuple[int, StepRecord] | None:
        """Return the record that has the result of an effect, and its cursor; None when there is none."""
        cursor = self._cursors.get(key)
        data = self._ledger.read_record(self._run_id, cursor) if cursor is not None else None
        if cursor is None or data is None:
            return None
        return cursor, StepRecord.from_dict(self._offloading.rehydrate_record(data))

    def _read(self, cursor: int) -> StepRecord | None:
        data = self._ledger.read_record(self._run_id, cursor)
        return StepRecord.from_dict(data) if data is not None else None


def _has_result(record: StepRecord) -> bool:
    return record.status is StepStatus.COMPLETED and record.result is not None and not is_discarded(record)
