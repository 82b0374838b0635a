from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.knowledge import (
    MemoryTripleStore,
    Owners,
    SqliteTripleStore,
    StoredKnowledge,
    Triple,
    TripleStore,
    sqlite_statements,
)
from abstractgateway.runtime.models import RunState
from abstractgateway.testing import ManualClock

Json = dict[str, Any]
Open = Callable[[], TripleStore]
BACKENDS = ("memory", "sqlite", "sqlite without FTS5")


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TripleStore]:
    """An empty store of each backend; a further backend adds its name and how it is opened."""
    if request.param == "sqlite without FTS5":
        monkeypatch.setattr(sqlite_statements, "can_index_words", lambda connection: False)
    opened: TripleStore = (
        MemoryTripleStore() if request.param == "memory" else SqliteTripleStore(tmp_path / "kg.sqlite3")
    )
    with contextlib.closing(opened):
        yield opened


@pytest.fixture
def knowledge(store: TripleStore) -> StoredKnowledge:
    return StoredKnowledge(store, Owners(lambda run_id: None), ManualClock())


@pytest.fixture
def run() -> RunState:
    return RunState.new(workflow_id="w", entry_node="n", session_id="s1")


def a_triple(
    subject: str = "alice", predicate: str = "ex:likes", object: str = "tea", *, id: str | None = None, **given: Any
) -> Triple:
    """Return a statement of the run `r`; its id is what it says, unless one is given."""
    fields = {"scope": "run", "owner_id": "r", "observed_at": "2026-01-01T00:00:00+00:00", **given}
    return Triple(id or f"{subject} {predicate} {object}", subject, predicate, object, **fields)
