"""Deciding what may be committed: revisions, lease epochs and command ids, for a batch that is not durable yet.

A batch of commits shares one fsync. Its later commits must see the earlier ones, while readers must not see any of
them: so a batch is admitted against a `Staging` on top of what is durable, and only then written and applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ..errors import LeaseLost, StaleWrite
from ..runtime.commit import NO_PREMISES, Premises
from ..runtime.models import RunState, RunStatus
from .base import (
    ANY_REVISION,
    CommandAppendResult,
    CommandOutcome,
    CommandRecord,
    Commit,
    CommitReceipt,
    Removal,
    RunWrite,
)


@dataclass(frozen=True)
class Head:
    """Where a run stands: its revision (0 when only its ledger exists), and the length and hash of its ledger."""

    revision: int = 0
    ledger_len: int = 0
    ledger_hash: str | None = None


def orphans_of(heads: Mapping[str, Head]) -> list[str]:
    """Return the ids of the runs of which there is a ledger only."""
    return [run_id for run_id, head in tuple(heads.items()) if not head.revision and head.ledger_len]


@dataclass(frozen=True)
class Admitted:
    """A commit that may be written: its runs with everything resolved, its command with its `seq`, its receipt.

    Its writes come before its removals.
    """

    writes: tuple[RunWrite, ...]
    command: CommandRecord | None
    outcome: CommandOutcome | None
    receipt: CommitReceipt
    removed: tuple[Removal, ...] = ()


class Staging:
    """What the commits of one batch make of a store's heads, before they are durable."""

    def __init__(
        self,
        *,
        head_of: Callable[[str], Head],
        seq_of: Callable[[str], int | None],
        waiting_on: Callable[[Iterable[str]], list[str]],
        last_seq: int,
        epoch: int,
    ) -> None:
        self._head_of = head_of
        self._waiting_on = waiting_on
        self._seq_of = seq_of
        self._last_seq = last_seq
        self._epoch = epoch
        self._heads: dict[str, Head] = {}
        self._seqs: dict[str, int] = {}
        self._wait_keys: dict[str, str | None] = {}

    def admit(self, commit: Commit) -> Admitted:
        """Return what the commit would write. Raises `LeaseLost` or `StaleWrite`, and then has changed nothing."""
        if commit.epoch is not None and commit.epoch != self._epoch:
            raise LeaseLost(f"lease epoch {commit.epoch} is over; epoch {self._epoch} has been claimed since")
        if commit.premises is not NO_PREMISES:
            self._check(commit.premises)
        writes = tuple(self._resolve(write) for write in commit.runs)
        for removal in commit.removed:
            self._check_revision(removal)
        for write in writes:
            self._heads[write.run_id] = after_write(write)
            if write.state is not None:
                self._wait_keys[write.run_id] = wait_key_of(write.state)
        for removal in commit.removed:
            self._heads[removal.run_id] = Head()
            self._wait_keys[removal.run_id] = None
        command, receipt = self._accept(commit.command)
        return Admitted(writes, command, commit.outcome, CommitReceipt(command=receipt), commit.removed)

    def _head(self, run_id: str) -> Head:
        return self._heads.get(run_id) or self._head_of(run_id)

    def _check_revision(self, removal: Removal) -> None:
        head = self._head(removal.run_id)
        if head.revision != removal.revision:
            raise StaleWrite(
                f"run {removal.run_id!r} is at revision {head.revision}, not at {removal.revision}; load it again"
            )

    def _check(self, premises: Premises) -> None:
        for run_id, seen in premises.revisions:
            if self._head(run_id).revision != seen:
                raise StaleWrite(f"run {run_id!r} is not at revision {seen} any more; load it again")
        for wait_keys, run_ids in premises.waiters:
            others = {run_id for run_id in self._waiting_on(wait_keys) if run_id not in self._wait_keys}
            if others | {run_id for run_id, key in self._wait_keys.items() if key in wait_keys} != run_ids:
                raise StaleWrite(f"others wait on {wait_keys[0]!r} now; look again")

    def _resolve(self, write: RunWrite) -> RunWrite:
        head = self._head(write.run_id)
        if write.expected == ANY_REVISION:
            return replace(
                write, expected=head.revision, ledger_len=head.ledger_len, ledger_hash=head.ledger_hash, records=()
            )
        if head.revision != write.expected or head.ledger_len != write.ledger_len:
            raise StaleWrite(
                f"run {write.run_id!r} is at revision {head.revision} with {head.ledger_len} records, "
                f"not at {write.expected} with {write.ledger_len}; load it again"
            )
        return write

    def _accept(self, command: CommandRecord | None) -> tuple[CommandRecord | None, CommandAppendResult | None]:
        if command is None:
            return None, None
        known = self._seqs.get(command.command_id) or self._seq_of(command.command_id)
        if known is not None:
            return None, CommandAppendResult(accepted=False, duplicate=True, seq=known)
        self._last_seq = max(command.seq, self._last_seq + 1)
        self._seqs[command.command_id] = self._last_seq
        receipt = CommandAppendResult(accepted=True, duplicate=False, seq=self._last_seq)
        return replace(command, seq=self._last_seq), receipt


def wait_key_of(state: RunState) -> str | None:
    """Return what a run waits on, as the indices have it."""
    waits = state.status is RunStatus.WAITING and state.waiting is not None
    return state.waiting.wait_key if waits and state.waiting is not None else None


def after_write(write: RunWrite) -> Head:
    """Return where a run stands once a write is applied."""
    return Head(write.revision, write.ledger_len + len(write.records), write.ledger_hash)
