from __future__ import annotations

from collections.abc import Iterable

import pytest

from abstractgateway.errors import StaleWrite
from abstractgateway.runtime.commit import Commit, Premises, RunWrite
from abstractgateway.runtime.models import RunState, RunStatus, WaitReason, WaitState
from abstractgateway.stores.staging import Head, Staging

KEY = "evt:session:s1:go"


def staging(waiting: Iterable[str] = (), heads: dict[str, Head] | None = None) -> Staging:
    """Return the staging of a store in which these runs wait on the key."""
    return Staging(
        head_of=lambda run_id: (heads or {}).get(run_id, Head()),
        seq_of=lambda command_id: None,
        waiting_on=lambda keys: list(waiting) if KEY in keys else [],
        last_seq=0,
        epoch=0,
    )


def write(run_id: str, *, is_waiting: bool, expected: int = 0) -> Commit:
    wait = WaitState(WaitReason.EVENT, wait_key=KEY) if is_waiting else None
    status = RunStatus.WAITING if is_waiting else RunStatus.RUNNING
    state = RunState(run_id, "w", status, "n", waiting=wait)
    return Commit(runs=(RunWrite(run_id, state, b"{}", expected, (), 0, None),))


def relying(*, waiters: Iterable[str] | None = None, **revisions: int) -> Commit:
    seen = (((KEY, f"{KEY[:-2]}*"), frozenset(waiters)),) if waiters is not None else ()
    return Commit(premises=Premises(tuple(revisions.items()), seen))


@pytest.mark.parametrize("commit", [relying(a=0), relying(b=3), relying(waiters=["x"]), relying(a=0, waiters=["x"])])
def test_a_commit_whose_premises_hold_is_admitted(commit: Commit) -> None:
    assert staging(["x"], {"b": Head(revision=3)}).admit(commit).writes == ()


@pytest.mark.parametrize("commit", [relying(b=0), relying(b=2), relying(waiters=[]), relying(waiters=["x", "y"])])
def test_a_commit_whose_premises_do_not_hold_is_stale(commit: Commit) -> None:
    with pytest.raises(StaleWrite):
        staging(["x"], {"b": Head(revision=3)}).admit(commit)


def test_what_an_earlier_commit_of_the_batch_changed_counts() -> None:
    batch = staging(["x"], {"x": Head(revision=1)})
    batch.admit(write("y", is_waiting=True))
    batch.admit(write("x", is_waiting=False, expected=1))

    assert batch.admit(relying(waiters=["y"], x=2, y=1)).writes == ()
    with pytest.raises(StaleWrite):
        batch.admit(relying(waiters=["x"]))
    with pytest.raises(StaleWrite):
        batch.admit(relying(y=0))
