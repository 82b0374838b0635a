"""Records about a run that none of its steps makes: what was asked about it, or made for it, from outside."""

from __future__ import annotations

from dataclasses import dataclass

from ..clock import Clock, to_iso
from ..errors import Conflict, NotFound, StaleWrite
from ..ids import is_safe_id
from ..jsonvalue import JsonObject, dumps, loads
from ..runtime.chain import encode_record
from ..runtime.commit import Commit, RunWrite, StoredRun
from ..runtime.context import derive_id
from ..runtime.models import RunState, StepRecord, StepStatus
from ..runtime.offloading import Offloading, rehydrate_record
from ..stores.base import Stores

_MAX_ATTEMPTS = 100
"""So often a run may be changed by others between reading it and writing; the runner writes a busy run every 10 ms."""
_PAGE = 500


@dataclass(frozen=True)
class RunEvent:
    """An event of scope `run`: who says it (`node_id`), its name and payload, and the key it can be found by."""

    node_id: str
    name: str
    payload: JsonObject
    key: str | None = None


class RunEvents:
    """Appends events to the ledgers of runs, whether these are being driven, wait or have ended.

    The run itself is not changed: its state, revision and time of update stay.
    """

    def __init__(self, *, stores: Stores, clock: Clock, max_inline_bytes: int | None) -> None:
        self._stores = stores
        self._clock = clock
        self._offloading = Offloading(stores.artifacts, max_inline_bytes)

    def run(self, run_id: str) -> RunState:
        """Return a run. Raises `NotFound` for an unknown one."""
        return self._open(run_id).state

    def now_iso(self) -> str:
        """Return the present instant in its stored text form."""
        return to_iso(self._clock.now())

    def append(self, run_id: str, event: RunEvent) -> None:
        """Append an event durably. Raises `NotFound`, and `Conflict` when the run is changed all the time."""
        for _ in range(_MAX_ATTEMPTS):
            stored = self._open(run_id)
            body, digest = self._encoded(self._record(stored, event))
            write = RunWrite(run_id, None, b"", stored.revision, (body,), stored.ledger_len, digest)
            try:
                self._stores.commit(Commit(runs=(write,)))
                return
            except StaleWrite as error:
                last = error
        raise Conflict(f"the run is changed too often by others: {last}", code="busy")

    def find(self, run_id: str, key: str) -> JsonObject | None:
        """Return the payload of the event that was appended under a key, or None."""
        mark = b'"idempotency_key":%b' % dumps(key)
        after = 0
        while records := self._stores.ledger.read(run_id, after, _PAGE).records:
            after += len(records)
            for body in records:
                payload = self._payload_of(body, key) if mark in body else None
                if payload is not None:
                    return payload
        return None

    def _payload_of(self, body: bytes, key: str) -> JsonObject | None:
        record = rehydrate_record(loads(body, field="record"), self._stores.artifacts, is_lenient=True)
        effect = record.get("effect")
        event = effect.get("payload") if isinstance(effect, dict) else None
        payload = event.get("payload") if isinstance(event, dict) else None
        return payload if record.get("idempotency_key") == key and isinstance(payload, dict) else None

    def _open(self, run_id: str) -> StoredRun:
        stored = self._stores.runs.open(run_id) if is_safe_id(run_id) else None
        if stored is None:
            raise NotFound(f"Run '{run_id}' not found", code="run_not_found")
        return stored

    def _record(self, stored: StoredRun, event: RunEvent) -> StepRecord:
        run, now = stored.state, self.now_iso()
        told = {"name": event.name, "scope": "run", "payload": event.payload}
        return StepRecord(
            run_id=run.run_id,
            step_id=derive_id(run.run_id, "record", str(stored.ledger_len + 1)),
            node_id=event.node_id,
            status=StepStatus.COMPLETED,
            effect={"type": "emit_event", "payload": told, "result_key": None},
            result={"emitted": True, "name": event.name, "payload": event.payload},
            started_at=now,
            ended_at=now,
            actor_id=run.actor_id,
            session_id=run.session_id,
            idempotency_key=event.key,
            prev_hash=stored.ledger_hash,
        )

    def _encoded(self, record: StepRecord) -> tuple[bytes, str]:
        body, digest = encode_record(record)
        if not self._offloading.concerns(body):
            return body, digest
        return encode_record(self._offloading.slim_record(record))
