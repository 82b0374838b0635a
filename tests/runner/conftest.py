from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractgateway.clock import SystemClock
from abstractgateway.stores import open_file_stores, open_memory_stores, open_sqlite_stores
from tests.postgres.server import open_test_database
from tests.runner.bench import Bench

OPEN = {
    "memory": lambda path: open_memory_stores(),
    "file": lambda path: open_file_stores(path),
    "sqlite": lambda path: open_sqlite_stores(path),
    "postgres": open_test_database,
}


@pytest.fixture
def bench() -> Bench:
    """A bench in memory whose time stands still."""
    return Bench()


@pytest.fixture(params=sorted(OPEN))
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    opened = OPEN[request.param](tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def live(stores: Any) -> Bench:
    """A bench on each backend, with the machine's clock."""
    return Bench(stores, clock=SystemClock())
