"""A commit in the making: the runs that a transition opened, and the records it appends to them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timezone

from ..clock import Clock, to_iso
from ..errors import NotFound
from ..jsonvalue import JsonObject, dumps, loads
from .chain import encode_record
from .commit import NO_PREMISES, CommandOutcome, Commit, KernelStores, Premises, RunWrite, StoredRun
from .context import derive_id
from .models import RunState, StepRecord


class OpenRun:
    """One run opened for change: its state, and the records appended since it was read or last committed."""

    def __init__(self, stored: StoredRun) -> None:
        self.state = stored.state
        self.revision = stored.revision
        self.ledger_len = stored.ledger_len
        self.ledger_hash = stored.ledger_hash
        self.records: list[bytes] = []
        self.is_changed = stored.revision == 0

    @property
    def next_cursor(self) -> int:
        return self.ledger_len + len(self.records) + 1

    def new_step_id(self) -> str:
        """Return the id of a step whose first record comes next; the same when the step is executed again."""
        return derive_id(self.state.run_id, "record", str(self.next_cursor))

    def own_record(self, cursor: int) -> JsonObject | None:
        """Return the record at a cursor if it was appended here and is not committed yet."""
        index = cursor - self.ledger_len - 1
        if not 0 <= index < len(self.records):
            return None
        found: JsonObject = loads(self.records[index], field="record")
        return found

    def append(self, record: StepRecord) -> int:
        """Add a record to the ledger and return its encoded size in bytes. Raises `Invalid` for values JSON lacks."""
        record.prev_hash = self.ledger_hash
        self.is_changed = True
        body, self.ledger_hash = encode_record(record)
        self.records.append(body)
        return len(body)

    def touch(self, now: str) -> None:
        """Note that the state changes now."""
        self.state.updated_at = now
        self.is_changed = True

    def to_write(self) -> RunWrite:
        return RunWrite(
            run_id=self.state.run_id,
            state=self.state,
            body=encode_state(self.state),
            expected=self.revision,
            records=tuple(self.records),
            ledger_len=self.ledger_len,
            ledger_hash=self.ledger_hash,
        )

    def settle_commit(self) -> None:
        """Note that what was appended and changed is durable now."""
        self.revision += 1
        self.ledger_len += len(self.records)
        self.records = []
        self.is_changed = False


class Draft:
    """The runs one transition changes; `to_commit` gives the value that makes it durable."""

    def __init__(self, stores: KernelStores, clock: Clock, *, epoch: int | None = None) -> None:
        self.stores = stores
        self.clock = clock
        self.epoch = epoch
        self._open: dict[str, OpenRun] = {}
        self._relied_runs: dict[str, int] = {}
        self._relied_waiters: dict[tuple[str, ...], frozenset[str]] = {}

    def now_iso(self) -> str:
        instant = self.clock.now()
        return instant.isoformat() if instant.tzinfo is timezone.utc else to_iso(instant)

    def find(self, run_id: str) -> OpenRun | None:
        """Open a run for change; None when there is no such run."""
        found = self._open.get(run_id)
        if found is None:
            stored = self.stores.runs.open(run_id)
            if stored is None:
                return None
            found = self._open[run_id] = OpenRun(stored)
        return found

    def peek(self, run_id: str) -> RunState | None:
        """Return a run's state as this draft sees it, without opening it for change."""
        found = self._open.get(run_id)
        if found is not None:
            return found.state
        stored = self.stores.runs.open(run_id)
        return stored.state if stored is not None else None

    def open(self, run_id: str) -> OpenRun:
        """Open a run for change. Raises `NotFound` for an unknown id."""
        found = self.find(run_id)
        if found is None:
            raise NotFound(f"Unknown run_id: {run_id!r}", code="unknown_run")
        return found

    def adopt(self, run: OpenRun) -> OpenRun:
        """Add a run that is open already, so that its changes belong to this draft."""
        self._open[run.state.run_id] = run
        return run

    def create(self, state: RunState) -> OpenRun:
        """Add a run that does not exist yet."""
        return self.adopt(OpenRun(StoredRun(state, revision=0, ledger_len=0, ledger_hash=None)))

    def rely_on_run(self, run_id: str) -> None:
        """Have the commit refused when this run is changed, or made, by somebody else before it is durable."""
        found = self._open.get(run_id)
        self._relied_runs.setdefault(run_id, found.revision if found is not None else 0)

    def rely_on_waiters(self, wait_keys: tuple[str, ...], run_ids: Iterable[str]) -> None:
        """Have the commit refused when other runs than these wait on one of the keys before it is durable."""
        self._relied_waiters.setdefault(wait_keys, frozenset(run_ids))

    def to_commit(self, outcome: CommandOutcome | None = None) -> Commit:
        """Return everything that was changed as one commit."""
        writes = tuple(run.to_write() for run in self._open.values() if run.is_changed)
        return Commit(runs=writes, outcome=outcome, epoch=self.epoch, premises=self._premises(writes))

    def _premises(self, writes: tuple[RunWrite, ...]) -> Premises:
        """Return what the commit relies on beyond the revisions of the runs it writes."""
        if not self._relied_runs and not self._relied_waiters:
            return NO_PREMISES
        written = {write.run_id for write in writes}
        revisions = tuple((run_id, seen) for run_id, seen in self._relied_runs.items() if run_id not in written)
        return Premises(revisions, tuple(self._relied_waiters.items()))

    def settle_commit(self, *, keep: str) -> None:
        """Note that the commit is durable, and forget every run but the one this draft is about."""
        for run in self._open.values():
            if run.is_changed:
                run.settle_commit()
        kept = self._open.get(keep)
        self._open = {keep: kept} if kept is not None else {}
        self._relied_runs, self._relied_waiters = {}, {}


def encode_state(state: RunState) -> bytes:
    """Return the stored JSON of a run: one line per field, so that a person can read the file."""
    fields = (b"%b: %b" % (dumps(name), dumps(value, field=name)) for name, value in state.to_dict().items())
    return b"{\n  " + b",\n  ".join(fields) + b"\n}"
