"""A commit in the making: the runs that a transition opened, and the records it appends to them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timezone

from ..clock import Clock, to_iso
from ..errors import NotFound
from ..jsonvalue import JsonObject, loads
from .chain import encode_record
from .commit import NO_PREMISES, CommandOutcome, Commit, KernelStores, Premises, RunWrite, StoredRun
from .context import derive_id
from .delta import DELTA_FROM_BYTES, encode_delta, encode_state
from .models import RunState, StepRecord
from .offloading import Offloading, check_whole, has_offloaded_vars
from .tracking import TrackedVars


class OpenRun:
    """One run opened for change: its state, and the records appended since it was read or last committed."""

    def __init__(self, stored: StoredRun, offloading: Offloading) -> None:
        is_slim = has_offloaded_vars(stored.state)
        self.state = offloading.rehydrate_state(stored.state)
        self.offloading = offloading
        self.revision = stored.revision
        self.ledger_len = stored.ledger_len
        self.ledger_hash = stored.ledger_hash
        self.records: list[bytes] = []
        self.is_changed = stored.revision == 0
        self._body_bytes = 0 if is_slim else stored.body_bytes  # a delta would not fit variables that lack values
        self._delta_bytes = stored.delta_bytes
        self._track()

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

    def append(self, record: StepRecord, *, effect: str | None = None) -> int:
        """Add a record to the ledger and return its encoded size in bytes, large values included.

        Raises `Invalid` for values JSON lacks. `effect` is the canonical JSON of the record's effect, for a caller that
        has it already.
        """
        record.prev_hash = self.ledger_hash
        self.is_changed = True
        body, digest = encode_record(record, effect=effect)
        size = len(body)
        if self.offloading.concerns(body):
            slim = self.offloading.slim_record(record)
            body, digest = encode_record(slim)
            record.record_hash = digest
        self.ledger_hash = digest
        self.records.append(body)
        return size

    @property
    def body_bytes(self) -> int:
        """The size of the run's state when all of it was last written."""
        return self._body_bytes

    def touch(self, now: str) -> None:
        """Note that the state changes now."""
        self.state.updated_at = now
        self.is_changed = True

    def to_write(self) -> RunWrite:
        """Return what is to be written: of a large state what changed, or all of it now and then and at the end."""
        state, body, delta = self.state, b"", self._delta()
        if delta:
            self._delta_bytes += len(delta)
        else:
            state, body = self._whole()
            self._body_bytes, self._delta_bytes = len(body), 0
            self._track()
        return RunWrite(
            run_id=state.run_id,
            state=state,
            body=body,
            delta=delta,
            expected=self.revision,
            records=tuple(self.records),
            ledger_len=self.ledger_len,
            ledger_hash=self.ledger_hash,
        )

    def _delta(self) -> bytes:
        """Return what changed since the state was last written; nothing where all of it has to be written."""
        vars = self.state.vars
        if not isinstance(vars, TrackedVars) or self.state.status.is_terminal:
            return b""
        delta = encode_delta(self.state, vars.take_changes())
        return delta if self._delta_bytes + len(delta) <= self._body_bytes else b""

    def _whole(self) -> tuple[RunState, bytes]:
        if isinstance(self.state.vars, TrackedVars):
            self.state.vars = self.state.vars.plain()
        state = check_whole(self.state)
        body = encode_state(state)
        if self.offloading.concerns_state(state, body):
            state = self.offloading.slim_state(state)
            body = encode_state(state)
        return state, body

    def _track(self) -> None:
        """Have the variables of a large state note what of them is touched from now on."""
        if self._body_bytes >= DELTA_FROM_BYTES:
            self.state.vars = TrackedVars(self.state.vars)

    def settle_commit(self) -> None:
        """Note that what was appended and changed is durable now."""
        self.revision += 1
        self.ledger_len += len(self.records)
        self.records = []
        self.is_changed = False


class Draft:
    """The runs one transition changes; `to_commit` gives the value that makes it durable."""

    def __init__(
        self, stores: KernelStores, clock: Clock, *, epoch: int | None = None, max_inline_bytes: int | None = None
    ) -> None:
        self.stores = stores
        self.clock = clock
        self.epoch = epoch
        self.offloading = Offloading(getattr(stores, "artifacts", None), max_inline_bytes)
        self._now: str | None = None
        self._open: dict[str, OpenRun] = {}
        self._relied_runs: dict[str, int] = {}
        self._relied_waiters: dict[tuple[str, ...], frozenset[str]] = {}

    def begin_instant(self) -> None:
        """Let the time be read anew; what happens in one step happens at one instant."""
        self._now = None

    def now_iso(self) -> str:
        """Return the instant of this transition, in its stored text form."""
        if self._now is None:
            instant = self.clock.now()
            self._now = instant.isoformat() if instant.tzinfo is timezone.utc else to_iso(instant)
        return self._now

    def find(self, run_id: str) -> OpenRun | None:
        """Open a run for change; None when there is no such run."""
        found = self._open.get(run_id)
        if found is None:
            stored = self.stores.runs.open(run_id)
            if stored is None:
                return None
            found = self._open[run_id] = OpenRun(stored, self.offloading)
        return found

    def peek(self, run_id: str) -> RunState | None:
        """Return a run's state as this draft sees it, without opening it for change."""
        found = self._open.get(run_id)
        if found is not None:
            return found.state
        stored = self.stores.runs.open(run_id)
        return self.offloading.rehydrate_state(stored.state) if stored is not None else None

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
        return self.adopt(OpenRun(StoredRun(state, revision=0, ledger_len=0, ledger_hash=None), self.offloading))

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
