"""What a batch locks before it looks, so that what it sees still holds when it commits.

Runs that are there are locked as rows. What is not there cannot be: a run that nobody has stored yet, a run that nobody
has put to wait on a key yet. For those there are buckets, into which ids and keys fall by their hash: whoever relies on
nothing being there holds the bucket alone, whoever puts something there shares it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

from abstractgateway.runtime.commit import Commit
from abstractgateway.stores.staging import wait_key_of

ARTIFACTS_BUCKET = 256
BUCKETS = 255
"""A server has room for some 6,400 locks in its default settings, and each of a few dozen batches may hold all."""


class Locks:
    """The runs and buckets of a batch of commits; `run_ids` are sorted, as everybody locks them in one order.

    `parent_ids` are other runs that new ones belong to, `epochs` the leases under which something is written.
    """

    def __init__(self, commits: Iterable[Commit]) -> None:
        self.run_ids: list[str] = []
        self.wait_keys: list[str] = []
        self._alone: set[int] = set()
        self._shared: set[int] = set()
        runs: set[str] = set()
        keys: set[str] = set()
        parents: set[str] = set()
        epochs: set[int] = set()
        for commit in commits:
            self._share(commit, runs, parents, epochs)
            self._rely(commit, runs, keys)
        self.run_ids, self.wait_keys = sorted(runs), sorted(keys)
        self.parent_ids, self.epochs = sorted(parents - runs), sorted(epochs)

    @property
    def buckets(self) -> tuple[Sequence[int], Sequence[bool]]:
        """The buckets in order, and whether each is held alone."""
        numbers = sorted(self._alone | self._shared)
        return numbers, [number in self._alone for number in numbers]

    def _share(self, commit: Commit, runs: set[str], parents: set[str], epochs: set[int]) -> None:
        if commit.epoch is not None:
            epochs.add(commit.epoch)
        for write in commit.runs:
            runs.add(write.run_id)
            if write.expected <= 0:
                self._shared.add(_bucket("run", write.run_id))
                if write.state is not None and write.state.parent_run_id:
                    parents.add(write.state.parent_run_id)
            wait_key = wait_key_of(write.state) if write.state is not None else None
            if wait_key is not None:
                self._shared.add(_bucket("wait", wait_key))

    def _rely(self, commit: Commit, runs: set[str], keys: set[str]) -> None:
        for run_id, revision in commit.premises.revisions:
            runs.add(run_id)
            if revision == 0:
                self._alone.add(_bucket("run", run_id))
        for removal in commit.removed:
            runs.add(removal.run_id)
            if removal.revision == 0:
                self._alone.add(_bucket("run", removal.run_id))
        for wait_keys, run_ids in commit.premises.waiters:
            runs.update(run_ids)
            keys.update(wait_keys)
            self._alone.update(_bucket("wait", key) for key in wait_keys)


def _bucket(kind: str, name: str) -> int:
    return 1 + crc32(f"{kind} {name}".encode(errors="surrogatepass")) % BUCKETS
